"""A yielded object is the author's again: what is sent is what it was at the `yield`."""

import re
import weakref

import anyio
import pytest

from aiostream_ds import (
    Buffer,
    DataSource,
    HistoryRange,
    Row,
    RowOrder,
    SchemaPolicy,
    UpstreamError,
    stream,
)
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._encoding.yielded import copy_rows, reader
from aiostream_ds._streams.producer import drive
from aiostream_ds.testing import serve_in_memory
from tests.encoding.row_examples import (
    MAKERS,
    TIME,
    AsAttrs,
    AsDataclass,
    AsModel,
    AsRow,
    AsSlots,
    AsStruct,
    Record,
)

pytestmark = pytest.mark.virtual
COUNT = 5


class Sample(Row):
    time: int
    value: float


def change(row, value):
    if isinstance(row, dict):
        row["celsius"] = value
    elif isinstance(row, Record):
        row._values["celsius"] = value
    else:
        row.celsius = value


CHANGEABLE = [AsRow, AsStruct, AsDataclass, AsSlots, AsAttrs, AsModel, dict, Record]
OPTIONS = [
    {},
    {"flush": 0.5},
    {"max_hz": 1},
    {"order": RowOrder(late="drop")},
    {"order": RowOrder(late="hold", hold=3)},
    {"schema": SchemaPolicy(conflict="text")},
    {"schema": SchemaPolicy(labels=("name",))},
    {"buffer": Buffer(full="block")},
    {"status_column": "status"},
    {"cursor": "id"},
]


def source(kind, options, wait):
    """A data source that yields one object again and again, with another value each time."""

    class Changing(DataSource):
        @stream("one", **({} if "cursor" in options else options))
        async def one(self):
            row = kind(time=TIME, celsius=0.0, name="a")
            for number in range(COUNT):
                change(row, float(number))
                yield row
                await wait()
            change(row, -1.0)
            await anyio.sleep_forever()

        @stream("log", cursor="id")
        async def log(self, after):
            row = {"time": TIME, "id": 0}
            for number in range(COUNT):
                row["id"] = number
                yield row
                await wait()
            await anyio.sleep_forever()

        @log.history
        async def past(self, history_range: HistoryRange):
            return []

        @stream("lists", **({} if "cursor" in options else options))
        async def lists(self):
            batch = []
            for number in range(COUNT):
                batch.append(kind(time=TIME, celsius=float(number), name="a"))
                yield batch
                change(batch[0], -1.0)
                batch.clear()
                await wait()
            await anyio.sleep_forever()

    return Changing


async def no_wait():
    pass


async def short_wait():
    await anyio.sleep(0.01)


def numbers(rows, name):
    return [value for row in rows for key, value in row.items() if key.startswith(name)]


@pytest.mark.diagonal
@pytest.mark.parametrize("wait", [no_wait, short_wait])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "none")
@pytest.mark.parametrize("kind", CHANGEABLE)
async def test_each_row_is_sent_as_it_was_at_its_yield(kind, options, wait):
    async with serve_in_memory(source(kind, options, wait)) as grafana:
        path, name = ("log", "id") if "cursor" in options else ("one", "celsius")
        viewer = await grafana.follow(path)
        assert numbers(await viewer.take(COUNT), name) == list(range(COUNT))
        if path == "one":
            viewer = await grafana.follow("lists")
            assert numbers(await viewer.take(COUNT), name) == list(range(COUNT))


async def read_by_a_stream(rows):
    """The objects that a stream keeps of those that it reads from a generator."""
    kept = []
    registry = ChannelRegistry()
    run = drive(rows, lambda batch: kept.extend(batch) or [])
    async for _ in registry.join(ChannelKey("instance", "path"), run):
        pass
    await registry.aclose()
    return kept


def make(kind):
    return kind(time=TIME, celsius=0.0, name="a")


async def referred_to_by_a_variable(kind):
    for _ in range(COUNT):
        row = make(kind)
        yield row
        change(row, -1.0)


async def referred_to_by_a_list(kind):
    rows = [make(kind) for _ in range(COUNT)]
    while rows:
        yield rows[-1]
        change(rows.pop(), -1.0)


async def referred_to_by_another_stream(kind):
    async for row in referred_to_by_a_variable(kind):
        yield row


async def referred_to_weakly(kind):
    found = []

    def make_known():
        row = make(kind)
        found.append(weakref.ref(row))
        return row

    for _ in range(COUNT):
        yield make_known()
        row = found.pop()()
        if row is not None:
            change(row, -1.0)
        del row


@pytest.mark.parametrize("kind", [AsDataclass, AsAttrs, AsModel])
async def test_a_row_that_has_weak_references_is_kept_as_it_was_at_its_yield(kind):
    kept = await read_by_a_stream(lambda: referred_to_weakly(kind))
    assert [row.celsius for row in kept] == [0.0] * COUNT


