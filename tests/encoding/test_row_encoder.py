"""RowEncoder: inferred and declared schemas, values that are refused, and failed batches."""

import enum
import time
import warnings
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal, NamedTuple, NewType

import msgspec
import numpy as np
import orjson
import pytest

from aiostream_ds import Field, FieldConfig, FieldType, Frame, Row
from aiostream_ds._encoding.row_columns import row_columns
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
MS = int(NOW.timestamp() * 1000)

with warnings.catch_warnings():  # numpy 2.5 warns of it
    warnings.simplefilter("ignore", DeprecationWarning)
    GENERIC_TIMEDELTA = np.timedelta64(5)


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


def test_the_schema_of_dicts_is_inferred_from_their_values():
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


def test_equal_schemas_are_the_same_object():
    encoder = RowEncoder()
    first, second = encoder.encode([{"a": 1}])[0], encoder.encode([{"a": 2}])[0]
    assert first.schema is second.schema is encoder.schema


def test_a_new_key_adds_a_column_and_known_columns_remain():
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


def test_a_float_widens_a_column_of_ints_permanently():
    encoder = RowEncoder()
    assert encode(encoder, {"time": 1, "a": 1})["a"][0] is FieldType.INT64
    assert encode(encoder, {"time": 2, "a": 1.5})["a"] == (FieldType.FLOAT64, [1.5])
    assert encode(encoder, {"time": 3, "a": 2})["a"] == (FieldType.FLOAT64, [2.0])


def test_a_column_with_only_none_gets_its_type_from_its_first_value():
    encoder = RowEncoder()
    assert encode(encoder, {"time": 1, "a": None})["a"] == (FieldType.FLOAT64, [None])
    assert encode(encoder, {"time": 2, "a": "x"})["a"] == (FieldType.STRING, ["x"])


