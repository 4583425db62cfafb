"""Fewer, bigger packets: `flush` and `max_hz` in virtual time."""

import asyncio
from collections import Counter

import anyio
import pytest

from aiostream_ds import Buffer, DataSource, Field, Frame, SchemaPolicy, stream
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual


async def count(hz, most=1_000_000):
    for n in range(most):
        yield {"n": n}
        await anyio.sleep(1 / hz)


class Fast(DataSource):
    """A hundred rows a second, with each kind of pacing."""

    @stream("plain")
    async def plain(self):
        async for row in count(100):
            yield row

    @stream("flushed", flush=0.5)
    async def flushed(self):
        async for row in count(100):
            yield row

    @stream("capped", max_hz=4)
    async def capped(self):
        async for row in count(100):
            yield row

    @stream("both", flush=0.5, max_hz=1)
    async def both(self):
        async for row in count(100):
            yield row

    @stream("rare", max_hz=4)
    async def rare(self):
        async for row in count(0.5):
            yield row

    @stream("ends", flush=60)
    async def ends(self):
        yield {"n": 0}
        await anyio.sleep(1)
        yield {"n": 1}

    @stream("small", flush=10, buffer=Buffer(rows=100))
    async def small(self):
        async for row in count(100):
            yield row

    @stream("pictures", max_hz=2, buffer=Buffer(full="latest"))
    async def pictures(self):
        async for row in count(100, most=1_000):
            yield Frame(Field("n", [row["n"]]))
        await anyio.sleep_forever()


async def seen(path, seconds):
    async with serve_in_memory(Fast) as grafana:
        viewer = await grafana.follow(path)
        await anyio.sleep(seconds)
        return len(viewer.packets), [row["n"] for row in viewer.rows], await grafana.metrics()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "least", "most"),
    [("plain", 990, 1010), ("flushed", 19, 22), ("capped", 39, 42), ("both", 9, 12)],
)
async def test_rows_are_batched_and_none_is_lost(path, least, most):
    packets, numbers, metrics = await seen(path, 10)
    assert least <= packets <= most
    assert numbers == list(range(len(numbers))) and len(numbers) > 850
    assert metrics["aiostream_ds_rows_dropped_total"] == 0


async def test_a_rare_row_does_not_wait_for_max_hz():
    async with serve_in_memory(Fast) as grafana:
        viewer = await grafana.follow("rare")
        began = anyio.current_time()
        await viewer.take(3)
        assert anyio.current_time() - began < 4.1


async def test_queued_rows_are_sent_at_the_end():
    packets, numbers, _ = await seen("ends", 5)
    assert numbers == [0, 1] and packets == 1


async def test_a_batch_as_large_as_the_buffer_is_sent_early():
    packets, numbers, _ = await seen("small", 9)
    assert numbers == list(range(len(numbers))) and len(numbers) >= 800
    assert 7 <= packets <= 12


@pytest.mark.slow
async def test_only_the_latest_frame_is_sent_and_the_others_are_counted_as_dropped():
    packets, numbers, metrics = await seen("pictures", 12)
    assert 19 <= packets <= 22 and len(numbers) == packets
    dropped = metrics["aiostream_ds_rows_dropped_total"]
    assert metrics["aiostream_ds_rows_total"] - dropped == packets
    assert numbers == sorted(numbers) and numbers[-1] > 900


async def test_a_new_subscriber_gets_later_rows_but_not_queued_ones():
    async with serve_in_memory(Fast) as grafana:
        first = await grafana.follow("flushed")
        await anyio.sleep(0.25)
        exact = await grafana.follow("x/flushed")
        await exact.message()  # the initial data: no row has been sent yet
        cursor = (await exact.message())["cursor"]["last"]
        await anyio.sleep(2)
        assert first.rows[0]["n"] == 0 and cursor >= 20


@pytest.mark.slow
async def test_rows_that_wait_for_one_packet_have_the_times_at_which_they_were_yielded(monkeypatch):
    class Waits(DataSource):
        @stream("dicts", flush=0.5)
        async def dicts(self):
            async for row in count(100):
                yield row

        @stream("lists", flush=0.5)
        async def lists(self):
            async for row in count(100):
                yield [row, row]

        @stream("series", flush=0.5, schema=SchemaPolicy(labels=("host",)))
        async def series(self):
            async for row in count(100):
                yield {"host": "a", **row}
                yield {"host": "b", **row}

        @stream("status", flush=0.5, status_column="status")
        async def status(self):
            async for row in count(100):
                yield row

    async with serve_in_memory(Waits) as grafana:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr("time.time_ns", lambda: round(loop.time() * 1000) * 1_000_000)
        for path, most in (("dicts", 1), ("lists", 2), ("series", 1), ("status", 1)):
            viewer = await grafana.follow(path)
            await anyio.sleep(10)
            times = Counter(row["time"] for row in viewer.rows)
            assert len(times) > 900 and set(times.values()) == {most}, path
            assert list(times) == sorted(times), path
            assert len(viewer.packets) < 25, path
