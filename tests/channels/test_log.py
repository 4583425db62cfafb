"""Logs: rows numbered within bounds. Every implementation has to pass the tests of `Log`."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._channels.log import _OVERHEAD, Log, LogSlice, LogStore, MemoryLog, memory_logs
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Replay
from aiostream_ds._frames.packet import Packet, Schema

SCHEMA = Schema(b"{}", "x")
DATA_SIZE = 10
"""Bytes of the data of each packet."""
KEY, OTHER = ChannelKey("instance", "path"), ChannelKey("instance", "other")

MakeLog = Callable[[Replay], Log]
FACTORIES: dict[str, MakeLog] = {"memory": lambda replay: MemoryLog(replay, "epoch")}
"""A further implementation adds a line here."""

each_log = pytest.mark.parametrize("make_log", FACTORIES.values(), ids=FACTORIES)


def append(log: Log, *packet_rows: int, now: float) -> None:
    """Append a batch: a packet for each of these numbers of rows."""
    packets = [Packet(SCHEMA, b"x" * DATA_SIZE, rows) for rows in packet_rows]
    log.append(packets, sum(packet_rows), DATA_SIZE * len(packets), now)


def filled(make_log: MakeLog, *packet_rows: int, replay: Replay | None = None) -> Log:
    """A log with these packets: the first of second 0, the next of second 1, and so on."""
    log = make_log(replay or Replay())
    for second, rows in enumerate(packet_rows):
        append(log, rows, now=second)
    return log


def after(log: Log, cursor: int, now: float, upto: int | None = None) -> LogSlice:
    return asyncio.run(log.after(cursor, now, upto))


def cursors(found: LogSlice) -> list[int]:
    """The cursors of the rows in a slice, which has to have all their packets."""
    rows = sum(packet.rows for packet in found.packets)
    assert found.last - found.prev <= max(0, rows - found.skip)
    return list(range(found.prev + 1, found.last + 1))


@each_log
def test_rows_are_numbered_from_one(make_log):
    log = filled(make_log, 2, 3)
    assert (log.first, log.last) == (1, 5)
    assert cursors(after(log, 0, 9)) == [1, 2, 3, 4, 5]


@each_log
def test_an_empty_log_has_no_rows_and_is_not_truncated(make_log):
    found = after(make_log(Replay()), 0, 0)
    assert (found.packets, found.prev, found.last, found.truncated) == ([], 0, 0, False)


@each_log
def test_a_slice_may_begin_and_end_inside_a_packet(make_log):
    found = after(filled(make_log, 4, 4, 4), 2, 9, upto=6)
    assert (len(found.packets), found.skip, found.prev, found.last) == (2, 2, 2, 6)


@each_log
def test_there_are_no_rows_after_the_last_one(make_log):
    found = after(filled(make_log, 3), 3, 9)
    assert (found.packets, found.prev, found.last, found.truncated) == ([], 3, 3, False)


@each_log
def test_a_cursor_above_the_last_row_is_truncated(make_log):
    found = after(filled(make_log, 3), 7, 9)
    assert found.truncated and cursors(found) == [1, 2, 3]


@each_log
@pytest.mark.parametrize(
    "replay, first",
    [
        (Replay(rows=5), 7),  # two packets of two rows: a third would be six rows
        (Replay(bytes=3 * (DATA_SIZE + _OVERHEAD)), 5),  # three packets
        (Replay(seconds=2.0), 5),  # those of the seconds 2, 3 and 4
        (Replay(rows=1, bytes=1), 9),  # the newest packet is always kept
    ],
)
def test_the_oldest_rows_are_forgotten_above_a_bound_and_the_slice_is_truncated(
    make_log, replay, first
):
    log, end = filled(make_log, 2, 2, 2, 2, 2, replay=replay), 4  # rows 1 to 10
    assert log.first == first
    found = after(log, 0, end)
    assert found.truncated and cursors(found) == list(range(first, 11))
    assert not after(log, first - 1, end).truncated
    assert after(log, first - 2, end).truncated


@each_log
def test_the_newest_packet_is_kept_however_large_it_is(make_log):
    log = filled(make_log, 1, 900, replay=Replay(rows=10))
    assert (log.first, log.last) == (2, 901)


@each_log
@pytest.mark.parametrize(
    ("replay", "packet_rows", "first"),
    [
        (Replay(rows=10), [1] * 40, 32),
        (Replay(bytes=5 * (DATA_SIZE + _OVERHEAD)), [1] * 40, 37),
        (Replay(rows=10), [1, 1, 900], 4),
        (Replay(rows=10), [900, 1, 1], 902),
        (Replay(rows=10), [1] * 20 + [2] * 20, 52),  # the newest are larger than the average
    ],
)
def test_of_a_batch_above_the_bounds_its_newest_packets_are_kept(
    make_log, replay, packet_rows, first
):
    log = make_log(replay)
    append(log, 1, now=0)
    append(log, *packet_rows, now=1)
    last = 1 + sum(packet_rows)
    assert (log.first, log.last) == (first, last)
    assert cursors(after(log, 0, 1)) == list(range(first, last + 1))
    append(log, 1, now=2)
    assert cursors(after(log, last, 2)) == [last + 1]


@each_log
@pytest.mark.parametrize("second_row", [0.0, 0.4, 1.0, 3.0])
def test_old_rows_are_forgotten_without_new_ones_too(make_log, second_row):
    """The first row is appended at 0 s; rows are kept for 5 s."""
    log = filled(make_log, 1, replay=Replay(seconds=5.0))
    append(log, 1, now=second_row)
    before, later = second_row + 4, second_row + 6
    assert cursors(after(log, 0, before)) == ([1, 2] if before <= 5 else [2])
    assert cursors(after(log, 2, later)) == [] and after(log, 0, later).truncated


@each_log
def test_a_row_is_forgotten_within_a_second_of_its_time(make_log):
    """A log may store one checkpoint a second instead of the time of each row. It is stored with
    the first row that is appended when it is due, up to 0.1 s later here."""
    log = make_log(Replay(seconds=5.0, rows=1000))
    for tenth in range(200):  # a row every 0.1 s: the row with cursor n at (n - 1) / 10
        now = tenth / 10
        append(log, 1, now=now)
        oldest = (cursors(after(log, log.first - 1, now))[0] - 1) / 10
        age = now - oldest
        assert age <= 5 + 1 + 0.1 + 1e-9, "kept for at most a second too long"
        assert log.first == 1 or age >= 5 - 1e-9, "not forgotten before its time"


@each_log
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=12),
    st.integers(1, 30),
    st.integers(-1, 70),
    st.none() | st.integers(0, 70),
)
def test_a_slice_has_exactly_the_kept_rows_after_the_cursor(make_log, batches, most, cursor, upto):
    log, total = make_log(Replay(rows=most)), 0
    for counts in batches:  # the rows of each packet
        append(log, *counts, now=0)
        total += sum(counts)
    found = after(log, cursor, 0, upto)
    begin = log.first - 1 if found.truncated else cursor
    expected = range(begin + 1, min(total, total if upto is None else upto) + 1)
    assert cursors(found) == list(expected)
    assert found.truncated == (not log.first - 1 <= cursor <= total)
    assert log.last == total


# -- the store ---------------------------------------------------------------------------------


class Clock:
    """Keeps scheduled calls until the test runs them."""

    def __init__(self):
        self.calls = {}

    def call_later(self, delay, callback, *args):
        timer = Timer(self)
        self.calls[timer] = delay, callback, args
        return timer

    def run_all(self):
        for timer, (_, callback, args) in tuple(self.calls.items()):
            del self.calls[timer]
            callback(*args)


class Timer:
    def __init__(self, clock):
        self.clock = clock

    def cancel(self):
        self.clock.calls.pop(self, None)


def test_a_retained_log_stays_and_another_one_is_dropped_after_its_time():
    clock = Clock()
    store = LogStore(clock, memory_logs())
    retained, other = store.get(KEY, Replay(keep=7), 1), store.get(OTHER, Replay(keep=7), 1)
    store.retain(KEY)
    assert {delay for delay, _, _ in clock.calls.values()} == {7}
    clock.run_all()
    assert KEY in store and OTHER not in store
    assert store.get(KEY, Replay(), 1) is retained
    assert store.get(OTHER, Replay(), 1).epoch != other.epoch


def test_newer_settings_get_a_new_log_and_older_settings_get_the_newest():
    store = LogStore(Clock(), memory_logs())
    old = store.get(KEY, Replay(), 1)
    new = store.get(KEY, Replay(), 2)
    assert new is not old and new.epoch != old.epoch
    assert store.get(KEY, Replay(), 1) is new


def test_nothing_is_left_after_close():
    clock = Clock()
    store = LogStore(clock, memory_logs())
    store.get(KEY, Replay(), 1)
    store.close()
    assert KEY not in store and not clock.calls


def test_the_factory_gets_the_key_the_bounds_and_the_generation():
    calls = []

    def make_log(key, replay, generation):
        calls.append((key, replay, generation))
        return MemoryLog(replay, "epoch", generation)

    LogStore(Clock(), make_log).get(KEY, Replay(rows=7), 3)
    assert calls == [(KEY, Replay(rows=7), 3)]
