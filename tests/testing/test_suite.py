"""The suite that authors subclass: what it accepts, and what it reports."""

import asyncio
from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import DataSource, stream
from aiostream_ds.testing.suite import PluginSuite as Suite


def suite(kind, **attributes):
    return type("Made", (Suite,), {"data_source": kind, **attributes})()


class Client(DataSource):
    """Its client cancels a task at the end, which it does not await, as `websockets` does."""

    @asynccontextmanager
    async def lifespan(self):
        task = asyncio.create_task(self.keep_alive())
        yield
        task.cancel()

    async def keep_alive(self):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)

    @stream("rows")
    async def rows(self):
        yield {"value": 1}
        await anyio.sleep_forever()


class Leaking(Client):
    @asynccontextmanager
    async def lifespan(self):
        self.task = Leaking.task = asyncio.create_task(self.keep_alive())
        yield


async def test_a_task_that_was_cancelled_at_the_end_may_take_some_iterations():
    await suite(Client, channels=["rows"]).test_channels_stop_cleanly()


async def test_a_task_that_is_left_is_named():
    with pytest.raises(AssertionError, match=r"expected no task after the end, got .*keep_alive"):
        await suite(Leaking, channels=["rows"]).test_channels_stop_cleanly()
    Leaking.task.cancel()
    await asyncio.wait([Leaking.task])
