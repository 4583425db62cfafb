"""Cursors of two columns: what the author's code gets, and what the browser gets."""

import itertools
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

import anyio
import msgspec
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Field,
    Frame,
    HistoryPage,
    HistoryRange,
    Retry,
    Row,
    Rows,
    UpstreamError,
    stream,
)
from aiostream_ds.rows import CURSOR_LIMIT
from aiostream_ds.testing import QueryFailed, serve_in_memory
from aiostream_ds.testing.suite import PluginSuite

pytestmark = pytest.mark.virtual

TOP = CURSOR_LIMIT - 1
MS = 4_000_000_000_000
HIDDEN = {"hideFrom": {"legend": True, "tooltip": True, "viz": True}}
Pair = tuple[int, int]


class Entry(Row):
    """An entry of a Redis stream: its id is `ms-seq`."""

    time: datetime
    value: float
    ms: int
    seq: int


class Tuple(NamedTuple):
    time: datetime
    value: float
    ms: int
    seq: int


@dataclass
class Data:
    time: datetime
    value: float
    ms: int
    seq: int


def entry(ms: int, seq: int) -> Entry:
    return Entry(datetime.fromtimestamp(MS / 1000, UTC), ms + seq / 10, ms, seq)


def ids(rows: Any) -> list[Pair]:
    return [(row["ms"], row["seq"]) for row in rows]


def text(ms: int, seq: int) -> str:
    return f"{ms:016d}-{seq:016d}"


class Redis(DataSource):
    """Several entries of one millisecond, and numbers up to the greatest."""

    log: ClassVar[list[Entry]] = []
    asked: ClassVar[list[Any]] = []
    failures: ClassVar[int] = 0
    page: ClassVar[dict[str, Any]] = {}

    @stream(cursor=("ms", "seq"), retry=Retry(min_delay=1, max_delay=1))
    async def entries(self, after: Cursor[Pair]) -> Rows[Entry]:
        Redis.asked.append(("stream", after.value))
        last = after.value
        while True:
            for each in [each for each in Redis.log if (each.ms, each.seq) > last]:
                yield each
                last = each.ms, each.seq
            if Redis.failures:
                Redis.failures -= 1
                raise UpstreamError("gone")
            await anyio.sleep(0.1)

    @entries.history
    async def read(self, history_range: HistoryRange[Pair]) -> HistoryPage[Pair]:
        Redis.asked.append(("history", history_range.after, history_range.upto))
        found = Redis.log
        if history_range.after is not None:
            upto = history_range.upto or (TOP, TOP)
            found = [e for e in found if history_range.after < (e.ms, e.seq) <= upto]
            return HistoryPage(found[: history_range.limit], **Redis.page)
        return HistoryPage(found[-history_range.limit :], **Redis.page)


@pytest.fixture(autouse=True)
def log():
    Redis.log = [entry(MS, 0), entry(MS, 1), entry(MS, TOP), entry(MS + 1, 0)]
    Redis.asked, Redis.failures, Redis.page = [], 0, {}


QUERY = {"queryType": "entries", "exact": True}


async def exact(grafana):
    """The frame of an exact query, and its cursor."""
    end = datetime.fromtimestamp(MS / 1000 + 3600, UTC)
    start = datetime(1970, 1, 2, tzinfo=UTC)
    (frame,) = await grafana.query(QUERY, start=start, end=end)
    return frame, frame.meta.custom["cursor"]


async def test_an_exact_panel_has_texts_that_sort_as_the_pairs_do():
    async with serve_in_memory(Redis) as grafana:
        frame, cursor = await exact(grafana)
        assert frame.rows == 4
        assert (cursor["last"], cursor["column"]) == (text(MS + 1, 0), [2, 3])
        viewer = await grafana.follow("x/entries", frame=frame)
        await anyio.sleep(0.5)  # the stream has begun
        Redis.log.append(entry(MS + 1, 1))
        await viewer.take(1)
        assert ids(viewer.rows) == [(MS + 1, 1)]
        assert viewer.position == Cursor("", (MS + 1, 1))._replace(epoch=cursor["epoch"])
        packets = [msgspec.json.decode(packet) for packet in viewer.packets]
        (rows,) = [packet for packet in packets if "data" in packet]
        assert rows["cursor"] == {
            "epoch": cursor["epoch"],
            "prev": text(MS + 1, 0),
            "last": text(MS + 1, 1),
            "column": [2, 3],
        }


