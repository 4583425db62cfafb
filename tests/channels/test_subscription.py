"""One reader's mailbox alone: bounds, drops, schemas, and what wait and the end say."""

import asyncio

import pytest

from aiostream_ds._channels.exceptions import (
    ChannelError,
    ShuttingDown,
    SlowSubscriber,
    StalledSubscriber,
    StreamFailed,
)
from aiostream_ds._channels.policy import SCHEMA_REPEAT, SCHEMA_SHOWN, Buffer
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.packet import Schema
from tests.channels.parts import packet, rows_of

A, B = Schema(b"a", "a"), Schema(b"b", "b")


class Feed:
    """What a mailbox tells its channel, written down."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def _now(self):
        return self.now

    def _waiter(self):
        return asyncio.get_running_loop().create_future()

    def _drained(self):
        self.log.append("drained")

    def _left(self, reader):
        self.log.append("left")

    status = None

    def _dropped(self, rows, packets):
        self.log.append(("dropped", rows, packets))


def mailbox(**bounds):
    feed = Feed()
    return Subscription(feed, Buffer(**bounds)), feed


def put(box, packets):
    box._put(packets, sum(p.rows for p in packets), sum(len(p.data) for p in packets))
    box._wake()


def test_take_gives_all_in_order_and_then_nothing():
    box, feed = mailbox()
    put(box, [packet([1, 2]), packet([3])])
    put(box, [packet([4])])
    assert rows_of(box.take()) == [1, 2, 3, 4]
    assert box.take() == [] and feed.log == ["drained"]


def test_a_schema_goes_along_when_the_reader_has_another():
    box, feed = mailbox()
    same = Schema(b"a", "a")
    feed.now = SCHEMA_SHOWN
    put(box, [packet([1], A), packet([2], same), packet([3], B), packet([4], A)])
    assert [schema for schema, _ in box.take()] == [A, None, B, A]
    put(box, [packet([5], same)])
    assert [schema for schema, _ in box.take()] == [None]


def test_dropping_never_loses_a_schema():
    box, _ = mailbox(rows=1)
    put(box, [packet([1], A)])
    box.take()
    put(box, [packet([2], B)])
    put(box, [packet([3], B)])
    assert [(schema, rows_of([(schema, each)])) for schema, each in box.take()] == [(B, [3])]


def test_the_schema_is_repeated_with_rows_after_a_while():
    box, feed = mailbox()
    feed.now = SCHEMA_SHOWN
    put(box, [packet([1], A)])
    box.take()
    feed.now = SCHEMA_SHOWN + SCHEMA_REPEAT - 1
    put(box, [packet([2], A)])
    assert box.take()[0][0] is None
    feed.now = SCHEMA_SHOWN + SCHEMA_REPEAT
    assert box.take() == []
    put(box, [packet([3], A), packet([4], A)])
    assert [schema for schema, _ in box.take()] == [A, None]
    put(box, [packet([5], A)])
    assert box.take()[0][0] is None


def test_the_first_reader_finds_the_schema_in_all_that_is_taken_for_a_moment():
    box, feed = mailbox()
    for seconds, expected in ((0, A), (SCHEMA_SHOWN / 2, A), (SCHEMA_SHOWN, A), (0, None)):
        feed.now += seconds
        put(box, [packet([1], A)])
        assert [schema for schema, _ in box.take()] == [expected]


def test_who_joins_finds_the_schema_in_all_that_is_taken_until_they_surely_have_joined():
    box, feed = mailbox()
    put(box, [packet([1], A)])
    box.take()
    put(box, [packet([2], A)])
    box.show_schema()
    for seconds, expected in ((0, A), (SCHEMA_SHOWN / 2, A), (SCHEMA_SHOWN + 9, A), (0, None)):
        feed.now += seconds
        assert [schema for schema, _ in box.take()] == [expected]
        put(box, [packet([3], A)])


def test_who_joins_finds_the_schema_in_what_is_taken_after_the_end():
    box, _ = mailbox()
    put(box, [packet([1], A)])
    box.take()
    box.show_schema()
    put(box, [packet([2], A)])
    box._end(None)
    assert [schema for schema, _ in box.take()] == [A]


def test_drop_oldest_keeps_the_newest_within_the_bound():
    box, feed = mailbox(rows=3)
    for number in range(5):
        put(box, [packet([number])])
    assert feed.log == [("dropped", 1, 1)] * 2
    assert rows_of(box.take()) == [2, 3, 4]
    assert feed.log == [("dropped", 1, 1)] * 2 + ["drained"]
    counts = box.statistics()
    assert (counts.sent_rows, counts.dropped_rows, counts.queued_rows) == (3, 2, 0)
    assert (counts.sent_packets, counts.dropped_packets, counts.queued_packets) == (3, 2, 0)
    assert counts.sent_bytes == 3 * 5 and counts.dropped_bytes == 2 * 5


def test_bytes_bound_a_mailbox_like_rows():
    box, _ = mailbox(bytes=12)
    for number in range(3):
        put(box, [packet([number])])  # 5 bytes each
    assert rows_of(box.take()) == [1, 2]


def test_the_newest_batch_stays_even_when_it_is_larger_than_the_bound():
    box, feed = mailbox(rows=3)
    put(box, [packet([1, 2]), packet([3, 4])])
    assert feed.log == []
    put(box, [packet([5, 6, 7, 8]), packet([9])])
    assert rows_of(box.take()) == [5, 6, 7, 8, 9]
    assert feed.log == [("dropped", 4, 2), "drained"]


def test_what_is_given_up_by_leaving_is_no_drop():
    box, feed = mailbox()
    put(box, [packet([1])])
    box.leave()
    assert feed.log == ["left"] and box.statistics().dropped_rows == 1


def test_latest_keeps_one_packet():
    box, feed = mailbox(full="latest")
    put(box, [packet([1])])
    put(box, [packet([2]), packet([3])])
    assert rows_of(box.take()) == [3]
    assert feed.log == [("dropped", 2, 2), "drained"]


def test_block_drops_nothing_and_says_when_it_is_full():
    box, feed = mailbox(rows=2, full="block")
    put(box, [packet([1])])
    assert not box._is_full() and box._above_high_water()
    put(box, [packet([2])])
    put(box, [packet([3])])
    assert box._is_full() and rows_of(box.take()) == [1, 2, 3]
    assert not box._is_full() and feed.log == ["drained"]


async def test_fail_ends_the_reader_that_is_behind():
    box, feed = mailbox(rows=2, full="fail")
    put(box, [packet([1, 2, 3])])  # one batch is not being behind
    put(box, [packet([4])])
    assert feed.log == [("dropped", 4, 2), "left"]
    assert box.take() == []
    with pytest.raises(SlowSubscriber, match="at most 2 rows"):
        await box.wait()


@pytest.mark.parametrize("full", ["drop_oldest", "latest"])
async def test_a_full_mailbox_from_which_nothing_is_taken_for_too_long_is_given_up(full):
    box, feed = mailbox(rows=1, full=full, stall_timeout=10)
    for second in (0, 1, 2, 10.5):  # full from the second packet on
        feed.now = second
        put(box, [packet([second])])
        assert not box.stalled
    feed.now = 11
    put(box, [packet([11])])
    assert box.stalled and box.statistics().dropped_packets == 5
    with pytest.raises(StalledSubscriber, match="has taken nothing for 10 s"):
        await box.wait()


def test_who_takes_something_begins_anew_to_be_late():
    box, feed = mailbox(rows=1, stall_timeout=10)
    for second in range(0, 100, 3):
        feed.now = second
        put(box, [packet([second])])
        if second % 9 == 0:
            box.take()
    assert not box.stalled


async def test_wait_is_true_at_once_when_something_is_queued():
    box, _ = mailbox()
    put(box, [packet([1])])
    assert await box.wait() is True


async def test_wait_wakes_for_a_packet_and_for_the_end():
    box, _ = mailbox()
    task = asyncio.create_task(box.wait())
    await asyncio.sleep(0)
    put(box, [packet([1])])
    put(box, [packet([2])])
    assert await task is True
    box.take()
    task = asyncio.create_task(box.wait())
    await asyncio.sleep(0)
    box._end(None)
    assert await task is False


async def test_a_second_task_may_not_wait():
    box, _ = mailbox()
    task = asyncio.create_task(box.wait())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one task"):
        await box.wait()
    box.leave()
    assert await task is False


async def test_a_cancelled_wait_loses_nothing_and_another_may_follow():
    box, _ = mailbox()
    task = asyncio.create_task(box.wait())
    await asyncio.sleep(0)
    task.cancel()
    put(box, [packet([1])])
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await box.wait() and rows_of(box.take()) == [1]


async def test_what_is_queued_comes_before_the_error_and_the_error_once():
    box, _ = mailbox()
    wrong = ValueError("wrong")
    put(box, [packet([1])])
    box._end(wrong)
    assert await box.wait() and rows_of(box.take()) == [1]
    with pytest.raises(StreamFailed, match="wrong") as caught:
        await box.wait()
    assert caught.value.__cause__ is wrong and caught.value.grpc_status == "INTERNAL"
    assert await box.wait() is False


async def test_each_reader_gets_an_error_object_of_its_own():
    boxes, error = [mailbox()[0], mailbox()[0]], ShuttingDown("stopping")
    seen = []
    for box in boxes:
        box._end(error)
        with pytest.raises(ShuttingDown, match="stopping") as caught:
            await box.wait()
        seen.append(caught.value)
    assert seen[0] is not seen[1] is not error and isinstance(seen[0], ChannelError)


async def test_leaving_gives_up_what_is_queued_and_counts_it():
    box, feed = mailbox(rows=1)
    put(box, [packet([1])])
    put(box, [packet([2])])
    box.leave()
    box.leave()
    assert feed.log == [("dropped", 1, 1), "left"]
    assert box.take() == [] and await box.wait() is False
    assert box.statistics().dropped_rows == 2


async def test_iterating_gives_what_take_gives_until_the_end():
    box, _ = mailbox()
    put(box, [packet([1]), packet([2])])
    box._end(None)
    assert [rows_of(taken) async for taken in box] == [[1, 2]]


# -- the sink: packets that are handed on without a queue ---------------------------------------


class Sink:
    """Takes packets while it is `open`."""

    def __init__(self, box):
        self.open, self.got = True, []
        box.sink = self

    def __call__(self, schema, taken):
        if self.open:
            self.got.append((schema, *rows_of([(schema, taken)])))
        return self.open


def test_a_sink_gets_a_packet_while_nothing_is_queued_and_only_then():
    box, feed = mailbox()
    sink = Sink(box)
    feed.now = SCHEMA_SHOWN
    assert box._push_direct(packet([1], A), feed.now)
    put(box, [packet([2], A)])
    assert not box._push_direct(packet([3], A), feed.now)
    put(box, [packet([3], A)])
    assert sink.got == [(A, 1)] and rows_of(box.take()) == [2, 3]
    assert box._push_direct(packet([4], A), feed.now) and sink.got[1:] == [(None, 4)]


def test_a_packet_that_the_sink_refuses_counts_as_not_sent():
    box, feed = mailbox()
    sink = Sink(box)
    sink.open = False
    assert not box._push_direct(packet([1], A), feed.now)
    assert box.statistics().sent_packets == 0
    put(box, [packet([1], A)])
    assert [schema for schema, _ in box.take()] == [A]
    sink.open = True
    assert box._push_direct(packet([2], A), feed.now)
    counts = box.statistics()
    assert (counts.sent_packets, counts.sent_rows, counts.queued_packets) == (2, 2, 0)
    assert counts.sent_bytes == len(packet([1], A).data) + len(packet([2], A).data)


def test_a_sink_gets_the_schema_exactly_when_a_reader_that_takes_would():
    handed, hands = mailbox()
    taken, takes = mailbox()
    sink = Sink(handed)
    steps = [(A, 0.0), (A, 0.1), (B, 0.2), (B, 0.3), (A, 1.5), (A, 1.6), (Schema(b"a", "a"), 1.7)]
    steps += [(A, SCHEMA_REPEAT + 1.4), (A, SCHEMA_REPEAT + 1.6), (A, SCHEMA_REPEAT + 1.7)]
    expected = []
    for schema, now in steps:
        hands.now = takes.now = now
        assert handed._push_direct(packet([1], schema), now)
        put(taken, [packet([1], schema)])
        expected += [told for told, _ in taken.take()]
    assert [told for told, _ in sink.got] == expected
    assert None in expected and expected[-3:] != [None] * 3
