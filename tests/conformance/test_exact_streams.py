"""Exact streams in real time: plugins under the Go host, files that another process appends to 50
times a second, and browsers that follow the protocol's rules.

Each case runs alone and in random combinations; `--long` runs more of them. The plugin is the
source `file`, or plugins/log.py where a server has to read late and for cursors of two columns.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from aiostream_ds._grafana.application import background_tasks
from tests.exact.client import Drawing, ExactPanel, Tab
from tests.exact.hosts import Node, open_node
from tests.exact.judge import Judge, Tally
from tests.exact.network import Network
from tests.exact.upstream import FILE, LOG, PAIRS, LogFile, Plugin, logs_in, upstream

RANDOM, LONG = 3, 20  # random schedules of each case
CONCURRENT = 5  # schedules that run at a time
DRAWINGS = 6  # of each panel, at least, before the logs end
DRAW_TIMEOUT = 120.0  # seconds in which these, and in the end all rows, must be drawn
WIDTHS = (3.0, 8.0, 30.0)

pytestmark = [pytest.mark.go, pytest.mark.slow]


class Stage:
    """One schedule: two logs of one name in two directories, one or two servers, two tabs."""

    def __init__(
        self,
        schedule: "Schedule",
        folder: Path,
        nodes: Sequence[Node],
        network: Network,
        tabs: list[Tab],
    ) -> None:
        self.plugin = schedule.plugin
        self.chance = random.Random(str(schedule))
        self.nodes, self.network, self.tabs = nodes, network, tabs
        self._changes = 0
        self.panels: list[ExactPanel] = []
        self.judge = Judge(self._expected)
        self.logs = {str(path): LogFile(path) for path in logs_in(folder)}
        self.current = str(logs_in(folder)[0])

    def open(self, width: float, tab: int = 0) -> ExactPanel:
        panel = self.tabs[tab].open(self.plugin.query, width, on_draw=self.judge)
        self.panels.append(panel)
        return panel

    async def show(self, number: int) -> None:
        """Save the settings with the directory of one of the logs."""
        self.current = list(self.logs)[number]
        self._changes += 1
        settings = self.plugin.settings(self.current, self._changes)
        for node in self.nodes:
            await node.change_settings(settings)

    async def draw(self) -> None:
        """Wait until each panel has drawn some live rows."""
        with anyio.fail_after(DRAW_TIMEOUT):
            while any(len(panel.drawings) < DRAWINGS for panel in self.panels):
                await anyio.sleep(0.05)

    async def end(self) -> Tally:
        """Wait until all rows are drawn, then check everything since the beginning."""
        with anyio.fail_after(DRAW_TIMEOUT):
            while not all(map(self._is_done, self.panels)):
                await anyio.sleep(0.05)
        await anyio.sleep(0.3)
        assert not self.judge.wrong, self.judge.wrong[:3]
        for panel in self.panels:
            assert not panel.faults, panel.faults[:3]
        for node in self.nodes:
            for check in node.checks:
                assert not check.faults and not check.gaps, check.faults[:3]
        return self.judge.tally

    def _is_done(self, panel: ExactPanel) -> bool:
        log = self.logs[self.current].read()
        if not panel.rows:
            return log.times[-1] < self.network.now() - panel.width * 1000
        shown = panel.rows[-1][panel.names.index("log")]
        return shown == self.current and log.count(panel.cursor) == len(log.numbers)

    def _expected(self, panel: ExactPanel, drawing: Drawing) -> Sequence[int]:
        if not drawing.rows:
            return []
        log = self.logs[drawing.rows[0][panel.names.index("log")]].read()
        return log.expected(drawing.cutoff, drawing.cursor)


Act = Callable[[Stage], Awaitable[None]]


async def opening(stage: Stage) -> None:
    stage.open(stage.chance.choice(WIDTHS))
    await anyio.sleep(0.5)


async def second_viewer(stage: Stage) -> None:
    stage.open(8.0, tab=1)
    await anyio.sleep(0.7)


async def wider_panel(stage: Stage) -> None:
    stage.open(30.0)
    await anyio.sleep(0.01)
    stage.open(30.0)
    await anyio.sleep(0.7)


async def reconnecting(stage: Stage) -> None:
    stage.network.change(up=False, join_loss=0.2)
    await anyio.sleep(0.5)
    stage.network.change(up=True)
    await anyio.sleep(0.5)


async def outage(stage: Stage) -> None:
    stage.network.change(up=False, reachable=False)
    await anyio.sleep(stage.chance.uniform(0.5, 2.0))
    stage.network.change(up=True, reachable=True)
    await anyio.sleep(0.3)


async def lost_packets(stage: Stage) -> None:
    stage.network.change(lossy=True)
    await anyio.sleep(0.5)
    stage.network.change(lossy=False)


async def kill(stage: Stage) -> None:
    await stage.chance.choice(stage.nodes).kill()
    await anyio.sleep(0.3)


async def settings_change(stage: Stage) -> None:
    await stage.show(list(stage.logs).index(stage.current))
    await anyio.sleep(0.7)


async def other_file(stage: Stage) -> None:
    await stage.show(1 - list(stage.logs).index(stage.current))
    await anyio.sleep(0.7)


async def late_server(stage: Stage) -> None:
    stage.network.change(http=len(stage.nodes) - 1)
    await anyio.sleep(0.5)
    stage.network.change(socket=len(stage.nodes) - 1, http=0)
    await anyio.sleep(0.5)


async def failover(stage: Stage) -> None:
    other = (stage.network.socket + 1) % len(stage.nodes)
    stage.network.change(socket=other, http=other)
    await anyio.sleep(0.8)


CASES: dict[str, tuple[Act, int]] = {
    "open": (opening, 1),
    "second viewer": (second_viewer, 1),
    "wider second panel": (wider_panel, 1),
    "reconnect": (reconnecting, 1),
    "outage": (outage, 1),
    "packets lost": (lost_packets, 1),
    "kill -9": (kill, 1),
    "settings change": (settings_change, 1),
    "another file": (other_file, 1),
    "two servers, one late": (late_server, 2),
    "failover": (failover, 2),
}
"""Each case's events, and the number of servers."""


