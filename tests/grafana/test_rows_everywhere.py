"""Rows of each kind in a yield, a history, a query, an alert rule and an exact panel."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import anyio
import numpy as np
import pyarrow as pa
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Field,
    FieldConfig,
    Frame,
    HistoryPage,
    HistoryRange,
    Query,
    Row,
    Rows,
    query,
    stream,
)
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.grafana import QueryFailed
from tests.encoding.row_examples import DECLARED, MAKERS

pytestmark = [pytest.mark.virtual, pytest.mark.slow]
START = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = {"FromAlert": "true"}


def source(make: Any) -> type[DataSource]:
    """A data source whose rows are made by this function. `celsius` counts them from 0."""

    def rows(start: int, stop: int) -> Any:
        found = [
            make(time=START + timedelta(seconds=n), celsius=float(n), name=f"row {n}")
            for n in range(start, stop)
        ]
        is_array = found and isinstance(found[0], np.ndarray)
        return np.concatenate(found) if is_array else found

    class Source(DataSource):
        @stream("live")
        async def live(self):
            for row in rows(0, 2) if not isinstance(rows(0, 1), np.ndarray) else [rows(0, 2)]:
                yield row
            yield rows(2, 4)
            await anyio.sleep_forever()

        @live.history
        async def past(self, history_range: HistoryRange):
            return rows(0, 3)

        @query
        async def answer(self, q: Query) -> list[Any]:
            return rows(0, 3)

        @query("named")
        async def named(self, q: Query) -> dict[str, list[Any]]:
            return {"first": rows(0, 1), "second": rows(1, 3)}

    return Source


@pytest.fixture(params=MAKERS)
def kind(request):
    return request.param


def values(frame, name):
    return next(list(field.values) for field in frame.fields if field.name == name)


async def test_each_kind_of_row_live(kind):
    async with serve_in_memory(source(MAKERS[kind])) as grafana:
        viewer = await grafana.follow("live")
        rows = await viewer.take(4)
        assert [row["celsius"] for row in rows] == [0, 1, 2, 3]
        assert rows[3]["name"] == "row 3"


async def test_each_kind_of_row_in_a_history(kind):
    async with serve_in_memory(source(MAKERS[kind])) as grafana:
        (frame,) = await grafana.query({"queryType": "live"})
        assert [field.name for field in frame.fields] == ["time", "celsius", "name"]
        assert values(frame, "celsius") == [0, 1, 2]


async def test_each_kind_of_row_in_a_query(kind):
    async with serve_in_memory(source(MAKERS[kind])) as grafana:
        (frame,) = await grafana.query({"queryType": "answer"})
        assert values(frame, "celsius") == [0, 1, 2] and frame.fields[0].type.value == "time.Time"
        first, second = await grafana.query({"queryType": "named"})
        assert (first.name, values(first, "name")) == ("first", ["row 0"])
        assert (second.name, values(second, "name")) == ("second", ["row 1", "row 2"])


TABLE = pa.table({"v": [1]})
FRAME = Frame(Field("v", [1]))


@pytest.mark.parametrize(
    "result",
    [[[TABLE]], [(TABLE,)], [[{"v": 1}, TABLE]], [[[TABLE]]], {"x": [TABLE]}, [[FRAME]]],
    ids=["list", "tuple", "row and table", "deeper", "by name", "Frame"],
)
async def test_a_list_within_the_result_of_a_query_has_no_tables(result):
    class Source(DataSource):
        @query
        async def answer(self, q: Query) -> Any:
            return result

    async with serve_in_memory(Source) as grafana:
        with pytest.raises(QueryFailed, match="a list within .* got .*; return a list of tables"):
            await grafana.query({"queryType": "answer"})


async def test_each_kind_of_row_in_an_alert_rule(kind):
    async with serve_in_memory(source(MAKERS[kind])) as grafana:
        (frame,) = await grafana.query({"queryType": "live"}, headers=ALERT)
        # a series for Grafana: one time, and numbers
        assert [field.type.value for field in frame.fields] == ["time.Time", "float64"]
        assert values(frame, "celsius") == [0, 1, 2]


class Entry(Row):
    time: int
    id: int


def log(make: Any) -> type[DataSource]:
    """A data source with a log of rows, and a cursor."""

    def rows(start: int, stop: int) -> Any:
        found = [make(time=1_767_225_600_000 + n, id=n) for n in range(start, stop)]
        is_array = found and isinstance(found[0], np.ndarray)
        return np.concatenate(found) if is_array else found

    class Source(DataSource):
        @stream("log", cursor="id")
        async def log(self, after: Cursor):
            yield rows(4, 6)  # row 3 was written before it subscribed
            await anyio.sleep_forever()

        @log.history
        async def logged(self, history_range: HistoryRange):
            after, upto = history_range.after, history_range.upto
            if after is None:
                return HistoryPage(rows(0, 3), epoch="one")
            return HistoryPage(rows(after + 1, 5 if upto is None else upto + 1), epoch="one")

    return Source


def exact_makers() -> dict[str, Any]:
    import dataclasses
    from collections import namedtuple

    import attrs
    import msgspec
    import pydantic

    from tests.encoding.row_examples import Record

    fields = [("time", int), ("id", int)]
    dtype = [("time", "i8"), ("id", "u4")]
    return {
        "Row": Entry,
        "Struct": msgspec.defstruct("Struct", fields),
        "dataclass": dataclasses.make_dataclass("Dataclass", fields),
        "namedtuple": namedtuple("Untyped", "time id"),
        "attrs": attrs.make_class("Attrs", {name: attrs.field(type=kind) for name, kind in fields}),
        "model": pydantic.create_model("Model", time=(int, ...), id=(int, ...)),
        "dict": dict,
        "record": Record,
        "structured array": lambda time, id: np.array([(time, id)], dtype),
        "numpy.void": lambda time, id: np.array([(time, id)], dtype)[0],
    }


@pytest.mark.parametrize("make", exact_makers().values(), ids=exact_makers())
async def test_each_kind_of_row_in_an_exact_panel(make):
    async with serve_in_memory(log(make)) as grafana:
        (frame,) = await grafana.query({"queryType": "log", "exact": True})
        assert values(frame, "id") == [0, 1, 2]
        hidden = next(field for field in frame.fields if field.name == "id")
        assert hidden.config is not None and hidden.config.custom is not None
        assert hidden.config.custom["hideFrom"]["viz"] is True
        viewer = await grafana.follow("x/log", frame=frame)
        assert [row["id"] for row in await viewer.take(3)] == [3, 4, 5]


@pytest.mark.parametrize("kind", DECLARED)
async def test_a_class_in_the_annotation_declares_the_columns(kind):
    class Source(DataSource):
        @stream("declared")
        async def declared(self) -> Rows[kind | list[kind]]:
            await anyio.sleep_forever()
            yield []

    assert Source._ds_plan.streams["declared"].row is kind
    async with serve_in_memory(Source) as grafana:
        (frame,) = await grafana.query({"queryType": "declared"})
        assert [field.name for field in frame.fields] == ["time", "celsius", "name"]
        assert frame.fields[1].config.unit == "celsius"


async def test_the_rows_of_a_query_need_no_time_and_one_row_needs_a_list():
    class Source(DataSource):
        @query
        async def timeless(self, q: Query) -> list[dict[str, int]]:
            return [{"cpu": 1}, {"cpu": 2, "new": 3}]

        @query("single")
        async def single(self, q: Query) -> Any:
            return Entry(1, 2)

        @query("mixed")
        async def mixed(self, q: Query) -> list[Any]:
            return [{"cpu": 1}, Entry(1, 2)]

    async with serve_in_memory(Source) as grafana:
        (frame,) = await grafana.query({"queryType": "timeless"})
        assert {field.name: list(field.values) for field in frame.fields} == {
            "cpu": [1, 2],
            "new": [None, 3],
        }
        with pytest.raises(QueryFailed, match="use a list for one row"):
            await grafana.query({"queryType": "single"})
        with pytest.raises(QueryFailed, match="a list of rows must have rows of one kind"):
            await grafana.query({"queryType": "mixed"})


class Impossible(Row):
    time: datetime
    value: Annotated[complex, FieldConfig(unit="s")]


def test_an_impossible_field_is_an_error_when_the_data_source_class_is_created():
    with pytest.raises(TypeError, match=r"Impossible\.value must be bool, int, .* got .*complex"):

        class Source(DataSource):
            @stream("impossible")
            async def impossible(self) -> Rows[Impossible]:
                yield Impossible(START, 1j)
