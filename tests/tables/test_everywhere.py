"""Tables of each library in a yield, a history, a query, an alert rule and an exact panel."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pyarrow as pa
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Frame,
    HistoryPage,
    HistoryRange,
    LiveChannel,
    Query,
    Table,
    query,
    stream,
)
from aiostream_ds._frames.frame import FrameError
from aiostream_ds.testing import serve_in_memory
from tests.tables.libraries import LIBRARIES, Make

pytestmark = pytest.mark.slow  # imports every library

START = datetime(2026, 1, 1, tzinfo=UTC)
MS = int(START.timestamp() * 1000)
ALERT = {"FromAlert": "true"}


def rows(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table(
        {
            "time": pa.array(
                [START + timedelta(seconds=n) for n in numbers], pa.timestamp("us", "UTC")
            ),
            "n": pa.array(numbers, pa.int64()),
            "value": [n / 2 for n in numbers],
            "host": [f"host {n}" for n in numbers],
        }
    )


class Source(DataSource):
    make: Make

    @stream("live")
    async def live(self):
        yield type(self).make(rows(0, 2))
        yield [type(self).make(rows(2, 3)), type(self).make(rows(3, 4))]
        await anyio.sleep_forever()

    @live.history
    async def past(self, history_range: HistoryRange):
        return type(self).make(rows(0, 3))

    @stream("log", cursor="n")
    async def log(self, after: Cursor):
        yield type(self).make(rows(4, 6))  # row 3 was written before it subscribed
        await anyio.sleep_forever()

    @log.history
    async def logged(self, history_range: HistoryRange):
        after, upto = history_range.after, history_range.upto
        found = rows(0, 3) if after is None else rows(after + 1, 5 if upto is None else upto + 1)
        return HistoryPage(type(self).make(found), epoch="one")

    @stream("blocking")
    def blocking(self):
        yield type(self).make(rows(0, 2))
        yield [type(self).make(rows(2, 3)), type(self).make(rows(3, 4))]

    @blocking.history
    def blocking_past(self, history_range: HistoryRange):
        return type(self).make(rows(0, 3))

    @query
    async def one(self, q: Query) -> Table:
        table: Table = type(self).make(rows(0, 3))
        return table

    @query
    async def series(self, q: Query) -> Table:
        table: Table = type(self).make(rows(0, 3).drop_columns(["host"]))
        return table

    @query
    async def several(self, q: Query) -> list[Table | Frame | LiveChannel]:
        table = type(self).make(rows(0, 1))
        return [table, Frame.from_table(type(self).make(rows(0, 2))), self._channel()]

    @query
    async def named(self, q: Query) -> dict[str, Table]:
        return {"first": type(self).make(rows(0, 1)), "second": type(self).make(rows(0, 2))}

    def _channel(self) -> LiveChannel:
        return LiveChannel(Source.live).with_history(type(self).make(rows(0, 3)))


FAST = ("pyarrow.Table", "a stream of batches", "pandas", "polars")
"""One library of each way in which tables are read."""


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in LIBRARIES
    ]
)
def source(request: pytest.FixtureRequest) -> type[Source]:
    make = LIBRARIES[request.param]
    make(rows(0, 1))  # skips the test if the library is not installed
    return type("Source", (Source,), {"make": staticmethod(make)})


def table_of(frame: Frame) -> dict[str, list[Any]]:
    return {field.name: list(field.values) for field in frame.fields}


def expected(start: int, stop: int) -> dict[str, list[Any]]:
    numbers = range(start, stop)
    return {
        "time": [MS + 1000 * n for n in numbers],
        "n": list(numbers),
        "value": [n / 2 for n in numbers],
        "host": [f"host {n}" for n in numbers],
    }


async def test_a_yielded_table_is_rows(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        found = await (await grafana.follow("live")).take(4)
        columns = expected(0, 4)
        assert found == [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]


async def test_methods_that_block_yield_and_return_tables(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        found = await (await grafana.follow("blocking")).take(4)
        assert [row["host"] for row in found] == ["host 0", "host 1", "host 2", "host 3"]
        (frame,) = await grafana.query({"queryType": "blocking"})
        assert table_of(frame) == expected(0, 3)


async def test_a_table_is_a_history(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        (frame,) = await grafana.query({"queryType": "live"})
        assert table_of(frame) == expected(0, 3)
        assert frame.meta is not None and frame.meta.channel == "ds/test/live"


async def test_a_history_and_live_rows_have_the_same_columns(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        viewer = await grafana.follow("live")
        await viewer.take(2)
        (frame,) = await grafana.query({"queryType": "live"})
        assert frame.meta is not None and frame.meta.notices == ()  # they can be joined
        assert [(f.name, f.type, f.nullable) for f in frame.fields] == [
            (f.name, f.type, f.nullable) for f in viewer.fields
        ]


async def test_tables_are_the_answer_of_a_query(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        (frame,) = await grafana.query({"queryType": "one"})
        assert table_of(frame) == expected(0, 3)
        frames = await grafana.query({"queryType": "several"})
        assert [frame.rows for frame in frames] == [1, 2, 3]
        assert frames[2].meta is not None and frames[2].meta.channel == "ds/test/live"
        frames = await grafana.query({"queryType": "named"})
        assert [(frame.name, frame.rows) for frame in frames] == [("first", 1), ("second", 2)]


async def test_an_alert_rule_gets_a_series_for_each_number(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        for name in ("live", "series"):
            frames = await grafana.query({"queryType": name}, user=None, headers=ALERT)
            found = [
                (frame.fields[1].labels, table_of(frame)[frame.fields[1].name]) for frame in frames
            ]
            assert found == [({"name": "n"}, [0, 1, 2]), ({"name": "value"}, [0.0, 0.5, 1.0])]


async def test_an_alert_rule_gets_a_table_with_texts_unchanged(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        (frame,) = await grafana.query({"queryType": "one"}, user=None, headers=ALERT)
        assert table_of(frame) == expected(0, 3)


async def test_an_exact_panel_gets_each_row_of_tables_once(source: type[Source]):
    async with serve_in_memory(source) as grafana:
        (frame,) = await grafana.query({"queryType": "log", "exact": True})
        assert table_of(frame) == expected(0, 3)
        assert frame.fields[1].config is not None and frame.fields[1].config.custom is not None
        assert frame.fields[1].config.custom["hideFrom"]["viz"]
        assert frame.meta is not None and frame.meta.custom is not None
        assert frame.meta.custom["cursor"]["last"] == 2
        viewer = await grafana.follow("x/log")
        packets: list[Any] = []
        while sum(len(packet["data"]["values"][1]) for packet in packets) < 3:
            await anyio.sleep(0.001)
            packets = [msgspec.json.decode(packet) for packet in viewer.packets]
            packets = [packet for packet in packets if "data" in packet]
        assert {packet["cursor"]["column"] for packet in packets} == {1}
        assert [n for packet in packets for n in packet["data"]["values"][1]] == [3, 4, 5]
        replayed = await grafana.resource("replay/rows?path=x/log&after=1&upto=3")
        assert msgspec.json.decode(replayed.body)["data"]["values"][1] == [2, 3]


def test_what_is_not_a_table_is_refused_with_what_to_do():
    polars = pytest.importorskip("polars")
    for value, message in (
        ([{"a": 1}], "got .*; Frame.from_rows and Frame.from_columns take lists and dicts"),
        (polars.LazyFrame({"a": [1]}), "got .*; use its collect"),
        (polars.Series("a", [1]), "got a Series, which is one column .*to_frame"),
        (pa.array([1]), "got a Int64Array, which is one column"),
        (polars.DataFrame({"a": polars.Series([1], dtype=polars.Int128)}), "cast a column"),
    ):
        with pytest.raises(FrameError, match=message):
            Frame.from_table(value)
