"""Properties of RowEncoder for generated batches: no row is lost or duplicated, all in order."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Frame, Row
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._frames.packet import Packet


class Reading(Row):
    time: datetime
    value: float
    note: str | None = None


TIMES = st.integers(0, 2**41)
VALUES = {
    "i": st.integers(-(2**53), 2**53) | st.none(),
    "f": st.integers(-1000, 1000) | st.floats(allow_nan=False) | st.none(),
    "s": st.text(st.characters(codec="utf-8"), max_size=5) | st.none(),
    "b": st.booleans() | st.none(),
    "j": st.lists(st.integers(0, 9), max_size=3) | st.none(),
}
DICTS = st.fixed_dictionaries({"time": TIMES}, optional=VALUES)
READINGS = st.builds(
    Reading,
    time=TIMES.map(lambda ms: datetime.fromtimestamp(ms // 1000, UTC)),
    value=st.floats(allow_nan=False),
    note=st.none() | VALUES["s"],
)
ROWS = st.lists(DICTS | READINGS, max_size=25)
INVALID = st.sampled_from(
    [{"time": 1, "i": "x"}, {"time": 1, "new": b"\xff"}, {1: 2}, None, 5, [[{}]]]
)


def rows_of(frame: Frame) -> list[dict[str, Any]]:
    """The rows of a frame without None: a batch does not have the keys of later batches."""
    table = {field.name: list(field.values) for field in frame.fields}
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def expected(rows: list[Any]) -> list[dict[str, Any]]:
    dicts = [
        row
        if isinstance(row, dict)
        else {"time": int(row.time.timestamp() * 1000), "value": row.value, "note": row.note}
        for row in rows
    ]
    return [{k: v for k, v in row.items() if v is not None} for row in dicts]


def received(packets: list[Packet]) -> list[dict[str, Any]]:
    rows = []
    for packet in packets:
        frame = json.decode(b'{"data":%b}' % packet.data, packet.schema)
        assert packet.rows == frame.rows
        rows += rows_of(frame)
    return rows


@pytest.mark.slow
@given(st.lists(ROWS, max_size=6))
def test_all_rows_of_all_batches_are_encoded_in_order(batches):
    encoder = RowEncoder()
    packets = [packet for batch in batches for packet in encoder.encode(batch)]
    assert received(packets) == expected([row for batch in batches for row in batch])


@given(ROWS, st.data())
def test_a_list_is_encoded_like_its_rows(rows, data):
    cut = data.draw(st.integers(0, len(rows)))
    nested = [rows[:cut], *rows[cut:]]
    one, other = RowEncoder().encode(rows), RowEncoder().encode(nested)
    assert [(p.schema.body, p.data) for p in one] == [(p.schema.body, p.data) for p in other]


@pytest.mark.slow
@given(ROWS, ROWS, ROWS, INVALID)
def test_a_failed_batch_does_not_change_the_encoder(before, failing, after, invalid):
    tried, untouched = RowEncoder(), RowEncoder()
    tried.encode(before)
    untouched.encode(before)
    # The first row defines the type of "i", so that a str does not fit.
    failing = [{"time": 0, "i": 1}, *failing, invalid]
    try:
        tried.encode(failing)
    except (TypeError, ValueError):
        pass
    else:
        raise AssertionError("expected the batch to fail")
    one, other = tried.encode(after), untouched.encode(after)
    assert [(p.schema.body, p.data) for p in one] == [(p.schema.body, p.data) for p in other]


@given(st.lists(DICTS, min_size=1, max_size=10), st.lists(DICTS, max_size=10))
def test_columns_are_only_added(first, second):
    encoder = RowEncoder()
    names = []
    for batch in (first, second):
        for packet in encoder.encode(batch):
            frame = json.decode(b'{"data":%b}' % packet.data, packet.schema)
            found = [field.name for field in frame.fields]
            assert found[: len(names)] == names
            names = found
