"""Lines as rows: time formats, types, bad lines."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.event_times import read_time
from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.file.records import Csv, Ndjson

T = 1_700_000_000_123
ISO = "2023-11-14T22:13:20.123Z"


def ndjson(line, **settings):
    return Ndjson(RowSettings(**settings)).read(line.encode(), 7)


def csv(header, line, **settings):
    return Csv(RowSettings(**settings), header.encode()).read(line.encode(), 7)


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, unit",
    [
        (T, "auto"),
        (T / 1000, "auto"),
        (T * 1000, "auto"),
        (T * 10**6, "auto"),
        (T / 1000, "s"),
        (T, "ms"),
        (T * 1000, "us"),
        (T * 10**6, "ns"),
        (str(T), "auto"),
        (f"{T / 1000}", "s"),
        (ISO, "auto"),
        (ISO.replace("T", " "), "auto"),
        (ISO.removesuffix("Z"), "auto"),
        (ISO.replace(".", ","), "auto"),
        ("2023-11-14T23:13:20.123+01:00", "auto"),
        (f" {ISO} ", "auto"),
        (ISO.replace("Z", " GMT"), "auto"),
        (ISO.replace("Z", " utc"), "auto"),
        (ISO.replace("T", " ").replace("Z", " +0000"), "auto"),
        ("2023/11/14 22:13:20.123", "auto"),
        ("2023/11/14 22:13:20.123 UTC", "auto"),
    ],
)
def test_a_time_is_read_in_each_format(value, unit):
    assert read_time(value, RowSettings(time_unit=unit)) == T


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "14 Nov 2023 22:13:20 GMT",
        "Tue, 14 Nov 2023 23:13:20 +0100",
    ],
)
def test_an_http_date_is_a_time(text):
    assert read_time(text, RowSettings()) == T // 1000 * 1000


@pytest.mark.parametrize("text", ["14/11/2023 22:13:20", "11-14-2023", "Nov 14 22:13:20", "22:13"])
def test_a_date_that_is_ambiguous_or_incomplete_is_not_guessed(text):
    with pytest.raises(BadRecord):
        read_time(text, RowSettings())


TIMES = ["Time", "TIME", "timestamp", "Timestamp", "@timestamp", "ts", "date", "DateTime"]


@pytest.mark.parametrize("name", TIMES)
def test_the_only_key_or_column_named_like_a_time_is_the_time(name):
    expected = {"time": T, "offset": 7, "n": 1.0}
    assert ndjson(json.dumps({name: T, "n": 1})) == expected
    assert csv(f"{name},n", f"{T},1") == expected


def test_a_time_is_not_guessed_from_two_names_a_fixed_column_or_against_the_settings():
    for names, more in (
        (("ts", "date"), {}),
        (("ts",), {"columns": {"ts": "number"}}),
        (("ts",), {"time": "at"}),
    ):
        with pytest.raises(BadRecord, match="set `time` to the key"):
            ndjson(json.dumps(dict.fromkeys(names, T)), **more)
        with pytest.raises(BadRecord, match=f"got {', '.join(names)}; set `time` to the column"):
            csv(",".join(names), ",".join([str(T)] * len(names)), **more)
    exact = ndjson(json.dumps({"time": T, "ts": 5}))
    assert (exact["time"], exact["ts"]) == (T, 5)


def test_a_comma_between_semicolons_is_decimal():
    row = csv("time;a;b;c;d", f"{T // 1000},5;1,5;-2,25e3;1,2,3;a,5")
    assert row["time"] == T // 1000 * 1000 + 500
    assert [row[name] for name in "abcd"] == [1.5, -2250, "1,2,3", "a,5"]
    assert csv("time;a", f"{T};1,5", columns={"a": "number"})["a"] == 1.5
    assert csv("time;a", f"{T};1,5", columns={"a": "text"})["a"] == "1,5"
    assert csv("time\ta", f"{T}\t1,5")["a"] == "1,5"


@given(st.integers(100_000_000, 7_000_000_000))
def test_auto_finds_the_unit_of_any_time_from_1973_on(seconds):
    for factor in (1, 10**3, 10**6, 10**9):
        assert read_time(seconds * factor, RowSettings()) == seconds * 1000


def test_an_explicit_unit_is_used_for_any_number():
    assert read_time(5, RowSettings(time_unit="ms")) == 5
    assert read_time(-5_000_000, RowSettings(time_unit="ns")) == -5
    assert read_time(5, RowSettings()) == 5000


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [],
        {},
        "",
        "soon",
        "nan",
        float("nan"),
        float("inf"),
        10**30,
        -(10**30),
        "9999-12-31T00:00:00Z",
        10**400,
        10**5000,
        "1_000",
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_invalid_time_is_a_bad_line(value):
    with pytest.raises(BadRecord):
        read_time(value, RowSettings())


@given(st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)))
def test_iso_times_without_an_offset_are_utc(moment):
    exact = (moment - datetime(1970, 1, 1)) / timedelta(milliseconds=1)
    for text in (moment.isoformat(), moment.replace(tzinfo=UTC).isoformat()):
        assert abs(read_time(text, RowSettings()) - exact) <= 0.51


# -- NDJSON ----------------------------------------------------------------------------------------


def test_numbers_become_floats_and_other_values_are_unchanged():
    row = ndjson('{"time": 1700000000123, "a": 1, "b": 1.5, "c": true, "d": "x", "e": null}')
    assert row == {"time": T, "offset": 7, "a": 1.0, "b": 1.5, "c": True, "d": "x", "e": None}
    assert [type(row[name]) for name in "abc"] == [float, float, bool]


def test_another_column_may_have_the_time():
    row = ndjson(f'{{"at": "{ISO}", "time": 5, "offset": 6}}', time="at")
    assert row == {"time": T, "offset": 7, "time_": 5.0, "offset_": 6.0}


def test_the_json_of_python_is_read():
    assert ndjson(f'{{"time": {T}, "a": NaN, "b": [Infinity]}}') == {
        "time": T,
        "offset": 7,
        "a": None,
        "b": [None],
    }
    assert ndjson("\ufeff" + f'{{"time": {T}}}') == {"time": T, "offset": 7}


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "[1]",
        "1",
        '{"a": 1}',
        '{"time": 1',
        '{"time": 1, "a": "\\ud800"}',
        "[" * 10_000,
        '{"time": 1, "a": 1' + "0" * 400 + "}",
        "{}",
    ],
)
def test_an_invalid_line_is_bad(line):
    with pytest.raises(BadRecord):
        ndjson(line)


@pytest.mark.parametrize("line", ["", "  ", "\r"])
def test_an_empty_line_is_not_a_row(line):
    assert ndjson(line) is None
    assert csv("time", line.strip()) is None


def test_columns_with_a_type_are_first_in_each_row():
    columns = {"a": "number", "b": "text", "c": "boolean", "d": "number", "time": "text"}
    row = ndjson(
        f'{{"x": 1, "c": true, "b": 5, "a": "5", "time": {T}}}', columns=columns, others=False
    )
    assert row == {
        "time": T,
        "offset": 7,
        "a": 5.0,
        "b": "5",
        "c": True,
        "d": None,
        "time_": None,
    }
    row = ndjson(f'{{"x": 1, "a": "no", "b": {{}}, "c": 1, "time": {T}}}', columns=columns)
    assert row["x"] == 1.0
    assert (row["a"], row["b"], row["c"]) == (None, "{}", None)


# -- CSV -------------------------------------------------------------------------------------------


def test_a_cell_is_a_number_a_string_or_null():
    header = "time,a,b,c,d,e,f,g"
    row = csv(header, f"{T},1,-2.5e3,x,,nan,1_000,inf\r")
    assert row == {
        "time": T,
        "offset": 7,
        "a": 1.0,
        "b": -2500.0,
        "c": "x",
        "d": None,
        "e": None,
        "f": "1_000",
        "g": "inf",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_most_frequent_one_in_the_header(delimiter):
    header, line = (delimiter.join(cells) for cells in (("time", "a", "b"), (str(T), "1", "x")))
    assert csv(header, line) == {"time": T, "offset": 7, "a": 1.0, "b": "x"}


def test_cells_may_be_quoted_but_not_across_lines():
    assert csv('time,"a,b"', f'{T},"x ""y"", z"') == {"time": T, "offset": 7, "a,b": 'x "y", z'}
    with pytest.raises(BadRecord, match="invalid CSV"):
        csv("time,a", f'{T},"x')


def test_an_irregular_or_repeated_header_is_accepted():
    assert csv("\ufeff time ,a,a,,offset\r", f"{T},1,2,3,4") == {
        "time": T,
        "offset": 7,
        "a": 1.0,
        "a 2": 2.0,
        "column 4": 3.0,
        "offset_": 4.0,
    }
    assert csv("time,a", "time,a\r") is None


@pytest.mark.parametrize(
    "header, line, reason",
    [
        ("time,a", f"{T}", "expected 2 cells as in the header, got 1"),
        ("time,a", f"{T},1,2", "expected 2 cells as in the header, got 3"),
        ("when,a", f"{T},1", "expected a column 'time' in the header"),
        ("time,a", "soon,1", "must be ISO 8601 or a number, got 'soon'"),
        ('time,"a', f"{T},1", "expected 1 cells as in the header, got 2"),
    ],
)
def test_an_invalid_csv_line_is_bad_with_a_reason(header, line, reason):
    with pytest.raises(BadRecord, match=reason):
        csv(header, line)


def test_columns_with_a_type_are_first_and_a_text_may_look_like_a_number():
    columns = {"zip": "text", "on": "boolean", "gone": "number"}
    assert csv("time,a,zip,on", f"{T},1,01234,TRUE", columns=columns) == {
        "time": T,
        "offset": 7,
        "zip": "01234",
        "on": True,
        "gone": None,
        "a": 1.0,
    }
    assert "a" not in csv("time,a", f"{T},1", columns=columns, others=False)


# -- both ------------------------------------------------------------------------------------------


CELLS = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)


@given(st.dictionaries(st.text(max_size=5), CELLS | st.lists(CELLS, max_size=2), max_size=5))
def test_any_json_object_is_a_row_or_a_bad_line(values):
    try:
        row = ndjson(json.dumps({**values, "time": T}))
    except BadRecord:
        return
    assert (row["time"], row["offset"]) == (T, 7)
    assert not any(type(v) is int for k, v in row.items() if k not in ("time", "offset"))
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in row.values())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_row_or_a_bad_line(line):
    settings = RowSettings()
    for reader in (Ndjson(settings), Csv(settings, line), Csv(settings, b"time,a")):
        try:
            reader.read(line.replace(b"\n", b""), 7)
        except BadRecord as error:
            assert str(error)