class Schedule(NamedTuple):
    acts: Sequence[Act]
    servers: int
    plugin: Plugin

    def __str__(self) -> str:
        names = ", ".join(act.__name__ for act in self.acts)
        return f"{names} on {self.servers} servers, {self.plugin.query}"


async def play(binary: Path, folder: Path, schedule: Schedule) -> Tally:
    """Open a panel, run the acts, then check the result."""
    acts, servers, plugin = schedule
    settings = plugin.settings(str(logs_in(folder)[0]))
    async with AsyncExitStack() as stack:
        nodes = []
        upstream_ended = await stack.enter_async_context(AsyncExitStack())
        await upstream_ended.enter_async_context(upstream(folder))
        for number in range(servers):
            command = plugin.lagging if number else plugin.command
            nodes.append(await stack.enter_async_context(open_node(binary, command, settings)))
        tasks = await stack.enter_async_context(background_tasks())
        network = Network(nodes)
        stage = Stage(schedule, folder, nodes, network, [Tab(network, tasks), Tab(network, tasks)])
        stage.open(8.0)
        await anyio.sleep(0.3)
        for act in acts:
            await act(stage)
        await stage.draw()
        await upstream_ended.aclose()
        return await stage.end()


def schedules(case: str, count: int) -> list[Schedule]:
    """The case alone with each kind of cursor, and `count` times with three random others."""
    act, servers = CASES[case]
    chance = random.Random(case)
    found = [
        Schedule([act], servers, LOG if act is late_server else FILE),
        Schedule([act], servers, PAIRS),
    ]
    for _ in range(count):
        acts = [act, *(one for one, _ in chance.choices(list(CASES.values()), k=3))]
        chance.shuffle(acts)
        found.append(Schedule(acts, chance.choice([servers, 2]), chance.choice([FILE, LOG, PAIRS])))
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
async def test_no_row_is_missing_duplicated_or_out_of_order(
    host_binary: Path, tmp_path: Path, case: str, request: pytest.FixtureRequest
) -> None:
    count = LONG if request.config.getoption("--long") else RANDOM
    concurrent = asyncio.Semaphore(CONCURRENT)
    total: list[Tally] = []

    async def one(number: int, schedule: Schedule) -> None:
        async with concurrent:
            try:
                total.append(await play(host_binary, tmp_path / str(number), schedule))
            except Exception as error:
                error.add_note(f"schedule {number}: {schedule}")
                raise

    async with asyncio.TaskGroup() as tasks:
        for number, schedule in enumerate(schedules(case, count)):
            tasks.create_task(one(number, schedule))
    tally = sum(total, Tally())
    assert len(total) == count + 2 and tally.drawings >= DRAWINGS * len(total)
    assert tally == Tally(drawings=tally.drawings)
    print(f"{case}: {len(total)} schedules, {tally}")  # shown with -s
