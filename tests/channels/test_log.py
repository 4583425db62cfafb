"""Logs: rows numbered within bounds. Every implementation has to pass the tests of `Log`."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._channels.log import Log, LogSlice, LogStore, MemoryLog, memory_logs
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Replay
from aiostream_ds._frames.packet import Packet, Schema

SCHEMA = Schema(b"{}", "x")
KEY, OTHER = ChannelKey("instance", "path"), ChannelKey("instance", "other")

MakeLog = Callable[[Replay], Log]
FACTORIES: dict[str, MakeLog] = {"memory": lambda replay: MemoryLog(replay, "epoch")}
"""A further implementation adds a line here."""

each_log = pytest.mark.parametrize("make_log", FACTORIES.values(), ids=FACTORIES)


def packet(rows: int, size: int = 10) -> Packet:
    return Packet(SCHEMA, b"x" * size, rows)


def filled(make_log: MakeLog, *counts: int, replay: Replay | None = None) -> Log:
    """A log with one packet a second."""
    log = make_log(replay or Replay())
    for second, rows in enumerate(counts):
        log.append([packet(rows)], rows, 10, second)
    return log


def after(log: Log, cursor: int, now: float, upto: int | None = None) -> LogSlice:
    return asyncio.run(log.after(cursor, now, upto))


def cursors(found: LogSlice) -> list[int]:
    """The cursors of the rows in a slice, which has to have all their packets."""
    rows = sum(p.rows for p in found.packets)
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
        (Replay(rows=5), 7),
        (Replay(bytes=3 * 210), 5),
        (Replay(seconds=2.0), 5),
        (Replay(rows=1, bytes=1), 9),
    ],
)
def test_the_oldest_rows_are_forgotten_above_a_bound_and_the_slice_is_truncated(
    make_log, replay, first
):
    log = filled(make_log, 2, 2, 2, 2, 2, replay=replay)
    assert log.first == first
    found = after(log, 0, 4)
    assert found.truncated == (first > 1) and cursors(found) == list(range(first, 11))
    assert not after(log, first - 1, 4).truncated
    assert after(log, first - 2, 4).truncated


@each_log
def test_the_newest_batch_is_kept_however_large_it_is(make_log):
    log = filled(make_log, 1, 900, replay=Replay(rows=10))
    assert (log.first, log.last) == (2, 901)


@each_log
@pytest.mark.parametrize("last", [0.0, 0.4, 1.0, 3.0])
def test_old_rows_are_forgotten_without_new_ones_too(make_log, last):
    log = filled(make_log, 1, replay=Replay(seconds=5.0))
    log.append([packet(1)], 1, 10, last)
    assert cursors(after(log, 0, last + 4)) == ([1, 2] if last < 1.5 else [2])
    assert cursors(after(log, 2, last + 6)) == [] and after(log, 0, last + 6).truncated


@each_log
def test_a_row_is_forgotten_within_a_second_of_its_time(make_log):
    log = make_log(Replay(seconds=5.0, rows=1000))
    for tenth in range(200):
        log.append([packet(1)], 1, 10, tenth / 10)
        oldest = cursors(after(log, log.first - 1, tenth / 10))[0] - 1  # appended at oldest / 10
        assert max(0, tenth - 61) <= oldest <= max(0, tenth - 50)


@each_log
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=12),
    st.integers(1, 30),
    st.integers(-1, 70),
    st.none() | st.integers(0, 70),
)
def test_a_slice_has_exactly_the_kept_rows_after_the_cursor(make_log, batches, most, cursor, upto):
    log, total = make_log(Replay(rows=most)), 0
    for counts in batches:
        log.append([packet(rows) for rows in counts], sum(counts), 10 * len(counts), 0)
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
