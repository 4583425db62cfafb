"""The fast path writes the bytes of the general path, or declines."""

import enum
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from math import inf

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from aiostream_ds._frames import columns, common_columns, json
from aiostream_ds._frames.common_columns import CommonCaseWriter, validated_type
from aiostream_ds._frames.frame import Field, FieldType
from aiostream_ds._frames.list_readers import list_reader

zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
times = st.datetimes(timezones=zones)


class Level(enum.IntEnum):
    LOW = -1
    HIGH = 2**40


class SomeDatetime(datetime):
    pass


class Name(str):
    def __str__(self):
        return "another text"


VALUES = {
    FieldType.FLOAT64: st.floats() | st.integers(-(2**66), 2**66) | st.none(),
    FieldType.INT64: st.integers(-(2**64), 2**64) | st.none(),
    FieldType.TIME: times | st.integers(-(2**44), 2**44) | st.none(),
    FieldType.STRING: st.text(st.characters(), max_size=5) | st.just("null"),
    FieldType.BOOL: st.booleans() | st.none(),
}
OTHERS = [
    *(2**1024, -(2**1024), True, "1", b"1", "\ud800", None, 1.0, Level.LOW, Level.HIGH, Name("a")),
    *(Decimal("1.5"), Decimal("1e400"), Decimal("NaN"), Fraction(1, 3), date(2026, 11, 30)),
    *(
        SomeDatetime(2026, 11, 30, tzinfo=UTC),
        pd.Timestamp(10**18 + 1, tz=UTC),
        datetime(2026, 1, 1),
    ),
    *(np.float64(0.1), np.float32(0.1), np.int8(1), np.bool_(True), np.str_("a"), [1], {}, UNSET),
]
"""Values of other types, which the general path converts or refuses."""
TYPED_VALUES = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind], min_size=1, max_size=6))
)


def general_data(types, values):
    """What the general path writes."""
    fields = [
        Field(f"c{n}", own, kind, nullable=True)
        for n, (kind, own) in enumerate(zip(types, values, strict=True))
    ]
    return json.data(fields)


@given(st.lists(TYPED_VALUES, min_size=1, max_size=6))
def test_a_row_is_written_as_the_general_path_writes_columns_of_length_one(drawn):
    types = [kind for kind, _ in drawn]
    row = [values[0] for _, values in drawn]
    for nullable in ((), range(len(types))):
        written = CommonCaseWriter(types, nullable=nullable).row(row)
        if written is not None:
            assert written == general_data(types, [[value] for value in row])


@given(st.lists(TYPED_VALUES, min_size=1, max_size=3), st.sampled_from([1, 64]))
def test_the_fast_path_writes_the_bytes_of_the_general_path(drawn, repeats):
    rows = min(len(values) for _, values in drawn)
    types = [kind for kind, _ in drawn]
    cut = [values[:rows] * repeats for _, values in drawn]
    for nullable in ((), range(len(types))):
        written = CommonCaseWriter(types, nullable=nullable).data(cut)
        if written is not None:
            assert written == general_data(types, cut)
            assert orjson.loads(written)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("value", OTHERS, ids=repr)
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("repeats", [1, 64])
def test_a_value_of_another_type_is_written_by_the_fast_path_as_by_the_general_one(
    kind, value, is_first, repeats
):
    found = {"float64": [0.5], "int64": [7, 2**41], "string": ["x"], "bool": [True]}
    for common in found.get(kind.value, [2**41, datetime(2026, 11, 30, 1, 2, 3, 400_000, UTC)]):
        values = [value, common][:: 1 if is_first else -1] * repeats
        written = CommonCaseWriter([kind], nullable=[0]).data([values])
        if written is not None:
            assert written == general_data([kind], [values])


def test_integers_in_a_column_of_floats_take_the_fast_path():
    written = CommonCaseWriter([FieldType.FLOAT64], nullable=[0]).data([[1, 0.5, None, 2**53 + 1]])
    assert written == b'{"values":[[1.0,0.5,null,9007199254740992.0]]}'


def test_a_column_without_values_is_written_as_by_the_general_path():
    for kind in VALUES:
        assert CommonCaseWriter([kind]).data([[]]) in (None, general_data([kind], [[]]))


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
def test_the_common_case_takes_the_fast_path(kind, values):
    assert CommonCaseWriter([kind]).data([values]) is not None


@pytest.mark.parametrize(
    "kind, values",
    [
        (FieldType.FLOAT64, [1.5, None]),
        (FieldType.INT64, [None, 2**63 - 1]),
        (FieldType.STRING, ["null", None]),
        (FieldType.BOOL, [None, True]),
        (FieldType.BOOL, [None, None]),
        (FieldType.TIME, [None]),
    ],
)
def test_columns_with_missing_values_take_the_fast_path_only_if_they_may_have_some(kind, values):
    nullable = CommonCaseWriter([kind], nullable=[0])
    written = json.data([Field("c", values, kind, nullable=True)])
    assert nullable.data([values]) == written and CommonCaseWriter([kind]).data([values]) is None
    assert nullable.row((None,)) == b'{"values":[[null]]}'
    assert CommonCaseWriter([kind]).row((None,)) is None


