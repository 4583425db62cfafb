"""The quick way and the careful way write the same bytes; the quick one may only decline."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._frames import columns as careful
from aiostream_ds._frames import json
from aiostream_ds._frames.common_columns import QuickWriter, find_sound
from aiostream_ds._frames.frame import Field, FieldType

zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
times = st.datetimes(timezones=zones)
VALUES = {
    FieldType.FLOAT64: st.floats() | st.integers(-9, 9) | st.none(),
    FieldType.INT64: st.integers(-(2**64), 2**64) | st.none(),
    FieldType.TIME: times | st.integers(-(2**44), 2**44) | st.none(),
    FieldType.STRING: st.text(st.characters(), max_size=5) | st.just("null"),
    FieldType.BOOL: st.booleans() | st.none(),
}
usual = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind], min_size=1, max_size=6))
)


@given(st.lists(usual, min_size=1, max_size=3))
def test_one_row_is_written_as_a_column_of_one(columns):
    types = [kind for kind, _ in columns]
    row = [values[0] for _, values in columns]
    written = QuickWriter(types).row(row)
    if written is not None:
        assert written == QuickWriter(types).data([[value] for value in row])


@given(st.lists(usual, min_size=1, max_size=3))
def test_the_quick_way_writes_what_the_careful_way_writes(columns):
    rows = min(len(values) for _, values in columns)
    types = [kind for kind, _ in columns]
    cut = [values[:rows] for _, values in columns]
    written = QuickWriter(types).data(cut)
    if written is not None:
        fields = [
            Field(f"c{n}", values, kind, nullable=True)
            for n, (kind, values) in enumerate(zip(types, cut, strict=True))
        ]
        assert written == json.data(fields)
        assert orjson.loads(written)


@pytest.mark.parametrize(
    "kind, values",
    [
        (FieldType.FLOAT64, [1.5, -0.0]),
        (FieldType.INT64, [2**63 - 1, -(2**63)]),
        (FieldType.TIME, [1_700_000_000_000]),
        (FieldType.TIME, [datetime(2026, 11, 22, 12, 0, 0, 123456, UTC)]),
        (FieldType.STRING, ["é", ""]),
        (FieldType.BOOL, [True, False]),
        (FieldType.FLOAT64, np.array([1.5, -0.0])),
        (FieldType.INT64, np.array([-(2**63)])),
        (FieldType.TIME, np.array([1_700_000_000_000])),
        (FieldType.BOOL, np.array([True])),
    ],
)
def test_usual_columns_take_the_quick_way(kind, values):
    assert QuickWriter([kind]).data([values]) is not None


@pytest.mark.parametrize(
    "kind, values",
    [
        (FieldType.FLOAT64, [float("nan")]),
        (FieldType.FLOAT64, [1]),
        (FieldType.INT64, [2**63]),
        (FieldType.INT64, [True]),
        (FieldType.TIME, [datetime(2026, 11, 22)]),
        (FieldType.TIME, [2**62]),
        (FieldType.TIME, [datetime(1600, 1, 1, tzinfo=UTC)]),
        (FieldType.TIME, [datetime(2026, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)]),
        (FieldType.TIME, [datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))]),
        (FieldType.STRING, ["\ud800"]),
        (FieldType.BOOL, [None]),
        (FieldType.JSON, [{}]),
        (FieldType.FLOAT64, np.array([float("nan")])),
        (FieldType.FLOAT64, np.array([1.5], "f4")),
        (FieldType.FLOAT64, np.array([1.5], ">f8")),
        (FieldType.FLOAT64, np.array([1.5, 2.5, 3.5])[::2]),
        (FieldType.FLOAT64, np.array([[1.5]])),
        (FieldType.FLOAT64, np.ma.array([1.5], mask=[True])),
        (FieldType.INT64, np.array([1], "u8")),
        (FieldType.TIME, np.array([2**62])),
        (FieldType.TIME, np.array([0], "M8[s]")),
    ],
)
def test_what_is_not_usual_is_left_to_the_careful_way(kind, values):
    assert QuickWriter([kind]).data([values]) is None
    if len(values) == 1 and isinstance(values, list):
        assert QuickWriter([kind]).row(values) is None


@given(usual, st.booleans())
def test_a_list_that_is_sound_needs_no_reading_and_no_check(column, stated):
    kind, values = column
    wanted = kind if stated else None
    found = find_sound(values, wanted)
    if found is not None:
        read = careful.read("f", values, wanted)
        careful.check("f", read)
        assert read == careful.Column(values, found, False)
        assert read.values is values


@pytest.mark.parametrize("dtype", [*"bhilBHILfd?", "f2", ">i8", "M8[ms]", "U3"])
@pytest.mark.parametrize("wanted", [None, *FieldType], ids=str)
def test_an_array_that_is_sound_needs_no_reading_and_no_check(dtype, wanted):
    for values in (
        np.array([], dtype),
        np.array([0, 1, 1], dtype),
        np.array([1, 0, 1], dtype)[::2],
    ):
        found = find_sound(values, wanted)
        if found is not None:
            read = careful.read("f", values, wanted)
            careful.check("f", read)
            assert read[1:] == (found, False, None)
            assert read.values.dtype == values.dtype
            assert read.values.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.5], None),
        ([1], FieldType.TIME),
        (["é"], None),
        ([True], FieldType.BOOL),
        (np.arange(3), FieldType.TIME),
        (np.arange(3, dtype="u1"), FieldType.UINT8),
        (np.ones(3), None),
    ],
)
def test_usual_values_are_known_to_be_sound(values, wanted):
    assert find_sound(values, wanted) is not None


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([2**63], None),
        ([2**60], FieldType.TIME),
        (np.array([-(2**60)]), FieldType.TIME),
        (np.array([2**60]), FieldType.TIME),
        (["\ud800"], None),
        ([1, None], None),
        ([1, 1.5], None),
        ([1], FieldType.FLOAT64),
        ([1], "int64"),
        ([], None),
        (None, None),
    ],
)
def test_what_is_not_sound_is_left_to_the_careful_way(values, wanted):
    assert find_sound(values, wanted) is None
