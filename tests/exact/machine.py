"""Random sequences of rows, panels and faults, in virtual time: each drawing is exact, and after
the faults every row is drawn.

The rules are synchronous functions, so the machine has its own event loop, as registry_machine.py.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiostream_ds.testing.virtual_loop import VirtualLoop

from .stage import Stage, open_stage

NAMES = st.sampled_from("aab")
PANELS = 4  # open at a time
QUIET = 40.0  # seconds, longer than the interval of reloads
BIG = 2_000  # bytes of a row that fills a connection's window


class ExactStreamsMachine(RuleBasedStateMachine):
    """Two servers in a cluster, one browser, logs that can be read again and a feed that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.faults: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(str(context)))
        self.over = asyncio.Event()
        self.replaced: set[str] = set()  # logs that may be reloaded
        ready: asyncio.Future[Stage] = self.loop.create_future()
        self.main = self.loop.create_task(self._main(ready))
        self.stage = self.loop.run_until_complete(ready)
        self.network = self.stage.network

    async def _main(self, ready: asyncio.Future[Stage]) -> None:
        async with open_stage(servers=2) as stage:
            ready.set_result(stage)
            await self.over.wait()

    def run(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function in the event loop and await its result."""

        async def inside() -> Any:
            result = call(*args, **options)
            return await result if isinstance(result, Awaitable) else result

        return self.loop.run_until_complete(inside())

    @rule(name=NAMES, count=st.integers(1, 8), pad=st.sampled_from([0, 0, 0, BIG]))
    def append(self, name, count, pad):  # type: ignore[no-untyped-def]
        self.run(self.stage.append, count, pad, name)

    @rule(name=NAMES, count=st.integers(1, 30), gap=st.sampled_from([0.02, 0.1, 0.3]))
    def write(self, name, count, gap):  # type: ignore[no-untyped-def]
        for _ in range(count):
            self.run(self.stage.append, 1, 0, name)
            self.loop.advance(gap)

    @rule(count=st.integers(1, 50), gap=st.sampled_from([0.0, 0.1]))
    def feed(self, count, gap):  # type: ignore[no-untyped-def]
        for _ in range(count):
            self.run(self.stage.world.feed)
            self.loop.advance(gap)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1, 2.5, 12, 40]))
    def advance(self, seconds):  # type: ignore[no-untyped-def]
        self.loop.advance(seconds)

    @precondition(lambda self: len(self.stage.panels) < PANELS)
    @rule(
        name=NAMES,
        width=st.sampled_from([2.0, 20.0, 300.0]),
        points=st.sampled_from([10_000, 10_000, 15]),
        kind=st.sampled_from(["log", "pairs", "texts", "following", "following", "varying"]),
    )
    def open(self, name, width, points, kind):  # type: ignore[no-untyped-def]
        self.run(self.stage.open, width, name, points, kind)

    @precondition(lambda self: len(self.stage.panels) < PANELS)
    @rule()
    def open_feed(self):  # type: ignore[no-untyped-def]
        self.run(self.stage.open_feed)

    @precondition(lambda self: self.stage.panels)
    @rule(number=st.integers(0, PANELS - 1))
    def close(self, number):  # type: ignore[no-untyped-def]
        panels = self.stage.panels
        self.run(self.stage.close, panels[number % len(panels)])

    @rule(up=st.booleans(), reachable=st.booleans())
    def network(self, up, reachable):  # type: ignore[no-untyped-def]
        self.run(self.network.change, up=up, reachable=reachable)

    @rule(lossy=st.booleans(), join_loss=st.sampled_from([0.0, 0.3, 1.0]))
    def loss(self, lossy, join_loss):  # type: ignore[no-untyped-def]
        self.run(self.network.change, lossy=lossy, join_loss=join_loss)

    @rule(socket=st.integers(0, 1), http=st.integers(0, 1))
    def fail_over(self, socket, http):  # type: ignore[no-untyped-def]
        self.run(self.network.change, socket=socket, http=http)

    @rule(number=st.integers(0, 1))
    def kill(self, number):  # type: ignore[no-untyped-def]
        self.run(self.stage.servers[number].kill)

    @rule(title=st.sampled_from("ab"))
    def change_settings(self, title):  # type: ignore[no-untyped-def]
        self.replaced.update("ab")
        self.run(self.stage.change_settings, title)

    @rule(number=st.integers(0, 1), seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def lag(self, number, seconds):  # type: ignore[no-untyped-def]
        self.run(self.stage.world.lag, number, seconds)

    @rule(name=NAMES, count=st.integers(0, 5))
    def replace_log(self, name, count):  # type: ignore[no-untyped-def]
        self.run(self.stage.world.replace, name)
        self.replaced.add(name)
        if count:
            self.run(self.stage.append, count, 0, name)

    @rule(down=st.booleans())
    def upstream(self, down):  # type: ignore[no-untyped-def]
        self.run(self.stage.world.upstream, down)

    @rule(number=st.integers(0, 1), paused=st.booleans())
    def pause(self, number, paused):  # type: ignore[no-untyped-def]
        self.stage.servers[number].paused = paused

    @rule(name=NAMES, number=st.integers(0, 1))
    def flood(self, name, number):  # type: ignore[no-untyped-def]
        """More rows than a buffer and a connection hold, while Grafana does not read."""
        server = self.stage.servers[number]
        paused, server.paused = server.paused, True
        for _ in range(8):
            self.run(self.stage.append, 20, BIG, name)
            self.loop.advance(0.2)
        server.paused = paused

    @invariant()
    def drawings_are_exact(self):  # type: ignore[no-untyped-def]
        assert not self.faults, self.faults
        self.stage.check()
        for panel in self.stage.panels:
            kinds = ("log", "pairs", "texts", "following")
            if panel.query["queryType"] in kinds and panel.query["name"] not in self.replaced:
                assert not panel.reloads and not panel.gap, "a log was reloaded without cause"

    def teardown(self) -> None:
        try:
            if not self.faults:
                self._end_faults()
        finally:
            self._close()

    def _end_faults(self) -> None:
        """End all faults: everything is drawn, and no panel reloads."""
        stage = self.stage
        for server in stage.servers:
            server.paused = False
        self.run(stage.world.upstream, False)
        for number in range(2):
            self.run(stage.world.lag, number, 0.0)
        healthy = {"up": True, "reachable": True, "lossy": False, "join_loss": 0.0}
        self.run(self.network.change, **healthy, socket=0, http=0)
        self.loop.advance(QUIET)
        # rows that a method misses while it subscribes are read when its next row arrives
        for panel in stage.panels:
            if panel.query["queryType"] == "following":
                self.run(stage.append, 1, 0, panel.query["name"])
        self.run(stage.settle)  # other panels get no new rows: heartbeats reveal what is missing
        for name in stage.world.logs:
            self.run(stage.append, 3, 0, name)
        self.run(stage.world.feed, 3)
        self.run(stage.settle)
        loads = [panel.reloads for panel in stage.panels]
        self.run(stage.world.feed, 3)
        self.loop.advance(QUIET)
        self.drawings_are_exact()
        assert loads == [panel.reloads for panel in stage.panels], "reloads in a loop"
        self.run(stage.check_feeds)

    def _close(self) -> None:
        self.over.set()
        try:
            self.loop.run_until_complete(self.main)
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
