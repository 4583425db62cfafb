"""One upstream for three Grafana servers: Go hosts with a plugin process each, and a real engine.

The upstream counts its runs; exact panels on all servers are compared with its rows through
`kill -9`, pauses and restarts of the engine. The long run needs AIOSTREAM_DS_CLUSTER_FAULTS.
"""

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aiostream_ds._grafana.application import background_tasks
from tests.cluster.numbered_upstream import NumberedUpstream, open_upstream
from tests.exact.client import Drawing, ExactPanel, Tab
from tests.exact.hosts import Node, open_node
from tests.exact.judge import Judge
from tests.exact.network import Network
from tests.servers import Nats, Redis

SERVERS = 3
PLUGIN = Path(__file__).parent / "plugins" / "shared.py"
PANELS = 5  # channels with an exact panel on each server
WIDTH = 5.0  # seconds of a panel
CHANNELS = int(os.environ.get("AIOSTREAM_DS_CLUSTER_CHANNELS", "30"))
FAULTS = int(os.environ.get("AIOSTREAM_DS_CLUSTER_FAULTS", "0"))

pytestmark = [pytest.mark.go, pytest.mark.slow]


class Stage:
    """Three servers with a tab each, and the panels of these."""

    def __init__(self, upstream: NumberedUpstream, nodes: Sequence[Node], tabs: list[Tab]) -> None:
        self.upstream, self.nodes, self.tabs = upstream, nodes, tabs
        self.panels: list[ExactPanel] = []
        self.takeovers: list[float] = []  # seconds from the death of an owner of channels
        self.judge = Judge(self._expected)

    def open_panels(self, channels: int) -> None:
        for number in range(channels):
            for tab in self.tabs:
                query = {"queryType": "numbers", "name": f"c{number}"}
                self.panels.append(tab.open(query, WIDTH, on_draw=self.judge))

    def _expected(self, panel: ExactPanel, drawing: Drawing) -> Sequence[int]:
        if not drawing.rows or not isinstance(drawing.cursor, int):
            return []
        return self.upstream.rows(drawing.cutoff, drawing.cursor)

    async def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        with anyio.fail_after(seconds):
            while not condition():
                await anyio.sleep(0.02)

    async def end(self) -> None:
        """Wait until all panels have all rows, and check every drawing since the beginning."""
        self.upstream.end()
        last = self.upstream.last
        await self.wait_until(lambda: all(panel.cursor == last for panel in self.panels), 60)
        assert not self.judge.wrong, self.judge.wrong[:3]
        faults = [fault for panel in self.panels for fault in panel.faults]
        assert not faults, faults[:3]


@asynccontextmanager
async def open_stage(binary: Path, server: Redis | Nats, hertz: float) -> AsyncIterator[Stage]:
    command = ["/usr/bin/env", f"GF_PLUGIN_CLUSTER_URL={server.url}", sys.executable, PLUGIN]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(open_upstream(hertz))
        settings = {"port": upstream.port}
        nodes = [
            await stack.enter_async_context(open_node(binary, command, settings))
            for _ in range(SERVERS)
        ]
        tasks = await stack.enter_async_context(background_tasks())
        networks = [Network([node]) for node in nodes]
        yield Stage(upstream, nodes, [Tab(network, tasks) for network in networks])


@pytest.fixture(params=[Redis, Nats])
def server(request):
    with request.param() as server:
        yield server


@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", [Redis], indirect=True)
async def test_each_channel_has_one_run_for_viewers_on_all_servers(host_binary, server):
    channels = CHANNELS
    async with open_stage(host_binary, server, hertz=1) as stage:
        for number in range(channels):
            for node in stage.nodes:
                await node.subscribe(f"plain/c{number}", lambda packet: None)
        running = stage.upstream.running
        await stage.wait_until(lambda: len(running) == channels, 60)
        await anyio.sleep(3)
        assert set(running.values()) == {1}
        assert set(stage.upstream.runs.values()) == {1}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("server", "faults"), [(Redis, 6), (Nats, 3)], indirect=["server"])
async def test_exact_panels_miss_nothing_when_the_owner_is_killed_or_paused(
    host_binary, server, faults
):
    await play(host_binary, server, channels=4, faults=faults, seed=1)


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not FAULTS, reason="set AIOSTREAM_DS_CLUSTER_FAULTS to the number of faults")
async def test_exact_panels_miss_nothing_in_a_long_run(host_binary, server):
    await play(host_binary, server, channels=CHANNELS, faults=FAULTS, seed=FAULTS)


async def play(binary: Path, server: Redis | Nats, channels: int, faults: int, seed: int) -> None:
    chance = random.Random(seed)
    async with open_stage(binary, server, hertz=10 if channels < 50 else 1) as stage:
        stage.open_panels(min(channels, PANELS))
        for number in range(PANELS, channels):  # without panels, which need much processor time
            for node in stage.nodes:
                await node.subscribe(f"numbers/c{number}", lambda packet: None)
        names = [f"c{number}" for number in range(channels)]
        await stage.wait_until(
            lambda: all(stage.upstream.running[name] == 1 for name in names), 120
        )
        await stage.wait_until(lambda: all(panel.drawings for panel in stage.panels), 60)
        for _ in range(faults):
            fault = chance.choice([kill, kill, pause, restart_engine])
            await fault(stage, server, chance)
            await anyio.sleep(chance.uniform(0.5, 2.0))
        await anyio.sleep(3)
        await stage.end()
        await stage.wait_until(lambda: all(stage.upstream.running[name] == 1 for name in names), 60)
    print(f"{channels} channels, {faults} faults: {stage.judge.tally}")
    takeovers = sorted(stage.takeovers)
    if takeovers:
        p99 = takeovers[int(len(takeovers) * 0.99)]
        print(f"{len(takeovers)} takeovers: {statistics.median(takeovers):.2f} s, p99 {p99:.2f} s")


async def kill(stage: Stage, server: Redis | Nats, chance: random.Random) -> None:
    running = stage.upstream.running
    before = time.monotonic()
    restarting = asyncio.create_task(chance.choice(stage.nodes).kill())
    await anyio.sleep(0.15)
    lost = [name for name in running if running[name] == 0]
    while lost:
        await anyio.sleep(0.01)
        lost = [name for name in lost if running[name] == 0]
        if not lost:
            stage.takeovers.append(time.monotonic() - before)
        assert time.monotonic() < before + 60, lost[:5]
    await restarting


async def pause(stage: Stage, server: Redis | Nats, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    os.kill(node.pid, signal.SIGSTOP)
    try:
        await anyio.sleep(chance.choice([0.5, 2.0, 4.0]))
    finally:
        os.kill(node.pid, signal.SIGCONT)


async def restart_engine(stage: Stage, server: Redis | Nats, chance: random.Random) -> None:
    await asyncio.to_thread(server.stop, chance.choice([signal.SIGTERM, signal.SIGKILL]))
    await anyio.sleep(chance.choice([0.2, 3.0]))
    await asyncio.to_thread(server.start)
