"""Broadcast in a data source: its rows reach the viewers, and it ends with the instance."""

import logging
import threading
from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import Broadcast, Buffer, DataSource, Retry, Row, Rows, UpstreamError, stream
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.suite import PluginSuite


class Reading(Row):
    value: int


class Press(DataSource):
    readings = Broadcast[Reading](buffer=Buffer(rows=5_000))
    last = Broadcast(replay=1)

    @stream("readings", retry=Retry(min_delay=1, max_delay=1))
    async def rows(self) -> Rows[Reading]:
        async for reading in self.readings.subscribe():
            yield reading

    @stream("last")
    async def newest(self):
        async for row in self.last.subscribe():
            yield row


@pytest.mark.virtual
async def test_a_burst_that_is_published_leaves_in_one_packet():
    async with serve_in_memory(Press) as grafana:
        viewer = await grafana.follow("readings")
        press = await grafana.data_source(Press)
        await anyio.sleep(1)
        for number in range(50):
            press.readings.publish(Reading(value=number))
        assert [row["value"] for row in await viewer.take(50)] == list(range(50))
        assert len(viewer.packets) == 1


async def test_rows_of_a_thread_reach_the_viewer_in_order():
    async with serve_in_memory(Press) as grafana:
        press = await grafana.data_source(Press)
        press.last.publish({"value": -1})
        viewer = await grafana.follow("last")
        assert (await viewer.next())["value"] == -1  # it has subscribed

        def train():
            for step in range(500):
                press.last.publish({"value": step})

        thread = threading.Thread(target=train)
        thread.start()
        rows = await viewer.take(500)
        await anyio.to_thread.run_sync(thread.join)
        assert [row["value"] for row in rows] == list(range(500))


@pytest.mark.virtual
async def test_two_instances_do_not_share_rows():
    async with serve_in_memory(Press) as one, serve_in_memory(Press) as two:
        viewers = [await each.follow("readings") for each in (one, two)]
        sources = [await each.data_source(Press) for each in (one, two)]
        await anyio.sleep(1)
        for number, source in enumerate(sources):
            source.readings.publish(Reading(value=number))
        for number, viewer in enumerate(viewers):
            assert [row["value"] for row in await viewer.take(1)] == [number]
        await anyio.sleep(5)
        assert [len(viewer.rows) for viewer in viewers] == [1, 1]


@pytest.mark.virtual
async def test_a_failed_broadcast_lets_its_streams_be_retried():
    async with serve_in_memory(Press) as grafana:
        viewer = await grafana.follow("readings")
        press = await grafana.data_source(Press)
        await anyio.sleep(0.5)
        press.readings.publish(Reading(value=1))
        press.readings.fail(UpstreamError("the press is off"))
        await anyio.sleep(0.5)
        assert press.readings.subscribers == 0
        await anyio.sleep(1)
        press.readings.publish(Reading(value=2))
        assert [row["value"] for row in await viewer.take(2)] == [1, 2]
        assert (await grafana.metrics())["aiostream_ds_stream_retries_total"] == 1


@pytest.mark.virtual
async def test_dropped_rows_are_in_the_metrics(caplog):
    class Slow(DataSource):
        readings = Broadcast(buffer=Buffer(rows=10))

        @stream("slow")
        async def slow(self):
            async for row in self.readings.subscribe():
                await anyio.sleep(1)
                yield row

    async with serve_in_memory(Slow) as grafana:
        await grafana.follow("slow")
        source = await grafana.data_source(Slow)
        await anyio.sleep(1)
        for number in range(100):
            source.readings.publish({"value": number})
        await anyio.sleep(1)
        assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="broadcast"}'] == 90
        assert "Slow.readings: a subscriber is too slow: rows are dropped" in caplog.messages


class Collected(DataSource):
    """Broadcasts in every place where an author may keep one."""

    declared = Broadcast()

    def __init__(self):
        self.assigned = Broadcast()
        self.listed = [Broadcast()]
        self.by_topic = {"one": Broadcast()}
        self.declared.publish(0)

    @property
    def all(self):
        return [self.declared, self.assigned, *self.listed, *self.by_topic.values()]


@pytest.mark.virtual
async def test_a_broadcast_is_closed_after_the_lifespan_of_its_instance(caplog):
    caplog.set_level(logging.INFO)
    open_at_the_end = []

    class Tested(Collected):
        @asynccontextmanager
        async def lifespan(self):
            yield
            open_at_the_end.append([each.is_closed for each in self.all])

    async with serve_in_memory(Tested) as grafana:
        old = await grafana.data_source(Tested)
        await grafana.change_settings({})
        new = await grafana.data_source(Tested)
        assert new is not old
        await anyio.sleep(60)
        assert all(each.is_closed for each in old.all)
        assert not any(each.is_closed for each in new.all)
        old.declared.publish(1)
    assert all(each.is_closed for each in new.all)
    assert open_at_the_end == [[False] * 4, [False] * 4]


@pytest.mark.virtual
async def test_a_broadcast_is_closed_if_the_lifespan_fails():
    found = []

    class Failing(Collected):
        @asynccontextmanager
        async def lifespan(self):
            found.append(self)
            raise UpstreamError("away")
            yield

    async with serve_in_memory(Failing) as grafana:
        with pytest.raises(UpstreamError):
            await grafana.data_source(Failing)
        assert all(each.is_closed for each in found[0].all)


@pytest.mark.virtual
async def test_a_subscription_that_the_author_still_refers_to_ends_with_the_run():
    class Kept(DataSource):
        readings = Broadcast()
        kept = []

        @stream("kept", retry=Retry(min_delay=20))
        async def rows(self):
            subscription = self.readings.subscribe()
            self.kept.append(subscription)
            async for row in subscription:
                yield row
                raise UpstreamError("away")

    async with serve_in_memory(Kept) as grafana:
        viewer = await grafana.follow("kept")
        source = await grafana.data_source(Kept)
        await anyio.sleep(1)
        source.readings.publish({"value": 1})
        await viewer.next()
        assert source.kept and source.readings.subscribers == 0


@pytest.mark.virtual
class TestPublished(PluginSuite):
    """The suite of a data source whose rows are published: see docs/testing.md."""

    data_source = Press
    channels = ("readings", "last")

    @asynccontextmanager
    async def serve(self):
        async with super().serve() as grafana, anyio.create_task_group() as tasks:
            press = await grafana.data_source(Press)

            async def publish():
                while True:
                    press.readings.publish(Reading(value=1))
                    press.last.publish({"value": 1})
                    await anyio.sleep(0.1)

            tasks.start_soon(publish)
            yield grafana
            tasks.cancel_scope.cancel()


async def test_the_data_source_of_another_class_is_refused():
    async with serve_in_memory(Press) as grafana:
        with pytest.raises(TypeError, match="expected a data source of the class .*Other, got"):

            class Other(DataSource):
                pass

            await grafana.data_source(Other)
