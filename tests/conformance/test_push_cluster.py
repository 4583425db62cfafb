"""Rows that clients push at three Grafana servers with one data source `push`, over a real engine,
through `kill -9`, pauses and restarts of the engine: each acknowledged row is once on each server.

`AIOSTREAM_DS_CLUSTER_FAULTS=100` is the long run.
"""

import asyncio
import json
import os
import random
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostream_ds._grafana.application import background_tasks
from tests.exact.client import CallFailed, ExactPanel, Tab
from tests.exact.hosts import Node, open_node
from tests.exact.network import Network
from tests.servers import Nats, Redis

from .test_push_kills import BUILTIN, numbers_of, post

SERVERS = 3
CLIENTS = 4
FAULTS = int(os.environ.get("AIOSTREAM_DS_CLUSTER_FAULTS", "0")) or 8
PAUSE = 0.03 * max(1, FAULTS / 8)

pytestmark = [pytest.mark.go, pytest.mark.slow, pytest.mark.timeout(240 + 12 * FAULTS)]


@pytest.fixture(params=[Redis, Nats])
def server(request: pytest.FixtureRequest) -> Any:
    with request.param() as server:
        yield server


class Client:
    """Pushes numbered rows, each batch until a server has acknowledged it: every attempt may go to
    another one, as a load balancer does it."""

    def __init__(self, nodes: list[Node], number: int) -> None:
        self._nodes, self._number = nodes, number
        self._chance = random.Random(number)
        self.acknowledged = self.repeated = self.failures = 0
        self.statuses: dict[int, int] = {}

    async def run(self, stopped: asyncio.Event) -> None:
        batch = 0
        while not stopped.is_set():
            count = self._chance.randrange(1, 30)
            numbers = range(self.acknowledged, self.acknowledged + count)
            rows = [{"client": f"c{self._number}", "n": n} for n in numbers]
            key = f"{self._number}-{batch}"
            while not await self._is_taken(json.dumps(rows).encode(), key, count):
                self.failures += 1
                await asyncio.sleep(0.05)
            self.acknowledged += count
            batch += 1
            await asyncio.sleep(self._chance.uniform(0, PAUSE))

    async def _is_taken(self, body: bytes, key: str, count: int) -> bool:
        node = self._chance.choice(self._nodes)
        try:
            async with asyncio.timeout(15):
                status, answer, headers = await post(node, "lab/all", body, Idempotency_Key=key)
        except (CallFailed, TimeoutError):
            return False
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status != 200:
            assert status == 503 and headers["Retry-After"], answer
            return False
        assert answer["taken"] == count, answer
        self.repeated += answer.get("repeated", False)
        return True


async def kill(nodes: list[Node], server: Redis | Nats, chance: random.Random) -> None:
    await chance.choice(nodes).kill()


async def pause(nodes: list[Node], server: Redis | Nats, chance: random.Random) -> None:
    node = chance.choice(nodes)
    os.kill(node.pid, signal.SIGSTOP)
    try:
        await anyio.sleep(chance.choice([0.5, 3.0]))
    finally:
        os.kill(node.pid, signal.SIGCONT)


async def move(nodes: list[Node], server: Redis | Nats, chance: random.Random) -> None:
    """Only the viewer moves, before each fault."""


async def restart_engine(nodes: list[Node], server: Redis | Nats, chance: random.Random) -> None:
    await asyncio.to_thread(server.stop, chance.choice([signal.SIGTERM, signal.SIGKILL]))
    await anyio.sleep(chance.choice([0.2, 3.0]))
    await asyncio.to_thread(server.start)


async def test_acknowledged_rows_are_once_on_each_server_after_faults(
    host_binary: Path, tmp_path: Path, server: Redis | Nats
) -> None:
    chance = random.Random(FAULTS)
    # one setting on all servers, and a folder for each: settings that differ have other epochs
    settings = {
        "source": "push",
        "share": True,
        "directory": "/proc/self/cwd",
        "rowsPerSecond": 0,
    }
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(SERVERS):
            folder = tmp_path / str(number)
            folder.mkdir()
            environment = ["/usr/bin/env", "-C", folder, f"GF_PLUGIN_CLUSTER_URL={server.url}"]
            command = [*environment, sys.executable, "-c", BUILTIN]
            nodes.append(await stack.enter_async_context(open_node(host_binary, command, settings)))
        tasks = await stack.enter_async_context(background_tasks())
        panels: list[ExactPanel] = []
        roaming = Network(nodes)  # of a viewer that a load balancer moves
        for network in [*(Network([node]) for node in nodes), roaming]:
            panel = Tab(network, tasks).open({"queryType": "table", "path": "lab/all"}, 3_600.0)
            panels.append(panel)
            await panel.loaded.wait()
        clients = [Client(nodes, number) for number in range(CLIENTS)]
        stopped = asyncio.Event()
        running = [asyncio.create_task(client.run(stopped)) for client in clients]
        await anyio.sleep(1)
        for _ in range(FAULTS):
            place = chance.randrange(SERVERS)
            roaming.change(socket=place, http=place)
            await chance.choice([kill, kill, move, pause, restart_engine])(nodes, server, chance)
            await anyio.sleep(chance.uniform(0.2, 2.0))
        await anyio.sleep(2)
        stopped.set()
        await asyncio.gather(*running)
        total = sum(client.acknowledged for client in clients)
        with anyio.move_on_after(60):
            while any(len(panel.rows) < total for panel in panels):
                await anyio.sleep(0.05)
        drawn = [numbers_of(panel) for panel in panels]
        faults = [fault for panel in panels for fault in panel.faults]
        cursors = [panel.cursor for panel in panels]
        print(
            f"{type(server).__name__}, {FAULTS} faults: {total:,} rows,"
            f" {sum(c.failures for c in clients)} failed pushes,"
            f" {sum(c.repeated for c in clients)} repeated batches,"
            f" {[panel.reloads for panel in panels]} reloads"
        )
        for panel in panels:
            panel.close()
    expected = {f"c{n}": list(range(c.acknowledged)) for n, c in enumerate(clients)}
    for found in drawn:
        assert found == expected
    assert len(set(cursors)) == 1, cursors
    assert not faults, faults[:3]
    assert sum(client.failures for client in clients) > 0
