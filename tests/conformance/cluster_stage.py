"""Three Grafana servers over a real engine: Go hosts with a plugin process each, whose exact panels
are compared with a numbered upstream."""

import asyncio
import math
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from aiostream_ds._grafana.application import background_tasks
from tests.cluster.numbered_upstream import NumberedUpstream, open_upstream
from tests.exact.client import Drawing, ExactPanel, Tab
from tests.exact.hosts import Node, open_node
from tests.exact.judge import Judge
from tests.exact.network import Network

from .cluster_report import report_of

__all__ = ["PLUGIN", "SERVERS", "Stage", "kill", "open_stage", "pause"]

SERVERS = 3
PLUGIN = Path(__file__).parent / "plugins" / "shared.py"
WIDTH = 5.0  # seconds of a panel
SLOW = 2.0  # seconds of a takeover that is printed
SETTLED = 6.0  # seconds after a fault until processes have joined their channels again


class Stage:
    """Three servers with a tab each, and the panels of these."""

    def __init__(self, upstream: NumberedUpstream, nodes: Sequence[Node], tabs: list[Tab]) -> None:
        self.upstream, self.nodes, self.tabs = upstream, nodes, tabs
        self.panels: list[ExactPanel] = []
        # of each channel, seconds from the death of its reader; and soon after another fault
        self.takeovers: list[float] = []
        self.early_takeovers: list[float] = []
        self.last_fault = -math.inf  # its end
        self.judge = Judge(self._expected)

    def open_panels(self, channels: int) -> None:
        for number in range(channels):
            for tab in self.tabs:
                query = {"queryType": "numbers", "name": f"c{number}"}
                self.panels.append(tab.open(query, WIDTH, on_draw=self.judge))

    async def wait_until_shared(self, names: Sequence[str], runs: int = 1) -> None:
        """Wait until each channel has so many runs, and each panel was drawn."""
        running = self.upstream.running
        await self.wait_until(lambda: all(panel.drawings for panel in self.panels), 60)
        await self.wait_until(lambda: all(running[name] == runs for name in names), 120)

    def _expected(self, panel: ExactPanel, drawing: Drawing) -> Sequence[int]:
        if not drawing.rows or not isinstance(drawing.cursor, int):
            return []
        return self.upstream.rows(drawing.cutoff, drawing.cursor)

    async def wait_until_one_run(self, names: Sequence[str]) -> None:
        """Wait until each channel is read by one server again."""
        running = self.upstream.running
        await self.wait_until(lambda: all(running[name] == 1 for name in names), 60)

    async def wait_until_settled(self, names: Sequence[str]) -> None:
        """The same, and until the fault before was over for some time."""
        await self.wait_until_one_run(names)
        await anyio.sleep(max(self.last_fault + SETTLED - time.monotonic(), 0))

    async def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Raises AssertionError, with what is missing, if it takes longer."""
        with anyio.move_on_after(seconds):
            while not condition():
                await anyio.sleep(0.02)
            return
        raise AssertionError(f"not within {seconds:g} s:\n{await report_of(self)}")

    async def end(self) -> None:
        """Wait until all panels have all rows, and check every drawing since the beginning."""
        self.upstream.end()
        last = self.upstream.last
        await self.wait_until(lambda: all(panel.cursor == last for panel in self.panels), 60)
        assert not self.judge.wrong, self.judge.wrong[:3]
        faults = [fault for panel in self.panels for fault in panel.faults]
        assert not faults, faults[:3]


@asynccontextmanager
async def open_stage(
    binary: Path,
    url: str,
    hertz: float,
    environment: Mapping[str, str] | None = None,
    plugins: Sequence[Path] = (PLUGIN,) * SERVERS,
) -> AsyncIterator[Stage]:
    """Servers whose plugins share over the engine at a URL."""
    words = {"GF_PLUGIN_CLUSTER_URL": url, **(environment or {})}
    env = ["/usr/bin/env", *(f"{name}={value}" for name, value in words.items()), sys.executable]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(open_upstream(hertz))
        settings = {"port": upstream.port}
        nodes = [
            await stack.enter_async_context(open_node(binary, [*env, plugin], settings))
            for plugin in plugins
        ]
        tasks = await stack.enter_async_context(background_tasks())
        networks = [Network([node]) for node in nodes]
        yield Stage(upstream, nodes, [Tab(network, tasks) for network in networks])


async def kill(stage: Stage, chance: random.Random) -> None:
    node, readers = chance.choice(stage.nodes), stage.upstream.readers
    killed = node.pid
    # a channel that nobody reads, as soon after another fault, waits for something else
    lost = [name for name, pids in readers.items() if set(pids) == {killed}]
    before = time.monotonic()
    is_early = before - stage.last_fault < SETTLED
    times: list[float] = []
    restarting = asyncio.create_task(node.kill())
    while lost:
        await anyio.sleep(0.01)
        left = [name for name in lost if set(readers[name]) <= {killed}]
        times += [time.monotonic() - before] * (len(lost) - len(left))
        lost = left
        assert time.monotonic() < before + 60, f"{lost[:5]}\n{await report_of(stage)}"
    await restarting
    (stage.early_takeovers if is_early else stage.takeovers).extend(times)
    if times and times[-1] > SLOW:
        print(f"{len(times)} takeovers took {times[0]:.2f} to {times[-1]:.2f} s", flush=True)


async def pause(stage: Stage, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    os.kill(node.pid, signal.SIGSTOP)
    try:
        await anyio.sleep(chance.choice([0.5, 2.0, 4.0]))
    finally:
        os.kill(node.pid, signal.SIGCONT)
