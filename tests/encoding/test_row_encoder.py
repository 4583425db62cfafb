"""Rows become columns: schemas found and widened, values refused, and nothing half done."""

import enum
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal, NewType

import numpy as np
import orjson
import pytest

from aiostream_ds import Field, FieldConfig, FieldType, Frame, Row
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_layout import row_columns
from aiostream_ds._frames import json

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
MS = int(NOW.timestamp() * 1000)


class Reading(Row):
    time: datetime
    celsius: Annotated[float, FieldConfig(unit="celsius")]
    note: str | None = None


def decoded(packet) -> Frame:
    return json.decode(b'{"data":%b}' % packet.data, packet.schema)


def columns(frame: Frame) -> dict[str, tuple[FieldType, list[Any]]]:
    return {field.name: (field.type, list(field.values)) for field in frame.fields}


def encode(encoder: RowEncoder, *rows: Any) -> dict[str, tuple[FieldType, list[Any]]]:
    """The one packet of these rows, without a stamped time."""
    (packet,) = encoder.encode(list(rows))
    frame = decoded(packet)
    assert packet.rows == frame.rows == len(rows)
    return columns(frame)


# dict


def test_the_schema_of_dicts_is_found_from_their_values():
    row = {"time": NOW, "b": True, "i": 1, "f": 1.5, "s": "x", "d": {"a": 1}, "l": [1]}
    found = encode(RowEncoder(), row)
    assert found == {
        "time": (FieldType.TIME, [MS]),
        "b": (FieldType.BOOL, [True]),
        "i": (FieldType.INT64, [1]),
        "f": (FieldType.FLOAT64, [1.5]),
        "s": (FieldType.STRING, ["x"]),
        "d": (FieldType.JSON, [{"a": 1}]),
        "l": (FieldType.JSON, [[1]]),
    }


def test_an_equal_schema_is_the_same_object_so_that_nobody_compares_bytes():
    encoder = RowEncoder()
    first, second = encoder.encode([{"a": 1}])[0], encoder.encode([{"a": 2}])[0]
    assert first.schema is second.schema is encoder.schema


def test_a_new_key_widens_the_schema_and_older_columns_stay():
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "a": 1}])
    assert encode(encoder, {"time": 2, "b": "x"}) == {
        "time": (FieldType.TIME, [2]),
        "a": (FieldType.INT64, [None]),
        "b": (FieldType.STRING, ["x"]),
    }
    assert list(encode(encoder, {"time": 3})) == ["time", "a", "b"]


def test_a_key_that_appears_within_a_batch_is_none_before():
    found = encode(RowEncoder(), {"time": 1}, {"time": 2, "a": 1})
    assert found["a"] == (FieldType.INT64, [None, 1])


def test_a_float_widens_a_column_of_ints_for_good():
    encoder = RowEncoder()
    assert encode(encoder, {"time": 1, "a": 1})["a"][0] is FieldType.INT64
    assert encode(encoder, {"time": 2, "a": 1.5})["a"] == (FieldType.FLOAT64, [1.5])
    assert encode(encoder, {"time": 3, "a": 2})["a"] == (FieldType.FLOAT64, [2.0])


def test_a_column_of_nothing_but_none_gets_its_type_with_its_first_value():
    encoder = RowEncoder()
    assert encode(encoder, {"time": 1, "a": None})["a"] == (FieldType.FLOAT64, [None])
    assert encode(encoder, {"time": 2, "a": "x"})["a"] == (FieldType.STRING, ["x"])


