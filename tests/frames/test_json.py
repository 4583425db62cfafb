"""Frame JSON as Grafana's browser and its SDK read it."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest

from aiostream_ds._frames import json
from aiostream_ds._frames.config import (
    FieldConfig,
    FrameMeta,
    Inspect,
    MappingResult,
    Notice,
    RangeMapping,
    RangeOptions,
    Threshold,
    Thresholds,
    ValueMapping,
)
from aiostream_ds._frames.frame import Field, FieldType, Frame, FrameError
from aiostream_ds._frames.packet import Schema

from ..strategies import same

NAN, INF = math.nan, math.inf
NOON = datetime(2024, 2, 29, 12, 0, 0, 250, tzinfo=UTC)
CLOCK = Frame(
    Field("time", [1_700_000_000_000], FieldType.TIME),
    Field(
        "v",
        [1.5],
        nullable=True,
    ),
)


def test_schema_is_small_and_in_the_order_of_the_sdk() -> None:
    assert json.schema(CLOCK) == (
        b'{"fields":[{"name":"time","type":"time","typeInfo":{"frame":"time.Time"}},'
        b'{"name":"v","type":"number","typeInfo":{"frame":"float64","nullable":true}}]}'
    )
    named = Frame(
        Field("", [1], labels={"b": "2", "a": "1"}), name="n", ref_id="A", meta=FrameMeta()
    )
    assert json.schema(named) == (
        b'{"name":"n","refId":"A","meta":{},"fields":'
        b'[{"type":"number","typeInfo":{"frame":"int64"},"labels":{"a":"1","b":"2"}}]}'
    )


def test_data_is_columns() -> None:
    assert json.data(CLOCK.fields) == b'{"values":[[1700000000000],[1.5]]}'
    assert json.data(()) == b'{"values":[]}'


def test_encode_joins_schema_and_data() -> None:
    assert json.encode(CLOCK) == b'{"schema":%b,"data":%b}' % (
        json.schema(CLOCK),
        json.data(CLOCK.fields),
    )


@pytest.mark.parametrize(
    ("values", "column", "entities"),
    [
        ([NAN, 1.0, INF, -INF, NAN], [None, 1.0, None, None, None], [0, 4, 2, 3]),
        (np.array([NAN, 1, INF, -INF, NAN]), [None, 1.0, None, None, None], [0, 4, 2, 3]),
        (np.array([NAN, 1, INF, -INF, NAN], "f4"), [None, 1.0, None, None, None], [0, 4, 2, 3]),
    ],
    ids=["list", "float64", "float32"],
)
def test_nan_and_infinities_are_null_and_listed(
    values: Any, column: list[Any], entities: list[int]
) -> None:
    data = json.data([Field("s", ["null"] * 5), Field("v", values)])
    nan_rows, inf_row, neg_inf_row = entities[:2], entities[2], entities[3]
    assert orjson.loads(data) == {
        "values": [["null"] * 5, column],
        "entities": [None, {"NaN": nan_rows, "Inf": [inf_row], "NegInf": [neg_inf_row]}],
    }
    assert data.index(b'"NaN"') < data.index(b'"Inf"') < data.index(b'"NegInf"')


@pytest.mark.parametrize(
    "values",
    [
        [None, 1.0],
        [1e308, 1e308, None],
        np.array([1.5, 2.5]),
        np.array([]),
        [],
    ],
    ids=["null", "sum overflows", "finite array", "empty array", "empty list"],
)
def test_there_are_no_entities_without_a_special_value(values: Any) -> None:
    field = Field("v", values, FieldType.FLOAT64, nullable=True)
    strings = ["null"] * len(values)
    assert b"entities" not in json.data([field, Field("s", strings, FieldType.STRING)])


def test_only_entities_that_occur_are_written() -> None:
    assert orjson.loads(json.data([Field("v", [None, INF])]))["entities"] == [{"Inf": [1]}]


def test_nanos_are_there_for_fields_that_have_some() -> None:
    fields = [Field("a", [NOON, None]), Field("b", [1, 2]), Field("c", [0, 0], FieldType.TIME)]
    assert json.data(fields).endswith(b',"nanos":[[250000,0],null,null]}')
    array = Field("t", np.array([1_000_001]).astype("M8[ns]"))
    assert json.data([array]) == b'{"values":[[1]],"nanos":[[1]]}'


def test_numbers_keep_every_digit() -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e22]
    assert orjson.loads(json.data([Field("v", values)]))["values"] == [values]
    big = [2**64 - 1, 0]
    assert (
        json.data([Field("v", big, FieldType.UINT64)]) == b'{"values":[[18446744073709551615,0]]}'
    )
    assert json.data([Field("v", np.array([0.1], "f4"))]) == b'{"values":[[0.1]]}'


def test_json_values_are_embedded() -> None:
    field = Field("j", [{"a": [1, None]}, [], None])
    assert json.data([field]) == b'{"values":[[{"a":[1,null]},[],null]]}'


def test_config_and_meta_have_the_keys_of_grafana() -> None:
    config = FieldConfig(
        display_name_from_ds="d",
        decimals=0,
        filterable=False,
        min=NAN,
        mappings=(
            ValueMapping(options={"1": MappingResult(text="on")}),
            RangeMapping(options=RangeOptions(from_=1.0, result=MappingResult(color="red"))),
        ),
        thresholds=Thresholds(mode="absolute", steps=(Threshold(value=-INF, color="green"),)),
        no_value="-",
    )
    meta = FrameMeta(
        notices=(Notice(severity="warning", text="w", inspect=Inspect.DATA),),
        preferred_visualisation_plugin_id="table",
        unique_row_id_fields=(0,),
        type_version=(0, 1),
    )
    schema = orjson.loads(json.schema(Frame(Field("v", [1], config=config), meta=meta)))
    assert schema["fields"][0]["config"] == {
        "displayNameFromDS": "d",
        "decimals": 0,
        "filterable": False,
        "min": None,
        "mappings": [
            {"type": "value", "options": {"1": {"text": "on"}}},
            {"type": "range", "options": {"from": 1.0, "result": {"color": "red"}}},
        ],
        "thresholds": {"mode": "absolute", "steps": [{"value": None, "color": "green"}]},
        "noValue": "-",
    }
    assert schema["meta"] == {
        "notices": [{"severity": "warning", "text": "w", "inspect": 3}],
        "preferredVisualisationPluginId": "table",
        "uniqueRowIdFields": [0],
        "typeVersion": [0, 1],
    }


def test_a_packet_has_rows_and_a_fingerprint_of_its_schema() -> None:
    packet = json.packet(CLOCK)
    assert (packet.rows, packet.data) == (1, json.data(CLOCK.fields))
    assert packet.schema.body == json.schema(CLOCK)
    assert packet.schema.fingerprint == json.fingerprint(json.schema(CLOCK))


def test_fingerprints_are_stable_and_differ_for_different_schemas() -> None:
    assert json.fingerprint(b"{}") == "01e7b720ff566d53"
    assert json.fingerprint(b"{}") != json.fingerprint(b"[]")


INVALID = Frame(Field("v", [300], FieldType.INT8), Field("v", [1], FieldType.INT8))


def test_encoders_check_unless_checked_is_true() -> None:
    with pytest.raises(FrameError, match="twice"):
        json.schema(INVALID)
    with pytest.raises(FrameError, match="300"):
        json.data(INVALID.fields)
    with pytest.raises(FrameError, match="twice"):
        json.encode(INVALID)
    with pytest.raises(FrameError, match="twice"):
        json.packet(INVALID)
    assert json.data(INVALID.fields, checked=True) == b'{"values":[[300],[1]]}'
    assert json.encode(INVALID, checked=True).endswith(b'"data":{"values":[[300],[1]]}}')


def test_decode_takes_str_and_bytes() -> None:
    payload = json.encode(CLOCK)
    assert same(json.decode(payload), CLOCK)
    assert same(json.decode(payload.decode()), CLOCK)


def test_decode_of_a_schema_alone_is_a_frame_without_rows() -> None:
    frame = json.decode(b'{"schema":%b}' % json.schema(CLOCK))
    assert (len(frame.fields), frame.rows) == (2, 0)


def test_decode_of_data_takes_the_schema_of_an_earlier_packet() -> None:
    packet = json.packet(CLOCK)
    assert same(json.decode(b'{"data":%b}' % packet.data, packet.schema), CLOCK)


def test_decode_restores_special_values() -> None:
    frame = Frame(Field("v", [NAN, None, INF, -INF], FieldType.FLOAT32))
    values = json.decode(json.encode(frame)).fields[0].values
    assert math.isnan(values[0])
    assert values[1:] == [None, INF, -INF]


SCHEMA = b'"schema":{"fields":[{"name":"v","typeInfo":{"frame":"float64","nullable":true}}]}'


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"{", "expected frame JSON, got b'{'"),
        (b"\xff", r"expected frame JSON, got b'.xff'"),
        (b'{"data":{"values":[]}}', "expected a payload with a schema, got b'{.*; pass the schema"),
        (b'{"schema":{"fields":[{"typeInfo":{"frame":"int7"}}]}}', "int7"),
        (b'{"schema":{"fields":[{"name":"v","type":"number"}]}}', "'v': expected a typeInfo"),
        (b'{%b,"data":{"values":[[1],[2]]}}' % SCHEMA, "values must have 1 columns, .*, got 2"),
        (
            b'{%b,"data":{"values":[[1]],"nanos":[]}}' % SCHEMA,
            "nanos must have 1 columns, .*, got 0",
        ),
        (
            b'{%b,"data":{"values":[[1]],"nanos":[[1]]}}' % SCHEMA,
            "nanos must belong to times .*, got float64",
        ),
        (
            b'{%b,"data":{"values":[[1]],"entities":[{"NaN":[1]}]}}' % SCHEMA,
            "entities must name rows 0 to 0, got row 1",
        ),
        (b'{%b,"data":{"values":[["x"]]}}' % SCHEMA, ": expected float .*, got 'x'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_decode_refuses_payloads_that_are_not_a_frame(payload: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        json.decode(payload)


def test_decode_refuses_an_invalid_schema() -> None:
    with pytest.raises(FrameError, match="expected frame JSON"):
        json.decode(b'{"data":{"values":[]}}', Schema(b"[]", "x"))


def test_notices_of_one_severity_are_joined_because_a_panel_shows_one_of_each():
    notices = [
        Notice(severity="warning", text="A value is missing."),
        Notice(severity="info", text="thinned", link="https://example.com"),
        Notice(severity="warning", text="rows are late", link="https://example.com/late"),
        Notice(severity="warning", text="another"),
    ]
    frame = Frame(Field("v", [1]), meta=FrameMeta(notices=tuple(notices)))
    assert orjson.loads(json.schema(frame))["meta"]["notices"] == [
        {
            "severity": "warning",
            "text": "A value is missing. rows are late; another",
            "link": "https://example.com/late",
        },
        {"severity": "info", "text": "thinned", "link": "https://example.com"},
    ]


class Subclass(np.ndarray):
    """An array of another class."""


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2]),
        np.array([1.5, np.nan]),
        np.array([1, 2], ">i8"),
        np.array([1, 2], "f2"),
        np.array([True, False]),
        np.array([1, 2], "M8[ns]"),
        np.array([1, 2], "m8[s]"),
    ],
    ids=lambda values: values.dtype.str,
)
def test_a_memory_mapped_array_and_other_subclasses_are_written_as_arrays(tmp_path, values):
    mapped = np.memmap(tmp_path / "values", values.dtype, "w+", shape=values.shape)
    mapped[:] = values
    written = json.data([Field("f", values)])
    for each in (mapped, values.view(np.recarray), values.view(Subclass)):
        assert json.data([Field("f", each)]) == written


def test_nanos_may_be_a_memory_mapped_array(tmp_path):
    nanos = np.memmap(tmp_path / "nanos", "i8", "w+", shape=(2,))
    nanos[:] = [5, 6]
    field = Field("f", [1, 2], FieldType.TIME, nanos=nanos)
    assert json.data([field]) == b'{"values":[[1,2]],"nanos":[[5,6]]}'
