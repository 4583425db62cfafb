"""Streams that are a `def` read broadcasts, other streams and operators with `for`."""

import gc
import logging
import threading
import time

import anyio
import pytest

from aiostream_ds import Broadcast, Buffer, DataSource, Query, UpstreamError, query, stream
from aiostream_ds._author_threads import in_event_loop
from aiostream_ds.operators import merge, resample
from aiostream_ds.testing import QueryFailed, serve_in_memory

pytestmark = pytest.mark.virtual


class Source(DataSource):
    rows = Broadcast(replay=1)

    def __init__(self):
        self.events = []

    @stream
    async def ticks(self):
        for n in range(1_000):
            yield {"n": n}
            await anyio.sleep(1)

    @stream
    def published(self):
        self.events.append(threading.get_ident())
        try:
            for row in self.rows.subscribe():
                yield {**row, "thread": threading.get_ident()}
            self.events.append("ended")
        finally:
            self.events.append("closed")

    @stream
    def doubled(self):
        try:
            for row in self.follow(Source.ticks):
                yield {"n": 2 * row["n"]}
        finally:
            self.events.append("closed")


async def until(condition):
    while not condition():
        await anyio.sleep(0.01)


async def test_published_rows_arrive_in_their_order_and_the_thread_is_not_the_event_loops():
    async with serve_in_memory(Source) as grafana:
        source = await grafana.data_source(Source)
        viewer = await grafana.follow("published")
        await until(lambda: source.rows.subscribers == 1)
        for n in range(100):
            source.rows.publish({"n": n})
        assert [row["n"] for row in await viewer.take(100)] == list(range(100))
        (thread,) = {row["thread"] for row in viewer.rows}
        assert thread == source.events[0] != threading.get_ident()


async def test_a_stream_that_waits_for_a_row_ends_at_once_when_its_viewer_leaves(monkeypatch):
    monkeypatch.setattr("aiostream_ds._author_threads.pool.CLOSE_WAIT", 60.0)
    async with serve_in_memory(Source) as grafana:
        source = await grafana.data_source(Source)
        viewer = await grafana.follow("published")
        await until(lambda: source.rows.subscribers == 1)
        viewer.leave()
        began = time.monotonic()
        await until(lambda: source.events[-1:] == ["closed"])
        await until(lambda: not source.rows.subscribers)
        assert time.monotonic() - began < 15, "less than CLOSE_WAIT"
        assert "ended" not in source.events
        await until(lambda: not source.stream_threads.borrowed_tokens)


async def test_the_loop_ends_with_the_broadcast():
    async with serve_in_memory(Source) as grafana:
        source = await grafana.data_source(Source)
        viewer = await grafana.follow("published")
        await until(lambda: source.rows.subscribers == 1)
        source.rows.publish({"n": 1})
        source.rows.close()
        assert (await viewer.next())["n"] == 1
        await until(lambda: source.events[1:] == ["ended", "closed"])


async def test_an_error_of_a_broadcast_is_raised_in_the_loop_and_retried():
    async with serve_in_memory(Source) as grafana:
        source = await grafana.data_source(Source)
        viewer = await grafana.follow("published")
        await until(lambda: source.rows.subscribers == 1)
        source.rows.publish({"n": 1})
        await viewer.next()
        source.rows.fail(UpstreamError("away"))
        await until(lambda: source.rows.subscribers == 0)
        await anyio.sleep(2)  # virtual: the retry
        await until(lambda: source.rows.subscribers == 1)
        source.rows.publish({"n": 2})
        assert 2 in [row["n"] for row in await viewer.take(2)]
        assert (await grafana.metrics())["aiostream_ds_stream_retries_total"] == 1


async def test_another_stream_is_followed_and_left():
    async with serve_in_memory(Source) as grafana:
        source = await grafana.data_source(Source)
        viewer = await grafana.follow("doubled")
        assert [row["n"] for row in await viewer.take(4)] == [0, 2, 4, 6]
        assert grafana.plugin.registry.running == 2
        viewer.leave()
        await until(lambda: source.events == ["closed"])
        await until(lambda: grafana.plugin.registry.running == 0)


async def test_a_circle_is_refused(caplog):
    class Circle(DataSource):
        @stream
        def one(self):
            yield from self.follow("two")

        @stream
        async def two(self):
            async for row in self.follow("one"):
                yield row

    async with serve_in_memory(Circle) as grafana:
        await grafana.follow("one")
        await until(lambda: "the stream 'two' must not follow itself" in caplog.text)


