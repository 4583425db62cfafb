"""The source `postgres` under load: outages with concurrent writers, and many rows a second."""

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.exact.hosts import open_node
from tests.servers import Postgres as Server
from tests.servers import Proxy
from tests.sources.outage_run import Outcome, Write, run_outages, viewer_numbers

from .support import (
    INSERT,
    READER_PASSWORD,
    READINGS,
    TABLE,
    connect,
    empty_database,
    exact_viewer,
    path,
    running,
    serving,
    settings_for,
)

BUILTIN = "from aiostream_ds.sources.builtin_plugin import main; main()"

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class Writer:
    """Writes rows in transactions of several statements, until the server has taken each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: asyncpg.Connection | None = None

    async def write(self, numbers: Sequence[int]) -> None:
        wanted = list(numbers)
        while wanted:
            try:
                if self._connection is None:
                    self._connection = await connect(self._server)
                    taken = await self._connection.fetch(  # the answer of a commit may be lost
                        "SELECT n::int FROM readings WHERE n = ANY ($1::float8[])",
                        [float(n) for n in wanted],
                    )
                    wanted = sorted(set(wanted) - {n for (n,) in taken})
                async with self._connection.transaction():
                    for number in wanted:
                        await self._connection.execute(INSERT, float(number))
                    await self._connection.execute("NOTIFY readings")
                return
            except AWAY:
                self.close()
                await asyncio.sleep(0.05)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None


@asynccontextmanager
async def writing(server: Server, count: int) -> AsyncIterator[Write]:
    """Writes with so many concurrent writers, which commit in any order."""
    writers = [Writer(server) for _ in range(count)]

    async def write(numbers: Sequence[int]) -> Sequence[int]:
        parts = [[n for n in numbers if n % count == k] for k in range(count)]
        await asyncio.gather(*(w.write(p) for w, p in zip(writers, parts, strict=True)))
        return numbers

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


def check(outcome: Outcome) -> None:
    # the rows of one tick are not ordered by their numbers
    assert (outcome.written, outcome.lost, outcome.doubled, outcome.unknown) == (20_000, 0, 0, 0)
    assert outcome.gaps == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("notify", ["readings", ""])
async def test_no_row_is_lost_or_doubled_by_outages_and_concurrent_writers(
    server: Server, notify: str
):
    tables = {"readings": {**TABLE, "notify": notify}}
    with Proxy(server.port) as proxy:
        async with (
            empty_database(server, READINGS) as connection,
            writing(server, 8) as write,
            serving(server, tables, port=proxy.port) as grafana,
        ):
            await connection.execute(INSERT, -1e9)
            viewer = await exact_viewer(grafana, "readings")
            check(await run_outages(write, viewer_numbers(viewer), server.restart, proxy))
            metrics = await grafana.metrics()
    assert metrics["aiostream_ds_gaps_total"] == metrics["aiostream_ds_rows_dropped_total"] == 0
    cursors = [(row["cursor_1"], row["cursor_2"]) for row in viewer.rows]
    assert cursors == sorted(set(cursors))


@pytest.mark.go
@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_no_row_is_lost_or_doubled_under_the_go_host(server: Server, host_binary: Path):
    numbers: list[int] = []
    names: list[str] = []

    def receive(packet: dict[str, Any]) -> None:
        if "schema" in packet:
            names[:] = [field["name"] for field in packet["schema"]["fields"]]
        if names and packet.get("data", {}).get("values"):
            numbers.extend(map(int, packet["data"]["values"][names.index("n")]))

    tables = {"readings": {**TABLE, "notify": "readings"}}
    with Proxy(server.port) as proxy:
        settings = settings_for(server, tables, source="postgres", port=proxy.port)
        command = [sys.executable, "-c", BUILTIN]
        async with (
            empty_database(server, READINGS),
            writing(server, 8) as write,
            open_node(host_binary, command, settings, {"password": READER_PASSWORD}) as node,
        ):
            await node.subscribe(path("readings"), receive)
            check(await run_outages(write, lambda: numbers, server.restart, proxy))
            assert node.starts == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.alone
async def test_ten_thousand_rows_a_second_in_flat_memory(server: Server):
    rate, seconds = 10_000, 20
    tables = {"readings": {**TABLE, "notify": "readings"}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables) as grafana,
    ):
        viewer = await grafana.follow(path("readings"))
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        written = received = 0
        memory: list[int] = []
        late = 0.0
        start = time.monotonic()
        while written < rate * seconds:
            due = min(rate * seconds, int((time.monotonic() - start) * rate))
            await connection.execute(
                "INSERT INTO readings (n) SELECT generate_series($1::int, $2::int)",
                written,
                due - 1,
            )
            await connection.execute("NOTIFY readings")
            written = due
            sent = time.monotonic()
            while received < written:
                rows = await viewer.take(len(viewer.rows) or 1)
                received += sum(row["n"] >= 0 for row in rows)
                viewer.forget()
            late = max(late, time.monotonic() - sent)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            await asyncio.sleep(0.02)
    assert received == rate * seconds
    assert memory[-1] - memory[len(memory) // 4] < 4 * 1024, memory  # KiB, of the peak
    assert late < 5.0, late  # a backlog would grow for 20 s; a busy machine is late for a moment
