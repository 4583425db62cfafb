"""Record batches made by hand are, byte for byte, those that pyarrow makes of the same columns."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._frames.arrow import encoder
from aiostream_ds._frames.arrow import record_batch as batch
from aiostream_ds._frames.arrow.record_batch import learn
from aiostream_ds._frames.columns import RANGES
from aiostream_ds._frames.frame import Field, FieldType, Frame

DTYPES = {
    **{each: each.value for each in FieldType if "int" in each.value or "float" in each.value},
    FieldType.TIME: "int64",
}
USUAL = [*DTYPES, FieldType.STRING]
UNUSUAL = [FieldType.BOOL, FieldType.JSON, FieldType.ENUM]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=9)


def values_of(kind: FieldType) -> st.SearchStrategy[Any]:
    if kind is FieldType.STRING:
        return TEXTS
    if kind in RANGES:
        return st.integers(*RANGES[kind])
    return st.floats(width=32 if kind is FieldType.FLOAT32 else 64)


@st.composite
def columns(draw: st.DrawFn) -> Frame:
    """A frame of usual columns: lists, numpy arrays, pyarrow arrays of texts."""
    rows = draw(st.integers(1, 20))
    fields = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(USUAL), min_size=1, max_size=4))):
        values: Any = draw(st.lists(values_of(kind), min_size=rows, max_size=rows))
        if draw(st.booleans()):
            texts = kind is FieldType.STRING
            values = pa.array(values, "string") if texts else np.array(values, DTYPES[kind])
        fields.append(Field(f"f{number}", values, kind, nullable=draw(st.booleans())))
    return Frame(*fields)


def by_hand(frame: Frame) -> bytes | None:
    writer = learn(tuple(field.type for field in frame.fields))
    message = writer.write([field.values for field in frame.fields]) if writer else None
    return None if message is None else b"".join(message)


def by_pyarrow(frame: Frame) -> bytes:
    layout = encoder._Layout(frame)
    made = encoder._batch(frame, layout, [None] * len(frame.fields))
    return bytes(made.serialize().to_pybytes())


@given(columns())
def test_the_bytes_are_pyarrows(frame: Frame) -> None:
    frame.check()
    assert by_hand(frame) == by_pyarrow(frame)


def test_many_rows_are_written_as_few_are() -> None:
    texts = [f"täxt {n}" * (n % 3) for n in range(5_000)]
    frame = Frame(Field("v", np.arange(5_000.0)), Field("t", texts), Field("a", pa.array(texts)))
    assert by_hand(frame) == by_pyarrow(frame)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_types_that_it_does_not_know_are_pyarrows(kind: FieldType) -> None:
    assert learn((FieldType.FLOAT64, kind)) is None
    assert learn(()) is None


masked = np.ma.masked_array([1.0, 2.0], [False, True])
texts = pa.array(["a", "bc", "d"])
_, ends, characters = texts.buffers()
late = pa.StringArray.from_buffers(2, ends[4:], characters)  # its first text begins behind "a"


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
        (FieldType.STRING, texts[1:]),
        (FieldType.STRING, late),
        (FieldType.STRING, texts.cast("large_string")),
        (FieldType.STRING, np.array(["a"])),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_that_is_not_usual_is_left_to_pyarrow(kind: FieldType, values: Any) -> None:
    writer = learn((kind,))
    assert writer is not None
    assert writer.write([values]) is None


def test_a_pyarrow_that_writes_otherwise_is_left_to_write_all(monkeypatch: Any) -> None:
    honest = batch._by_pyarrow
    types = (FieldType.FLOAT64, FieldType.STRING)

    def longer(types: Any, values: Any) -> bytes:
        # a body that ends otherwise, as if buffers were padded to more bytes
        return honest(types, values) + bytes(8)

    assert learn(types) is not None
    monkeypatch.setattr(batch, "_by_pyarrow", longer)
    assert learn.__wrapped__(types) is None
