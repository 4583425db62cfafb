"""Values of many types: the table of docs/streams.md, in every place where a value may be."""

import ast
import dataclasses
import enum
import math
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pytest

from aiostream_ds import Field, FrameError, SchemaPolicy
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import arrow, json, scalars
from aiostream_ds._frames.frame import Frame
from aiostream_ds._telemetry import Counters

pytestmark = pytest.mark.slow  # every kind of value

PAGE = Path(__file__).parents[2] / "docs" / "streams.md"
MS = 1_767_312_000_000


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 7


class Mixed(enum.Enum):
    NUMBER = 1
    TEXT = "one"


NAMES: dict[str, Any] = {
    "Colour": Colour,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "IPv4Address": IPv4Address,
    "Level": Level,
    "MappingProxyType": MappingProxyType,
    "NA": pd.NA,
    "NaT": pd.NaT,
    "Path": Path,
    "UNSET": msgspec.UNSET,
    "UTC": UTC,
    "UUID": UUID,
    "date": date,
    "datetime": datetime,
    "np": np,
    "time": time,
    "timedelta": timedelta,
}
COLUMNS = {
    "bool": "bool",
    "int": "int64",
    "float": "float64",
    "str": "string",
    "time": "time.Time",
    "JSON": "json.RawMessage",
    "any": "float64",
}


class Line(NamedTuple):
    text: str
    column: str
    sent: Any
    as_text: str | None


def lines() -> list[Line]:
    """The values of the table, one by one."""
    section = PAGE.read_text("utf-8").partition("### Values\n")[2].partition("\n\n- ")[0]
    found = []
    for row in re.findall(r"^\| (`.*) \|$", section, re.M):
        values, column, sent, as_text = row.split(" | ")
        for text in re.findall(r"`([^`]+)`", values):
            if text not in ("IntEnum", "Enum"):
                sent_value, text_value = (
                    ast.literal_eval(re.findall("`([^`]+)`", cell)[0]) for cell in (sent, as_text)
                )
                found.append(Line(text, COLUMNS[column.strip()], sent_value, text_value))
    return found


LINES = lines()
EACH_LINE = pytest.mark.parametrize("line", LINES, ids=[line.text for line in LINES])


def value_of(line: Line) -> Any:
    return eval(line.text, NAMES)


def decoded(packet: Any) -> Frame:
    return json.decode(b'{"schema":%b,"data":%b}' % (packet.schema.body, packet.data))


def column(frame: Frame) -> tuple[str, list[Any]]:
    field = next(field for field in frame.fields if field.name == "v")
    return field.type.value, list(field.values)


def test_the_table_has_every_conversion():
    assert len(LINES) > 25
    kinds = {type(value_of(line)) for line in LINES}
    for kind in scalars._CONVERSIONS.keys() - {bytearray, memoryview}:
        assert kind in kinds, f"{kind} is missing in the table"


@EACH_LINE
def test_a_value_in_live_rows(line):
    encoder, value = RowEncoder(), value_of(line)
    for rows in ([{"time": 1, "v": value}], [{"time": 1, "v": value}] * 2):
        (packet,) = encoder.encode(rows)
        assert column(decoded(packet)) == (line.column, [line.sent] * len(rows))


@EACH_LINE
def test_a_value_in_a_history_and_in_a_query(line):
    rows = [{"time": 1, "v": value_of(line)}]
    assert column(RowEncoder().frame(rows)) == (line.column, [line.sent])
    assert column(RowEncoder().table(rows)) == (line.column, [line.sent])


@EACH_LINE
def test_a_value_in_a_declared_column(line):
    value = value_of(line)
    kind: Any = float | None if value is None or line.sent is None else type(value)
    made = dataclasses.make_dataclass("Made", [("time", int), ("v", kind)])
    encoder = RowEncoder(made)
    for rows in ([made(1, value)], [made(1, value)] * 2):
        (packet,) = encoder.encode(rows)
        assert column(decoded(packet)) == (line.column, [line.sent] * len(rows))
    frame = encoder.frame([made(1, value)])
    assert column(json.decode(json.encode(frame))) == (line.column, [line.sent])


@EACH_LINE
def test_a_value_in_a_field(line):
    frame = Frame(Field("v", [value_of(line), None]))
    assert column(json.decode(json.encode(frame))) == (line.column, [line.sent, None])
    assert arrow.decode(arrow.encode(frame)).fields[0].type.value == line.column


@EACH_LINE
@pytest.mark.parametrize("together", [True, False])
def test_a_value_in_a_column_of_text(line, together):
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(conflict="text"), counters)
    rows = [{"time": 1, "v": "text"}, {"time": 2, "v": 1}, {"time": 3, "v": value_of(line)}]
    found = []
    for part in [rows] if together else [[row] for row in rows]:
        (packet,) = encoder.encode(part)
        found += column(decoded(packet))[1]
    assert found == ["text", "1", line.as_text] and counters.dropped == {}


@EACH_LINE
def test_a_value_as_a_label_is_its_text(line):
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",)))
    (packet,) = encoder.encode([{"time": 1, "host": value_of(line), "v": 1}])
    labels = decoded(packet).fields[1].labels
    if line.as_text is not None and line.as_text.startswith("{"):
        assert labels == {"a": "1"}  # a mapping stands for its keys
    else:
        assert labels == ({} if line.as_text is None else {"host": line.as_text})