@pytest.mark.parametrize(
    "first, second, message",
    [
        (1, "x", "the column 'a' holds int64, not 'x' (str)"),
        (1.5, True, "the column 'a' holds float64, not True (bool)"),
        ("x", 1, "the column 'a' holds string, not 1 (int)"),
        ({}, "x", "the column 'a' holds json.RawMessage, not 'x' (str)"),
        (NOW, 5, "the column 'a' holds time.Time, not 5 (int)"),
        (None, b"x", "the column 'a' cannot hold b'x' (bytes)"),
        (1, 1j, "the column 'a' cannot hold 1j (complex)"),
        (1, timedelta(1), "the column 'a' cannot hold datetime.timedelta"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_value_of_another_type_is_refused_by_column_and_value(first, second, message, together):
    encoder, rows = RowEncoder(), [{"a": first}, {"a": second}]
    with pytest.raises(TypeError) as caught:
        for batch in [rows] if together else [[row] for row in rows]:
            encoder.encode(batch)
    assert message in str(caught.value)


def test_the_odd_value_among_numbers_is_not_a_number():
    encoder = RowEncoder()
    encoder.encode([{"a": 1.5}])
    with pytest.raises(TypeError, match="'a' holds float64 or int64, not 'x'"):
        encoder.encode([{"a": 1}, {"a": "x"}])


def test_a_key_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="the column 1 is no str"):
        RowEncoder().encode([{1: 2}])


class Colour(str, enum.Enum):  # noqa: UP042
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Timestamp(datetime):
    """As the one of pandas: a datetime with more in it."""

    nanosecond = 5


class NotATime(datetime):
    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = datetime.__hash__


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        (np.float64(1.5), FieldType.FLOAT64, 1.5),
        (np.float32(0.5), FieldType.FLOAT64, 0.5),
        (np.int8(3), FieldType.INT64, 3),
        (np.uint64(3), FieldType.INT64, 3),
        (np.bool_(True), FieldType.BOOL, True),
        (np.str_("x"), FieldType.STRING, "x"),
        (np.array(2), FieldType.INT64, 2),
        (Colour.RED, FieldType.STRING, "red"),
        (Level.HIGH, FieldType.INT64, 3),
        ((1, 2), FieldType.JSON, [1, 2]),
        (OrderedDict(a=1), FieldType.JSON, {"a": 1}),
        (Timestamp(2026, 1, 2, 3, 4, 5, 678_000, UTC), FieldType.TIME, MS),
        (
            Timestamp(2026, 1, 2, 4, 4, 5, 678_000, timezone(timedelta(hours=1))),
            FieldType.TIME,
            MS,
        ),
        (NotATime(2026, 1, 1), FieldType.FLOAT64, None),
    ],
)
def test_numpy_scalars_and_subclasses_are_what_they_stand_for(value, kind, expected):
    assert encode(RowEncoder(), {"time": 1, "a": value})["a"] == (kind, [expected])


@pytest.mark.parametrize(
    "value", [np.datetime64("2026-01-01", "ns"), np.timedelta64(5, "ns"), np.array([1, 2])]
)
def test_numpy_values_whose_unit_or_shape_would_be_lost_are_refused(value):
    with pytest.raises(TypeError, match="the column 'a' cannot hold"):
        RowEncoder().encode([{"a": value}])


# time


def test_rows_without_a_time_are_stamped_with_one_column_in_front():
    (packet,) = RowEncoder().encode([{"a": 1}, {"a": 2}])
    (time, a) = decoded(packet).fields
    assert (time.name, time.type, time.nullable) == ("time", FieldType.TIME, False)
    assert time.values[0] == time.values[1]
    assert abs(time.values[0] / 1000 - datetime.now(UTC).timestamp()) < 60
    assert a.values == [1, 2]


def test_time_may_be_ints_of_milliseconds_or_datetimes():
    found = encode(RowEncoder(), {"time": MS}, {"time": NOW}, {"time": np.int64(MS)})
    assert found == {"time": (FieldType.TIME, [MS] * 3)}


def test_another_column_of_times_is_the_time_and_then_time_may_be_anything():
    assert encode(RowEncoder(), {"at": NOW, "time": "1:02"}) == {
        "at": (FieldType.TIME, [MS]),
        "time": (FieldType.STRING, ["1:02"]),
    }