@pytest.mark.parametrize(
    "first, second, message",
    [
        (1, "x", "column 'a': expected int64, got 'x' (str)"),
        (1.5, True, "column 'a': expected float64, got True (bool)"),
        ("x", 1, "column 'a': expected string, got 1 (int)"),
        ({}, "x", "column 'a': expected json.RawMessage, got 'x' (str)"),
        (NOW, 5, "column 'a': expected time.Time, got 5 (int)"),
        (None, b"\xff", "expected bytes that are UTF-8, got b'\\xff'"),
        (1, 1j, "a numpy scalar), got 1j (complex)"),
        (1, object, "a numpy scalar), got <class 'object'> (type)"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_the_error_for_a_value_of_another_type_names_column_and_value(
    first, second, message, together
):
    encoder, rows = RowEncoder(), [{"a": first}, {"a": second}]
    with pytest.raises((TypeError, ValueError)) as caught:
        for batch in [rows] if together else [[row] for row in rows]:
            encoder.encode(batch)
    assert message in str(caught.value)


def test_the_error_for_mixed_numbers_names_the_value_that_is_not_a_number():
    encoder = RowEncoder()
    encoder.encode([{"a": 1.5}])
    with pytest.raises(TypeError, match="'a': expected float64 or int64, got 'x'"):
        encoder.encode([{"a": 1}, {"a": "x"}])


def test_a_key_that_is_not_a_str_is_refused():
    with pytest.raises(TypeError, match="the name of a column must be a str .*, got 1"):
        RowEncoder().encode([{1: 2}])


class Colour(str, enum.Enum):  # noqa: UP042
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Timestamp(datetime):
    """Like pandas.Timestamp: a datetime with an additional attribute."""

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
def test_numpy_scalars_and_subclasses_become_builtin_values(value, kind, expected):
    assert encode(RowEncoder(), {"time": 1, "a": value})["a"] == (kind, [expected])


@pytest.mark.parametrize(
    "value, message",
    [
        (np.array([1, 2]), r"a single value, got an array of shape \(2,\)"),
        (GENERIC_TIMEDELTA, "a timedelta64 of weeks or a smaller unit, got"),
        (np.timedelta64(5, "M"), "a timedelta64 of weeks or a smaller unit, got"),
        (np.datetime64(2**40, "s"), "a datetime64 of the years 1 to 9999, got"),
        (np.complex64(1), "or a value that is converted to one .*, got"),
    ],
)
def test_numpy_values_that_no_column_can_hold_are_refused(value, message):
    with pytest.raises((TypeError, ValueError), match=f"column 'a': expected .*{message}"):
        RowEncoder().encode([{"a": value}])


# time


def test_rows_without_a_time_get_the_time_of_sending_as_first_column():
    (packet,) = RowEncoder().encode([{"a": 1}, {"a": 2}])
    (time, a) = decoded(packet).fields
    assert (time.name, time.type, time.nullable) == ("time", FieldType.TIME, False)
    assert time.values[0] == time.values[1]
    assert abs(time.values[0] / 1000 - datetime.now(UTC).timestamp()) < 60
    assert a.values == [1, 2]


def test_the_time_may_be_an_int_of_milliseconds_or_a_datetime():
    found = encode(RowEncoder(), {"time": MS}, {"time": NOW}, {"time": np.int64(MS)})
    assert found == {"time": (FieldType.TIME, [MS] * 3)}


def test_the_column_time_may_be_of_any_type_if_another_column_has_times():
    assert encode(RowEncoder(), {"at": NOW, "time": "1:02"}) == {
        "at": (FieldType.TIME, [MS]),
        "time": (FieldType.STRING, ["1:02"]),
    }


@pytest.mark.parametrize("value", [1.5, "2026-01-01", True])
def test_an_invalid_time_is_refused(value):
    with pytest.raises(
        TypeError, match="column 'time' must be aware datetimes .*, got (float64|string|bool)"
    ):
        RowEncoder().encode([{"time": value}])


def test_a_naive_datetime_is_refused():
    with pytest.raises(ValueError, match="expected a datetime with a time zone, got"):
        RowEncoder().encode([{"time": NOW.replace(tzinfo=None)}])


def test_parts_of_a_millisecond_are_sent_as_nanos():
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
    "kind", [complex, object, Any, None, int | str, set[int], timedelta | str, "Nowhere"]
)
def test_a_field_of_a_type_that_no_column_can_have_is_refused(kind):
    row: Any = type("Invalid", (Row,), {"__annotations__": {"thing": kind}, "__module__": __name__})
    with pytest.raises(TypeError, match="Invalid"):
        RowEncoder(row)


def test_the_time_of_a_row_may_be_an_int_or_omitted_but_not_a_str():
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
    with pytest.raises(TypeError, match="Text.time must be a datetime, .* got <class 'str'>"):
        RowEncoder(Text)


@pytest.mark.parametrize(
    "row, message",
    [
        (Reading(NOW, "warm"), "'celsius', row 1: expected .*, got 'warm'"),  # type: ignore[arg-type]
        (Reading(NOW, None), "'celsius', row 1: expected .*, got None"),  # type: ignore[arg-type]
        (Reading(NOW, 1.0, 5), "'note', row 1: expected .*, got 5"),  # type: ignore[arg-type]
    ],
)
def test_the_error_for_a_value_of_a_row_names_field_row_and_value(row, message):
    with pytest.raises(ValueError, match=message):
        RowEncoder(Reading).encode([Reading(NOW, 1.0), row])


# Frames, lists, several kinds


def test_a_frame_is_one_packet():
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


def test_columns_may_be_in_any_order_and_any_sequence():
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
        (
            {"time": 5, "celsius": [1.5], "note": [""]},
            TypeError,
            "column 'time' must be a list or an array, got 5",
        ),
        (
            {"time": [1], "celsius": [1.5], "note": "x"},
            TypeError,
            "column 'note' must be a list or an array, got 'x'",
        ),
        (
            {"time": np.array([1]), "celsius": np.array(1.5), "note": [""]},
            TypeError,
            r"column 'celsius' must be a list or an array, got array\(1.5\)",
        ),
    ],
)
def test_columns_that_do_not_fit_their_class_are_refused_by_from_columns(given, kind, message):
    class Fresh(Reading):
        pass

    for _ in range(2):  # the first call that succeeds gives the class a function of its own
        with pytest.raises(kind, match=message):
            Fresh.from_columns(**given)
        found = Fresh.from_columns(time=[1], celsius=[1.5], note=[""])
        assert (found.kind, found.values, found.rows) == (Fresh, [[1], [1.5], [""]], 1)


