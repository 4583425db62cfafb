"""Rows of any kind: each has the columns, values and units of a Row."""

import dataclasses
from collections import namedtuple
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pydantic
import pytest

from aiostream_ds import Cursor, Field, Frame, RowOrder, SchemaPolicy
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import cursor_kind
from aiostream_ds._encoding.ordering import Sorter
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_kinds import flatten, row_kind
from aiostream_ds._frames import json
from aiostream_ds._telemetry import Counters
from tests.encoding.row_examples import DECLARED, MAKERS, MS, TIME, AsDataclass, AsTypedDict

pytestmark = pytest.mark.slow  # every kind of row

COLUMNS = {"time": [MS], "celsius": [21.5], "name": ["kitchen"]}


def decoded(packet):
    return json.decode(b'{"schema":%b,"data":%b}' % (packet.schema.body, packet.data))


def table(frame):
    return {field.name: list(field.values) for field in frame.fields}


@pytest.fixture(params=MAKERS)
def row(request):
    return MAKERS[request.param](time=TIME, celsius=21.5, name="kitchen")


def test_each_kind_of_row_is_one_row(row):
    encoder = RowEncoder()
    items = [row, row] if isinstance(row, np.ndarray) else [row, row, [row], (row,)]
    for item in items:
        (packet,) = encoder.encode([item])
        assert packet.rows == 1 and table(decoded(packet)) == COLUMNS


def test_rows_of_each_kind_are_sent_together(row):
    items = [row] * 4 if isinstance(row, np.ndarray) else [row, [row, row], row]
    (packet,) = RowEncoder().encode(items)
    assert packet.rows == 4 and table(decoded(packet))["celsius"] == [21.5] * 4


def test_each_kind_of_row_may_be_in_a_history(row):
    encoder = RowEncoder()
    assert table(encoder.frame([row])) == COLUMNS
    (packet,) = encoder.encode([row])
    assert table(decoded(packet)) == COLUMNS


def test_each_kind_of_row_may_belong_to_a_series(row):
    encoder = RowEncoder(policy=SchemaPolicy(labels=("name",)))
    (packet,) = encoder.encode([row])
    assert table(decoded(packet)) == {"time": [MS], 'celsius {name="kitchen"}': [21.5]}


def test_rows_of_each_kind_are_ordered_by_time_and_key(row):
    counters = Counters()
    sorter = Sorter(RowOrder(late="drop", key=("name",)), counters)
    released: list[Any] = []
    sorter.feed([row, row], 0.0, released)
    assert len(flatten(released)) == 1 and counters.dropped == {"duplicate": 1}
    sorter.feed([{"time": MS - 1, "name": "late"}], 0.0, released)
    assert counters.dropped == {"duplicate": 1, "late": 1}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_kind_of_row_may_have_a_cursor(make):
    counters = Counters()
    encoder = CursorEncoder(RowEncoder(common=("celsius",)), cursor_kind("celsius"), counters)
    encoder.begin(Cursor("", -1))
    row = make(time=TIME, celsius=7, name="kitchen")
    if hasattr(row, "dtype") or hasattr(row, "__pydantic_validator__"):
        pytest.skip("it makes a float of the number")
    (packet,) = encoder.encode([row, row])
    assert packet.cursors is not None and packet.cursors.last == 7
    assert counters.dropped == {"duplicate": 1} and encoder.first_new(row) is None


@pytest.mark.parametrize("kind", DECLARED)
def test_a_class_that_declares_its_fields_has_its_schema_before_the_first_row(kind):
    encoder = RowEncoder(kind)
    fields = encoder.frame([]).fields
    assert [field.name for field in fields] == ["time", "celsius", "name"]
    units = [field.config and field.config.unit for field in fields]
    assert units == [None, "celsius", None]
    before = encoder.schema
    (packet,) = encoder.encode([kind(time=TIME, celsius=21.5, name="kitchen")])
    assert packet.schema is before


@pytest.mark.parametrize("kind", DECLARED)
def test_a_value_that_does_not_fit_its_declared_type_is_refused(kind):
    make = getattr(kind, "model_construct", kind)  # without pydantic's own check
    if hasattr(kind, "__pydantic_validator__") and make is kind:
        pytest.skip("pydantic refuses the value itself")
    row = make(time=TIME, celsius="warm", name="kitchen")
    with pytest.raises((TypeError, ValueError), match="'celsius': expected .*, got 'warm'"):
        RowEncoder(kind).encode([row])


