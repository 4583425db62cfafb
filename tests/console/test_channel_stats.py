"""The counts that the console's page shows."""

import asyncio

import pytest

from aiostream_ds import Cursor, DataSource, HistoryRange, stream
from aiostream_ds._channels.memory_pool import STEP_BYTES, MemoryPool
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.console.channel_stats import ChannelStats
from aiostream_ds.console.hub import open_hub
from aiostream_ds.console.page_queue import FollowedChannel, PageQueue


class Source(DataSource):
    @stream("ticks")
    async def ticks(self):
        yield {"n": 1}


@pytest.mark.virtual
async def test_the_totals_have_what_slow_queues_hold_and_their_limit():
    async def run(channel):
        channel.emit(Packet(Schema(b"{}", "s"), b"x" * STEP_BYTES, 1))
        await asyncio.Event().wait()

    memory = MemoryPool(1 << 20, 3 * STEP_BYTES)
    async with open_application(Catalog(Source), memory=memory) as application:
        stats = ChannelStats()
        stats.attach(application)
        slow = [application.registry.join(ChannelKey("i", str(n)), run) for n in range(4)]
        await asyncio.sleep(0)
        assert (stats.totals()["queued"], stats.totals()["queueLimit"]) == (4 * STEP_BYTES, 1 << 20)
        assert application.counters.memory_exhausted == 1, "the notification is passed on"
        for each in slow:
            each.leave()
        assert stats.totals()["queued"] == 0


class Waiting(DataSource):
    @stream(cursor="n")
    async def silent(self, after: Cursor):
        await asyncio.Event().wait()
        yield {"n": 1}

    @silent.history
    async def past(self, wanted: HistoryRange):
        return []


@pytest.mark.virtual
async def test_a_channel_without_rows_has_no_cursor():
    async with open_hub(Catalog(Waiting)) as hub:
        queue = PageQueue()
        leave = await hub.grafana.attach("silent", FollowedChannel(queue, 0, "silent"))
        await asyncio.sleep(1)
        (line,) = hub.stats.channels()
        leave()
    assert line[9] == ""
