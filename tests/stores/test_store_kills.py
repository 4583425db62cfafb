"""A store whose process is killed: what was acknowledged is there, once and in order."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from aiostream_ds.stores import SqliteStore

KILLS = int(os.environ.get("AIOSTREAM_DS_STORE_KILLS", "8"))
CLIENTS = 4
WRITER = Path(__file__).parent / "killed_writer.py"


def run_and_kill(directory: Path, starts: list[int], lines: int) -> list[int]:
    """Start the writer, kill it after so many acknowledgements. Returns the next number of each
    client: a batch that was not acknowledged is appended again."""
    command = [sys.executable, str(WRITER), str(directory), *map(str, starts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        acknowledged = list(starts)
        for _ in range(lines):
            line = process.stdout.readline()
            client, end = map(int, line.split())
            acknowledged[client] = end
        process.kill()
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                client, end = map(int, line.split())
                acknowledged[client] = end
        return acknowledged


async def numbers_of(store: SqliteStore) -> dict[int, list[int]]:
    """The numbers of each client, in the order of the cursors."""
    found: dict[int, list[int]] = {client: [] for client in range(CLIENTS)}
    for channel in await store.channels():
        after = 0
        while page := (await store.rows_after(channel.channel, after, 10_000)).rows:
            assert [row["cursor"] for row in page] == list(range(after + 1, after + 1 + len(page)))
            after = page[-1]["cursor"]
            for row in page:
                found[row["client"]].append(row["n"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * KILLS)
def test_no_acknowledged_row_is_missing_or_doubled_after_kills(tmp_path):
    chance = random.Random(20)
    acknowledged = [0] * CLIENTS
    for _ in range(KILLS):
        acknowledged = run_and_kill(tmp_path, acknowledged, chance.randrange(300))

    async def check() -> None:
        async with SqliteStore(tmp_path) as store:
            for client, found in (await numbers_of(store)).items():
                assert found == list(range(len(found)))
                assert len(found) >= acknowledged[client]

    asyncio.run(check())
    assert sum(acknowledged) > 100
