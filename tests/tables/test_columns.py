"""Each type of column in each library, as a column of a frame and as values of a `Field`."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from aiostream_ds import Field, FieldType, Frame
from aiostream_ds._frames import arrow, json
from tests.tables.libraries import LIBRARIES

pytestmark = pytest.mark.slow  # imports every library

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
MS = int(START.timestamp() * 1000)
DAY = MS - 12 * 3_600_000


class Case(NamedTuple):
    """A column with these values and a null, and what it becomes."""

    array: pa.Array
    kind: FieldType
    values: list[Any]
    nanos: list[int] | None = None


def case(
    values: list[Any], kind: pa.DataType, found: FieldType, expected: list[Any] | None = None
) -> Case:
    array = pa.array([*values, None], kind)
    return Case(array, found, [*(values if expected is None else expected), None])


CASES = {
    "int8": case([1], pa.int8(), FieldType.INT8),
    "int64": case([2**53 + 1], pa.int64(), FieldType.INT64),
    "uint64": case([2**63], pa.uint64(), FieldType.UINT64),
    "float32": case([1.5], pa.float32(), FieldType.FLOAT32),
    "float64": case([1.5], pa.float64(), FieldType.FLOAT64),
    "bool": case([True, False], pa.bool_(), FieldType.BOOL),
    "string": case(["a", "é"], pa.string(), FieldType.STRING),
    "large_string": case(["a", ""], pa.large_string(), FieldType.STRING),
    "string_view": case(["a", "a text of more than 12 bytes"], pa.string_view(), FieldType.STRING),
    "dictionary": Case(
        pa.array(["a", "b", "a", None]).dictionary_encode(),
        FieldType.STRING,
        ["a", "b", "a", None],
    ),
    "timestamp of a zone": case(
        [START.astimezone(ZoneInfo("Europe/Berlin"))],
        pa.timestamp("us", "Europe/Berlin"),
        FieldType.TIME,
        [MS],
    ),
    "timestamp in seconds": case([START], pa.timestamp("s", "UTC"), FieldType.TIME, [MS]),
    "naive timestamp": case([START.replace(tzinfo=None)], pa.timestamp("ms"), FieldType.TIME, [MS]),
    "nanoseconds": Case(
        pa.array([MS * 10**6 + 123_456_789, None], pa.timestamp("ns", "UTC")),
        FieldType.TIME,
        [MS + 123, None],
        [456_789, 0],
    ),
    "date": case([date(2026, 1, 1)], pa.date32(), FieldType.TIME, [DAY]),
    "duration": case([timedelta(minutes=1.5)], pa.duration("us"), FieldType.FLOAT64, [90.0]),
    "time of day": case([time(9, 30)], pa.time64("us"), FieldType.STRING, ["09:30:00"]),
    "decimal": case([Decimal("1.25")], pa.decimal128(10, 2), FieldType.FLOAT64, [1.25]),
    "list": case([[1, 2], []], pa.list_(pa.int64()), FieldType.JSON),
    "struct": case([{"a": 1, "b": "x"}], pa.struct({"a": "int64", "b": "string"}), FieldType.JSON),
    "binary": case([b"a", "é".encode()], pa.binary(), FieldType.STRING, ["a", "é"]),
}
MADE_FLOATS = {"int8", "int64", "uint64"}
"""What `to_pandas` makes floats of, if there is a null."""


def values_of(field: Field) -> list[Any]:
    values = field.values
    return values.to_pylist() if hasattr(values, "to_pylist") else list(values)


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("library", [name for name in LIBRARIES if "Index" not in name])
def test_each_type_of_column_has_one_meaning_in_every_library(library: str, kind: str) -> None:
    each = CASES[kind]
    if kind in MADE_FLOATS and library in ("pandas", "pandas with nullable types"):
        each = Case(each.array, FieldType.FLOAT64, [float(each.values[0]), None])
        if library == "pandas with nullable types":
            pytest.skip("the same conversion, and another one back")
    frame = Frame.from_table(LIBRARIES[library](pa.table({"column": each.array})))
    (field,) = frame.fields
    if kind == "nanoseconds" and library == "duckdb" and field.nanos == [456_000, 0]:
        each = each._replace(nanos=[456_000, 0])  # old ones have none in timestamps of a zone
    nanos = None if field.nanos is None else list(field.nanos)
    assert (field.type, values_of(field), nanos) == (each.kind, each.values, each.nanos)
    assert field.nullable
    for decoded in (arrow.decode(arrow.encode(frame)), json.decode(json.encode(frame))):
        (field,) = decoded.fields
        nanos = None if field.nanos is None else list(field.nanos)
        assert (field.type, values_of(field), nanos) == (each.kind, each.values, each.nanos)


@pytest.mark.parametrize("kind", CASES)
def test_without_nulls_a_column_has_the_same_type(kind: str) -> None:
    array = CASES[kind].array
    (field,) = Frame.from_table(pa.table({"column": array.slice(0, len(array) - 1)})).fields
    expected = (CASES[kind].kind, CASES[kind].values[:-1])
    assert (field.type, values_of(field)) == expected
    assert field.nullable
    (decoded,) = arrow.decode(arrow.encode(Frame(field))).fields
    assert (decoded.type, values_of(decoded)) == expected
