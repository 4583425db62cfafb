"""Calls and followers of an upstream, cancelled at their 1st, 2nd, 3rd … suspension."""

import asyncio
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from aiostream_ds import DataSource, RowOrder, Upstream, stream
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.faults import Rows, ScriptedSource, ScriptedUpstream
from tests.grafana.calls import run_stream, subscribe
from tests.suspensions import observed

pytestmark = pytest.mark.virtual


async def interrupted(work, at, seen):
    """Run `work`, count its suspensions in `seen`, and cancel it in number `at`."""

    def on_suspend():
        seen.append(None)
        if len(seen) == at:
            asyncio.current_task().cancel()

    return await observed(work, on_suspend)


class Ticks(Upstream[str, int]):
    def __init__(self):
        super().__init__(linger=1)
        self.open = 0

    @asynccontextmanager
    async def connect(self):
        await anyio.sleep(0.01)
        self.open += 1
        try:
            yield None
        finally:
            self.open -= 1
            await anyio.sleep(0.01)

    async def subscribe(self, connection, key):
        await anyio.sleep(0.01)

    async def unsubscribe(self, connection, key):
        await anyio.sleep(0.01)

    async def messages(self, connection):
        n = 0
        while True:
            await anyio.sleep(0.05)
            for key in "ab":
                yield key, n
            n += 1


class Whole(ScriptedSource):
    upstream = ScriptedUpstream()

    @asynccontextmanager
    async def lifespan(self):
        async with Ticks() as self.ticks:
            Whole.now = self.ticks
            yield

    @stream("ticks/{tick}", status_column="status", max_hz=10, order=RowOrder(late="hold"))
    async def shared(self, tick: str):
        async with self.ticks.follow(tick) as numbers:
            async for n in numbers:
                yield {"n": n}


async def scenario(grafana):
    """What a dashboard does: query, subscribe, follow, replay missed rows, save."""
    # as JSON: while Arrow is imported, in a thread, a virtual clock runs for hours
    await grafana.query({"queryType": "numbers", "exact": True}, as_json=True)
    await subscribe(grafana, "x/numbers")
    async with run_stream(grafana, "x/numbers") as exact, run_stream(grafana, "ticks/a") as stock:
        for _ in range(3):
            await exact.recv_message()
        await stock.recv_message()
        await grafana.resource("replay/rows?path=x/numbers&after=0")
        async with run_stream(grafana, "ticks/b") as other:
            await other.recv_message()
    await grafana.health()


async def play(at):
    """Cancel the scenario at suspension `at`. True when it has that many."""
    Whole.upstream = ScriptedUpstream(Rows(50, every=0.05))
    seen = []
    async with serve_in_memory(Whole) as grafana:
        await grafana.health()
        await anyio.sleep(1)
        before = asyncio.all_tasks()
        task = asyncio.create_task(interrupted(scenario(grafana), at, seen))
        with suppress(asyncio.CancelledError):
            await task
        await anyio.sleep(10)  # of virtual time: linger, and the close of what was opened
        registry = grafana.plugin.registry
        assert registry.running == registry.subscriptions == 0
        assert Whole.upstream.open == Whole.now.open == 0
        assert Whole.now.statistics().subscribers == Whole.now.statistics().keys == 0
        assert asyncio.all_tasks() - before == set()
        assert (await grafana.health())[0], "the plugin still answers"
        async with run_stream(grafana, "ticks/a") as call:
            assert await call.recv_message() is not None
    return len(seen) >= at


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_cancellation_at_any_suspension_leaks_nothing():
    at = 1
    while await play(at):
        at += 1
    assert at > 8, "expected more than 8 suspensions"


async def test_a_cancelled_follower_does_not_affect_the_others():
    async def follow(upstream):
        async with upstream.follow("a") as one:
            await anext(one)
            async with upstream.follow("b") as two:
                await anext(two)

    for first in (True, False):  # alone, or with another follower
        for at in range(1, 60):
            async with Ticks() as upstream:
                seen = []
                async with upstream.follow("a") if not first else no_follower() as others:
                    task = asyncio.create_task(interrupted(follow(upstream), at, seen))
                    with suppress(asyncio.CancelledError):
                        await task
                    assert upstream.statistics().subscribers == (not first)
                    if others is not None:
                        await anext(others)
                await anyio.sleep(5)
                assert (upstream.open, upstream.statistics().keys) == (0, 0)
            if len(seen) < at:
                break
        assert at >= 4


@asynccontextmanager
async def no_follower():
    yield None


class Each(DataSource):
    """One endless stream of each kind."""

    @stream("plain")
    async def plain(self):
        async for row in rows():
            yield row

    @stream("paced", max_hz=5, flush=0.1)
    async def paced(self):
        async for row in rows():
            yield row

    @stream("sorted", order=RowOrder(late="hold", hold=0.3))
    async def sorted(self):
        async for row in rows():
            yield row

    @stream("status", status_column="status", stale=0.05)
    async def status(self):
        async for row in rows():
            yield row


async def rows():
    n = 0
    while True:
        yield {"time": 1_700_000_000_000 + n * 100, "n": n}
        n += 1
        await anyio.sleep(0.1)


@pytest.mark.parametrize("path", ["plain", "paced", "sorted", "status"])
@pytest.mark.parametrize("prefix", ["", "x/"])
async def test_a_reset_at_any_packet_leaves_no_timer_and_no_subscription(path, prefix):
    async with serve_in_memory(Each) as grafana:
        for packets in range(8):
            async with run_stream(grafana, prefix + path) as call:
                for _ in range(packets):
                    await call.recv_message()
            await anyio.sleep(5)
            registry = grafana.plugin.registry
            assert registry.running == registry.subscriptions == 0
        timers = [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]
        ours = [t for t in timers if "aiostream_ds/_" in str(t) and "_drop" not in str(t)]
        assert ours == [], ours
