"""The column `time`: it is a time even before a row has one, and times in seconds are reported."""

import time
from datetime import UTC, datetime

import numpy
import pytest

from aiostream_ds import Field, FieldType, Frame, Row, SchemaPolicy
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json

MS = 1_700_000_000_000
SECONDS = 1_795_900_000


class Timed(Row):
    time: int
    value: float


class Optional(Row):
    value: float
    time: datetime | None = None


def frames(encoder, *rows):
    parts = (
        b'{"schema":%b,"data":%b}' % (p.schema.body, p.data) for p in encoder.encode(list(rows))
    )
    return [json.decode(part) for part in parts]


def is_now(value):
    return abs(value - time.time() * 1000) < 10_000


@pytest.mark.parametrize("labels", [(), ("host",)])
@pytest.mark.parametrize("row", [{"time": None, "v": 1}, {"v": 1, "time": None, "host": "a"}])
def test_a_time_that_is_none_first_is_a_time(row, labels):
    encoder = RowEncoder(None, SchemaPolicy(labels=labels))
    (first,) = frames(encoder, row)
    (second,) = frames(encoder, {**row, "time": MS})
    for frame in (first, second):
        assert [f.name for f in frame.fields if f.type is FieldType.TIME] == ["time"]
    columns = [{field.name: field.values for field in frame.fields} for frame in (first, second)]
    assert is_now(columns[0]["time"][0]) and columns[1]["time"] == [MS]


def test_the_schema_does_not_change_when_the_first_time_comes():
    encoder = RowEncoder()
    (before,) = encoder.encode([{"time": None, "v": 1}])
    (after,) = encoder.encode([{"time": MS, "v": 1}])
    assert before.schema.body == after.schema.body


def test_rows_without_a_time_get_the_time_of_sending():
    encoder = RowEncoder()
    frames(encoder, {"time": MS, "v": 1})
    (frame,) = frames(encoder, {"time": MS, "v": 1}, {"time": None, "v": 2}, {"v": 3})
    first, *others = frame.fields[0].values
    assert first == MS and all(map(is_now, others))


def test_a_row_class_without_a_time_gets_the_time_of_sending():
    (frame,) = frames(RowEncoder(Optional), Optional(value=1.0), Optional(value=2.0))
    times = next(field.values for field in frame.fields if field.name == "time")
    assert all(map(is_now, times))


def test_a_time_that_must_not_be_none_is_refused():
    with pytest.raises(ValueError, match="not nullable"):
        RowEncoder(Timed).encode([Timed(time=None, value=1.0)])


def test_a_column_time_of_any_type_stays_where_another_column_has_the_times():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    encoder = RowEncoder()
    frames(encoder, {"at": at, "time": None})
    (frame,) = frames(encoder, {"at": at, "time": "noon"})
    assert [field.type for field in frame.fields] == [FieldType.TIME, FieldType.STRING]


@pytest.mark.parametrize(
    "row",
    [
        {"time": SECONDS, "v": 1},
        Timed(time=SECONDS, value=1.0),
        Timed.from_columns(time=[SECONDS], value=[1.0]),
        Timed.from_columns(time=numpy.array([SECONDS]), value=[1.0]),
        Frame(Field("time", [SECONDS], FieldType.TIME)),
    ],
    ids=["dict", "row", "columns", "array", "frame"],
)
@pytest.mark.parametrize("declared", [None, Timed])
def test_times_in_seconds_are_logged_once_and_shown_with_a_history(row, declared, caplog):
    encoder = RowEncoder(declared)
    for _ in range(3):
        encoder.encode([row])
    history = encoder.frame(row if isinstance(row, Frame) else [row])
    (record,) = caplog.records
    (notice,) = history.meta.notices
    for text in (record.getMessage(), notice.text):
        assert "column 'time' must be Unix milliseconds" in text and str(SECONDS) in text


def test_the_notice_is_not_added_to_the_authors_frame():
    frame = Frame(Field("time", [SECONDS], FieldType.TIME))
    RowEncoder().frame(frame)
    assert frame.meta is None


@pytest.mark.parametrize("value", [MS, 1, 0, -SECONDS, None, datetime(2026, 1, 1, tzinfo=UTC)])
def test_other_times_are_not_reported(value, caplog):
    RowEncoder().encode([{"time": value, "v": 1}])
    assert caplog.records == []