def test_from_columns_has_the_fields_of_its_class_in_subclasses_too():
    class Base(Row):
        time: int

    assert Base.from_columns(time=[1, 2]).rows == 2

    class Wide(Base):
        list: float
        len: float

    values = {"len": np.array([3.0]), "time": [1], "list": [2.0]}
    for _ in range(2):
        found = Wide.from_columns(**values)
        assert (found.kind, found.values, found.rows) == (Wide, [[1], [2.0], np.array([3.0])], 1)
        assert found.values[0] is not values["time"]  # a copy
        assert Base.from_columns(time=[5]).kind is Base
        with pytest.raises(TypeError, match="Base.from_columns: expected the columns time, got"):
            Base.from_columns(**values)


@pytest.mark.parametrize("name", ["from", "None", "__debug__", "cls", "self", "_row_len", "ﬁ"])
def test_a_field_may_have_each_name_that_msgspec_takes(name):
    kind = msgspec.defstruct("Made", [("time", int), (name, float)], bases=(Row,))
    for _ in range(2):
        found = kind.from_columns(**{name: [1.5], "time": [1]})
        assert (found.kind, found.values, found.rows) == (kind, [[1], [1.5]], 1)
    (packet,) = RowEncoder(kind).encode([kind(**{name: 1.5, "time": MS})] * 2)
    assert packet.data == b'{"values":[[%d,%d],[1.5,1.5]]}' % (MS, MS)


def test_fields_may_have_names_that_are_one_in_python_code():
    kind = msgspec.defstruct("Made", [("fi", int), ("ﬁ", float)], bases=(Row,))
    for _ in range(2):
        assert kind.from_columns(**{"fi": [1], "ﬁ": [1.5]}).values == [[1], [1.5]]


def test_a_field_named_like_an_exception_does_not_change_an_error():
    class Counts(Row):
        time: int
        TypeError: float

    assert Counts.from_columns(time=[1], TypeError=[1.5]).rows == 1
    with pytest.raises(TypeError, match="column 'TypeError' must be a list or an array"):
        Counts.from_columns(time=[1], TypeError=np.array(1.5))


def test_from_columns_that_an_author_has_written_stays():
    class Scaled(Row):
        time: int

        @classmethod
        def from_columns(cls, **columns):
            return super().from_columns(time=[1000 * each for each in columns["time"]])

    class Same(Scaled):
        pass

    for _ in range(2):
        assert (
            Scaled.from_columns(time=[1]).values == Same.from_columns(time=[1]).values == [[1000]]
        )


@pytest.mark.parametrize("celsius", [["warm"], np.array([["a"]]), np.array([1j])])
def test_values_that_do_not_fit_their_column_are_refused_by_encode(celsius):
    encoder = RowEncoder(Reading)
    with pytest.raises(ValueError, match="celsius"):
        encoder.encode([Reading.from_columns(time=[MS], celsius=celsius, note=[None])])


def test_a_field_must_not_be_named_from_columns():
    class Invalid(Row):
        time: datetime
        from_columns: int

    with pytest.raises(TypeError, match="named like a method of Row, got 'from_columns'"):
        row_columns(Invalid)


def test_a_history_may_be_columns():
    block = Reading.from_columns(time=[NOW], celsius=[1.5], note=["a"])
    assert columns(RowEncoder().frame(block)) == columns(
        RowEncoder().frame([Reading(time=NOW, celsius=1.5, note="a")])
    )


def test_lists_and_tuples_are_rows_one_by_one():
    rows = [{"time": 1}, [{"time": 2}, {"time": 3}], ({"time": 4},), []]
    (packet,) = RowEncoder().encode(rows)
    assert decoded(packet).fields[0].values == [1, 2, 3, 4]


def test_a_batch_with_several_kinds_of_rows_becomes_packets_in_order():
    frame = Frame(Field("n", [1]))
    rows = [{"time": 1}, Reading(NOW, 1.0), Reading(NOW, 2.0), frame, frame, {"time": 2}]
    packets = RowEncoder().encode(rows)
    assert [packet.rows for packet in packets] == [1, 2, 1, 1, 1]
    assert [decoded(p).fields[0].name for p in packets] == ["time", "time", "n", "n", "time"]
    assert packets[0].schema is packets[4].schema


def test_no_rows_give_no_packet():
    assert RowEncoder().encode([]) == [] and RowEncoder().encode([[], ()]) == []


@pytest.mark.parametrize("row", [None, 5, "text", b"bytes", [[{}]], {1, 2}])
def test_an_object_that_is_not_a_row_is_refused(row):
    with pytest.raises(
        TypeError, match="a row must be a dict, a Row, .*, Columns, a Frame, .* got"
    ):
        RowEncoder().encode([row])


