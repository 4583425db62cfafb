"""The ring of a channel: numbered rows within bounds, and honest answers beyond them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._channels.log import Ring, Rings
from aiostream_ds._channels.policy import Replay
from aiostream_ds._frames.packet import Packet, Schema

SCHEMA = Schema(b"{}", "x")


def packet(rows: int, size: int = 10) -> Packet:
    return Packet(SCHEMA, b"x" * size, rows)


def filled(*counts: int, replay: Replay | None = None) -> Ring:
    ring = Ring(replay or Replay(), "e")
    for at, rows in enumerate(counts):
        ring.append([packet(rows)], rows, 10, at)
    return ring


def numbers(kept):
    """The numbers of the rows in an answer."""
    rows = sum(p.rows for p in kept.packets)
    assert kept.last - kept.prev <= max(0, rows - kept.skip)
    return list(range(kept.prev + 1, kept.last + 1))


def test_rows_are_numbered_from_one():
    ring = filled(2, 3)
    assert (ring.first, ring.last) == (1, 5)
    assert numbers(ring.after(0, 9)) == [1, 2, 3, 4, 5]


def test_an_empty_ring_has_nothing_and_is_not_truncated():
    kept = Ring(Replay(), "e").after(0, 0)
    assert (kept.packets, kept.prev, kept.last, kept.truncated) == ([], 0, 0, False)


def test_an_answer_may_begin_and_end_inside_a_packet():
    kept = filled(4, 4, 4).after(2, 9, upto=6)
    assert (len(kept.packets), kept.skip, kept.prev, kept.last) == (2, 2, 2, 6)


def test_nothing_is_above_the_last_row():
    kept = filled(3).after(3, 9)
    assert (kept.packets, kept.prev, kept.last, kept.truncated) == ([], 3, 3, False)


def test_a_cursor_that_this_ring_never_gave_is_truncated():
    kept = filled(3).after(7, 9)
    assert kept.truncated and numbers(kept) == [1, 2, 3]


@pytest.mark.parametrize(
    "replay, first",
    [
        (Replay(rows=5), 7),
        (Replay(bytes=3 * 210), 5),
        (Replay(seconds=2.0), 5),
        (Replay(rows=1, bytes=1), 9),
    ],
)
def test_the_oldest_rows_go_when_a_bound_is_passed_and_that_is_told(replay, first):
    ring = filled(2, 2, 2, 2, 2, replay=replay)
    assert ring.first == first
    kept = ring.after(0, 4)
    assert kept.truncated == (first > 1) and numbers(kept) == list(range(first, 11))
    assert not ring.after(first - 1, 4).truncated
    assert ring.after(first - 2, 4).truncated


def test_the_newest_batch_stays_however_large_it_is():
    ring = filled(1, 900, replay=Replay(rows=10))
    assert (ring.first, ring.last) == (2, 901)


@pytest.mark.parametrize("last", [0.0, 0.4, 1.0, 3.0])
def test_old_rows_are_forgotten_without_new_ones_too(last):
    ring = filled(1, replay=Replay(seconds=5.0))
    ring.append([packet(1)], 1, 10, last)
    assert numbers(ring.after(0, last + 4)) == ([1, 2] if last < 1.5 else [2])
    assert numbers(ring.after(2, last + 6)) == [] and ring.after(0, last + 6).truncated


def test_a_row_is_forgotten_within_a_second_of_its_time():
    ring = Ring(Replay(seconds=5.0, rows=1000), "e")
    for tenth in range(200):
        ring.append([packet(1)], 1, 10, tenth / 10)
        oldest = numbers(ring.after(ring.first - 1, tenth / 10))[0] - 1  # it came at oldest / 10
        assert max(0, tenth - 61) <= oldest <= max(0, tenth - 50)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=12),
    st.integers(1, 30),
    st.integers(-1, 70),
    st.none() | st.integers(0, 70),
)
def test_an_answer_has_exactly_the_kept_rows_behind_the_cursor(batches, most, after, upto):
    ring, total = Ring(Replay(rows=most), "e"), 0
    for counts in batches:
        ring.append([packet(rows) for rows in counts], sum(counts), 10 * len(counts), 0)
        total += sum(counts)
    kept = ring.after(after, 0, upto)
    begin = ring.first - 1 if kept.truncated else after
    expected = range(begin + 1, min(total, total if upto is None else upto) + 1)
    assert numbers(kept) == list(expected)
    assert kept.truncated == (not ring.first - 1 <= after <= total)
    assert ring.last == total


class Loop:
    """Keeps what is due until the test lets time pass."""

    def __init__(self):
        self.calls = {}

    def call_later(self, delay, callback, *args):
        timer = Timer(self)
        self.calls[timer] = delay, callback, args
        return timer

    def pass_time(self):
        for timer, (_, callback, args) in tuple(self.calls.items()):
            del self.calls[timer]
            callback(*args)


class Timer:
    def __init__(self, loop):
        self.loop = loop

    def cancel(self):
        self.loop.calls.pop(self, None)


def test_a_ring_that_a_stream_fills_stays_and_one_that_none_fills_goes():
    loop = Loop()
    rings = Rings(loop)
    held, left = rings.get("held", Replay(keep=7), 1), rings.get("left", Replay(keep=7), 1)
    rings.hold("held")
    assert {delay for delay, _, _ in loop.calls.values()} == {7}
    loop.pass_time()
    assert "held" in rings and "left" not in rings
    assert rings.get("held", Replay(), 1) is held
    assert rings.get("left", Replay(), 1).epoch != left.epoch


def test_newer_settings_begin_a_new_ring_and_older_ones_find_it():
    rings = Rings(Loop())
    old = rings.get("a", Replay(), 1)
    new = rings.get("a", Replay(), 2)
    assert new is not old and new.epoch != old.epoch
    assert rings.get("a", Replay(), 1) is new


def test_nothing_is_left_after_close():
    loop = Loop()
    rings = Rings(loop)
    rings.get("a", Replay(), 1)
    rings.close()
    assert "a" not in rings and not loop.calls