@pytest.mark.parametrize("value", [1.5, "2026-01-01", True])
def test_a_time_that_is_none_is_refused(value):
    with pytest.raises(TypeError, match="the column 'time' holds .*; allowed are aware datetimes"):
        RowEncoder().encode([{"time": value}])


def test_a_naive_datetime_is_refused():
    with pytest.raises(ValueError, match="expected a datetime with a time zone, got"):
        RowEncoder().encode([{"time": NOW.replace(tzinfo=None)}])


def test_parts_of_a_millisecond_are_kept():
    (packet,) = RowEncoder().encode([{"time": NOW + timedelta(microseconds=7)}])
    assert orjson.loads(packet.data)["nanos"] == [[7000]]


# Row


def test_the_schema_of_a_row_class_is_known_before_the_first_row():
    encoder = RowEncoder(Reading)
    before = encoder.schema
    (packet,) = encoder.encode([Reading(NOW, 20.5), Reading(NOW, 21, "warm")])
    assert before is not None and packet.schema is before
    time, celsius, note = decoded(packet).fields
    assert (time.type, time.nullable, time.values) == (FieldType.TIME, False, [MS, MS])
    assert (celsius.type, celsius.nullable, celsius.values) == (
        FieldType.FLOAT64,
        False,
        [20.5, 21],
    )
    assert celsius.config == FieldConfig(unit="celsius")
    assert (note.type, note.nullable, note.values) == (FieldType.STRING, True, [None, "warm"])


Celsius = NewType("Celsius", float)


class Wide(Row):
    b: bool
    i: int
    f: float
    n: int | float
    s: str
    d: dict[str, Any]
    ls: list[int]
    at: datetime | None
    lit: Literal["a", "b"]
    maybe: Literal["a", None]
    new: Celsius
    inner: Annotated[float, FieldConfig(unit="s")] | None
    none: None | Annotated[str | None, FieldConfig(unit="t")]


def test_the_columns_of_every_type():
    found = row_columns(Wide)
    kinds = {name: (column.type, column.nullable) for name, column in found.items()}
    assert kinds == {
        "b": (FieldType.BOOL, False),
        "i": (FieldType.INT64, False),
        "f": (FieldType.FLOAT64, False),
        "n": (FieldType.FLOAT64, False),
        "s": (FieldType.STRING, False),
        "d": (FieldType.JSON, False),
        "ls": (FieldType.JSON, False),
        "at": (FieldType.TIME, True),
        "lit": (FieldType.STRING, False),
        "maybe": (FieldType.STRING, True),
        "new": (FieldType.FLOAT64, False),
        "inner": (FieldType.FLOAT64, True),
        "none": (FieldType.STRING, True),
    }
    assert found["inner"].config == FieldConfig(unit="s")
    assert found["none"].config == FieldConfig(unit="t")


@pytest.mark.parametrize(
    "kind", [complex, bytes, object, Any, None, int | str, timedelta, tuple[int, ...], "Nowhere"]
)
def test_a_field_that_no_column_can_hold_is_a_type_error(kind):
    made: Any = type("Odd", (Row,), {"__annotations__": {"thing": kind}, "__module__": __name__})
    with pytest.raises(TypeError, match="Odd"):
        RowEncoder(made)


def test_the_time_of_a_row_may_be_an_int_or_left_out_but_no_text():
    class Stamped(Row):
        value: int

    class Milliseconds(Row):
        time: int

    class Text(Row):
        time: str

    assert [f.name for f in decoded(RowEncoder(Stamped).encode([Stamped(1)])[0]).fields] == [
        "time",
        "value",
    ]
    assert encode(RowEncoder(Milliseconds), Milliseconds(MS)) == {"time": (FieldType.TIME, [MS])}
    with pytest.raises(TypeError, match="the column 'time' holds string"):
        RowEncoder(Text)