# Batches that fail


@pytest.mark.parametrize(
    "invalid",
    [
        [{"time": 1, "a": 1}, {"time": 2, "a": "x"}],
        [{"time": 1, "new": 1}, {"time": 2, "a": "x"}],
        [{"time": 1, "a": 1.5}, {"time": "x"}],
        [{"time": 1, "a": 2**70}],
        [{"time": 1, "new": "\ud800"}],
        [Reading(NOW, 1.0), {"time": 1, "new": b"\xff"}],
        [{"time": 1, "new": 1}, Frame(Field("n", [1]), Field("n", [1]))],
        [{"time": 1, "new": 1}, None],
    ],
)
def test_a_batch_that_fails_does_not_change_the_encoder(invalid):
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "a": 1}])
    before = encoder.schema
    with pytest.raises((TypeError, ValueError)):
        encoder.encode(invalid)
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


def test_an_empty_history_has_the_columns_of_its_row_class_if_it_has_one():
    frame = RowEncoder(Reading).frame([])
    assert [field.name for field in frame.fields] == ["time", "celsius", "note"]
    assert frame.rows == 0 and RowEncoder().frame([]).fields == ()


def test_a_history_may_be_a_list_with_one_frame():
    frame = Frame(Field("n", [1]))
    assert RowEncoder(Reading).frame([frame]) is frame


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"time": 1}, Reading(NOW, 1.0)], "must have rows of one kind, .* got 2"),
        ([{"a": 1}], "must have a column 'time', got {'a': 1}"),
        (None, "must be a Frame, Columns, a table or a list of rows, got None"),
        (Pair(1, 2), r"must be a Frame, Columns, a table or a list of rows, got Pair\(a=1, b=2\)"),
        ("text", "must be a Frame, Columns, a table or a list of rows, got 'text'"),
        ({"time": 1}, "must be a Frame, Columns, a table or a list of rows, got {"),
    ],
)
def test_an_invalid_history_is_refused(rows, message):
    with pytest.raises(TypeError, match=message):
        RowEncoder().frame(rows)


@pytest.mark.parametrize(
    "row, text",
    [
        ((1, 2), r"got \(1, 2\); use a list of rows, or a dict"),
        (5, "got 5$"),
    ],
)
@pytest.mark.parametrize("use", [lambda e, r: e.encode([r]), lambda e, r: e.frame([r])])
def test_a_tuple_that_is_not_a_list_of_rows_is_refused_as_a_whole(use, row, text):
    # the message is true for a yielded row and for one of a history
    with pytest.raises(TypeError, match="^a row must be a dict, .*" + text):
        use(RowEncoder(), row)


def test_the_error_for_one_row_does_not_number_it():
    # the rows before it in the batch were sent, so that a number names another row
    with pytest.raises(ValueError, match="^field 'time': expected a time from"):
        RowEncoder().encode([{"time": 253402214400000}])


def test_a_live_frame_does_not_replace_the_ref_id_of_a_panels_query():
    frame = Frame(Field("value", [1]), name="n", ref_id="B")
    (packet,) = RowEncoder().encode([frame])
    schema = orjson.loads(packet.schema.body)
    assert "refId" not in schema and schema["name"] == "n"
    assert frame.ref_id == "B"


@pytest.mark.slow
def test_rows_of_many_times_that_wait_are_encoded_in_linear_time():
    """New columns in rows that `max_hz` has held: the values of 4,000 times are joined."""

    def seconds(count):
        rows = [{f"c{number}": 1.0 for number in range(8)} for _ in range(count)]
        encoder = RowEncoder()
        begun = time.process_time()
        packets = encoder.encode(rows, list(range(count)))
        assert sum(packet.rows for packet in packets) == count
        return time.process_time() - begun

    few = min(seconds(1_000) for _ in range(3))
    assert min(seconds(8_000) for _ in range(3)) < 20 * few  # quadratic: 64 times


def test_joined_columns_of_several_times_leave_those_of_the_author_as_they_are():
    class Value(Row):
        v: int

    blocks = [Value.from_columns(v=[1, 2]), Value.from_columns(v=[3])]
    (packet,) = RowEncoder(Value).encode(blocks, [1000, 2000])
    assert orjson.loads(packet.data) == {"values": [[1000, 1000, 2000], [1, 2, 3]]}
    assert [block.values for block in blocks] == [[[1, 2]], [[3]]]