@pytest.mark.parametrize(
    ("after", "upto", "found"),
    [
        ("-1", "", [(MS, 0), (MS, 1), (MS, TOP), (MS + 1, 0)]),
        (text(0, 0), "", [(MS, 0), (MS, 1), (MS, TOP), (MS + 1, 0)]),
        (text(MS, 0), "", [(MS, 1), (MS, TOP), (MS + 1, 0)]),
        (text(MS, 1), text(MS, TOP), [(MS, TOP)]),
        (text(MS, 1), text(MS + 1, 0), [(MS, TOP), (MS + 1, 0)]),
        (text(MS + 1, 0), "", []),
        (text(TOP, TOP), "", []),
    ],
)
async def test_rows_after_a_pair_are_read_from_the_history(after, upto, found):
    async with serve_in_memory(Redis) as grafana:
        answer = await grafana.resource(f"replay/rows?path=x/entries&after={after}&upto={upto}")
        page = msgspec.json.decode(answer.body)
        values = page.get("data", {"values": [[]] * 4})["values"]
        assert list(zip(values[2], values[3], strict=True)) == found
        assert page["cursor"]["prev"] == after
        assert page["cursor"]["last"] == (text(*found[-1]) if found else after)
        assert page.get("first") == (text(*found[0]) if found else None)
        assert page["truncated"] is False
    kind, asked_after, asked_upto = Redis.asked[-1]
    shown = (-1, -1) if after == "-1" else tuple(map(int, after.split("-")))
    assert (kind, asked_after) == ("history", shown)
    assert asked_upto == (tuple(map(int, upto.split("-"))) if upto else None)


@pytest.mark.parametrize(
    ("after", "more", "message"),
    [
        ("7", "", "after must be two numbers of 16 digits with a hyphen between them, got '7'"),
        (f"{MS}-0", "", "after must be two numbers of 16 digits"),
        (text(MS, 0) + "0", "", "after must be two numbers of 16 digits"),
        (text(CURSOR_LIMIT, 0), "", "after must be two numbers of 16 digits"),
        ("--1", "", "after must be two numbers"),
        ("-2", "", "after must be two numbers"),
        ("x" * 16 + "-" + "0" * 16, "", "after must be two numbers"),
        (text(MS, 1), f"&upto={text(MS, 0)}", "upto must be at least after"),
    ],
)
async def test_a_text_that_is_not_a_pair_is_a_bad_request(after, more, message):
    async with serve_in_memory(Redis) as grafana:
        answer = await grafana.resource(f"replay/rows?path=x/entries&after={after}{more}")
        assert answer.status == 400 and message in answer.body.decode()


async def test_the_method_gets_the_pair_of_the_last_row_at_the_start_and_after_an_outage():
    Redis.failures = 1
    async with serve_in_memory(Redis) as grafana:
        viewer = await grafana.follow("entries")
        await anyio.sleep(0.5)
        Redis.log.append(entry(MS + 2, 5))
        await viewer.take(1)
        assert ids(viewer.rows) == [(MS + 2, 5)]
    runs = [asked[1] for asked in Redis.asked if asked[0] == "stream"]
    assert runs == [(MS + 1, 0), (MS + 2, 5)]
    assert ("history", (MS + 1, 0), None) in Redis.asked  # the rows of the outage


async def test_the_first_pair_is_before_all_rows():
    Redis.log = []
    async with serve_in_memory(Redis) as grafana:
        frame, cursor = await exact(grafana)
        assert (frame.rows, cursor["last"]) == (0, "-1")
        viewer = await grafana.follow("x/entries", frame=frame)
        assert viewer.position is not None and viewer.position.value == (-1, -1)
        await anyio.sleep(0.5)  # the stream has begun
        Redis.log = [entry(0, 0)]
        await viewer.take(1)
        assert ids(viewer.rows) == [(0, 0)]
    assert ("stream", (-1, -1)) in Redis.asked


