"""One subscription alone: bounds, drops, schemas, waiting and the end."""

import asyncio

import pytest
from msgspec.structs import replace

from aiostream_ds._channels.exceptions import (
    ChannelError,
    ShuttingDown,
    SlowSubscriber,
    StalledSubscriber,
    StreamFailed,
)
from aiostream_ds._channels.policy import SCHEMA_ALWAYS, SCHEMA_REPEAT, Buffer
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from tests.channels.parts import REAL, Parts, packet, rows_of

A, B = Schema(b"a", "a"), Schema(b"b", "b")


class ChannelStub:
    """A channel that records the calls of its subscription."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def time(self):
        return self.now

    def create_future(self):
        return asyncio.get_running_loop().create_future()

    def subscription_drained(self):
        self.log.append("drained")

    def subscription_left(self, subscription):
        self.log.append("left")

    status = None

    def rows_dropped(self, rows, packets):
        self.log.append(("dropped", rows, packets))


@pytest.fixture
def parts() -> Parts:
    return REAL


def subscribe(memory=None, parts=REAL, **bounds):
    channel, memory = ChannelStub(), memory or parts.memory.MemoryPool()
    return parts.subscription.Subscription(channel, Buffer(**bounds), memory), channel


def put(subscription, packets):
    rows, size = sum(p.rows for p in packets), sum(len(p.data) for p in packets)
    subscription.put(packets, rows, size, subscription._channel.now)
    subscription.wake()


def cursors(last):
    return Packet(A, b"", 0, CursorRange("", last, last))


def test_receive_nowait_returns_all_in_order_and_then_nothing():
    subscription, channel = subscribe()
    put(subscription, [packet([1, 2]), packet([3])])
    put(subscription, [packet([4])])
    assert rows_of(subscription.receive_nowait()) == [1, 2, 3, 4]
    assert subscription.receive_nowait() == [] and channel.log == ["drained"]


async def test_a_packet_has_its_schema_when_the_last_sent_one_differs(parts):
    subscription, channel = subscribe(parts=parts)
    same = Schema(b"a", "a")
    channel.now = SCHEMA_ALWAYS
    put(subscription, [packet([1], A), packet([2], same), packet([3], B), packet([4], A)])
    assert [schema for schema, _ in subscription.receive_nowait()] == [A, None, B, A]
    put(subscription, [packet([5], same)])
    assert [schema for schema, _ in subscription.receive_nowait()] == [None]
    put(subscription, [packet([6], B)])
    assert [schema for schema, _ in subscription.receive_nowait()] == [B]


def test_dropping_never_loses_a_schema():
    subscription, _ = subscribe(rows=1)
    put(subscription, [packet([1], A)])
    subscription.receive_nowait()
    put(subscription, [packet([2], B)])
    put(subscription, [packet([3], B)])
    received = subscription.receive_nowait()
    assert [schema for schema, _ in received] == [B] and rows_of(received) == [3]


def test_the_schema_is_repeated_with_rows_after_a_while():
    subscription, channel = subscribe()
    channel.now = SCHEMA_ALWAYS
    put(subscription, [packet([1], A)])
    subscription.receive_nowait()
    channel.now = SCHEMA_ALWAYS + SCHEMA_REPEAT - 1
    put(subscription, [packet([2], A)])
    assert subscription.receive_nowait()[0][0] is None
    channel.now = SCHEMA_ALWAYS + SCHEMA_REPEAT
    assert subscription.receive_nowait() == []
    put(subscription, [packet([3], A), packet([4], A)])
    assert [schema for schema, _ in subscription.receive_nowait()] == [A, None]
    put(subscription, [packet([5], A)])
    assert subscription.receive_nowait()[0][0] is None


def test_for_a_moment_after_the_start_all_that_is_received_has_the_schema():
    subscription, channel = subscribe()
    for seconds, expected in ((0, A), (SCHEMA_ALWAYS / 2, A), (SCHEMA_ALWAYS, A), (0, None)):
        channel.now += seconds
        put(subscription, [packet([1], A)])
        assert [schema for schema, _ in subscription.receive_nowait()] == [expected]


def test_for_a_moment_after_repeat_schema_all_that_is_received_has_the_schema():
    subscription, channel = subscribe()
    put(subscription, [packet([1], A)])
    subscription.receive_nowait()
    put(subscription, [packet([2], A)])
    subscription.repeat_schema()
    for seconds, expected in ((0, A), (SCHEMA_ALWAYS / 2, A), (SCHEMA_ALWAYS + 9, A), (0, None)):
        channel.now += seconds
        assert [schema for schema, _ in subscription.receive_nowait()] == [expected]
        put(subscription, [packet([3], A)])


def test_after_repeat_schema_the_rest_after_the_end_has_the_schema():
    subscription, _ = subscribe()
    put(subscription, [packet([1], A)])
    subscription.receive_nowait()
    subscription.repeat_schema()
    put(subscription, [packet([2], A)])
    subscription.end(None)
    assert [schema for schema, _ in subscription.receive_nowait()] == [A]


def test_drop_oldest_keeps_the_newest_within_the_bound():
    subscription, channel = subscribe(rows=3)
    for number in range(5):
        put(subscription, [packet([number])])
    assert channel.log == [("dropped", 1, 1)] * 2
    assert rows_of(subscription.receive_nowait()) == [2, 3, 4]
    assert channel.log == [("dropped", 1, 1)] * 2 + ["drained"]
    counts = subscription.statistics()
    assert (counts.sent_rows, counts.dropped_rows, counts.queued_rows) == (3, 2, 0)
    assert (counts.sent_packets, counts.dropped_packets, counts.queued_packets) == (3, 2, 0)
    assert counts.sent_bytes == 3 * 5 and counts.dropped_bytes == 2 * 5


def test_bytes_are_bounded_as_rows_are():
    subscription, _ = subscribe(bytes=12)
    for number in range(3):
        put(subscription, [packet([number])])  # 5 bytes each
    assert rows_of(subscription.receive_nowait()) == [1, 2]


def test_the_newest_batch_stays_even_when_it_is_larger_than_the_bound():
    subscription, channel = subscribe(rows=3)
    put(subscription, [packet([1, 2]), packet([3, 4])])
    assert channel.log == []
    put(subscription, [packet([5, 6, 7, 8]), packet([9])])
    assert rows_of(subscription.receive_nowait()) == [5, 6, 7, 8, 9]
    assert channel.log == [("dropped", 4, 2), "drained"]


def test_packets_discarded_by_leave_are_not_reported_as_dropped():
    subscription, channel = subscribe()
    put(subscription, [packet([1])])
    subscription.leave()
    assert channel.log == ["left"] and subscription.statistics().dropped_rows == 1


def test_latest_keeps_one_packet():
    subscription, channel = subscribe(full="latest")
    put(subscription, [packet([1])])
    put(subscription, [packet([2]), packet([3])])
    assert rows_of(subscription.receive_nowait()) == [3]
    assert channel.log == [("dropped", 2, 2), "drained"]


def test_latest_keeps_the_parts_of_what_was_too_large_for_one_packet():
    subscription, channel = subscribe(full="latest")
    put(subscription, [packet([1])])
    part = replace(packet([3]), continues=True)
    put(subscription, [packet([2]), part, part])
    assert rows_of(subscription.receive_nowait()) == [2, 3, 3]
    put(subscription, [packet([4]), part, packet([5]), part])
    assert rows_of(subscription.receive_nowait()) == [5, 3]
    assert channel.log == [("dropped", 1, 1), "drained", ("dropped", 2, 2), "drained"]


def test_block_drops_nothing_and_reports_when_it_is_full():
    subscription, channel = subscribe(rows=2, full="block")
    put(subscription, [packet([1])])
    assert not subscription.is_full and subscription.above_high_water
    put(subscription, [packet([2])])
    put(subscription, [packet([3])])
    assert subscription.is_full and rows_of(subscription.receive_nowait()) == [1, 2, 3]
    assert not subscription.is_full and channel.log == ["drained"]


async def test_fail_ends_the_subscription_that_lags():
    subscription, channel = subscribe(rows=2, full="fail")
    put(subscription, [packet([1, 2, 3])])  # one batch may be larger than the bounds
    put(subscription, [packet([4])])
    assert channel.log == ["left", ("dropped", 4, 2)]
    assert subscription.receive_nowait() == []
    with pytest.raises(SlowSubscriber, match="at most 2 rows .*, got 4 rows"):
        await subscription.wait()


@pytest.mark.parametrize("full", ["drop_oldest", "latest"])
async def test_a_full_subscription_from_which_nothing_is_received_for_too_long_is_ended(full):
    subscription, channel = subscribe(rows=1, full=full, stall_timeout=10)
    for second in (1, 2, 3, 10.5):  # what was queued first waits from the first second on
        channel.now = second
        put(subscription, [packet([second])])
        assert not subscription.stalled
    channel.now = 11
    put(subscription, [packet([11])])
    assert subscription.stalled and subscription.statistics().dropped_packets == 5
    with pytest.raises(StalledSubscriber, match="has taken nothing for 10 s"):
        await subscription.wait()


async def test_only_the_newest_packet_without_rows_is_kept_at_the_end_of_a_queue(parts):
    subscription, channel = subscribe(parts=parts, rows=2)
    for last in range(1_000):
        subscription.put_cursors(cursors(last), 0.0)
    put(subscription, [packet([1])])
    for last in range(1_000, 2_000):
        subscription.put_cursors(cursors(last), 0.0)
    queued = [(each.rows, each.cursors and each.cursors.last) for each in subscription.queue]
    assert queued == [(0, 999), (1, None), (0, 1999)] and channel.log == []


async def test_a_subscriber_that_takes_no_packets_without_rows_is_stalled():
    subscription, channel = subscribe(stall_timeout=10)
    for second in range(1, 12):
        assert not subscription.stalled
        channel.now = second
        subscription.put_cursors(cursors(second), second)
    assert subscription.stalled and channel.log == ["left"]
    with pytest.raises(StalledSubscriber):
        await subscription.wait()


def test_a_dropped_packet_without_rows_is_no_loss():
    subscription, channel = subscribe(rows=2)
    subscription.put_cursors(cursors(1), 0.0)
    put(subscription, [packet([1, 2, 3])])
    assert channel.log == [] and rows_of(subscription.receive_nowait()) == [1, 2, 3]


def test_the_time_before_a_queue_is_full_counts_for_the_stall_timeout():
    subscription, channel = subscribe(rows=2, stall_timeout=10)
    for second in range(0, 30, 6):
        channel.now = second
        put(subscription, [packet([second])])
        assert subscription.stalled == (second > 10)
        if subscription.stalled:
            break
    assert channel.now == 12


def test_receiving_something_resets_the_stall_timeout():
    subscription, channel = subscribe(rows=1, stall_timeout=10)
    for second in range(0, 100, 3):
        channel.now = second
        put(subscription, [packet([second])])
        if second % 9 == 0:
            subscription.receive_nowait()
    assert not subscription.stalled


async def test_wait_is_true_at_once_when_something_is_queued():
    subscription, _ = subscribe()
    put(subscription, [packet([1])])
    assert await subscription.wait() is True


async def test_wait_wakes_for_a_packet_and_for_the_end():
    subscription, _ = subscribe()
    task = asyncio.create_task(subscription.wait())
    await asyncio.sleep(0)
    put(subscription, [packet([1])])
    put(subscription, [packet([2])])
    assert await task is True
    subscription.receive_nowait()
    task = asyncio.create_task(subscription.wait())
    await asyncio.sleep(0)
    subscription.end(None)
    assert await task is False


async def test_a_second_task_may_not_wait():
    subscription, _ = subscribe()
    task = asyncio.create_task(subscription.wait())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one task"):
        await subscription.wait()
    subscription.leave()
    assert await task is False


async def test_a_cancelled_wait_loses_nothing_and_another_may_follow():
    subscription, _ = subscribe()
    task = asyncio.create_task(subscription.wait())
    await asyncio.sleep(0)
    task.cancel()
    put(subscription, [packet([1])])
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await subscription.wait() and rows_of(subscription.receive_nowait()) == [1]


async def test_what_is_queued_comes_before_the_error_and_the_error_once():
    subscription, _ = subscribe()
    wrong = ValueError("wrong")
    put(subscription, [packet([1])])
    subscription.end(wrong)
    assert await subscription.wait() and rows_of(subscription.receive_nowait()) == [1]
    with pytest.raises(StreamFailed, match="wrong") as caught:
        await subscription.wait()
    assert caught.value.__cause__ is wrong and caught.value.grpc_status == "INTERNAL"
    assert await subscription.wait() is False


async def test_each_subscriber_gets_an_error_object_of_its_own():
    subscriptions, error = [subscribe()[0], subscribe()[0]], ShuttingDown("stopping")
    seen = []
    for subscription in subscriptions:
        subscription.end(error)
        with pytest.raises(ShuttingDown, match="stopping") as caught:
            await subscription.wait()
        seen.append(caught.value)
    assert seen[0] is not seen[1] is not error and isinstance(seen[0], ChannelError)


async def test_leaving_drops_what_is_queued_and_counts_it():
    subscription, channel = subscribe(rows=1)
    put(subscription, [packet([1])])
    put(subscription, [packet([2])])
    subscription.leave()
    subscription.leave()
    assert channel.log == [("dropped", 1, 1), "left"]
    assert subscription.receive_nowait() == [] and await subscription.wait() is False
    assert subscription.statistics().dropped_rows == 2


async def test_iterating_gives_what_receive_nowait_gives_until_the_end():
    subscription, _ = subscribe()
    put(subscription, [packet([1]), packet([2])])
    subscription.end(None)
    assert [rows_of(taken) async for taken in subscription] == [[1, 2]]


# -- the sink: packets that are passed on without a queue ---------------------------------------


class Sink:
    """Accepts packets while it is `open`."""

    def __init__(self, subscription):
        self.open, self.got = True, []
        subscription.sink = self

    def write(self, schema, taken):
        if self.open:
            self.got.append((schema, *rows_of([(schema, taken)])))
        return self.open

    def write_all(self, schema, packets, size):
        assert size == sum(len(each.data) for each in packets)
        for each in packets:
            self.write(schema, each)
            schema = None
        return self.open


def push_all(subscription, packets, now):
    rows, size = sum(each.rows for each in packets), sum(len(each.data) for each in packets)
    return subscription.push_all_direct(packets, rows, size, now)


def test_a_sink_gets_a_packet_while_nothing_is_queued_and_only_then():
    subscription, channel = subscribe()
    sink = Sink(subscription)
    channel.now = SCHEMA_ALWAYS
    assert subscription.push_direct(packet([1], A), channel.now)
    put(subscription, [packet([2], A)])
    assert not subscription.push_direct(packet([3], A), channel.now)
    put(subscription, [packet([3], A)])
    assert sink.got == [(A, 1)] and rows_of(subscription.receive_nowait()) == [2, 3]
    assert subscription.push_direct(packet([4], A), channel.now) and sink.got[1:] == [(None, 4)]


def test_a_packet_that_the_sink_refuses_is_not_counted_as_sent():
    subscription, channel = subscribe()
    sink = Sink(subscription)
    sink.open = False
    assert not subscription.push_direct(packet([1], A), channel.now)
    assert subscription.statistics().sent_packets == 0
    put(subscription, [packet([1], A)])
    assert [schema for schema, _ in subscription.receive_nowait()] == [A]
    sink.open = True
    assert subscription.push_direct(packet([2], A), channel.now)
    counts = subscription.statistics()
    assert (counts.sent_packets, counts.sent_rows, counts.queued_packets) == (2, 2, 0)
    assert counts.sent_bytes == len(packet([1], A).data) + len(packet([2], A).data)


def test_a_sink_gets_the_schema_exactly_when_receive_nowait_would_return_it():
    direct, direct_channel = subscribe()
    queued, queued_channel = subscribe()
    sink = Sink(direct)
    steps = [(A, 0.0), (A, 0.1), (B, 0.2), (B, 0.3), (A, 1.5), (A, 1.6), (Schema(b"a", "a"), 1.7)]
    steps += [(A, SCHEMA_REPEAT + 1.4), (A, SCHEMA_REPEAT + 1.6), (A, SCHEMA_REPEAT + 1.7)]
    expected = []
    for schema, now in steps:
        direct_channel.now = queued_channel.now = now
        assert direct.push_direct(packet([1], schema), now)
        put(queued, [packet([1], schema)])
        expected += [each for each, _ in queued.receive_nowait()]
    assert [each for each, _ in sink.got] == expected
    assert None in expected and expected[-3:] != [None] * 3


def test_several_packets_have_the_schemas_that_receive_nowait_would_return():
    direct, direct_channel = subscribe()
    queued, queued_channel = subscribe()
    sink = Sink(direct)
    same = Schema(b"a", "a")
    steps = [(A, 0.0), (A, 0.1), (A, 1.5), (A, 1.6), (same, 1.7), (B, 1.8), (A, 1.9)]
    steps += [(A, SCHEMA_REPEAT + 1.4), (A, SCHEMA_REPEAT + 1.6), (A, SCHEMA_REPEAT + 1.7)]
    expected = []
    for schema, now in steps:
        direct_channel.now = queued_channel.now = now
        packets = [packet([1], schema), packet([2, 3], schema)]
        assert push_all(direct, packets, now)
        put(queued, packets)
        expected += [each for each, _ in queued.receive_nowait()]
    assert [each for each, *_ in sink.got] == expected and len(expected) == 2 * len(steps)
    assert direct.statistics() == queued.statistics()


def test_several_packets_are_refused_as_one_is():
    subscription, channel = subscribe()
    assert not push_all(subscription, [packet([1], A), packet([2], A)], channel.now)  # no sink
    sink = Sink(subscription)
    assert not push_all(subscription, [packet([1], A), packet([2], B)], channel.now)
    sink.open = False
    assert not push_all(subscription, [packet([1], A), packet([2], A)], channel.now)
    sink.open = True
    assert subscription.statistics().sent_packets == 0
    put(subscription, [packet([1], A)])
    assert not push_all(subscription, [packet([2], A), packet([3], A)], channel.now)
    assert not sink.got and rows_of(subscription.receive_nowait()) == [1]
    assert push_all(subscription, [packet([2], A), packet([3], A)], channel.now)
    assert sink.got == [(A, 2), (None, 3)]
