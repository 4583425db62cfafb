"""Queries of alert rules: Grafana takes series of numbers, each with its own labels."""

from datetime import UTC, datetime

import anyio
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    EnumConfig,
    Field,
    FieldConfig,
    FieldType,
    Frame,
    HistoryRange,
    LiveChannel,
    Query,
    Row,
    Rows,
    SchemaPolicy,
    TypeConfig,
    query,
    stream,
)
from aiostream_ds.testing import QueryFailed, serve_in_memory

ALERT = {"FromAlert": "true"}
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Line(Row):
    time: datetime
    value: float
    ok: bool
    text: str
    offset: int


ROWS = [Line(time=WHEN, value=1.5, ok=True, text="a", offset=7)]


class Logs(DataSource):
    rows: list = ROWS

    @stream("log", cursor="offset", status_column="status")
    async def log(self, after: Cursor) -> Rows[Line]:
        yield ROWS[0]

    @log.history
    async def past(self, history_range: HistoryRange) -> list[Line]:
        return self.rows

    @stream("many", schema=SchemaPolicy(labels=("host",)))
    async def many(self):
        yield {"host": "a", "cpu": 1.0}

    @many.history
    async def many_past(self, history_range: HistoryRange):
        return self.rows

    @stream("frames")
    async def frames(self):
        yield {"value": 1}

    @frames.history
    async def frames_past(self, history_range: HistoryRange):
        return self.rows

    @query
    async def table(self, q: Query):
        assert not q.with_streaming
        return [
            Frame.from_columns({"name": ["a"], "n": [1]}),
            LiveChannel(Logs.log).with_history(ROWS),
        ]


async def alert(rows, kind, **fields):
    Logs.rows = rows
    async with serve_in_memory(Logs) as grafana:
        return await grafana.query({"queryType": kind, **fields}, headers=ALERT, user=None)


def described(frames):
    return [
        [(f.name, f.type.value, dict(f.labels), list(f.values)) for f in frame.fields]
        for frame in frames
    ]


MS = 1_767_225_600_000
TIME = ("time", "time.Time", {}, [MS])


@pytest.mark.parametrize("fields", [{}, {"exact": True}, {"withStreaming": True}])
async def test_an_alert_rule_gets_numbers_without_text_status_cursor_and_channel(fields):
    frames = await alert(ROWS, "log", **fields)
    assert described(frames) == [
        [TIME, ("value", "float64", {"name": "value"}, [1.5])],
        [TIME, ("ok", "uint8", {"name": "ok"}, [1])],
    ]
    assert all(frame.meta is None or not frame.meta.channel for frame in frames)


async def test_a_panel_gets_all_columns():
    Logs.rows = ROWS
    async with serve_in_memory(Logs) as grafana:
        (frame,) = await grafana.query({"queryType": "log"}, headers={"FromAlert": "false"})
    names = [field.name for field in frame.fields]
    assert names == ["time", "value", "ok", "text", "offset", "status"]


@pytest.mark.parametrize("kind", ["log", "many", "frames"])
async def test_an_empty_history_is_no_data_for_an_alert_rule(kind):
    (frame,) = await alert([], kind)
    assert frame.fields == ()


async def test_one_column_of_numbers_has_no_label_for_an_alert_rule():
    frames = await alert([{"time": WHEN, "value": 1, "text": "a"}], "frames")
    assert described(frames) == [[TIME, ("value", "int64", {}, [1])]]


async def test_series_of_an_alert_rule_are_without_the_rows_of_other_series():
    rows = [
        {"time": MS, "host": "a", "cpu": 1.0},
        {"time": MS + 1, "host": "b", "cpu": 2.0},
        {"time": MS + 2, "host": "a", "cpu": 3.0},
    ]
    assert [each[0][3] for each in described(await alert(rows, "many"))] == [
        [MS, MS + 2],
        [MS + 1],
    ]
    first, second = described(await alert(rows, "many"))
    assert first[1] == ('cpu {host="a"}', "float64", {"host": "a"}, [1.0, 3.0])
    assert second[1] == ('cpu {host="b"}', "float64", {"host": "b"}, [2.0])


async def test_two_values_of_one_series_get_labels_that_differ_for_an_alert_rule():
    rows = [{"time": MS, "host": "a", "cpu": 1.0, "memory": 2}]
    labels = [each[1][2] for each in described(await alert(rows, "many"))]
    assert labels == [{"host": "a", "name": "cpu"}, {"host": "a", "name": "memory"}]


async def test_a_label_called_name_stays_for_an_alert_rule():
    frame = Frame(
        Field("time", [WHEN]),
        Field("a", [1], labels={"name": "x"}),
        Field("b", [1], labels={"name": "x"}),
    )
    labels = [each[1][2] for each in described(await alert(frame, "frames"))]
    assert labels == [{"name": "x", "name_": "a"}, {"name": "x", "name_": "b"}]


async def test_an_alert_rule_gets_no_second_time_and_no_json_and_the_number_of_an_enum():
    states = FieldConfig(type=TypeConfig(enum=EnumConfig(text=("bad", "good"))))
    frame = Frame(
        Field("time", [WHEN]),
        Field("seen", [WHEN]),
        Field("tree", [{"a": 1}]),
        Field("state", [1], FieldType.ENUM, config=states),
    )
    assert described(await alert(frame, "frames")) == [[TIME, ("state", "uint16", {}, [1])]]


async def test_rows_without_a_time_are_left_out_for_an_alert_rule():
    frame = Frame(Field("time", [None, WHEN], FieldType.TIME), Field("value", [1, 2]))
    assert described(await alert(frame, "frames")) == [[TIME, ("value", "int64", {}, [2])]]


@pytest.mark.parametrize(
    "frame", [Frame(Field("time", [WHEN]), Field("text", ["a"])), Frame(Field("value", [1]))]
)
async def test_rows_without_numbers_or_a_time_are_an_error_for_an_alert_rule(frame):
    with pytest.raises(QueryFailed, match="must have a time and a column of numbers") as failed:
        await alert(frame, "frames")
    assert failed.value.status == 400


async def test_an_authors_own_frames_reach_an_alert_rule_unchanged():
    table, *series = await alert(ROWS, "table")
    assert [field.name for field in table.fields] == ["name", "n"]
    assert [frame.fields[1].name for frame in series] == ["value", "ok"]


@pytest.mark.slow
async def test_many_series_of_an_alert_rule_do_not_block_the_streams():
    count = 400
    frame = Frame(
        Field("time", list(range(1000)), FieldType.TIME),
        *(Field("v", [float(n)] * 1000, labels={"host": str(n)}) for n in range(count)),
    )
    iterations = 0

    async def stream_rows():
        nonlocal iterations
        while True:
            await anyio.sleep(0)
            iterations += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream_rows)
        frames = await alert(frame, "frames")
        tasks.cancel_scope.cancel()
    assert len(frames) == count and iterations > count
