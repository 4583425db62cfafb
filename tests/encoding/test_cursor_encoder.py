"""Packets of a stream with a cursor: their ranges of cursors, and dropped duplicates."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Cursor, Field, Frame, Row, SchemaPolicy
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import cursor_kind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames.packet import CursorRange
from aiostream_ds._telemetry import Counters


class Line(Row):
    time: int
    n: int


def make_encoder(row=None):
    counters = Counters()
    return CursorEncoder(RowEncoder(row), cursor_kind("n"), counters), counters


def rows_of(packets):
    return [n for packet in packets for n in msgspec.json.decode(packet.data)["values"][1]]


MAKERS = {
    "dicts": lambda ns: [{"time": n, "n": n} for n in ns],
    "rows": lambda ns: [Line(n, n) for n in ns],
    "a list": lambda ns: [[Line(n, n) for n in ns]],
    "columns": lambda ns: [Line.from_columns(time=list(ns), n=list(ns))],
    "arrays": lambda ns: [Line.from_columns(time=np.array(ns), n=np.array(ns))],
    "a frame": lambda ns: [Frame(Field("time", list(ns)), Field("n", list(ns)))],
}
KINDS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@KINDS
def test_a_packet_has_the_cursors_after_the_previous_row_up_to_its_last_row(make):
    encoder, _ = make_encoder()
    encoder.begin(Cursor("log", 3))
    (first,) = encoder.encode(make([4, 7, 9]))
    (second,) = encoder.encode(make([10]))
    assert (first.cursors, second.cursors) == (CursorRange("log", 3, 9), CursorRange("log", 9, 10))
    assert encoder.cursor == Cursor("log", 10)


@KINDS
def test_rows_that_are_not_above_the_last_cursor_are_dropped_and_counted(make):
    encoder, counters = make_encoder()
    encoder.begin(Cursor("", 5))
    packets = encoder.encode(make([4, 5, 6, 8, 7, 8, 9]))
    assert rows_of(packets) == [6, 8, 9]
    assert packets[-1].cursors == CursorRange("", 5, 9)
    assert counters.dropped == {"duplicate": 4}
    assert encoder.encode(make([9])) == []
    assert counters.dropped == {"duplicate": 5}


def test_what_is_left_out_is_counted_once_when_a_batch_is_encoded_again_row_by_row():
    counters = Counters()
    rows = RowEncoder(policy=SchemaPolicy(conflict="null"), counters=counters)
    encoder = CursorEncoder(rows, cursor_kind("n"), counters)
    encoder.begin(Cursor("", 5))
    encoder.encode([{"time": 1, "n": 6, "v": 1}])
    counters.dropped["late"] = 3
    batch = [{"time": 1, "n": 5, "v": 1}, {"time": 1, "n": 7, "v": "text"}, Cursor("", 8), "bad"]
    with pytest.raises(TypeError):
        encoder.encode(batch)
    assert counters.dropped == {"late": 3}
    for row in batch[:3]:
        encoder.encode([row])
    assert counters.dropped == {"late": 3, "duplicate": 1, "conflict": 1}


def test_another_epoch_begins_after_its_cursor():
    encoder, counters = make_encoder()
    encoder.begin(Cursor("old", 100))
    packets = encoder.encode([Line(1, 101), Cursor("new", -1), Line(2, 5), Line(3, 6)])
    assert [(p.cursors, p.rows) for p in packets] == [
        (CursorRange("old", 100, 101), 1),
        (CursorRange("new", -1, -1), 0),
        (CursorRange("new", -1, 6), 2),
    ]
    assert counters.dropped == {}


def test_rows_that_the_source_skips_are_a_gap_between_two_packets():
    encoder, _ = make_encoder()
    encoder.begin(Cursor("", 10))
    empty, packet = encoder.encode([Cursor("", 50), Line(1, 51)])
    assert (empty.cursors, empty.rows) == (CursorRange("", 50, 50), 0)
    assert packet.cursors == CursorRange("", 50, 51)


def test_a_cursor_that_was_passed_already_is_ignored():
    encoder, _ = make_encoder()
    encoder.begin(Cursor("", 10))
    empty, packet = encoder.encode([Cursor("", 4), Line(1, 11)])
    assert empty.cursors == CursorRange("", 10, 10) and packet.cursors == CursorRange("", 10, 11)


def test_has_begun_is_false_before_begin():
    encoder, _ = make_encoder()
    assert not encoder.has_begun
    encoder.begin(Cursor("", -1))
    assert encoder.has_begun and encoder.cursor_packet.cursors == CursorRange("", -1, -1)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"time": 1}], "a row must have the cursor 'n', got {'time': 1}"),
        ([{"time": 1, "n": "4"}], "cursor 'n' must be an int, got '4'"),
        ([{"time": 1, "n": True}], "cursor 'n' must be an int, got True"),
        ([{"time": 1, "n": 1.0}], "cursor 'n' must be an int, got 1.0"),
        ([{"time": 1, "n": 1 << 53}], "cursor 'n' must be from 0 to .*, got 9007199254740992"),
        ([Frame(Field("time", [1]))], "must have a column 'n', the cursor, got Frame"),
        (
            [Cursor("", 1 << 53)],
            "the value of Cursor.* must be from -1 to .*, got 90071",
        ),
    ],
)
def test_an_invalid_cursor_is_refused_and_does_not_change_the_encoder(rows, message):
    encoder, _ = make_encoder()
    encoder.begin(Cursor("a", 3))
    with pytest.raises(TypeError, match=message):
        encoder.encode([Cursor("b", 9), *rows])
    assert encoder.cursor == Cursor("a", 3)


@given(st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=12), st.sampled_from([*MAKERS]))
def test_ranges_are_contiguous_and_contain_exactly_their_rows(batches, kind):
    encoder, counters = make_encoder(Line)
    encoder.begin(Cursor("", -1))
    seen, cursor, given = [], -1, 0
    for batch in batches:
        given += len(batch)
        for packet in encoder.encode(MAKERS[kind](batch)) if batch else ():
            epoch, prev, last = packet.cursors
            assert prev == cursor and last > prev
            found = rows_of([packet])
            assert all(prev < n <= last for n in found) and found[-1] == last
            seen += found
            cursor = last
    assert seen == sorted(set(seen))
    assert len(seen) + counters.dropped.get("duplicate", 0) == given