@pytest.mark.parametrize("kind", [AsRow, AsStruct, AsDataclass, AsSlots, AsAttrs, AsModel, dict])
@pytest.mark.parametrize(
    "rows",
    [referred_to_by_a_variable, referred_to_by_a_list, referred_to_by_another_stream],
)
async def test_a_row_that_something_refers_to_is_kept_as_it_was_at_its_yield(rows, kind):
    kept = await read_by_a_stream(lambda: rows(kind))
    assert len(kept) == COUNT and kept == [make(kind)] * COUNT


@pytest.mark.parametrize("kind", [AsRow, AsStruct, AsSlots, dict])
async def test_a_row_that_nothing_else_refers_to_is_kept_itself(kind):
    made = []

    def make_known():
        row = make(kind)
        made.append(id(row))
        return row

    async def rows():
        for _ in range(COUNT):
            yield make_known()

    assert [id(row) for row in await read_by_a_stream(rows)] == made


async def test_columns_are_sent_as_they_were_created():
    class Blocks(DataSource):
        @stream("blocks")
        async def blocks(self):
            times, values = [1, 2], [1.0, 2.0]
            yield Sample.from_columns(time=times, value=values)
            times.clear()
            values[:] = [9.0, 9.0]
            yield Sample.from_columns(time=[3], value=[3.0])
            await anyio.sleep_forever()

    async with serve_in_memory(Blocks) as grafana:
        rows = await (await grafana.follow("blocks")).take(3)
        assert [row["value"] for row in rows] == [1.0, 2.0, 3.0]


async def test_a_long_history_is_sent_as_it_was_returned():
    class Past(DataSource):
        def __init__(self):
            self.rows = [{"time": number, "value": number} for number in range(20_000)]

        @stream("past")
        async def past(self):
            await anyio.sleep_forever()
            yield {}

        @past.history
        async def read(self, history_range: HistoryRange):
            async def change():
                self.rows[5]["value"] = -1
                del self.rows[10:]

            self.tasks_group.start_soon(change)
            return self.rows

    async with anyio.create_task_group() as group, serve_in_memory(Past) as grafana:
        Past.tasks_group = group
        (frame,) = await grafana.query({"queryType": "past"}, max_data_points=50_000)
        assert frame.rows == 20_000 and list(frame.fields[1].values)[:6] == [0, 1, 2, 3, 4, 5]


async def test_rows_of_a_run_that_fails_are_sent_as_they_were():
    class Failing(DataSource):
        @stream("failing")
        async def failing(self):
            row = {"value": 1}
            yield row
            row["value"] = 2
            raise UpstreamError("lost")

    async with serve_in_memory(Failing) as grafana:
        assert (await (await grafana.follow("failing")).next())["value"] == 1


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_read_at_the_yield_is_another_object_or_cannot_change(name):
    row = MAKERS[name](time=TIME, celsius=1.0, name="a")
    read = reader(type(row))
    fixed = ("AsFrozen", "AsFrozenStruct", "AsNamedTuple")
    assert (read is None) == (name in fixed)
    if read is not None:
        assert read(row) is not row


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_several_kinds_in_a_list_are_copied_as_in_lists_of_their_own(name, order):
    rows = [Sample(time=1, value=1.0), MAKERS[name](time=TIME, celsius=1.0, name="a")][::order]
    found = copy_rows(rows)
    for row, copy in zip(rows, found, strict=True):
        (alone,) = copy_rows([row])
        assert type(copy) is type(alone)
        assert copy is not row or reader(type(row)) is None


@pytest.mark.parametrize(("times", "values"), [([], [1.0]), ([1], []), ([1], [1.0, 2.0])])
def test_columns_of_other_lengths_are_refused_with_their_lengths(times, values):
    lengths = f"{{'time': {len(times)}, 'value': {len(values)}}}"
    with pytest.raises(ValueError, match=re.escape(f"got the lengths {lengths}")):
        Sample.from_columns(time=times, value=values)


@pytest.mark.parametrize("columns", [{}, {"time": [1]}, {"time": [1], "other": [1.0]}])
def test_other_columns_are_refused_with_their_names(columns):
    names = ", ".join(columns) or "none"
    with pytest.raises(TypeError, match=f"expected the columns time, value, got {names}$"):
        Sample.from_columns(**columns)


async def test_a_row_that_cannot_be_read_fails_the_stream_after_the_rows_before_it():
    class Broken(Record):
        def keys(self):
            raise RuntimeError("gone")

    class Source(DataSource):
        runs = 0

        @stream("broken")
        async def broken(self):
            Source.runs += 1
            yield {"value": 1}
            yield Broken(a=1) if Source.runs == 1 else {"value": 2}
            await anyio.sleep_forever()

    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("broken")
        assert [row["value"] for row in await viewer.take(3)] == [1, 1, 2]
