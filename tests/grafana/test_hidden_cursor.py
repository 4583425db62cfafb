"""The cursor column is hidden from panels, whatever a stream yields and its history returns."""

from typing import Annotated

import anyio
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Field,
    FieldConfig,
    Frame,
    HistoryRange,
    Row,
    stream,
)
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual

HIDDEN = {"hideFrom": {"legend": True, "tooltip": True, "viz": True}}


class Plain(Row):
    time: int
    value: float
    offset: int


class Configured(Row):
    time: int
    value: float
    offset: Annotated[int, FieldConfig(unit="bytes", custom={"width": 7})]


class Shown(Row):
    time: int
    offset: Annotated[int, FieldConfig(custom={"hideFrom": {"viz": False}})]


KINDS = {
    "dict": {"time": 1, "value": 1.0, "offset": 5},
    "row": Plain(time=1, value=1.0, offset=5),
    "columns": Plain.from_columns(time=[1], value=[1.0], offset=[5]),
    "frame": Frame(Field("time", [1]), Field("value", [1.0]), Field("offset", [5])),
    "configured": Configured(time=1, value=1.0, offset=5),
    "shown": Shown(time=1, offset=5),
}


class Logs(DataSource):
    @stream("log/{kind}", cursor="offset", status_column="status")
    async def log(self, after: Cursor, kind: str):
        yield Cursor("live", 0)
        yield KINDS[kind]
        await anyio.sleep_forever()

    @log.history
    async def past(self, history_range: HistoryRange, kind: str):
        return KINDS[kind] if kind in ("frame", "columns") else [KINDS[kind]]


async def configs(kind):
    """The config of the cursor column in the history, in an exact history, and in live rows."""
    query = {"queryType": "log", "kind": kind}
    async with serve_in_memory(Logs) as grafana:
        viewer = await grafana.follow(f"log/{kind}")
        await viewer.next()
        (stock,) = await grafana.query(query)
        (exact,) = await grafana.query({**query, "exact": True})
    tables = (viewer.fields, stock.fields, exact.fields)
    return [field.config for fields in tables for field in fields if field.name == "offset"]


@pytest.mark.parametrize("kind", ["dict", "row", "columns", "frame"])
async def test_the_cursor_column_is_hidden_from_panels(kind):
    assert [config.custom for config in await configs(kind)] == [HIDDEN] * 3


async def test_a_hidden_cursor_keeps_the_authors_config():
    for config in await configs("configured"):
        assert (config.unit, config.custom) == ("bytes", {**HIDDEN, "width": 7})


async def test_an_author_can_show_the_cursor():
    assert [config.custom for config in await configs("shown")] == [
        {"hideFrom": {"viz": False}}
    ] * 3


async def test_a_cursor_that_is_the_time_is_not_hidden():
    class Times(DataSource):
        @stream("times", cursor="time")
        async def times(self, after: Cursor):
            yield Plain(time=1, value=1.0, offset=5)

        @times.history
        async def past(self, history_range: HistoryRange):
            return [Plain(time=1, value=1.0, offset=5)]

    async with serve_in_memory(Times) as grafana:
        (frame,) = await grafana.query({"queryType": "times"})
        assert [field.config and field.config.custom for field in frame.fields] == [None] * 3
