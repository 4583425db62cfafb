"""What pandas has and Arrow has not: an index, missing values, columns that change in place."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from aiostream_ds import Field, FieldType, Frame
from aiostream_ds._frames.frame import FrameError
from tests.tables.libraries import library

pytestmark = pytest.mark.slow  # imports pandas

START = datetime(2026, 1, 1, tzinfo=UTC)
MS = int(START.timestamp() * 1000)


@pytest.fixture
def pd() -> Any:
    return library("pandas")


def columns_of(table: Any) -> dict[str, tuple[str, list[Any]]]:
    return {
        field.name: (
            field.type.name,
            field.values.to_pylist() if hasattr(field.values, "to_pylist") else list(field.values),
        )
        for field in Frame.from_table(table).fields
    }


def test_an_index_without_a_name_is_the_time_if_it_has_times(pd):
    times = pd.DatetimeIndex([START, START])
    assert columns_of(pd.DataFrame({"v": [1, 2]}, index=times)) == {
        "time": ("TIME", [MS, MS]),
        "v": ("INT64", [1, 2]),
    }


@pytest.mark.parametrize("index", [None, [5, 7], range(3, 5)])
def test_an_index_of_integers_without_a_name_is_left_out(pd, index):
    table = pd.DataFrame({"v": [1, 2]}, index=index)
    assert list(columns_of(table)) == ["v"]
    assert list(columns_of(table[table["v"] > 1])) == ["v"]


def test_an_index_with_a_name_is_a_column_of_it(pd):
    table = pd.DataFrame({"v": [1]}, index=pd.RangeIndex(1, name="row"))
    assert columns_of(table)["row"] == ("INT64", [0])
    table = pd.DataFrame({"v": [1]}, index=pd.DatetimeIndex([START], name="when"))
    assert columns_of(table)["when"] == ("TIME", [MS])
    table = pd.DataFrame({"v": [1]}, index=["a"])
    assert columns_of(table)["index"] == ("STRING", ["a"])


def test_the_levels_of_a_multi_index_are_columns(pd):
    index = pd.MultiIndex.from_tuples([(START, "a", 1)], names=[None, "host", None])
    assert columns_of(pd.DataFrame({"v": [1]}, index=index)) == {
        "time": ("TIME", [MS]),
        "host": ("STRING", ["a"]),
        "level_2": ("INT64", [1]),
        "v": ("INT64", [1]),
    }


def test_column_names_become_strings(pd):
    names = pd.MultiIndex.from_tuples([("cpu", "mean"), ("cpu", "")])
    assert list(columns_of(pd.DataFrame([[1, 2]], columns=names))) == ["cpu_mean", "cpu"]
    assert list(columns_of(pd.DataFrame([[1, 2]]))) == ["0", "1"]


def test_a_series_is_a_table_with_its_index(pd):
    times = pd.DatetimeIndex([START])
    assert columns_of(pd.Series([1.5], times, name="celsius")) == {
        "time": ("TIME", [MS]),
        "celsius": ("FLOAT64", [1.5]),
    }
    assert list(columns_of(pd.Series([1.5]))) == ["value"]


@pytest.mark.parametrize(
    ("values", "dtype", "kind", "expected"),
    [
        ([1, None], "Int64", "INT64", [1, None]),
        ([2**53 + 1, None], "Int64", "INT64", [2**53 + 1, None]),
        ([1, None], "UInt8", "UINT8", [1, None]),
        ([1.5, None], "Float32", "FLOAT32", [1.5, None]),
        ([1.5, None], "float64", "FLOAT64", [1.5, None]),
        ([1.5, float("inf")], "float32", "FLOAT32", [1.5, float("inf")]),
        ([True, None], "boolean", "BOOL", [True, None]),
        (["a", None], "string", "STRING", ["a", None]),
        (["a", None], "string[pyarrow]", "STRING", ["a", None]),
        (["a", None], "str", "STRING", None),
        (["a", float("nan")], "object", "STRING", ["a", None]),
        ([1, 2.5, None], "object", "FLOAT64", [1.0, 2.5, None]),
        ([{"a": 1}, None], "object", "JSON", [{"a": 1}, None]),
        ([[1], None], "object", "JSON", [[1], None]),
        ([None, None], "object", "FLOAT64", [None, None]),
        (["b", None, "a", "b"], "category", "STRING", ["b", None, "a", "b"]),
        ([5, None, 5], "category", "INT64", [5, None, 5]),
        (["2026-01-01", None], "datetime64[ns]", "TIME", [MS, None]),
        (["2026-01-01", None], "datetime64[s]", "TIME", [MS, None]),
        (["2026-01-01T01:00+01:00", None], "datetime64[us, Europe/Berlin]", "TIME", [MS, None]),
        (["1s", None, "-1500ms"], "timedelta64[ns]", "FLOAT64", [1.0, None, -1.5]),
        ([0.0, 1.5], "Sparse[float64]", "FLOAT64", [0.0, 1.5]),
    ],
)
def test_missing_values_are_null(pd, values, dtype, kind, expected):
    series = pd.Series(values, dtype=dtype)
    found = columns_of(series.to_frame("v"))["v"]
    assert found[0] == kind
    if expected is not None:
        assert found[1] == expected
    field = Field("v", series)
    assert (field.type.name, len(field)) == (kind, len(values))


def test_categories_keep_their_type(pd):
    times = pd.Series(pd.Categorical(pd.to_datetime(["2026-01-01", None], utc=True)))
    assert columns_of(times.to_frame("v"))["v"] == ("TIME", [MS, None])
    whole = pd.Series(pd.Categorical([7, 5, 7]))
    assert columns_of(whole.to_frame("v"))["v"] == ("INT64", [7, 5, 7])


def test_the_index_and_arrays_of_pandas_are_values_of_a_field(pd):
    times = pd.date_range("2026-01-01", periods=2, freq="1ns", tz="UTC")
    assert list(Field("t", times).nanos) == [0, 1]
    assert [str(each) for each in Field("t", pd.Index(["a", "b"])).values] == ["a", "b"]
    assert Field("t", pd.array([1, None], dtype="Int64")).values == [1, None]
    assert list(Field("t", pd.Series([1, 2], dtype="Int64"), FieldType.TIME).values) == [1, 2]
    assert Field("t", pd.Series([1, 2]), FieldType.FLOAT64).values.tolist() == [1.0, 2.0]


def test_what_is_changed_later_does_not_change_a_frame(pd):
    table = pd.DataFrame({"f": [1.0, 2.0], "o": ["a", "b"], "i": [1, 2], "b": [True, False]})
    frame = Frame.from_table(table)
    fields = [Field(name, table[name]) for name in table]
    for column in table:
        table[column].array[0] = table[column].array[1]
    table.loc[:, "f"] = 9.0
    for field in [*frame.fields, *fields]:
        values = field.values.to_pylist() if hasattr(field.values, "to_pylist") else field.values
        assert list(values) != [values[1], values[1]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda pd: pd.period_range("2026", periods=1, freq="D"), r"'v': .* period\[D\]; convert"),
        (lambda pd: pd.Series(pd.cut([1], 2)), r"'v': .* interval\[.*astype\(str\)"),
        (lambda pd: [1j], "'v': .* complex128; take"),
        (lambda pd: pd.Series([1, "a"], dtype=object), "'v': expected values of one type"),
        (lambda pd: pd.Series([object()]), "'v': "),
    ],
)
def test_a_column_that_cannot_be_meant_is_named_with_its_type(pd, make, message):
    with pytest.raises(FrameError, match=message):
        Frame.from_table(pd.DataFrame({"v": make(pd)}))


def test_two_columns_of_one_name_are_refused(pd):
    with pytest.raises(FrameError, match="must have different names, got 'a' more than once"):
        Frame.from_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    table = pd.DataFrame({"time": [START]}, index=pd.DatetimeIndex([START]))
    with pytest.raises(FrameError, match="got 'time' more than once; the index is a"):
        Frame.from_table(table)


def test_a_table_is_not_the_values_of_a_field(pd):
    table = pa.table({"a": [1]})
    for each in (table, pd.DataFrame({"a": [1]}), pd.MultiIndex.from_tuples([(1, 2)])):
        with pytest.raises(FrameError, match="'v': expected a column, got several in a .*from_tab"):
            Field("v", each)
