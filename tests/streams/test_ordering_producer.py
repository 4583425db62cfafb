"""How yields are sorted by a `RowOrder` before they are packets, in virtual time."""

import asyncio

import pytest

from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Buffer, Policy, Retry, RowOrder
from aiostream_ds._frames.packet import Packet
from aiostream_ds._streams.supervisor import BugDelays, supervise
from aiostream_ds._telemetry import Counters
from aiostream_ds.decorators import StreamOptions
from aiostream_ds.errors import UpstreamError
from tests.channels.parts import REAL, SCHEMA, Parts, encode, rows_of

pytestmark = pytest.mark.virtual
KEY = ChannelKey("instance", "path")
HOLD = RowOrder(late="hold", hold=1.0)


@pytest.fixture
def parts() -> Parts:
    return REAL


def at(time):
    return {"time": time}


class Stage:
    """One channel, and when its subscriber got which rows."""

    def __init__(self, parts, generator, order, policy=None, encode=encode, **sizes):
        self.counters = Counters()
        self.registry = parts.registry.ChannelRegistry()
        run = parts.producer.drive(generator, encode, order=order, counters=self.counters, **sizes)
        self.subscription = self.registry.join(KEY, run, policy or Policy())
        self._zero = self.registry.loop.time()

    @property
    def now(self):
        return round(self.registry.loop.time() - self._zero, 6)

    async def all(self):
        """Each packet's time of arrival and the times of its rows, and the error at the end."""
        got = []
        try:
            async for received in self.subscription:
                times = [row["time"] for row in rows_of(received)]
                got.append((self.now, times))
        except Exception as error:
            return got, error
        return got, None


async def test_held_rows_are_sent_in_order_when_newer_ones_come(parts):
    async def generator():
        for time in (1000, 3000, 2500, 4500, 6000):
            yield at(time)
            await asyncio.sleep(0.1)

    got, error = await Stage(parts, generator, HOLD).all()
    assert got == [(0.1, [1000]), (0.3, [2500, 3000]), (0.4, [4500]), (0.5, [6000])]
    assert error is None


async def test_held_rows_are_sent_by_a_timer_when_the_author_yields_nothing(parts):
    async def generator():
        yield at(2000)
        await asyncio.sleep(0.5)
        yield at(1500)
        yield at(2400)
        await asyncio.sleep(100)

    got, _ = await Stage(parts, generator, HOLD).all()
    assert got == [(1.0, [1500, 2000]), (1.5, [2400])]


async def test_the_timer_starts_again_after_rows_were_sent_without_it(parts):
    async def generator():
        yield at(1000)
        await asyncio.sleep(0.2)
        yield at(2000)  # releases the first row, whose timer is still running
        await asyncio.sleep(100)

    got, _ = await Stage(parts, generator, HOLD).all()
    assert got == [(0.2, [1000]), (1.2, [2000])]


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_held_rows_are_sent_at_the_end_and_before_an_error(parts, how):
    async def generator():
        yield at(2)
        yield at(1)
        if how == "raises":
            raise KeyError("oops")

    got, error = await Stage(parts, generator, HOLD).all()
    assert got == [(0, [1, 2])]
    assert (error is None) == (how == "returns")


async def test_nothing_is_sent_after_a_cancellation(parts):
    sent = []

    def record(rows):
        sent.extend(rows)
        return encode(rows)

    async def generator():
        try:
            yield at(2)
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.5)

    stage = Stage(parts, generator, HOLD, encode=record)
    await asyncio.sleep(0.7)
    stage.subscription.leave()
    await asyncio.sleep(10)
    assert sent == [] and stage.registry.running == 0


async def test_held_rows_that_are_due_wait_until_a_subscriber_has_demand(parts):
    async def generator():
        for time in range(5):
            yield at(time)
            await asyncio.sleep(1)
        await asyncio.sleep(100)

    stage = Stage(parts, generator, HOLD)
    await asyncio.sleep(20)
    received = [rows_of(stage.subscription.receive_nowait()) for _ in range(3)]
    assert received == [[at(0)], [at(1), at(2), at(3), at(4)], []]
    await stage.registry.aclose()


async def test_the_batch_stays_small_when_the_subscriber_receives_nothing(parts):
    async def generator():
        for time in range(1000):
            yield at(time)
            await asyncio.sleep(0)
        await asyncio.sleep(100)

    policy = Policy(Buffer(rows=50))
    stage = Stage(parts, generator, RowOrder(late="drop"), policy, rows=10)
    await asyncio.sleep(50)
    queued = rows_of(stage.subscription.receive_nowait())
    batch = rows_of(stage.subscription.receive_nowait())
    dropped = stage.subscription.statistics().dropped_rows
    assert queued + batch == [at(time) for time in range(dropped, 1000)]
    assert len(queued) <= 50 and len(batch) <= 10
    await stage.registry.aclose()


