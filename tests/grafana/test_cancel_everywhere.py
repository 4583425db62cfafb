"""One short scenario, cancelled at each of its suspensions in turn."""

import asyncio

import pytest

from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Buffer, Policy
from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests.channels.parts import REAL, rows_of
from tests.suspensions import observed

KEYS = [ChannelKey("i", "a"), ChannelKey("i", "b")]


class Scenario:
    """Two subscribers of one channel, one of another, a slow finally, a change of settings."""

    def __init__(self, at, where):
        self.at, self.where = at, where
        self.suspensions, self.was_cancelled = 0, False
        self.live, self.starts, self.ends = {}, 0, 0

    async def interrupted(self, work):
        """Run `work`, count its suspensions, and cancel it in suspension `at`."""
        return await observed(work, self.suspended)

    def suspended(self):
        self.suspensions += 1
        if self.suspensions == self.at:
            self.was_cancelled = True
            asyncio.current_task().cancel()

    def stream(self, key):
        async def generator():
            assert not self.live.get(key), "two streams of one channel"
            self.live[key] = True
            self.starts += 1
            try:
                for number in range(6):
                    yield number
                    if number % 2:
                        await asyncio.sleep(0.1)
                await asyncio.Event().wait()
            finally:
                try:
                    await asyncio.sleep(0.3)
                    self.ends += 1
                finally:
                    self.live[key] = False

        run = REAL.stream(generator, rows=3)
        if self.where != "stream":
            return run

        async def interrupted_run(channel):
            await self.interrupted(run(channel))

        return interrupted_run

    async def subscriber(self, registry, key, count, generation=0):
        policy = Policy(Buffer(rows=4, full="block"), linger=0.05)
        subscription = registry.join(key, self.stream(key), policy, generation)
        got = []
        try:
            while len(got) < count and await subscription.wait():
                got += rows_of(subscription.receive_nowait())
        finally:
            subscription.leave()
        assert got == sorted(got)
        return got

    async def subscribe(self, *arguments):
        work = self.subscriber(*arguments)
        return await (self.interrupted(work) if self.where == "subscriber" else work)

    async def start(self, registry):
        work = self.run(registry)
        await (self.interrupted(work) if self.where == "whole" else work)

    async def run(self, registry):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.subscribe(registry, KEYS[0], 4))
            group.create_task(self.subscribe(registry, KEYS[1], 2))
            await self.subscriber(registry, KEYS[0], 6)
        await self.subscriber(registry, KEYS[0], 6, generation=1)
        registry.supersede("i", 2)
        await self.subscriber(registry, KEYS[1], 1, generation=2)
        await registry.aclose()


def play(at, where):
    """Cancel in suspension `at` of the whole, a subscriber or a stream. False if it has fewer."""
    loop, scenario = VirtualLoop(), Scenario(at, where)
    try:
        registry = REAL.registry.ChannelRegistry(loop=loop)
        task = loop.create_task(scenario.start(registry))
        loop.advance(60)
        assert task.done(), "the scenario hangs"
        if not task.cancelled() and (error := task.exception()) is not None:
            assert where == "stream" and "was cancelled" in str(_leaf(error)), repr(error)
        left = loop.run_until_complete(registry.aclose())
        loop.settle()
        assert left == () and registry.running == registry.subscriptions == 0
        assert not any(scenario.live.values()) and not asyncio.all_tasks(loop)
        if where != "stream":  # there the cancellation may hit the author's finally itself
            assert scenario.ends == scenario.starts, "a finally did not run to its end"
        return scenario.was_cancelled
    finally:
        loop.close()


def _leaf(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@pytest.mark.parametrize(("where", "least"), [("whole", 8), ("subscriber", 3), ("stream", 12)])
def test_a_cancellation_at_any_suspension_leaves_no_task_and_runs_every_finally(where, least):
    at = 1
    while play(at, where):
        at += 1
    assert at > least, "the scenario has too few suspensions"