@pytest.mark.parametrize(
    "row, message",
    [
        (Reading(NOW, "warm"), "'celsius', row 1: expected .*, got 'warm'"),  # type: ignore[arg-type]
        (Reading(NOW, None), "'celsius', row 1: expected .*, got None"),  # type: ignore[arg-type]
        (Reading(NOW, 1.0, 5), "'note', row 1: expected .*, got 5"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_its_field_does_not_allow_is_refused_by_field_row_and_value(row, message):
    with pytest.raises(ValueError, match=message):
        RowEncoder(Reading).encode([Reading(NOW, 1.0), row])


# Frames, lists, mixtures


def test_a_yielded_frame_is_one_packet_as_it_is():
    frame = Frame(Field("n", [1, 2], FieldType.INT64, nullable=False), name="f")
    (packet,) = RowEncoder().encode([frame])
    assert decoded(packet).name == "f" and packet.rows == 2


def test_columns_are_one_packet_with_the_schema_of_their_row_class():
    encoder = RowEncoder(Reading)
    before = encoder.schema
    times = np.array([MS, MS + 1])
    block = Reading.from_columns(time=times, celsius=np.array([1.5, 2.5]), note=[None, "x"])
    packets = encoder.encode([block, block])
    assert [packet.rows for packet in packets] == [2, 2]
    assert all(packet.schema is before for packet in packets)
    assert columns(decoded(packets[0])) == {
        "time": (FieldType.TIME, [MS, MS + 1]),
        "celsius": (FieldType.FLOAT64, [1.5, 2.5]),
        "note": (FieldType.STRING, [None, "x"]),
    }


def test_columns_may_come_in_any_order_and_as_any_sequence():
    block = Reading.from_columns(note=("a",), celsius=[1], time=[NOW])
    assert encode(RowEncoder(), block) == {
        "time": (FieldType.TIME, [MS]),
        "celsius": (FieldType.FLOAT64, [1.0]),
        "note": (FieldType.STRING, ["a"]),
    }


def test_columns_and_rows_of_one_class_share_their_schema():
    encoder = RowEncoder()
    rows = [
        Reading(time=NOW, celsius=1.5),
        Reading.from_columns(time=[NOW], celsius=[2.5], note=[""]),
    ]
    row, block = encoder.encode(rows)
    assert row.schema is block.schema and (row.rows, block.rows) == (1, 1)


@pytest.mark.parametrize(
    "given, kind, message",
    [
        (
            {"time": [1]},
            TypeError,
            "from_columns: expected the columns time, celsius, note, got time",
        ),
        ({}, TypeError, "got none"),
        ({"time": [1], "celsius": [1], "note": [""], "x": []}, TypeError, "got time, .*, x"),
        (
            {"time": [1, 2], "celsius": [1.5], "note": [""]},
            ValueError,
            "columns of one length, got the lengths {'time': 2, 'celsius': 1, 'note': 1}",
        ),
    ],
)
def test_columns_that_do_not_fit_their_class_are_refused_where_they_are_made(given, kind, message):
    with pytest.raises(kind, match=message):
        Reading.from_columns(**given)


@pytest.mark.parametrize("celsius", [["warm"], np.array([["a"]]), np.array([1j])])
def test_values_that_do_not_fit_their_column_are_refused_when_they_are_encoded(celsius):
    encoder = RowEncoder(Reading)
    with pytest.raises(ValueError, match="celsius"):
        encoder.encode([Reading.from_columns(time=[MS], celsius=celsius, note=[None])])


def test_a_row_class_may_not_take_the_name_of_its_constructor_from_columns():
    class Odd(Row):
        time: datetime
        from_columns: int

    with pytest.raises(TypeError, match="the name is taken"):
        row_columns(Odd)


def test_a_history_may_be_columns():
    block = Reading.from_columns(time=[NOW], celsius=[1.5], note=["a"])
    assert columns(RowEncoder().frame(block)) == columns(
        RowEncoder().frame([Reading(time=NOW, celsius=1.5, note="a")])
    )


def test_lists_and_tuples_are_as_many_rows():
    rows = [{"time": 1}, [{"time": 2}, {"time": 3}], ({"time": 4},), []]
    (packet,) = RowEncoder().encode(rows)
    assert decoded(packet).fields[0].values == [1, 2, 3, 4]


def test_kinds_of_rows_in_one_batch_are_packets_in_their_order():
    frame = Frame(Field("n", [1]))
    rows = [{"time": 1}, Reading(NOW, 1.0), Reading(NOW, 2.0), frame, frame, {"time": 2}]
    packets = RowEncoder().encode(rows)
    assert [packet.rows for packet in packets] == [1, 2, 1, 1, 1]
    assert [decoded(p).fields[0].name for p in packets] == ["time", "time", "n", "n", "time"]
    assert packets[0].schema is packets[4].schema


def test_nothing_is_no_packet():
    assert RowEncoder().encode([]) == [] and RowEncoder().encode([[], ()]) == []


@pytest.mark.parametrize("row", [None, 5, "text", b"bytes", [[{}]], {1, 2}])
def test_what_is_no_row_is_refused(row):
    with pytest.raises(
        TypeError, match="a stream yields a dict, a Row, Columns, a Frame, a list of rows or"
    ):
        RowEncoder().encode([row])


# All or nothing


@pytest.mark.parametrize(
    "bad",
    [
        [{"time": 1, "a": 1}, {"time": 2, "a": "x"}],
        [{"time": 1, "new": 1}, {"time": 2, "a": "x"}],
        [{"time": 1, "a": 1.5}, {"time": "x"}],
        [{"time": 1, "a": 2**70}],
        [{"time": 1, "new": "\ud800"}],
        [Reading(NOW, 1.0), {"time": 1, "new": b""}],
        [{"time": 1, "new": 1}, Frame(Field("n", [1]), Field("n", [1]))],
        [{"time": 1, "new": 1}, None],
    ],
)
def test_a_batch_that_fails_leaves_no_trace(bad):
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "a": 1}])
    before = encoder.schema
    with pytest.raises((TypeError, ValueError)):
        encoder.encode(bad)
    assert encoder.schema is before
    (packet,) = encoder.encode([{"time": 2, "a": 2}])
    assert packet.schema is before
    assert columns(decoded(packet)) == {"time": (FieldType.TIME, [2]), "a": (FieldType.INT64, [2])}


