"""The source `push` in the built-in plugin's process, under the Go host: bodies through
CallResource, and `kill -9` while clients push with retries.

`AIOSTREAM_DS_KILLS=200` is the long run.
"""

import asyncio
import base64
import gzip
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostream_ds._grafana.application import background_tasks
from tests.exact.client import CallFailed, ExactPanel, Tab
from tests.exact.hosts import Node, open_node
from tests.exact.network import Network

KILLS = int(os.environ.get("AIOSTREAM_DS_KILLS", "8"))
CLIENTS = 4
BATCH = 30  # rows of the largest batch
PAUSE = 0.02 * max(1, KILLS / 8)  # seconds; a panel of more than 100,000 rows is thinned

pytestmark = [pytest.mark.go, pytest.mark.slow, pytest.mark.timeout(60 + 10 * KILLS)]

BUILTIN = "from aiostream_ds.sources.builtin_plugin import main; main()"
COMMAND = (sys.executable, "-c", BUILTIN)


async def post(node: Node, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    """The status, the JSON and the headers of the answer. Raises CallFailed."""
    answer = await node._call(
        "resource",
        path=f"push/{path}",
        method="POST",
        body_base64=base64.b64encode(body).decode(),
        headers={name.replace("_", "-"): [value] for name, value in headers.items()},
    )
    (message,) = answer["messages"]
    found = message["body"]
    return (
        message["code"],
        json.loads(found) if isinstance(found, str) else found,
        message["headers"],
    )


class Client:
    """Pushes numbered rows, each batch until it is acknowledged."""

    def __init__(self, node: Node, number: int) -> None:
        self._node, self._number = node, number
        self._chance = random.Random(number)
        self.acknowledged = self.repeated = self.failures = 0

    async def run(self, stopped: asyncio.Event) -> None:
        batch = 0
        while not stopped.is_set():
            count = self._chance.randrange(1, BATCH)
            numbers = range(self.acknowledged, self.acknowledged + count)
            rows = [{"client": f"c{self._number}", "n": n} for n in numbers]
            body, headers = (
                json.dumps(rows).encode(),
                {"Idempotency_Key": f"{self._number}-{batch}"},
            )
            if batch % 2:
                body, headers = gzip.compress(body), {**headers, "Content_Encoding": "gzip"}
            while not await self._is_taken(body, headers, count):
                self.failures += 1
                await asyncio.sleep(0.02)
            self.acknowledged += count
            batch += 1
            await asyncio.sleep(self._chance.uniform(0, PAUSE))

    async def _is_taken(self, body: bytes, headers: dict[str, str], count: int) -> bool:
        try:
            status, answer, _ = await post(self._node, "lab/all", body, **headers)
        except CallFailed:
            return False
        if status != 200:
            assert status in (502, 503), answer
            return False
        assert answer["taken"] == count, answer
        self.repeated += answer.get("repeated", False)
        return True


def numbers_of(panel: ExactPanel) -> dict[str, list[int]]:
    """The numbers that a panel has drawn, by client, in its order."""
    client, n = panel.names.index("client"), panel.names.index("n")
    found: dict[str, list[int]] = {}
    for row in panel.rows:
        found.setdefault(row[client], []).append(int(row[n]))
    return found


async def test_acknowledged_rows_are_there_once_and_in_order_after_kills(
    host_binary: Path, tmp_path: Path
) -> None:
    settings = {"source": "push", "directory": str(tmp_path), "rowsPerSecond": 0}
    chance = random.Random(1)
    async with open_node(host_binary, COMMAND, settings) as node, background_tasks() as tasks:
        tab = Tab(Network([node]), tasks)
        panel = tab.open({"queryType": "table", "path": "lab/all"}, 3_600.0)
        await panel.loaded.wait()  # a query that is repeated has the range of its first attempt
        clients = [Client(node, number) for number in range(CLIENTS)]
        stopped = asyncio.Event()
        running = [asyncio.create_task(client.run(stopped)) for client in clients]
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.05, 1.0))
            await node.kill()
        await asyncio.sleep(0.5)
        stopped.set()
        await asyncio.gather(*running)
        total = sum(client.acknowledged for client in clients)
        with anyio.move_on_after(60):
            while len(panel.rows) < total:
                await anyio.sleep(0.05)
        drawn, faults = numbers_of(panel), panel.faults
        panel.close()
    print(
        f"{KILLS} kills, {total:,} rows, {sum(c.failures for c in clients)} failed pushes,"
        f" {sum(c.repeated for c in clients)} repeated batches, {panel.reloads} reloads"
    )
    assert drawn == {f"c{n}": list(range(c.acknowledged)) for n, c in enumerate(clients)}
    assert not faults, faults[:3]
    assert sum(client.failures for client in clients) > 0


async def test_bodies_pass_callresource_with_their_headers(host_binary: Path) -> None:
    settings = {"source": "push", "rowsPerSecond": 1}
    async with open_node(host_binary, COMMAND, settings) as node:
        status, answer, headers = await post(node, "a", b'{"v": 21}')
        assert (status, answer["taken"]) == (200, 1)
        assert headers["Content-Type"] == ["application/json"]
        line = b"cpu,host=a usage=0.5\n"
        status, answer, _ = await post(
            node, "a", gzip.compress(line * 50), Content_Encoding="gzip", Content_Type="text/plain"
        )
        assert (status, answer["taken"]) == (200, 50)
        status, answer, headers = await post(node, "a", b'{"v": 21}')
        assert status == 429 and int(headers["Retry-After"][0]) > 30
    async with open_node(host_binary, COMMAND, {"source": "push"}) as node:
        status, answer, _ = await post(node, "a", b" " * 4_000_001)
        assert status == 413 and "at most 4,000,000 bytes" in answer["message"]
        with pytest.raises(CallFailed, match="ResourceExhausted.*at most 67108864 bytes"):
            await post(node, "a", b" " * (65 << 20))
        status, answer, _ = await post(node, "a", b'{"v": 1}')
        assert (status, answer["taken"]) == (200, 1), "the connection goes on"
