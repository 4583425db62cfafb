"""Upstream systems, servers, a browser tab, and a judge of all drawings, in virtual time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from aiostream_ds._grafana.application import background_tasks

from .client import LIVE_ROWS, Drawing, ExactPanel, Tab
from .judge import Judge
from .network import Network
from .world import Log, Server, World, offset_of, open_servers

TIMEOUT = 120.0  # seconds in which every panel must have all rows after the last fault


class Stage:
    """Made by `open_stage`. The default log is `a`."""

    def __init__(self, world: World, servers: Sequence[Server], network: Network, tab: Tab) -> None:
        self.world, self.servers, self.network, self.tab = world, servers, network, tab
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
        query = {"queryType": kind, "name": name}
        panel = self.tab.open(query, width, points, self.log_judge)
        self.panels.append(panel)
        return panel

    def open_feed(self, width: float = 600.0, name: str = "a") -> ExactPanel:
        query = {"queryType": "feed", "name": name}
        panel = self.tab.open(query, width, on_draw=self._check_feed)
        self.panels.append(panel)
        return panel

    def close(self, panel: ExactPanel) -> None:
        panel.close()
        self.panels.remove(panel)

    async def change_settings(self, title: str) -> None:
        for server in self.servers:
            await server.grafana.change_settings({"title": title})

    async def settle(self) -> None:
        """Wait until every panel has all rows. Raises TimeoutError."""
        with anyio.fail_after(TIMEOUT):
            while not all(map(self.is_done, self.panels)):
                await anyio.sleep(0.1)
        await anyio.sleep(5)  # no later drawing may be wrong either

    def is_done(self, panel: ExactPanel) -> bool:
        if panel.query["queryType"] == "feed":
            return bool(panel.loaded.is_set())
        log = self.world.log(panel.query["name"])
        lines = log.lines
        same = self._logs.get(panel.epoch, log) is log
        has_all = not lines or offset_of(panel.cursor) >= lines[-1].offset
        return panel.loaded.is_set() and same and has_all

    def check(self) -> None:
        """Assert that no drawing and no packet was wrong."""
        assert not self.log_judge.wrong, self.log_judge.wrong[:3]
        assert not self.feed_faults, self.feed_faults[:3]
        for panel in self.panels:
            assert not panel.faults, panel.faults[:3]
        for server in self.servers:
            for seen in server.checks:
                assert not seen.faults, seen.faults[:3]

    @property
    def gaps(self) -> int:
        return sum(seen.gaps for server in self.servers for seen in server.checks)

    def _log_rows(self, panel: ExactPanel, drawing: Drawing) -> Sequence[int]:
        """The expected rows. The first row with an epoch identifies its log."""
        log = self._logs.get(drawing.epoch)
        if log is None:
            if not drawing.rows:
                return []
            log = self.world.epochs[drawing.rows[0][panel.names.index("log")]]
            self._logs[drawing.epoch] = log
        rows = log.between(drawing.cutoff, offset_of(drawing.cursor))
        if not drawing.load.is_thinned:
            return rows[-panel.points :]
        history = log.between(drawing.load.cutoff, offset_of(drawing.load.cursor))
        if len(history) > panel.points:
            # some of its rows are left out, but neither the first nor the last one
            n = panel.names.index("n")
            drawn = [row[n] for row in drawing.rows if row[n] <= history[-1]]
            kept = {history[0], *drawn[-panel.points :], history[-1]}
            rows = [row for row in rows if row > history[-1] or row in kept]
        return rows[-LIVE_ROWS * panel.points :]

    def check_feeds(self) -> None:
        """Assert that every feed panel ends with the newest row of its server's process."""
        panels = [panel for panel in self.panels if panel.query["queryType"] == "feed"]
        for panel in panels:
            server = self.servers[0].process
            emitted = self.world.emitted.get((server, panel.query["name"]))
            if not panel.rows:
                assert emitted is None
                continue
            process, run, n = _columns_of(panel)
            last = panel.rows[-1]
            assert (last[process], last[run], last[n]) == (server, *(emitted or ()))

    def _check_feed(self, panel: ExactPanel, drawing: Drawing) -> None:
        """Check that rows are of one process and consecutive, each run from its first row. With
        the notice of a gap rows may be missing."""
        if not drawing.rows:
            return
        process, run, n = _columns_of(panel)
        for a, b in zip(drawing.rows, drawing.rows[1:], strict=False):
            follows = (b[run] == a[run] and b[n] == a[n] + 1) or (b[run] > a[run] and b[n] == 1)
            rises = (b[run], b[n]) > (a[run], a[n])
            if a[process] != b[process] or not (rises if drawing.gap else follows):
                self.feed_faults.append(f"{b} after {a}")


def _columns_of(panel: ExactPanel) -> Sequence[int]:
    return [panel.names.index(name) for name in ("process", "run", "n")]


@asynccontextmanager
async def open_stage(servers: int = 1) -> AsyncIterator[Stage]:
    world = World()
    async with open_servers(world, servers) as opened, background_tasks() as tasks:
        network = Network(opened)
        yield Stage(world, opened, network, Tab(network, tasks))
