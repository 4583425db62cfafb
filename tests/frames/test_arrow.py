"""Arrow files as Grafana's SDK writes and reads them; test_goldens_go.py checks with the SDK."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.arrow import encoder
from aiostream_ds._frames.config import EnumConfig, FieldConfig, FrameMeta, TypeConfig
from aiostream_ds._frames.frame import Field, FieldType, Frame, FrameError

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


def test_metadata_has_the_keys_that_the_sdk_reads() -> None:
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
def test_arrays_are_written_unchanged(array: Any) -> None:
    frame = arrow.decode(arrow.encode(Frame(Field("v", array))))
    assert frame.fields[0].values == array.tolist()


def test_an_enum_is_recognized_by_its_metadata() -> None:
    config = FieldConfig(type=TypeConfig(enum=EnumConfig(text=("off", "on"))))
    frame = Frame(Field("e", [0, 1, None], FieldType.ENUM, config=config), Field("n", [0, 1, 2]))
    assert same(arrow.decode(arrow.encode(frame)), frame)
    assert arrow.decode(file_of(pa.array([1], pa.uint16()))).fields[0].type is FieldType.UINT16


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_timestamp_of_any_unit_counts_nanoseconds(unit: str) -> None:
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
    ("content", "message"),
    [
        (b"", "expected an Arrow file, got b''"),
        (b"ARROW1" * 9, "expected an Arrow file, got b'ARROW1"),
        (file_of(pa.array(["x"], pa.large_string())), "'f': Arrow type .*, got large_string"),
        (file_of(pa.array([b"{"], pa.binary())), "'f'(, row 0)?: expected JSON, got b'{'"),
        (
            file_of(pa.array([1]), config='{"decimals":-1}'),
            "'f': config must be valid, got .*decimals",
        ),
        (file_of(pa.array([1]), labels="[]"), "'f': labels must be valid, got .*object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_decode_refuses_files_that_grafana_cannot_read(content: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        arrow.decode(content)


def test_encode_checks_unless_checked_is_true() -> None:
    frame = Frame(Field("v", [1]), Field("v", [2]))
    with pytest.raises(FrameError, match="twice"):
        arrow.encode(frame)
    assert pa.ipc.open_file(arrow.encode(frame, checked=True)).schema.names == ["v", "v"]


def by_pyarrow(frame: Frame) -> bytes:
    """The same file, written by pyarrow alone."""
    batch = pa.ipc.open_file(arrow.encode(frame)).get_batch(0)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


FRAMES = {
    "no fields": lambda rows: Frame(),
    "numbers": lambda rows: Frame(Field("v", np.arange(rows))),
    "with gaps": lambda rows: Frame(Field("v", [None, *range(rows)])),
    "strings": lambda rows: Frame(Field("t", ["ü" * 9] * rows), Field("b", [True] * rows)),
    "labels": lambda rows: Frame(Field("v", [1.5] * rows, labels={"a": "b"}), name="n"),
    "channel": lambda rows: Frame(Field("v", []), meta=FrameMeta(channel=f"ds/uid/{rows}")),
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("rows", [0, 1, 7, 5000])
def test_a_file_with_a_cached_layout_has_the_bytes_of_pyarrow(make: Any, rows: int) -> None:
    frame = make(rows)
    assert arrow.encode(frame) == arrow.encode(frame) == by_pyarrow(frame)
    assert b"".join(arrow.encode_chunks(frame)) == arrow.encode(frame)


def test_pyarrow_writes_the_file_if_its_bytes_are_not_as_expected(monkeypatch: Any) -> None:
    frame = Frame(Field("v", [1, 2]), name="not cached")
    written = by_pyarrow(Frame(*frame.fields, name=frame.name))
    encoder._layouts.clear()
    monkeypatch.setattr(encoder, "_length", lambda message, position: (0,))
    assert arrow.encode(frame) == arrow.encode(frame) == written
    encoder._layouts.clear()


def config(value: Any) -> Frame:
    return Frame(Field("v", [1.5], config=FieldConfig(decimals=value)))


DIFFERENT = [
    (Frame(Field("v", [1])), Frame(Field("v", [1.0]))),
    (Frame(Field("v", [1])), Frame(Field("v", [1], nullable=True))),
    (Frame(Field("v", [1])), Frame(Field("v", [1], labels={"a": "b"}))),
    (Frame(Field("v", [1])), Frame(Field("v", [1]), name="n")),
    (Frame(Field("v", [1])), Frame(Field("v", [1]), ref_id="B")),
    (config(1), config(2)),
    (Frame(meta=FrameMeta(custom=1)), Frame(meta=FrameMeta(custom=True))),
    (Frame(meta=FrameMeta(custom=[1])), Frame(meta=FrameMeta(custom=[2]))),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_frames_with_different_schemas_do_not_share_a_layout(one: Frame, other: Frame) -> None:
    for frame in (one, other, one):
        assert same(arrow.decode(arrow.encode(frame)), frame)


def test_an_invalid_frame_is_refused_after_a_similar_valid_one() -> None:
    arrow.encode(config(1))
    with pytest.raises(FrameError, match="'v': config"):
        arrow.encode(config(True))
    arrow.encode(Frame(Field("v", [1], labels={"a": "1"})))
    with pytest.raises(FrameError, match="label 'a'"):
        arrow.encode(Frame(Field("v", [1], labels={"a": 1})))  # type: ignore[dict-item]
    twice = Frame(Field("v", [1]), Field("v", [2]))
    arrow.encode(twice, checked=True)
    with pytest.raises(FrameError, match="twice"):
        arrow.encode(twice)


def test_changed_labels_are_written() -> None:
    labels = {"a": "1"}
    field = Field("v", [1], labels=labels)
    arrow.encode(Frame(field))
    labels["a"] = "2"
    assert arrow.decode(arrow.encode(Frame(field))).fields[0].labels == {"a": "2"}


def test_the_number_and_size_of_cached_layouts_is_limited() -> None:
    for number in range(encoder._MAX_LAYOUTS + 5):
        arrow.encode(Frame(name=f"frame {number}"))
    assert 0 < len(encoder._layouts) <= encoder._MAX_LAYOUTS
    before = set(encoder._layouts)
    arrow.encode(Frame(name="x" * encoder._MAX_LAYOUT_BYTES))
    assert set(encoder._layouts) == before


MANY = [f"text {n}" for n in range(encoder._MANY_STRINGS)]


@pytest.mark.parametrize(
    "strings",
    [
        MANY,
        ["ä€𝄞", ""] * encoder._MANY_STRINGS,
        ["a\0b", *MANY],
        [None, *MANY],
        [""] * encoder._MANY_STRINGS,
    ],
    ids=["ascii", "unicode", "zeros", "nulls", "empty"],
)
def test_many_strings_are_written_like_few(strings: list[str | None]) -> None:
    column = opened(Frame(Field("t", strings))).column(0)
    assert column.equals(pa.chunked_array([pa.array(strings, pa.string())]))


@pytest.mark.parametrize("bad", [7, b"\xff", "\ud800"], ids=["int", "bytes", "surrogate"])
def test_one_invalid_value_among_many_strings_is_named(bad: Any) -> None:
    with pytest.raises(FrameError, match=f"'t', row {len(MANY)}"):
        arrow.encode(Frame(Field("t", [*MANY, bad], FieldType.STRING)))


def test_many_strings_and_a_shorter_field_are_refused() -> None:
    frame = Frame(Field("t", MANY), Field("n", [1]))
    with pytest.raises(FrameError, match=f"'n' must have {len(MANY)} values, .* got 1"):
        arrow.encode(frame)


@pytest.mark.parametrize(
    ("array", "field_type", "values"),
    [
        (pa.array([1, 2]), FieldType.INT64, [1, 2]),
        (pa.array([1, None]), FieldType.INT64, [1, None]),
        (pa.array([1.5, None]), FieldType.FLOAT64, [1.5, None]),
        (pa.array([True, None]), FieldType.BOOL, [True, None]),
        (pa.array(["a", None]), FieldType.STRING, ["a", None]),
        (pa.array(["x", "a", "b", "y"])[1:3], FieldType.STRING, ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), FieldType.STRING, ["a", "b"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), FieldType.STRING, ["a", "b", "a"]),
        (pa.chunked_array([["a"], ["b"]]), FieldType.STRING, ["a", "b"]),
        (pa.array([5, None], pa.timestamp("ms", "UTC")), FieldType.TIME, [5, None]),
        (pa.array([{"a": 1}]), FieldType.JSON, [{"a": 1}]),
        (pa.array([], pa.string()), FieldType.STRING, []),
    ],
    ids=lambda each: str(each.type) if hasattr(each, "to_pylist") else "",
)
def test_a_pyarrow_array_is_a_column(array: Any, field_type: FieldType, values: Any) -> None:
    field = Field("v", array)
    assert field.type is field_type
    assert same(arrow.decode(arrow.encode(Frame(field))), Frame(Field("v", values, field_type)))
    assert same(json.decode(json.encode(Frame(field))), Frame(Field("v", values, field_type)))


def test_an_array_of_strings_is_not_copied() -> None:
    strings = pa.array(["a", "b"])
    assert Field("t", strings).values is strings
    assert Field("t", strings, FieldType.STRING).values is strings


INVALID_UTF8 = pa.StringArray.from_buffers(
    1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")
)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            Field("t", pa.array(["a", None]), nullable=False),
            "'t', row 1: expected a value, .*not nullable, got None",
        ),
        (Field("t", INVALID_UTF8), "'t': expected valid UTF-8, got .*UTF8"),
    ],
    ids=["null", "invalid UTF-8"],
)
def test_an_invalid_array_of_strings_is_refused(field: Field, message: str) -> None:
    for encode in (arrow.encode, json.encode):
        with pytest.raises(FrameError, match=message):
            encode(Frame(field))


LENGTH = 2_000


def divided(ends: "np.ndarray[Any, Any]", text: bytes) -> Any:
    """An array of `LENGTH` strings with these offsets into a text."""
    offsets = pa.py_buffer(ends.astype("i4").tobytes())
    return pa.StringArray.from_buffers(LENGTH, offsets, pa.py_buffer(text))


def unordered() -> "np.ndarray[Any, Any]":
    ends = np.arange(LENGTH + 1)
    ends[5] = 3
    return ends


@pytest.mark.parametrize(
    "strings",
    [
        divided(np.arange(LENGTH + 1), b"x" * (LENGTH - 1) + b"\xff"),
        divided(np.arange(LENGTH + 1), "ä".encode() * (LENGTH // 2)),
        divided(unordered(), b"x" * LENGTH),
    ],
    ids=["invalid UTF-8", "a character divided", "offsets that do not grow"],
)
def test_an_invalid_array_of_many_strings_is_refused(strings: Any) -> None:
    with pytest.raises(FrameError, match="'t': expected valid UTF-8, got "):
        arrow.encode(Frame(Field("t", strings)))


@pytest.mark.parametrize(
    "texts", [["a", ""], ["ä", "a"], ["", ""]], ids=["ASCII", "UTF-8", "empty"]
)
def test_an_array_of_many_strings_is_sent_as_it_is(texts: list[str]) -> None:
    strings = pa.array(texts * LENGTH)
    for values in (strings, strings[1:-1]):
        assert arrow.decode(arrow.encode(Frame(Field("t", values)))).fields[0].values == (
            values.to_pylist()
        )


def test_values_replaced_by_an_array_of_another_type_are_refused() -> None:
    field = Field("t", pa.array(["a"]))
    field.values = pa.array([1])
    with pytest.raises(FrameError, match="'t': expected an array of string, got int64"):
        arrow.encode(Frame(field))


def test_an_array_of_strings_must_have_the_type_string() -> None:
    with pytest.raises(FrameError, match="'t': expected int for int64, got 'a'"):
        arrow.encode(Frame(Field("t", pa.array(["a"]), FieldType.INT64)))


@pytest.mark.slow
def test_pyarrow_and_numpy_are_not_imported_before_they_are_needed() -> None:
    script = (
        "import sys; from aiostream_ds._frames import arrow, json; from aiostream_ds._frames.frame "
        "import Field, Frame; json.encode(Frame(Field('v', [1.5]))); "
        "early = {'pyarrow', 'numpy'} & sys.modules.keys(); arrow.encode(Frame()); "
        "sys.exit(bool(early) or 'pyarrow' not in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