@pytest.mark.parametrize(
    "value, sent",
    [
        (np.longdouble(1.5), 1.5),
        (np.longdouble("nan"), "nan"),
        (np.array(1.5, np.longdouble), 1.5),
        (np.ma.masked, None),
    ],
    ids=repr,
)
def test_scalars_of_numpy_that_have_no_builtin_item(value, sent):
    (packet,) = RowEncoder().encode([{"time": 1, "v": value}])
    (found,) = column(decoded(packet))[1]
    assert (str(found) if sent == "nan" else found) == sent


@pytest.mark.parametrize(
    "value, message",
    [
        (np.finfo(np.longdouble).max, "expected a number in the range of float"),
        (np.clongdouble(1), "got np.clongdouble"),
        (1j, "got 1j"),
        pytest.param(object(), "got <object", id="object"),  # its repr differs between processes
        ({1, 2}, r"got {1, 2}"),
        (b"\xff", "expected bytes that are UTF-8"),
        (Decimal("1e400"), "expected a number in the range of float"),
        (Decimal("sNaN"), "NaN"),
        (2**63, "9223372036854775807"),
        (np.uint64(2**64 - 1), "9223372036854775807"),
        (datetime(2026, 1, 1), "expected a datetime with a time zone"),
        (date.min, r"from 1677-09-21 to 2262-04-11, got 0001-01-01 \(-62135596800000 in"),
        (date.max, r"from 1677-09-21 to 2262-04-11, got 9999-12-31 \(253402214400000 in"),
        (datetime.max.replace(tzinfo=UTC), r"got 9999-12-31 \(253402300799999 in Unix millis"),
        (np.timedelta64(1, "Y"), "expected a timedelta64 of weeks"),
        (np.array([1, 2]), "expected a single value"),
    ],
    ids=repr,
)
def test_a_value_that_no_column_can_hold_is_refused_and_named(value, message):
    with pytest.raises((TypeError, ValueError), match=f"'v'.*{message}"):
        RowEncoder().encode([{"time": 1, "v": value}])
    with pytest.raises(FrameError, match=f"'v'.*{message}"):
        json.encode(Frame(Field("v", [value])))


@pytest.mark.parametrize(
    "value, expected",
    [(1j, "1j"), (2**63, "9223372036854775808"), (object(), None), ({1}, "{1}")],
    ids=["complex", "large int", "object", "set"],
)
def test_text_takes_whatever_has_a_text(value, expected):
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(conflict="text"), counters)
    (packet,) = encoder.encode([{"time": 1, "v": value}])
    assert column(decoded(packet))[1] == [expected]
    assert counters.dropped == ({} if expected else {"conflict": 1})


def test_nan_and_infinities_of_any_type_are_sent():
    values = [math.nan, Decimal("NaN"), Decimal("Infinity"), np.float32("-inf")]
    (packet,) = RowEncoder().encode([{"time": 1, "v": value} for value in values])
    first, second, third, fourth = column(decoded(packet))[1]
    assert math.isnan(first) and math.isnan(second)
    assert (third, fourth) == (math.inf, -math.inf)


def test_what_is_below_a_microsecond_of_a_time_is_cut_off():
    time = np.datetime64(1_767_312_000_000_001_999, "ns")
    (packet,) = RowEncoder().encode([{"time": time, "v": 1}])
    field = decoded(packet).fields[0]
    assert (list(field.values), field.nanos) == ([MS], [1000])


def test_a_time_of_each_type_may_be_the_time_of_a_row():
    times = [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), np.datetime64("2026-01-02"), MS]
    (packet,) = RowEncoder().encode([{"time": time} for time in times])
    assert list(decoded(packet).fields[0].values) == [MS] * 4


def test_a_row_whose_time_is_nat_has_the_time_of_the_yield():
    made = dataclasses.make_dataclass("Made", [("time", datetime | None), ("v", int)])
    for row in ({"time": np.datetime64("NaT", "ns"), "v": 1}, made(np.datetime64("NaT", "ns"), 1)):
        (packet,) = RowEncoder().encode([row], [MS])
        assert list(decoded(packet).fields[0].values) == [MS]


def test_members_of_an_enum_with_values_of_several_types_fit_inferred_columns_only():
    (packet,) = RowEncoder().encode([{"time": 1, "v": Mixed.TEXT}])
    assert column(decoded(packet)) == ("string", ["one"])
    made = dataclasses.make_dataclass("Made", [("time", int), ("v", Mixed)])
    with pytest.raises(TypeError, match=r"Made\.v must be .*, got <enum 'Mixed'>"):
        RowEncoder(made)


def test_the_declared_type_of_a_field_decides_and_not_that_of_its_values():
    made = dataclasses.make_dataclass("Made", [("time", int), ("v", float)])
    (packet,) = RowEncoder(made).encode([made(1, Decimal("1.5")), made(1, np.int8(2))])
    assert column(decoded(packet)) == ("float64", [1.5, 2.0])
    with pytest.raises(ValueError, match="'v': expected .*, got 'x'"):
        RowEncoder(made).encode([made(1, "x")])