async def test_operators_are_read_and_their_sources_closed():
    class Minutes(Source):
        @stream
        def minutes(self):
            ticks = self.follow(Source.ticks)
            yield from resample(merge(ticks), 5, {"n": "count"}, time=lambda row: 1000 * row["n"])

    async with serve_in_memory(Minutes) as grafana:
        viewer = await grafana.follow("minutes")
        counts = [row["n"] for row in await viewer.take(4)]
        assert counts == [5, 5, 5, 5]
        viewer.leave()
        await until(lambda: grafana.plugin.registry.running == 0)


async def test_a_loop_that_is_left_leaves_no_subscription():
    class First(Source):
        @stream
        def first(self):
            for row in self.rows.subscribe():
                yield row
                break
            gc.collect()
            self.events.append(self.rows.subscribers)
            yield {"n": -1}

    async with serve_in_memory(First) as grafana:
        source = await grafana.data_source(First)
        source.rows.publish({"n": 7})
        viewer = await grafana.follow("first")
        assert [row["n"] for row in await viewer.take(2)] == [7, -1]
        assert source.events == [0]


async def test_with_block_a_stream_slows_its_publisher_down():
    class Slow(DataSource):
        rows = Broadcast(buffer=Buffer(rows=4, full="block"))

        @stream
        def slow(self):
            yield from self.rows.subscribe()

    async with serve_in_memory(Slow) as grafana:
        source = await grafana.data_source(Slow)
        viewer = await grafana.follow("slow")
        await until(lambda: source.rows.subscribers == 1)
        for n in range(200):
            await source.rows.send({"n": n})
        assert [row["n"] for row in await viewer.take(200)] == list(range(200))


async def test_an_author_who_raises_anything_while_rows_are_made_ends_only_the_stream(caplog):
    class Exiting(Source):
        @stream
        def exits(self):
            def stop(row):
                raise SystemExit(3)

            yield from resample(self.follow(Source.ticks), 1, {"n": "max"}, time=stop)

    async with serve_in_memory(Exiting) as grafana:
        await grafana.follow("exits")
        await until(lambda: "SystemExit" in caplog.text)
        assert (await (await grafana.follow("ticks")).next())["n"] == 0


async def test_elsewhere_a_for_loop_is_refused_with_its_cure(caplog):
    class Wrong(Source):
        @query
        def ask(self, q: Query):
            return list(self.rows.subscribe())

        @query
        def follows(self, q: Query):
            return list(self.follow(Source.ticks))

        @query
        async def in_loop(self, q: Query):
            return list(self.rows.subscribe())

    text = "must be called in an event loop or in a stream, got a thread of another kind"
    async with serve_in_memory(Wrong) as grafana:
        for name, found in (
            ("ask", f"Source.rows.subscribe() {text}"),
            ("follows", f"self.follow() {text}"),
            ("in_loop", "use `async for` in an `async def`"),
        ):
            with pytest.raises(QueryFailed):
                await grafana.query({"queryType": name})
            assert found in caplog.text
    with pytest.raises(RuntimeError, match="use `async for`"):
        next(Broadcast().subscribe())


def test_a_thread_of_the_author_is_refused():
    with pytest.raises(RuntimeError, match="it must be called in an event loop or in a stream"):
        in_event_loop("it", int)


async def test_a_loop_that_ignores_its_end_is_ended_at_each_row(caplog):
    class Stubborn(Source):
        @stream
        def stubborn(self):
            for _ in range(3):
                try:
                    yield from self.rows.subscribe()
                except GeneratorExit:
                    self.events.append("ignored")

    async with serve_in_memory(Stubborn) as grafana:
        source = await grafana.data_source(Stubborn)
        viewer = await grafana.follow("stubborn")
        await until(lambda: source.rows.subscribers == 1)
        viewer.leave()
        await until(lambda: len(source.events) == 3)
        await until(lambda: not source.stream_threads.borrowed_tokens)
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]


async def test_the_settings_change_while_a_stream_waits():
    async with serve_in_memory(Source) as grafana:
        old = await grafana.data_source(Source)
        viewer = await grafana.follow("published")
        await until(lambda: old.rows.subscribers == 1)
        await grafana.change_settings({})
        await until(lambda: old.events[-1:] == ["closed"])
        new = await grafana.data_source(Source)
        await until(lambda: new.rows.subscribers == 1)
        new.rows.publish({"n": 5})
        assert (await viewer.next())["n"] == 5