async def test_a_history_page_states_the_oldest_and_the_last_pair():
    Redis.page = {"first": (MS, 1), "last": (MS + 9, 0)}
    async with serve_in_memory(Redis) as grafana:
        _, cursor = await exact(grafana)
        assert cursor["last"] == text(MS + 9, 0)
        for after, truncated in ((text(MS, 0), False), (text(MS - 1, TOP), True)):
            answer = await grafana.resource(f"replay/rows?path=x/entries&after={after}")
            page = msgspec.json.decode(answer.body)
            assert (page["truncated"], page["cursor"]["last"]) == (truncated, text(MS + 9, 0))


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ({"last": 7}, "HistoryPage.last must be a tuple of two integers, got 7"),
        ({"last": (1, 2, 3)}, "HistoryPage.last must be a tuple of two integers"),
        ({"first": (1, "2")}, "HistoryPage.first must be a tuple of two integers"),
        (
            {"first": (1, CURSOR_LIMIT)},
            "HistoryPage.first must be .-1, -1., or have numbers from 0",
        ),
        ({"last": (-1, 0)}, "HistoryPage.last must be .-1, -1., or have numbers from 0"),
    ],
)
async def test_a_page_with_another_value_is_a_bug_that_names_it(caplog, page, message):
    Redis.page = page
    async with serve_in_memory(Redis) as grafana:
        with pytest.raises(QueryFailed):
            await exact(grafana)
    assert re.search(message, caplog.text)


class Yielding(DataSource):
    """Yields one item, and follows no log."""

    item: ClassVar[Any] = None
    newest: ClassVar[Any] = None

    @stream(cursor=("ms", "seq"))
    async def rows(self, after: Cursor[Pair]):
        if Yielding.item is not None:
            yield Yielding.item
        await anyio.sleep_forever()

    @rows.history
    async def past(self, history_range: HistoryRange[Pair]) -> Any:
        return [] if history_range.after is not None or Yielding.item is None else [Yielding.item]

    @rows.last
    async def last(self) -> Any:
        return Yielding.newest


NOW = datetime.fromtimestamp(MS / 1000, UTC)
KINDS = {
    "dict": {"time": NOW, "value": 1.0, "ms": 5, "seq": 7},
    "bytes keys": {b"time": NOW, b"value": 1.0, b"ms": 5, b"seq": 7},
    "row": Entry(NOW, 1.0, 5, 7),
    "named tuple": Tuple(NOW, 1.0, 5, 7),
    "dataclass": Data(NOW, 1.0, 5, 7),
    "columns": Entry.from_columns(time=[NOW], value=[1.0], ms=[5], seq=[7]),
    "frame": Frame(
        Field("time", [NOW]), Field("value", [1.0]), Field("ms", [5]), Field("seq", [7])
    ),
    "list": [{"time": NOW, "value": 1.0, "ms": 5, "seq": 7}],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_both_columns_are_hidden_whatever_a_row_is(kind):
    Yielding.item, Yielding.newest = KINDS[kind], (5, 6)
    async with serve_in_memory(Yielding) as grafana:
        viewer = await grafana.follow("rows")
        row = await viewer.next()
        assert (row["ms"], row["seq"], row["value"]) == (5, 7, 1.0)
        schema = msgspec.json.decode(viewer.packets[-1])["schema"]
        config = {f["name"]: f.get("config", {}).get("custom") for f in schema["fields"]}
        assert config == {"time": None, "value": None, "ms": HIDDEN, "seq": HIDDEN}
        if kind == "list":
            return
        Yielding.item = [Yielding.item] if kind not in ("columns", "frame") else Yielding.item
        if kind in ("columns", "frame"):
            (frame,) = await grafana.query({"queryType": "rows"})
            custom = {f.name: f.config and f.config.custom for f in frame.fields}
            assert custom == {"time": None, "value": None, "ms": HIDDEN, "seq": HIDDEN}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"time": 1, "ms": 5}, "a row must have the cursor ('ms', 'seq'), got {"),
        ({"time": 1, "ms": 5, "seq": "7"}, "cursor 'seq' must be an int, got '7'"),
        ({"time": 1, "ms": 5.0, "seq": 7}, "cursor 'ms' must be an int, got 5.0"),
        ({"time": 1, "ms": 5, "seq": True}, "cursor 'seq' must be an int, got True"),
        ({"time": 1, "ms": 5, "seq": -1}, f"cursor 'seq' must be from 0 to {TOP}, got -1"),
        (
            {"time": 1, "ms": CURSOR_LIMIT, "seq": 0},
            f"cursor 'ms' must be from 0 to {TOP}, got {CURSOR_LIMIT}",
        ),
        (
            {"time": 1, "ms": 5, "seq": 1 << 64},
            f"cursor 'seq' must be from 0 to {TOP}, got {1 << 64}",
        ),
        (Frame(Field("time", [NOW]), Field("ms", [1])), "rows must have a column 'seq'"),
        (Cursor("", 7), "the value of Cursor(epoch='', value=7) must be a tuple of two integers"),
    ],
)
async def test_a_row_without_a_pair_of_numbers_is_a_bug_that_names_column_and_value(
    caplog, item, message
):
    Yielding.item, Yielding.newest = item, None
    async with serve_in_memory(Yielding) as grafana:
        await grafana.follow("rows")
        await anyio.sleep(0.1)
    assert message in caplog.text


