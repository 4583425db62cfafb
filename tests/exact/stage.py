"""A world, its servers, browsers before them, and a judge of all that is drawn, in virtual time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from aiostream_ds._grafana.application import background_tasks

from .client import Emission, ExactPanel, Tab
from .judge import Judge
from .net import Net
from .world import Log, Server, World, open_servers

PATIENCE = 120.0  # seconds in which every panel is to have all rows once nothing goes wrong


class Stage:
    """Made by `open_stage`. `log` is the one that panels show unless they are told otherwise."""

    def __init__(self, world: World, servers: Sequence[Server], net: Net, tab: Tab) -> None:
        self.world, self.servers, self.net, self.tab = world, servers, net, tab
        self.panels: list[ExactPanel] = []
        self.log_judge = Judge(self._log_rows)
        self.feed_faults: list[str] = []
        self._logs: dict[str, Log] = {}  # by the epoch on the wire

    def append(self, count: int = 1, pad: int = 0, name: str = "a") -> None:
        self.world.append(name, count, pad)

    async def write(self, seconds: float, hertz: float = 10.0) -> None:
        for _ in range(round(seconds * hertz)):
            self.append()
            await anyio.sleep(1 / hertz)

    async def feed(self, seconds: float, hertz: float = 10.0) -> None:
        for _ in range(round(seconds * hertz)):
            self.world.feed()
            await anyio.sleep(1 / hertz)

    def open(
        self, width: float = 60.0, name: str = "a", points: int = 10_000, kind: str = "log"
    ) -> ExactPanel:
        ask = {"queryType": kind, "name": name}
        panel = self.tab.open(ask, width, points, self.log_judge)
        self.panels.append(panel)
        return panel

    def open_feed(self, width: float = 600.0, name: str = "a") -> ExactPanel:
        ask = {"queryType": "feed", "name": name}
        panel = self.tab.open(ask, width, watch=self._look_at_feed)
        self.panels.append(panel)
        return panel

    def close(self, panel: ExactPanel) -> None:
        panel.close()
        self.panels.remove(panel)

    async def change_settings(self, title: str) -> None:
        for server in self.servers:
            await server.grafana.change_settings({"title": title})

    async def settle(self) -> None:
        """Until every panel has all rows there are. Raises TimeoutError."""
        with anyio.fail_after(PATIENCE):
            while not all(map(self.is_done, self.panels)):
                await anyio.sleep(0.1)
        await anyio.sleep(5)  # in which nothing may become worse

    def is_done(self, panel: ExactPanel) -> bool:
        if panel.ask["queryType"] == "feed":
            return bool(panel.loaded.is_set())
        log = self.world.log(panel.ask["name"])
        lines = log.lines
        same = self._logs.get(panel.epoch, log) is log
        return panel.loaded.is_set() and same and (not lines or panel.cursor >= lines[-1].offset)

    def check(self) -> None:
        """Nothing that was drawn was wrong, and nothing on the wire."""
        assert not self.log_judge.wrong, self.log_judge.wrong[:3]
        assert not self.feed_faults, self.feed_faults[:3]
        for panel in self.panels:
            assert not panel.faults, panel.faults[:3]
        for server in self.servers:
            for seen in server.checks:
                assert not seen.faults, seen.faults[:3]

    @property
    def holes(self) -> int:
        return sum(seen.holes for server in self.servers for seen in server.checks)

    def _log_rows(self, panel: ExactPanel, emission: Emission) -> Sequence[int]:
        """Of which log an epoch is says the first row with it; before, nothing can be wrong."""
        log = self._logs.get(emission.epoch)
        if log is None:
            if not emission.rows:
                return []
            log = self.world.epochs[emission.rows[0][panel.names.index("log")]]
            self._logs[emission.epoch] = log
        return log.expected(emission.cutoff, emission.cursor, panel.points)

    def check_feeds(self) -> None:
        """Every feed panel ends with the newest row that the process of its server gave."""
        panels = [panel for panel in self.panels if panel.ask["queryType"] == "feed"]
        for panel in panels:
            server = self.servers[0].process
            given = self.world.given.get((server, panel.ask["name"]))
            if not panel.rows:
                assert given is None
                continue
            process, run, n = _columns_of(panel)
            last = panel.rows[-1]
            assert (last[process], last[run], last[n]) == (server, *(given or ()))

    def _look_at_feed(self, panel: ExactPanel, emission: Emission) -> None:
        """Rows of one process; within a run each the next, a later run from its first row. With
        the notice rows may be missing, and nothing else."""
        if not emission.rows:
            return
        process, run, n = _columns_of(panel)
        for a, b in zip(emission.rows, emission.rows[1:], strict=False):
            follows = (b[run] == a[run] and b[n] == a[n] + 1) or (b[run] > a[run] and b[n] == 1)
            rises = (b[run], b[n]) > (a[run], a[n])
            if a[process] != b[process] or not (rises if emission.gap else follows):
                self.feed_faults.append(f"{b} follows {a}")


def _columns_of(panel: ExactPanel) -> Sequence[int]:
    return [panel.names.index(name) for name in ("process", "run", "n")]


@asynccontextmanager
async def open_stage(servers: int = 1) -> AsyncIterator[Stage]:
    world = World()
    async with open_servers(world, servers) as opened, background_tasks() as tasks:
        net = Net(opened)
        yield Stage(world, opened, net, Tab(net, tasks))
