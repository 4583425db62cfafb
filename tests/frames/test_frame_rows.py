"""Packets joined to one frame, and some rows of a frame."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Field, FieldType, Frame
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import frame_rows
from aiostream_ds._frames.json import packet

START = datetime(2026, 1, 1, tzinfo=UTC)
NAN = float("nan")


def columns(frame):
    return {field.name: list(field.values) for field in frame.fields}


def test_packets_of_one_schema_become_one_frame():
    encoder = RowEncoder()
    batches = [[{"time": 1, "n": 1}], [{"time": 2, "n": None}, {"time": 3, "n": 3}]]
    packets = [p for batch in batches for p in encoder.encode(batch)]
    assert columns(frame_rows.join_packets(packets, None)) == {"time": [1, 2, 3], "n": [1, None, 3]}


def test_a_later_column_is_none_before_and_values_are_converted_to_the_newest_type():
    encoder = RowEncoder()
    packets = [
        p
        for row in ({"time": 1, "n": 1}, {"time": 2, "n": 0.5, "s": "x"}, {"time": 3, "n": 2.0})
        for p in encoder.encode([row])
    ]
    frame = frame_rows.join_packets(packets, None)
    assert columns(frame) == {"time": [1, 2, 3], "n": [1.0, 0.5, 2.0], "s": [None, "x", None]}
    assert [field.type for field in frame.fields][1] is FieldType.FLOAT64


def test_special_values_and_nanoseconds_are_restored():
    moments = [START + timedelta(microseconds=1), START]
    frames = [Frame(Field("time", [t]), Field("v", [v])) for t, v in zip(moments, [NAN, -1e999])]  # noqa: B905
    frame = frame_rows.join_packets([packet(frame) for frame in frames], None)
    first, second = frame.fields[1].values
    assert first != first and second == float("-inf")
    assert list(frame.fields[0].nanos) == [1000, 0]


def test_no_packets_give_an_empty_frame_with_the_columns_of_the_schema():
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "n": 1}])
    assert columns(frame_rows.join_packets([], encoder.schema)) == {"time": [], "n": []}
    assert frame_rows.join_packets([], None).fields == ()


@pytest.mark.parametrize("make", [list, np.array, pa.array])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [([3, 0], [13, 10]), ([], []), (range(2), [10, 11]), (slice(1, 9), [11, 12, 13])],
)
def test_take_values_keeps_the_type_of_the_column(make, rows, expected):
    values = make([10, 11, 12, 13])
    found = frame_rows.take_values(values, rows)
    assert type(found) is type(values)
    assert (found if make is list else found.tolist()) == expected


def test_take_rows_takes_nanos_and_keeps_name_labels_and_config():
    moments = [START + timedelta(microseconds=n) for n in range(3)]
    frame = Frame(Field("time", moments, labels={"a": "b"}, nullable=True), name="n", ref_id="B")
    found = frame_rows.take_rows(frame, [2, 1])
    (time,) = found.fields
    assert (time.nanos, time.labels, time.nullable) == ([2000, 1000], {"a": "b"}, True)
    assert (found.name, found.ref_id) == ("n", "B")


@given(st.integers(0, 12), st.integers(-2, 14), st.integers(-2, 14))
def test_slice_rows_has_the_rows_from_start_to_stop(rows, start, stop):
    frame = Frame(Field("n", list(range(rows)), FieldType.INT64))
    stop = max(start, stop)
    expected = list(range(max(0, start), max(0, min(rows, stop))))
    assert list(frame_rows.slice_rows(frame, start, max(0, stop)).fields[0].values) == expected


def test_rows_between_has_the_rows_of_the_time_range():
    frame = Frame(
        Field("time", [10, 20, None, 30, 40], FieldType.TIME), Field("n", [1, 2, 3, 4, 5])
    )
    assert columns(frame_rows.rows_between(frame, 20, 40))["n"] == [2, 4, 5]
    assert columns(frame_rows.rows_between(frame, 0, 30))["n"] == [1, 2, 4]
    timeless = Frame(Field("n", [1, 2, 3]))
    assert columns(frame_rows.rows_between(timeless, 0, 1))["n"] == [1, 2, 3]


def test_joined_frames_have_the_columns_of_the_last_one_and_then_those_of_others():
    old = Frame(Field("b", ["x"]), Field("time", [1], FieldType.TIME, nanos=[5]), name="old")
    new = Frame(Field("time", [2], FieldType.TIME), Field("a", [True]), name="new")
    found = frame_rows.join_frames([old, new])
    assert columns(found) == {"time": [1, 2], "a": [None, True], "b": ["x", None]}
    assert [field.name for field in found.fields] == ["time", "a", "b"]
    assert (found.name, found.fields[0].nanos, found.meta) == ("new", [5, 0], None)


@pytest.mark.parametrize(
    ("old", "new", "type"),
    [
        ([1.5, None], [1, 2], FieldType.FLOAT64),
        ([1, 2], [0.5], FieldType.FLOAT64),
        ([1], [2], FieldType.INT64),
    ],
)
def test_numbers_of_several_types_are_joined_as_floats(old, new, type):
    frames = [Frame(Field("a", values)) for values in (old, new)]
    (field,) = frame_rows.join_frames(frames).fields
    assert (field.values, field.type, field.nullable) == (old + new, type, None in old)


def test_values_of_another_type_than_the_last_ones_are_counted():
    old, new = Frame(Field("a", ["x", None, "y"])), Frame(Field("a", [1.5]))
    found = frame_rows.join_frames([old, new])
    assert columns(found) == {"a": [None, None, None, 1.5]}
    (notice,) = found.meta.notices
    assert notice.text == "2 values of earlier rows do not have the type of their column."
