"""The writer of record batches writes the bytes that pyarrow writes for the same columns."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._frames.arrow import encoder
from aiostream_ds._frames.arrow import record_batch as batch
from aiostream_ds._frames.arrow.record_batch import make_writer
from aiostream_ds._frames.columns import RANGES
from aiostream_ds._frames.frame import Field, FieldType, Frame

DTYPES = {
    **{each: each.value for each in FieldType if "int" in each.value or "float" in each.value},
    FieldType.TIME: "int64",
}
COMMON = [*DTYPES, FieldType.STRING]
UNCOMMON = [FieldType.BOOL, FieldType.JSON, FieldType.ENUM]
STRINGS = st.text(st.characters(codec="utf-8"), max_size=9)


def values_of(kind: FieldType) -> st.SearchStrategy[Any]:
    if kind is FieldType.STRING:
        return STRINGS
    if kind in RANGES:
        return st.integers(*RANGES[kind])
    return st.floats(width=32 if kind is FieldType.FLOAT32 else 64)


@st.composite
def columns(draw: st.DrawFn) -> Frame:
    """A frame in the common case: lists, numpy arrays, pyarrow arrays of strings."""
    rows = draw(st.integers(1, 20))
    fields = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(COMMON), min_size=1, max_size=4))):
        values: Any = draw(st.lists(values_of(kind), min_size=rows, max_size=rows))
        if draw(st.booleans()):
            is_string = kind is FieldType.STRING
            values = pa.array(values, "string") if is_string else np.array(values, DTYPES[kind])
        fields.append(Field(f"f{number}", values, kind, nullable=draw(st.booleans())))
    return Frame(*fields)


def by_writer(frame: Frame) -> bytes | None:
    writer = make_writer(tuple(field.type for field in frame.fields))
    message = writer.write([field.values for field in frame.fields]) if writer else None
    return None if message is None else b"".join(message)


def by_pyarrow(frame: Frame) -> bytes:
    layout = encoder._FileLayout(frame)
    made = encoder._record_batch(frame, layout, [None] * len(frame.fields))
    return bytes(made.serialize().to_pybytes())


@given(columns())
def test_the_bytes_are_those_of_pyarrow(frame: Frame) -> None:
    frame.check()
    assert by_writer(frame) == by_pyarrow(frame)


def test_many_rows_are_written_like_few() -> None:
    column = [f"täxt {n}" * (n % 3) for n in range(5_000)]
    frame = Frame(Field("v", np.arange(5_000.0)), Field("t", column), Field("a", pa.array(column)))
    assert by_writer(frame) == by_pyarrow(frame)


@pytest.mark.parametrize("kind", UNCOMMON)
def test_other_types_have_no_writer(kind: FieldType) -> None:
    assert make_writer((FieldType.FLOAT64, kind)) is None
    assert make_writer(()) is None


masked = np.ma.masked_array([1.0, 2.0], [False, True])
strings = pa.array(["a", "bc", "d"])
_, ends, characters = strings.buffers()
with_offset = pa.StringArray.from_buffers(2, ends[4:], characters)  # starts after "a"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (FieldType.FLOAT64, []),
        (FieldType.FLOAT64, [1.0, None]),
        (FieldType.INT8, [300]),
        (FieldType.FLOAT64, np.arange(3)),
        (FieldType.FLOAT64, np.arange(6.0)[::2]),
        (FieldType.FLOAT64, np.arange(3, dtype=">f8")),
        (FieldType.FLOAT64, np.ones((2, 2))),
        (FieldType.FLOAT64, masked),
        (FieldType.TIME, [1, None]),
        (FieldType.STRING, ["a", None]),
        (FieldType.STRING, pa.array(["a", None])),
        (FieldType.STRING, strings[1:]),
        (FieldType.STRING, with_offset),
        (FieldType.STRING, strings.cast("large_string")),
        (FieldType.STRING, np.array(["a"])),
    ],
    ids=str,
)
def test_the_writer_declines_other_columns(kind: FieldType, values: Any) -> None:
    writer = make_writer((kind,))
    assert writer is not None
    assert writer.write([values]) is None


def test_there_is_no_writer_if_pyarrow_writes_other_bytes(monkeypatch: Any) -> None:
    original = batch._write_with_pyarrow
    types = (FieldType.FLOAT64, FieldType.STRING)

    def longer(types: Any, values: Any) -> bytes:
        # as if buffers were padded to more bytes
        return original(types, values) + bytes(8)

    assert make_writer(types) is not None
    monkeypatch.setattr(batch, "_write_with_pyarrow", longer)
    assert make_writer.__wrapped__(types) is None