# Histories


@pytest.mark.parametrize(
    "kind, rows", [(Reading, [Reading(NOW, 1.0, "x")]), (None, [{"time": NOW, "a": 1, "b": None}])]
)
def test_a_history_has_the_schema_of_the_live_packets(kind, rows):
    frame = RowEncoder(kind).frame(rows)
    (packet,) = RowEncoder(kind).encode(rows)
    assert json.schema(frame) == packet.schema.body
    assert columns(frame) == columns(decoded(packet))


def test_an_empty_history_has_the_columns_of_its_row_class_or_none():
    frame = RowEncoder(Reading).frame([])
    assert [field.name for field in frame.fields] == ["time", "celsius", "note"]
    assert frame.rows == 0 and RowEncoder().frame([]).fields == ()


def test_a_history_may_be_a_list_with_one_frame():
    frame = Frame(Field("n", [1]))
    assert RowEncoder(Reading).frame([frame]) is frame


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"time": 1}, Reading(NOW, 1.0)], "rows of one kind"),
        ([{"a": 1}], "need a time of their own"),
        (None, "a Frame, Columns or a list of rows, not None"),
        ("text", "a Frame, Columns or a list of rows, not 'text'"),
        ({"time": 1}, "a Frame, Columns or a list of rows"),
    ],
)
def test_a_history_that_cannot_be_drawn_is_refused(rows, message):
    with pytest.raises(TypeError, match=message):
        RowEncoder().frame(rows)