def test_the_dicts_of_a_typed_dict_may_lack_keys_and_have_further_ones():
    encoder = RowEncoder(AsTypedDict)
    first, second = encoder.encode([{"time": TIME}]), encoder.encode([{"time": TIME, "new": 1}])
    assert table(decoded(first[0])) == {"time": [MS], "celsius": [None], "name": [None]}
    assert table(decoded(second[0]))["new"] == [1]


def test_the_columns_of_series_have_the_types_of_a_typed_dict():
    encoder = RowEncoder(AsTypedDict, SchemaPolicy(labels=("name",)))
    (packet,) = encoder.encode([{"time": TIME, "celsius": 1, "name": "a"}])
    assert decoded(packet).fields[1].config.unit == "celsius"


@dataclasses.dataclass
class Mixed:
    time: datetime
    value: int | str


@dataclasses.dataclass
class TextTime:
    time: str


T = TypeVar("T")


class Point(NamedTuple, Generic[T]):
    time: datetime
    value: T


@pytest.mark.parametrize(
    "kind, message",
    [
        (Mixed, r"Mixed\.value must be bool, int, .* got int \| str"),
        (TextTime, r"TextTime\.time must be a datetime, or an int of Unix milliseconds, got"),
        (Point, r"Point\.value must be bool, int, .* got ~T"),
    ],
)
def test_a_type_that_no_column_can_have_is_named_with_class_and_field(kind, message):
    with pytest.raises(TypeError, match=message):
        RowEncoder(kind)
    with pytest.raises(TypeError, match=message):
        RowEncoder().encode([kind(TIME, 1) if kind is not TextTime else kind("noon")])


STRUCTURED = [("time", "M8[ns]"), ("celsius", "f4"), ("axes", "i2", (2,)), ("at", [("x", "i4")])]


@pytest.mark.parametrize("made", [lambda a: a, lambda a: a[0], lambda a: a.reshape(())])
def test_a_structured_array_its_element_and_one_without_dimensions_are_the_same_row(made):
    array = np.array([(np.datetime64(MS * 10**6 + 1, "ns"), 1.5, (1, 2), (3,))], STRUCTURED)
    (packet,) = RowEncoder().encode(flatten([made(array)]))
    values = [field.values[0] for field in decoded(packet).fields]
    assert values == [MS, 1.5, [1, 2], [3]]


class NotARow:
    time = TIME

    def __repr__(self):  # the same in each process that collects tests
        return "NotARow()"


@pytest.mark.parametrize(
    "value",
    [
        NotARow(),
        AsDataclass,
        np.array([1.5]),
        np.zeros((2, 2), [("time", "i8")]),
        np.void(b"raw"),
        Cursor("", 1),
        (1, 2),
        "text",
    ],
    ids=repr,
)
def test_an_object_that_is_not_a_row_is_refused(value):
    with pytest.raises(TypeError, match="(row|rows|Cursor).*got"):
        RowEncoder().encode([value])


def test_a_model_has_columns_for_its_fields_only():
    class Model(pydantic.BaseModel, extra="allow"):
        time: datetime
        secret: str = pydantic.Field(default="", exclude=True)

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return 2

    (packet,) = RowEncoder().encode([Model(time=TIME, more=1)])  # type: ignore[call-arg]
    assert table(decoded(packet)) == {"time": [MS]}


def test_the_fields_of_a_class_are_read_once():
    kind = dataclasses.make_dataclass("Made", [("time", datetime)])
    assert row_kind(kind) is row_kind(kind)


def test_rows_of_several_kinds_become_packets_in_order():
    pair = namedtuple("pair", "time value")
    rows = [
        {"time": TIME, "value": 1},
        pair(TIME, 2),
        AsDataclass(TIME, 1.0),
        Frame(Field("n", [1])),
    ]
    packets = RowEncoder().encode(rows)
    assert [packet.rows for packet in packets] == [1, 1, 1, 1]
    assert [decoded(packet).fields[-1].name for packet in packets] == [
        "value",
        "value",
        "name",
        "n",
    ]


@pytest.mark.parametrize("policy", [SchemaPolicy(), SchemaPolicy(labels=("host",))])
@pytest.mark.parametrize("make", [dict, MappingProxyType])
def test_a_key_of_bytes_and_one_of_str_cannot_have_one_text(policy, make):
    encoder = RowEncoder(None, policy)
    encoder.encode([{"time": MS, "host": "x", "a": 1}])
    row = make({b"time": MS, b"host": "x", b"a": 1, "a": 2})
    with pytest.raises(TypeError, match="^each column of a row .* got b'a' and 'a'"):
        encoder.encode([row])
    with pytest.raises(TypeError, match="^each column of a row .* got b'a' and 'a'"):
        encoder.frame([row])
