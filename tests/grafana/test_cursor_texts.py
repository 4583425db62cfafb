"""Cursors that are texts of two numbers, as the ids of Redis Streams."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Tuple, Union  # noqa: UP035  (as authors may write it)

import anyio
import msgspec
import pyarrow as pa
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

from .test_cursor_pairs import HIDDEN, MS, TOP, PluginSuite, exact, text
from .test_cursor_pairs import Growing as Pairs

pytestmark = pytest.mark.virtual

NOW = datetime.fromtimestamp(MS / 1000, UTC)


class Entry(Row):
    time: datetime
    value: float
    id: str


def numbers(id: str) -> tuple[int, int]:
    ms, _, seq = id.partition("-")
    return int(ms or -1), int(seq or -1)


def entry(id: str) -> Entry:
    return Entry(NOW, float(numbers(id)[1] % 100), id)


class Redis(DataSource):
    """Entries whose ids do not sort as texts: 9 is before 10."""

    log: ClassVar[list[str]] = []
    asked: ClassVar[list[Any]] = []
    failures: ClassVar[int] = 0
    page: ClassVar[dict[str, Any]] = {}

    @stream(cursor="id", retry=Retry(min_delay=1, max_delay=1))
    async def entries(self, after: Cursor[str]) -> Rows[Entry]:
        Redis.asked.append(("stream", after.value))
        last = after.value
        while True:
            for id in [id for id in Redis.log if numbers(id) > numbers(last)]:
                yield entry(id)
                last = id
            if Redis.failures:
                Redis.failures -= 1
                raise UpstreamError("gone")
            await anyio.sleep(0.1)

    @entries.history
    async def read(self, history_range: HistoryRange[str]) -> HistoryPage[str]:
        after, upto, limit = history_range.after, history_range.upto, history_range.limit
        Redis.asked.append(("history", after, upto))
        found = [*map(entry, Redis.log)]
        if after is None:
            return HistoryPage(found[-limit:], **Redis.page)
        low, high = numbers(after), numbers(upto or f"{TOP}-{TOP}")
        rows = [each for each in found if low < numbers(each.id) <= high]
        return HistoryPage(rows[:limit], **Redis.page)


QUERY = {"queryType": "entries", "exact": True}


@pytest.fixture(autouse=True)
def log():
    Redis.log = [f"{MS}-9", f"{MS}-10", f"{MS}-{TOP}", f"{MS + 1}-0"]
    Redis.asked, Redis.failures, Redis.page = [], 0, {}


async def test_an_exact_panel_gets_the_column_of_texts_and_cursors_that_sort():
    async with serve_in_memory(Redis) as grafana:
        frame, cursor = await exact(grafana)
        assert list(frame.fields[2].values) == Redis.log
        assert (cursor["last"], cursor["column"]) == (text(MS + 1, 0), 2)
        viewer = await grafana.follow("x/entries", frame=frame)
        await anyio.sleep(0.5)  # the stream has begun
        Redis.log.append(f"{MS + 1}-1")
        await viewer.take(1)
        assert viewer.rows[0]["id"] == f"{MS + 1}-1"
        assert viewer.position is not None and viewer.position.value == (MS + 1, 1)
        packets = [msgspec.json.decode(packet) for packet in viewer.packets]
        (rows,) = [packet for packet in packets if "data" in packet]
        assert rows["cursor"] == {
            "epoch": cursor["epoch"],
            "prev": text(MS + 1, 0),
            "last": text(MS + 1, 1),
            "column": 2,
        }


@pytest.mark.parametrize(
    ("after", "upto", "found"),
    [
        ("-1", "", [f"{MS}-9", f"{MS}-10", f"{MS}-{TOP}", f"{MS + 1}-0"]),
        (text(MS, 9), "", [f"{MS}-10", f"{MS}-{TOP}", f"{MS + 1}-0"]),
        (text(MS, 10), text(MS, TOP), [f"{MS}-{TOP}"]),
        (text(TOP, TOP), "", []),
    ],
)
async def test_rows_after_a_text_are_read_from_the_history(after, upto, found):
    async with serve_in_memory(Redis) as grafana:
        answer = await grafana.resource(f"replay/rows?path=x/entries&after={after}&upto={upto}")
        page = msgspec.json.decode(answer.body)
    assert page.get("data", {"values": [[]] * 3})["values"][2] == found
    assert page["cursor"]["last"] == (text(*numbers(found[-1])) if found else after)
    assert page["truncated"] is False
    shown = "" if after == "-1" else "{}-{}".format(*map(int, after.split("-")))
    wanted = "{}-{}".format(*map(int, upto.split("-"))) if upto else None
    assert Redis.asked[-1] == ("history", shown, wanted)


async def test_the_method_gets_the_text_of_the_last_row_at_the_start_and_after_an_outage():
    Redis.failures = 1
    async with serve_in_memory(Redis) as grafana:
        viewer = await grafana.follow("entries")
        await anyio.sleep(0.5)
        Redis.log.append(f"{MS + 2}-5")
        assert (await viewer.next())["id"] == f"{MS + 2}-5"
    assert [e[1] for e in Redis.asked if e[0] == "stream"] == [f"{MS + 1}-0", f"{MS + 2}-5"]
    assert ("history", f"{MS + 1}-0", None) in Redis.asked  # the rows of the outage


async def test_an_empty_text_is_before_all_rows():
    Redis.log = []
    async with serve_in_memory(Redis) as grafana:
        frame, cursor = await exact(grafana)
        assert (frame.rows, cursor["last"]) == (0, "-1")
        viewer = await grafana.follow("x/entries", frame=frame)
        assert viewer.position is not None and viewer.position.value == (-1, -1)
        await anyio.sleep(0.5)  # the stream has begun
        Redis.log = ["0-0"]
        assert (await viewer.next())["id"] == "0-0"
    assert ("stream", "") in Redis.asked


async def test_a_page_states_the_oldest_and_the_last_text():
    Redis.page = {"first": f"{MS}-9", "last": f"{MS + 9}-0"}
    async with serve_in_memory(Redis) as grafana:
        _, cursor = await exact(grafana)
        assert cursor["last"] == text(MS + 9, 0)
        for after, truncated in ((text(MS, 8), False), (text(MS - 1, TOP), True)):
            answer = await grafana.resource(f"replay/rows?path=x/entries&after={after}")
            assert msgspec.json.decode(answer.body)["truncated"] is truncated


async def test_rows_that_are_lost_leave_a_gap_that_ends_just_before_the_next_row():
    Redis.page = {"truncated": True}
    async with serve_in_memory(Redis) as grafana:
        answer = await grafana.resource(f"replay/rows?path=x/entries&after={text(1, 0)}")
        page = msgspec.json.decode(answer.body)
        assert page["cursor"]["prev"] == text(MS, 8)
        answer = await grafana.resource(f"replay/rows?path=x/entries&after={text(MS, 8)}")
    assert Redis.asked[-1] == ("history", f"{MS}-8", None)


AN_ID = f"must be a text of two numbers from 0 to {TOP}, as '1700000000000-3'"


@pytest.mark.parametrize("page", [{"last": 7}, {"first": (1, 2)}, {"last": "7"}, {"first": "-1"}])
async def test_a_page_with_another_value_is_a_bug_that_names_it(caplog, page):
    Redis.page = page
    async with serve_in_memory(Redis) as grafana:
        with pytest.raises(QueryFailed):
            await exact(grafana)
    ((name, value),) = page.items()
    assert f"HistoryPage.{name} {AN_ID}, or '', got {value!r}" in caplog.text


class Yielding(DataSource):
    item: ClassVar[Any] = None
    newest: ClassVar[Any] = None

    @stream(cursor="id")
    async def rows(self, after: Cursor[str]):
        if Yielding.item is not None:
            yield Yielding.item
        await anyio.sleep_forever()

    @rows.history
    async def past(self, history_range: HistoryRange[str]) -> Any:
        return []

    @rows.last
    async def last(self) -> Any:
        return Yielding.newest


KINDS = {
    "dict": {"time": NOW, "value": 1.0, "id": "5-7"},
    "bytes keys": {b"time": NOW, b"value": 1.0, b"id": "5-7"},
    "row": Entry(NOW, 1.0, "5-7"),
    "columns": Entry.from_columns(time=[NOW], value=[1.0], id=["5-7"]),
    "arrow columns": Entry.from_columns(time=[NOW], value=[1.0], id=pa.array(["5-7"])),
    "frame": Frame(Field("time", [NOW]), Field("value", [1.0]), Field("id", ["5-7"])),
    "list": [{"time": NOW, "value": 1.0, "id": "5-7"}],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_column_is_hidden_whatever_a_row_is(kind):
    Yielding.item, Yielding.newest = KINDS[kind], "5-6"
    async with serve_in_memory(Yielding) as grafana:
        viewer = await grafana.follow("rows")
        row = await viewer.next()
        assert (row["id"], row["value"]) == ("5-7", 1.0)
        schema = msgspec.json.decode(viewer.packets[-1])["schema"]
        config = {f["name"]: f.get("config", {}).get("custom") for f in schema["fields"]}
        assert config == {"time": None, "value": None, "id": HIDDEN}


@pytest.mark.parametrize(
    "id",
    [5, None, 5.0, (5, 7), "", "5", "5-", "-7", "5-7-9", "5 - 7", "05-7", "5-07", "٥-7", "a-b"]
    + [f"{CURSOR_LIMIT}-0", f"0-{CURSOR_LIMIT}", f"{'9' * 5000}-0", b"5-7", "5-7\n"],
)
async def test_a_row_without_such_a_text_is_a_bug_that_names_the_value(caplog, id):
    Yielding.item, Yielding.newest = {"time": NOW, "id": id}, None
    async with serve_in_memory(Yielding) as grafana:
        await grafana.follow("rows")
        await anyio.sleep(0.1)
    shown = "99999" if isinstance(id, str) and len(id) > 99 else repr(id)
    assert f"cursor 'id' {AN_ID}, got " in caplog.text and shown in caplog.text


@pytest.mark.parametrize("newest", [7, "7", (1, 2), "-1", Cursor("", 7), Cursor("", "1")])
async def test_a_last_hook_that_returns_something_else_is_a_bug(caplog, newest):
    Yielding.item, Yielding.newest = None, newest
    async with serve_in_memory(Yielding) as grafana:
        await grafana.follow("rows")
        await anyio.sleep(0.1)
    assert f"{AN_ID}, or ''" in caplog.text


async def test_texts_that_do_not_increase_are_duplicates():
    found = ["5-9", "5-9", "5-8", "4-99", "5-10", "6-0"]
    Yielding.item, Yielding.newest = [entry(id) for id in found], "5-6"
    async with serve_in_memory(Yielding) as grafana:
        viewer = await grafana.follow("rows")
        assert [row["id"] for row in await viewer.take(3)] == ["5-9", "5-10", "6-0"]
        assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="duplicate"}'] == 3


async def test_a_text_in_a_column_of_integers_is_an_error_that_names_the_annotation(caplog):
    class Plain(DataSource):
        @stream(cursor="id")
        async def rows(self, after):
            yield {"id": "1-3"}

        @rows.history
        async def past(self, history_range):
            return []

    async with serve_in_memory(Plain) as grafana:
        await grafana.follow("rows")
        await anyio.sleep(0.1)
    assert "cursor 'id' must be an int, got '1-3'; for ids as '1-3' annotate" in caplog.text


class Growing(DataSource):
    """The entries of the growing stream of pairs, with a text as the cursor."""

    lifespan, grow = Pairs.lifespan, Pairs.grow

    @stream(cursor="id")
    async def texts(self, after: Cursor[str]) -> Rows[dict[str, Any]]:
        last = numbers(after.value)
        while True:
            for each in [each for each in self.log if (each.ms, each.seq) > last]:
                yield {"time": each.time, "value": each.value, "id": f"{each.ms}-{each.seq}"}
                last = each.ms, each.seq
            await anyio.sleep(0.05)

    @texts.history
    async def read_texts(self, history_range: HistoryRange[str]) -> list[dict[str, Any]]:
        rows = [{"time": e.time, "value": e.value, "id": f"{e.ms}-{e.seq}"} for e in self.log]
        if history_range.after is not None:
            low, high = numbers(history_range.after), numbers(history_range.upto or f"{TOP}-{TOP}")
            found = [row for row in rows if low < numbers(row["id"]) <= high]
            return found[: history_range.limit]
        start, end = history_range.start, history_range.end
        return [row for row in rows if start <= row["time"] <= end][-history_range.limit :]


class TestGrowing(PluginSuite):
    data_source = Growing
    channels = ["texts"]


# Annotations that do not fit the columns

Pair = tuple[int, int]
Named = "Cursor[Pair]"


def created(columns, after, rows=None, history_range=None, page=None, last=None):
    async def run(self, after):
        yield {}

    async def history(self, history_range):
        return []

    async def newest(self):
        return None

    for function, hints in (
        (run, {"after": after, "return": rows}),
        (history, {"history_range": history_range, "return": page}),
        (newest, {"return": last}),
    ):
        function.__annotations__ = {k: v for k, v in hints.items() if v is not None}
    made = stream(cursor=columns)(run)
    members = {"run": made, "past": made.history(history), "newest": made.last(newest)}
    return type("Wrong", (DataSource,), members)


TWO = ("a", "b")


@pytest.mark.parametrize(
    ("columns", "annotations", "kind"),
    [
        ("a", {"after": Cursor}, int),
        ("a", {"after": Cursor[int], "page": HistoryPage[int], "last": Cursor[int] | int}, int),
        ("a", {"after": Cursor[str], "history_range": HistoryRange[str], "last": str | None}, str),
        ("a", {"after": Cursor[str] | None, "history_range": HistoryRange, "last": Cursor}, str),
        ("a", {"after": "Cursor[str]", "page": list[dict]}, str),
        ("a", {"after": Any, "last": Any}, int),
        (TWO, {"after": Cursor[Pair], "rows": Rows[dict | Cursor[Pair]], "last": Pair}, Pair),
        (TWO, {"after": Cursor[Tuple[int, int]], "history_range": HistoryRange[Pair]}, Pair),  # noqa: UP006
        (TWO, {"after": Union[Cursor[Pair], None]}, Pair),  # noqa: UP007
        (TWO, {"after": None}, Pair),
        (TWO, {"after": Cursor}, Pair),
    ],
)
def test_annotations_that_fit_the_columns_select_the_type(columns, annotations, kind):
    assert created(columns, **annotations)._ds_plan.streams["run"].cursor.value_type == kind


@pytest.mark.parametrize(
    ("columns", "annotations", "member", "text"),
    [
        (
            TWO,
            {"after": Cursor[int]},
            "run",
            r"'after' must be Cursor\[tuple\[int, int\]\] for cursor=\('a', 'b'\), got Cursor\[int",
        ),
        (TWO, {"after": Cursor[str]}, "run", r"for cursor=\('a', 'b'\), got Cursor\[str\]"),
        (
            "a",
            {"after": Cursor[Pair]},
            "run",
            r"must be Cursor\[int\] or Cursor\[str\] for cursor='a', got Cursor\[tuple\[int",
        ),
        ("a", {"after": Cursor[float] | None}, "run", r"got Cursor\[float\]"),
        ("a", {"after": int}, "run", "the annotation of 'after' must be a Cursor, got int"),
        ("a", {"after": Cursor[int] | str}, "run", "must be a Cursor, got str"),
        (
            TWO,
            {"after": Cursor[Pair], "rows": Rows[dict | Cursor[int]]},
            "run",
            r"the rows must have Cursor\[tuple\[int, int\]\].*got Cursor\[int\]",
        ),
        (
            "a",
            {"after": Cursor[str], "history_range": HistoryRange[int]},
            "past",
            r"the range must have HistoryRange\[str\].*got HistoryRange\[int\]",
        ),
        ("a", {"after": Cursor, "page": HistoryPage[str]}, "past", r"got HistoryPage\[str\]"),
        ("a", {"after": Cursor[str], "last": int | None}, "newest", "must be str.*got int"),
        ("a", {"after": Cursor, "last": str}, "newest", "must be int.*got str"),
        (TWO, {"after": Cursor[Pair], "last": Cursor[int]}, "newest", r"got Cursor\[int\]"),
        (
            TWO,
            {"after": Cursor[Pair], "last": int},
            "newest",
            r"must be tuple\[int, int\].*got int",
        ),
    ],
)
def test_annotations_of_another_cursor_are_an_error_when_the_class_is_created(
    columns, annotations, member, text
):
    with pytest.raises(TypeError, match=rf"Wrong\.{member}: .*{text}"):
        created(columns, **annotations)


@pytest.mark.parametrize(
    ("kind", "text"), [(Cursor[str], "a str field of Numbered"), (Cursor, "an int field of Texts")]
)
def test_the_field_of_the_row_class_must_have_the_type_of_the_cursor(kind, text):
    class Numbered(Row):
        id: int

    class Texts(Row):
        id: str

    with pytest.raises(TypeError, match=f"cursor must be {text} .*, got 'id'"):
        created("id", kind, Rows[Numbered if kind is not Cursor else Texts])