@pytest.mark.parametrize("newest", [7, "1-2", (1,), (1, -2), Cursor("", 7)])
async def test_a_last_hook_that_returns_something_else_is_a_bug(caplog, newest):
    Yielding.item, Yielding.newest = None, newest
    async with serve_in_memory(Yielding) as grafana:
        await grafana.follow("rows")
        await anyio.sleep(0.1)
    assert "two integers" in caplog.text or "must be (-1, -1), or have numbers" in caplog.text


async def test_rows_that_do_not_increase_are_duplicates():
    Yielding.item = [entry(5, 7), entry(5, 7), entry(5, 6), entry(4, 9), entry(5, 8), entry(6, 0)]
    Yielding.newest = (5, 6)
    async with serve_in_memory(Yielding) as grafana:
        viewer = await grafana.follow("rows")
        assert ids(await viewer.take(3)) == [(5, 7), (5, 8), (6, 0)]
        assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="duplicate"}'] == 3


async def test_an_alert_rule_gets_neither_column():
    async with serve_in_memory(Redis) as grafana:
        frames = await grafana.query(
            {"queryType": "entries"},
            start=datetime(1970, 1, 2, tzinfo=UTC),
            end=datetime.fromtimestamp(MS / 1000 + 3600, UTC),
            headers={"FromAlert": "true"},
        )
        assert [[field.name for field in frame.fields] for frame in frames] == [["time", "value"]]


def test_both_columns_must_be_fields_of_the_row_class():
    with pytest.raises(TypeError, match="cursor must be an int field of Entry .*, got 'id'"):

        class Wrong(DataSource):
            @stream(cursor=("ms", "id"))
            async def rows(self, after: Cursor[Pair]) -> Rows[Entry]:
                yield entry(1, 2)

            @rows.history
            async def past(self, history_range: HistoryRange[Pair]) -> list[Entry]:
                return []


class Growing(DataSource):
    """An entry each 50 ms, with the sequence numbers of its second."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.log: list[Entry] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.grow)
            yield
            tasks.cancel_scope.cancel()

    async def grow(self) -> None:
        for n in itertools.count():
            now = datetime.now(UTC)
            self.log.append(Entry(now, n / 2, int(now.timestamp()), n))
            await anyio.sleep(0.05)

    @stream(cursor=("ms", "seq"))
    async def entries(self, after: Cursor[Pair]) -> Rows[Entry]:
        last = after.value
        while True:
            for each in [each for each in self.log if (each.ms, each.seq) > last]:
                yield each
                last = each.ms, each.seq
            await anyio.sleep(0.05)

    @entries.history
    async def read(self, history_range: HistoryRange[Pair]) -> list[Entry]:
        if history_range.after is not None:
            upto = history_range.upto or (TOP, TOP)
            found = [e for e in self.log if history_range.after < (e.ms, e.seq) <= upto]
            return found[: history_range.limit]
        start, end = history_range.start, history_range.end
        return [e for e in self.log if start <= e.time <= end][-history_range.limit :]


class TestGrowing(PluginSuite):
    data_source = Growing
    channels = ["entries"]


class Synchronous(DataSource):
    """The same with methods that are a `def`."""

    @stream(cursor=("ms", "seq"))
    def rows(self, after: Cursor[Pair]) -> Iterator[Entry]:
        yield from [each for each in Redis.log if (each.ms, each.seq) > after.value]

    @rows.history
    def past(self, history_range: HistoryRange[Pair]) -> list[Entry]:
        after = history_range.after or (-1, -1)
        return [each for each in Redis.log if (each.ms, each.seq) > after]

    @rows.last
    def newest(self) -> Pair:
        return (MS, 0)


async def test_methods_that_are_a_def_get_pairs_too():
    async with serve_in_memory(Synchronous) as grafana:
        viewer = await grafana.follow("rows")
        assert ids(await viewer.take(3)) == [(MS, 1), (MS, TOP), (MS + 1, 0)]