async def test_block_pauses_the_author_of_a_stream_with_an_order(parts):
    count = 0

    async def generator():
        nonlocal count
        for time in range(1000):
            count += 1
            yield at(time)
            await asyncio.sleep(0)

    policy = Policy(Buffer(rows=20, full="block"))
    stage = Stage(parts, generator, RowOrder(late="drop"), policy, rows=10)
    await asyncio.sleep(50)
    assert count <= 40
    got, _ = await stage.all()
    assert sum((rows for _, rows in got), []) == list(range(1000))


@pytest.mark.slow
async def test_an_author_who_never_waits_loses_no_held_rows(parts):
    async def generator():
        for time in range(0, 20_000, 2):
            yield at(time + 1)
            yield at(time)

    stage = Stage(parts, generator, HOLD, Policy(Buffer(rows=500)), rows=40)
    got, _ = await stage.all()
    assert sum((rows for _, rows in got), []) == list(range(20_000))
    assert stage.subscription.statistics().dropped_rows == 0


@pytest.mark.slow
async def test_the_size_of_a_batch_is_measured_by_yields_not_by_rows(parts):
    sizes = []

    def heavy(rows):
        sizes.append(len(rows))
        return [Packet(SCHEMA, b"x" * 200 * len(rows), len(rows))]

    async def generator():
        for start in range(0, 100_000, 100):
            yield [at(time) for time in range(start, start + 100)]

    stage = Stage(parts, generator, RowOrder(late="drop"), encode=heavy)
    total = 0
    async for received in stage.subscription:
        total += sum(packet.rows for _, packet in received)
    assert total == 100_000 and stage.subscription.statistics().dropped_rows == 0
    assert sizes[0] == 6400 and set(sizes[1:]) == {600}, "128 KiB are 6 yields of 100 rows"


async def test_a_row_that_cannot_be_sorted_fails_the_channel_after_the_rows_before_it(parts):
    async def generator():
        yield {"time": 2, "id": 1}
        yield {"time": 1, "id": 2}
        yield {"time": 3, "id": []}
        yield {"time": 4, "id": 4}
        await asyncio.sleep(100)

    stage = Stage(parts, generator, RowOrder(late="hold", key=("id",)))
    got, error = await stage.all()
    assert got == [(0, [1, 2])]
    assert isinstance(error, parts.subscription.StreamFailed)
    assert "RowOrder.key must name" in str(error) and "got id with []" in str(error)
    await asyncio.sleep(1)
    assert stage.registry.running == 0


async def test_rows_that_are_left_out_are_counted(parts):
    async def generator():
        for time, each in ((2, "x"), (1, "y"), (3, "x"), (4, "z")):
            yield {"time": time, "id": each}
            await asyncio.sleep(0.1)

    stage = Stage(parts, generator, RowOrder(late="drop", key=("id",)))
    got, _ = await stage.all()
    assert [rows for _, rows in got] == [[2], [4]]
    assert stage.counters.dropped == {"late": 1, "duplicate": 1}


async def test_an_order_without_rules_changes_nothing(parts):
    async def generator():
        yield at(2)
        yield at(1)

    got, _ = await Stage(parts, generator, RowOrder(by=("id",))).all()
    assert got == [(0, [2, 1])]


@pytest.mark.parametrize("order", [RowOrder(late="drop"), HOLD, RowOrder(key=("time",))])
async def test_rows_that_are_yielded_again_after_a_retry_are_left_out(parts, order):
    attempts = 0

    async def generator():
        nonlocal attempts
        attempts += 1
        for time in range(attempts * 3):
            yield at(time)
        if attempts < 3:
            raise UpstreamError("gone")

    counters, retry = Counters(), Retry(min_delay=1, max_delay=8, jitter=0)
    options = StreamOptions(order=order, retry=retry)
    run = supervise(generator, encode, KEY, options, BugDelays(), counters)
    rows = []
    async for received in parts.registry.ChannelRegistry().join(KEY, run):
        rows += [row["time"] for row in rows_of(received)]
    equal = [] if order.key else [2, 5]  # a row as old as the newest is not late
    assert sorted(rows) == sorted([*range(9), *equal])
    assert sum(counters.dropped.values()) == 9 - len(equal)