@pytest.mark.slow
def test_all_rows_that_miss_values_have_one_function(monkeypatch):
    made = set()
    make = common_columns.row_function
    monkeypatch.setattr(common_columns, "row_function", lambda *each: made.add(each) or make(*each))
    columns = {FieldType.FLOAT64: 0.5, FieldType.INT64: 2**62, FieldType.STRING: "é"}
    columns |= {FieldType.BOOL: True, FieldType.JSON: None}
    types, values = [*columns] * 2, [*columns.values()] * 2
    writer = CommonCaseWriter(types, nullable=range(10))
    for n in range(1 << 10):
        row = [None if n >> bit & 1 else value for bit, value in enumerate(values)]
        assert writer.row(row) == general_data(types, [[value] for value in row])
    assert len(made) == 1
    writer = CommonCaseWriter([*columns][:2], nullable=range(2))
    rows = [(0.5, None), (None, 5), (None, None), (0.5, 5)]
    assert None not in map(writer.row, rows) and len(made) == 3
    for row in ((None, 2**63), (inf, None), (None, True), (1, None)):
        assert writer.row(row) is None


@pytest.mark.parametrize(
    "kind, values",
    [
        (FieldType.FLOAT64, [None, float("nan")]),
        (FieldType.FLOAT64, [None, float("inf")]),
        (FieldType.FLOAT64, [None, True]),
        (FieldType.INT64, [None, 2**63]),
        (FieldType.INT64, [None, True]),
        (FieldType.STRING, [None, "\ud800"]),
        (FieldType.STRING, [None, Name("a")]),
        (FieldType.TIME, [None, 5]),
    ],
)
def test_missing_values_next_to_uncommon_ones_are_left_to_the_general_path(kind, values):
    assert CommonCaseWriter([kind], nullable=[0]).data([values]) is None


@pytest.mark.parametrize(
    "kind, values",
    [
        (FieldType.FLOAT64, [float("nan")]),
        (FieldType.FLOAT64, [True]),
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
def test_the_fast_path_declines_other_columns(kind, values):
    assert CommonCaseWriter([kind]).data([values]) is None
    if len(values) == 1 and isinstance(values, list):
        assert CommonCaseWriter([kind]).row(values) is None


@pytest.mark.parametrize("low", [-(2**63) - 1, -(2**64), -(2**80)])
@pytest.mark.parametrize("missing", [[], [None]])
def test_an_integer_beyond_64_bits_among_many_large_ones_is_refused(low, missing):
    values = [2**40] * 64 + missing + [low]
    writer = CommonCaseWriter([FieldType.INT64], nullable=[0])
    assert writer.data([values]) is None
    values[-1] = -(2**63)
    assert orjson.loads(writer.data([values]))["values"] == [values]


@given(TYPED_VALUES, st.booleans())
def test_a_validated_list_needs_no_conversion_and_no_check(column, is_declared):
    kind, values = column
    wanted = kind if is_declared else None
    found = validated_type(values, wanted)
    if found is not None:
        read = columns.read("f", values, wanted)
        columns.check("f", read)
        assert read == columns.Column(values, found, False)
        assert read.values is values


@pytest.mark.diagonal
@pytest.mark.parametrize("dtype", [*"bhilBHILfd?", "f2", ">i8", "M8[ms]", "U3"])
@pytest.mark.parametrize("wanted", [None, *FieldType], ids=str)
def test_a_validated_array_needs_no_conversion_and_no_check(dtype, wanted):
    for values in (
        np.array([], dtype),
        np.array([0, 1, 1], dtype),
        np.array([1, 0, 1], dtype)[::2],
    ):
        found = validated_type(values, wanted)
        if found is not None:
            read = columns.read("f", values, wanted)
            columns.check("f", read)
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
def test_values_in_the_common_case_are_validated(values, wanted):
    assert validated_type(values, wanted) is not None


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
def test_other_values_are_not_validated(values, wanted):
    assert validated_type(values, wanted) is None


@pytest.mark.parametrize(
    "later",
    [
        [np.array([1, 2]), np.array([0.5, np.nan])],
        [np.array([1, 2]), np.array([1, 2])],
        [np.array([1, 2]), np.array([[0.5, 1.5], [2.5, 3.5]])],
        [np.array([1, 2]), np.ma.masked_array([0.5, 1.5], [False, True])],
        [np.array([1, 2**62]), np.array([0.5, 1.5])],
        [np.array([1, 2]), np.array([0.5, 1.5], ">f8")],
        [np.array([1, 2]), pa.array([0.5, 1.5])],
        [np.array([1, 2, 3, 4])[::2], np.array([0.5, 1.5])],
    ],
    ids=["nan", "integers", "two", "masked", "time", "byte order", "arrow", "strides"],
)
def test_arrays_like_known_ones_are_checked_as_the_first_ones(later):
    types = [FieldType.TIME, FieldType.FLOAT64]
    writer = CommonCaseWriter(types)
    assert writer.data([np.array([1, 2]), np.array([0.5, 1.5])]) == b'{"values":[[1,2],[0.5,1.5]]}'
    assert writer.data(later) is None
    assert writer.data([np.array([3, 4]), np.array([2.5, 3.5])]) == b'{"values":[[3,4],[2.5,3.5]]}'


def test_lists_after_arrays_take_the_fast_path():
    writer = CommonCaseWriter([FieldType.TIME, FieldType.FLOAT64])
    for values in ([np.array([1]), np.array([0.5])], [[1], [0.5]], [np.array([1]), [0.5]]):
        assert writer.data(values) == b'{"values":[[1],[0.5]]}'


@pytest.mark.parametrize("kind", [FieldType.FLOAT64, FieldType.INT64])
def test_a_list_is_checked_without_reading_the_type_of_its_values_again(kind):
    read = list_reader(kind, is_nullable=True)
    values = [None, 1]
    assert read(values) == values
    modules = set()
    sys.setprofile(lambda frame, event, argument: modules.add(frame.f_globals["__name__"]))
    try:
        read(values)
    finally:
        sys.setprofile(None)
    assert "typing" not in modules
