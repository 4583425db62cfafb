"""Packets of a stream with a cursor: each knows its place, and duplicates are left out."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Cursor, Field, Frame, Row
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames.packet import CursorRange
from aiostream_ds._telemetry import Counters


class Line(Row):
    time: int
    n: int


def numbering(row=None):
    counters = Counters()
    return CursorEncoder(RowEncoder(row), "n", counters), counters


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
def test_a_packet_stands_between_the_row_before_it_and_its_last(make):
    numbers, _ = numbering()
    numbers.begin(Cursor("log", 3))
    (first,) = numbers.encode(make([4, 7, 9]))
    (second,) = numbers.encode(make([10]))
    assert (first.cursors, second.cursors) == (CursorRange("log", 3, 9), CursorRange("log", 9, 10))
    assert numbers.position == Cursor("log", 10)


@KINDS
def test_rows_that_are_not_above_the_last_are_left_out_and_counted(make):
    numbers, counters = numbering()
    numbers.begin(Cursor("", 5))
    packets = numbers.encode(make([4, 5, 6, 8, 7, 8, 9]))
    assert rows_of(packets) == [6, 8, 9]
    assert packets[-1].cursors == CursorRange("", 5, 9)
    assert counters.dropped == {"duplicate": 4}
    assert numbers.encode(make([9])) == []
    assert counters.dropped == {"duplicate": 5}


def test_another_epoch_begins_where_it_says():
    numbers, counters = numbering()
    numbers.begin(Cursor("old", 100))
    packets = numbers.encode([Line(1, 101), Cursor("new", -1), Line(2, 5), Line(3, 6)])
    assert [(p.cursors, p.rows) for p in packets] == [
        (CursorRange("old", 100, 101), 1),
        (CursorRange("new", -1, -1), 0),
        (CursorRange("new", -1, 6), 2),
    ]
    assert counters.dropped == {}


def test_rows_that_the_source_leaves_out_are_a_gap_between_two_packets():
    numbers, _ = numbering()
    numbers.begin(Cursor("", 10))
    mark, packet = numbers.encode([Cursor("", 50), Line(1, 51)])
    assert (mark.cursors, mark.rows) == (CursorRange("", 50, 50), 0)
    assert packet.cursors == CursorRange("", 50, 51)


def test_a_place_that_is_behind_already_changes_nothing():
    numbers, _ = numbering()
    numbers.begin(Cursor("", 10))
    mark, packet = numbers.encode([Cursor("", 4), Line(1, 11)])
    assert mark.cursors == CursorRange("", 10, 10) and packet.cursors == CursorRange("", 10, 11)


def test_it_is_known_only_once_it_has_begun():
    numbers, _ = numbering()
    assert not numbers.known
    numbers.begin(Cursor("", -1))
    assert numbers.known and numbers.mark.cursors == CursorRange("", -1, -1)


@pytest.mark.parametrize(
    "rows, text",
    [
        ([{"time": 1}], "has no 'n', the cursor"),
        ([{"time": 1, "n": "4"}], "the cursor 'n' is '4'; allowed is a whole number"),
        ([{"time": 1, "n": True}], "the cursor 'n' is True"),
        ([{"time": 1, "n": 1.0}], "the cursor 'n' is 1.0"),
        ([{"time": 1, "n": 1 << 53}], "the cursor 'n' is 9007199254740992; allowed is 0 to"),
        ([Frame(Field("time", [1]))], "has no column 'n', the cursor"),
        ([Cursor("", 1 << 53)], "has a cursor outside -1 to"),
    ],
)
def test_what_cannot_be_a_cursor_is_refused_and_nothing_is_remembered(rows, text):
    numbers, _ = numbering()
    numbers.begin(Cursor("a", 3))
    with pytest.raises(TypeError, match=text):
        numbers.encode([Cursor("b", 9), *rows])
    assert numbers.position == Cursor("a", 3)


@given(st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=12), st.sampled_from([*MAKERS]))
def test_places_join_without_a_hole_and_hold_exactly_their_rows(batches, kind):
    numbers, counters = numbering(Line)
    numbers.begin(Cursor("", -1))
    seen, stands, given = [], -1, 0
    for batch in batches:
        given += len(batch)
        for packet in numbers.encode(MAKERS[kind](batch)) if batch else ():
            epoch, prev, last = packet.cursors
            assert prev == stands and last > prev
            found = rows_of([packet])
            assert all(prev < n <= last for n in found) and found[-1] == last
            seen += found
            stands = last
    assert seen == sorted(set(seen))
    assert len(seen) + counters.dropped.get("duplicate", 0) == given
