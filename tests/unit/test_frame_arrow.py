"""Arrow files as Grafana's SDK writes and reads them; the SDK itself judges in test_goldens_go."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aiostream_ds.frames import arrow
from aiostream_ds.frames.config import EnumConfig, FieldConfig, FrameMeta, TypeConfig
from aiostream_ds.frames.frame import Field, FieldType, Frame, FrameError

from ..strategies import same


def opened(frame: Frame) -> pa.Table:
    return pa.ipc.open_file(arrow.encode(frame)).read_all()


def file_of(*arrays: Any, **metadata: str) -> bytes:
    fields = [pa.field("f", array.type, metadata=metadata) for array in arrays]
    schema = pa.schema(fields)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(list(arrays), schema=schema))
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("field_type", "expected"),
    [
        *((each, each.value) for each in FieldType if "int" in each.value),
        (FieldType.FLOAT32, "float"),
        (FieldType.FLOAT64, "double"),
        (FieldType.STRING, "string"),
        (FieldType.BOOL, "bool"),
        (FieldType.TIME, "timestamp[ns]"),
        (FieldType.JSON, "binary"),
        (FieldType.ENUM, "uint16"),
    ],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_each_type_has_its_arrow_type(field_type: FieldType, expected: str, nullable: bool) -> None:
    head = opened(Frame(Field("f", [], field_type, nullable=nullable))).schema.field(0)
    assert (str(head.type), head.nullable) == (expected, nullable)
    assert head.metadata == {b"tstype": field_type.kind.encode()}


def test_metadata_is_where_the_sdk_looks_for_it() -> None:
    field = Field("f", [1.5], labels={"b": "2", "a": "1"}, config=FieldConfig(unit="celsius"))
    frame = Frame(field, name="n", ref_id="A", meta=FrameMeta(channel="ds/uid/path"))
    schema = opened(frame).schema
    assert schema.metadata == {
        b"name": b"n",
        b"refId": b"A",
        b"meta": b'{"channel":"ds/uid/path"}',
    }
    assert schema.field(0).metadata == {
        b"tstype": b"number",
        b"labels": b'{"a":"1","b":"2"}',
        b"config": b'{"unit":"celsius"}',
    }
    assert opened(Frame()).schema.metadata == {b"name": b"", b"refId": b""}


@pytest.mark.parametrize("frame", [Frame(), Frame(Field("v", []))], ids=["no fields", "no rows"])
def test_a_frame_without_rows_still_has_a_record_batch(frame: Frame) -> None:
    content = arrow.encode(frame)
    assert content.startswith(b"ARROW1") and content.endswith(b"ARROW1")
    assert pa.ipc.open_file(content).num_record_batches == 1
    assert same(arrow.decode(content), frame)


@pytest.mark.parametrize(
    "values", [[math.nan, 1.0], np.array([math.nan, 1.0])], ids=["list", "array"]
)
def test_nan_stays_nan(values: Any) -> None:
    column = opened(Frame(Field("v", values))).column(0)
    assert column.null_count == 0
    assert math.isnan(column[0].as_py())


def test_times_are_nanoseconds() -> None:
    given = [
        Field("list", [-1, None], FieldType.TIME, nanos=[999_999, 0]),
        Field("whole", [5, 6], FieldType.TIME),
        Field("array", np.array([7, 1_000_008]).astype("M8[ns]")),
        Field("whole array", np.array([7, 8]).astype("M8[ms]")),
    ]
    table = opened(Frame(*given))
    counts = [column.cast(pa.int64()).to_pylist() for column in table.columns]
    assert counts == [[-1, None], [5_000_000, 6_000_000], [7, 1_000_008], [7_000_000, 8_000_000]]


def test_json_is_written_as_bytes() -> None:
    table = opened(Frame(Field("a", [{"x": 1}, None]), Field("b", [[2], None], nullable=False)))
    assert table.column(0).to_pylist() == [b'{"x":1}', None]
    assert table.column(1).to_pylist() == [b"[2]", b"null"]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype="i1"),
        np.arange(3, dtype="u8"),
        np.arange(3, dtype="f4"),
        np.array([True, False, True]),
        np.arange(3, dtype=">i8")[::-1],
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays_are_written_as_they_are(array: Any) -> None:
    frame = arrow.decode(arrow.encode(Frame(Field("v", array))))
    assert frame.fields[0].values == array.tolist()


def test_an_enum_is_told_by_its_metadata() -> None:
    config = FieldConfig(type=TypeConfig(enum=EnumConfig(text=("off", "on"))))
    frame = Frame(Field("e", [0, 1, None], FieldType.ENUM, config=config), Field("n", [0, 1, 2]))
    assert same(arrow.decode(arrow.encode(frame)), frame)
    assert arrow.decode(file_of(pa.array([1], pa.uint16()))).fields[0].type is FieldType.UINT16


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_timestamp_counts_nanoseconds_whatever_its_unit(unit: str) -> None:
    content = file_of(pa.array([1_000_001], pa.timestamp(unit, tz="UTC")))
    field = arrow.decode(content).fields[0]
    assert (field.type, field.values, field.nanos) == (FieldType.TIME, [1], [1])


def test_all_record_batches_are_read() -> None:
    schema = pa.schema([pa.field("v", pa.int64())])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for value in (1, 2):
            writer.write_batch(pa.record_batch([pa.array([value])], schema=schema))
    assert arrow.decode(sink.getvalue().to_pybytes()).fields[0].values == [1, 2]


def test_a_raw_message_of_no_bytes_is_none() -> None:
    assert arrow.decode(file_of(pa.array([b"", b"1"], pa.binary()))).fields[0].values == [None, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no Arrow file"),
        (b"ARROW1" * 9, "no Arrow file"),
        (file_of(pa.array(["x"], pa.large_string())), "'f' is of Arrow type large_string; allowed"),
        (file_of(pa.array([b"{"], pa.binary())), "'f' has a value that is no JSON"),
        (file_of(pa.array([1]), config='{"decimals":-1}'), "'f': config cannot be read"),
        (file_of(pa.array([1]), labels="[]"), "'f': labels cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_decode_refuses_what_grafana_could_not_read(content: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        arrow.decode(content)


def test_encode_checks_unless_told_that_it_was_done() -> None:
    frame = Frame(Field("v", [1]), Field("v", [2]))
    with pytest.raises(FrameError, match="twice"):
        arrow.encode(frame)
    assert pa.ipc.open_file(arrow.encode(frame, checked=True)).schema.names == ["v", "v"]


def test_pyarrow_and_numpy_are_not_imported_before_they_are_needed() -> None:
    script = (
        "import sys; from aiostream_ds.frames import arrow, json; from aiostream_ds.frames.frame "
        "import Field, Frame; json.encode(Frame(Field('v', [1.5]))); "
        "early = {'pyarrow', 'numpy'} & sys.modules.keys(); arrow.load(); "
        "sys.exit(bool(early) or 'pyarrow' not in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
