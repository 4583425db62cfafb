"""Exact panels: a query with its last cursor, the channel that continues it, and replayed rows. One
running stream serves the exact and the stock channel."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from typing import ClassVar

import anyio
import msgspec
import pytest
from grpclib.exceptions import GRPCError

from aiostream_ds import (
    Buffer,
    Cursor,
    DataSource,
    HistoryPage,
    HistoryRange,
    PermissionDenied,
    Replay,
    Row,
    Rows,
    UpstreamError,
    User,
    stream,
)
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._grafana import replay
from aiostream_ds._grafana.exact_delivery import HEARTBEAT
from aiostream_ds._grafana.history_columns import COLUMNS_AGAIN, COLUMNS_ROWS, COLUMNS_WAIT
from aiostream_ds.decorators import CursorStream
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory

pytestmark = pytest.mark.virtual

START = 1_700_000_000_000


class Line(Row):
    time: int
    n: int


class Log:
    """An upstream log: row n has the time START + n. `changed` is set at each change."""

    def __init__(self):
        self.rows: list[Line] = []
        self.epoch = "one"
        self.first = 1
        self.changed = anyio.Event()
        self.runs: list[Cursor] = []
        self.reads = 0

    def write(self, *numbers: int):
        self.rows += [Line(START + n, n) for n in numbers]
        self.changed.set()
        self.changed = anyio.Event()

    def replace(self):
        self.rows, self.epoch = [], self.epoch + "'"
        self.changed.set()
        self.changed = anyio.Event()


LOG = Log()


@pytest.fixture(autouse=True)
def log():
    LOG.__init__()
    return LOG


class Source(DataSource):
    broken = False

    @stream("log/{name}", cursor="n")
    async def log(self, after: Cursor, name: str) -> Rows[Line | Cursor]:
        LOG.runs.append(after)
        epoch, seen = after
        while True:
            if epoch != LOG.epoch:
                epoch, seen = LOG.epoch, -1
                yield Cursor(epoch, seen)
            changed = LOG.changed
            for row in [row for row in LOG.rows if row.n > seen]:
                yield row
                seen = row.n
            if Source.broken:
                Source.broken = False
                raise UpstreamError("interrupted")
            await changed.wait()

    @log.history
    async def read(self, history_range: HistoryRange, name: str) -> HistoryPage:
        LOG.reads += 1
        rows = [row for row in LOG.rows if row.n >= LOG.first]
        if history_range.after is None:
            start, end = (
                history_range.start.timestamp() * 1000,
                history_range.end.timestamp() * 1000,
            )
            return HistoryPage(
                [r for r in rows if start <= r.time <= end][-history_range.limit :], LOG.epoch
            )
        upto = history_range.upto or 1 << 53
        found = [r for r in rows if history_range.after < r.n <= upto][: history_range.limit]
        return HistoryPage(found, LOG.epoch, truncated=history_range.after < LOG.first - 1)

    @stream("down", cursor="n")
    async def down(self, after: Cursor) -> Rows[Line]:
        yield Line(START + 8, 8)
        await anyio.sleep_forever()

    @down.history
    async def unreadable(self, history_range: HistoryRange) -> list[Line]:
        LOG.reads += 1
        if LOG.reads < 3:
            raise UpstreamError("not now")
        return [Line(START + 7, 7)] if history_range.after is None else []

    @stream("uncancellable", cursor="n")
    async def uncancellable(self, after: Cursor) -> Rows[Line]:
        yield Line(START, 0)

    @uncancellable.history
    async def not_interrupted(self, history_range: HistoryRange) -> list[Line]:
        LOG.reads += 1
        with suppress(anyio.get_cancelled_exc_class()):  # an author may do this by mistake
            await LOG.changed.wait()
        return LOG.rows

    @log.subscribe
    async def may(self, user: User | None, name: str) -> None:
        if name == "secret":
            raise PermissionDenied("not yours")

    @stream("logged", replay=Replay(rows=5, keep=30), buffer=Buffer(rows=4))
    async def logged(self) -> Rows[Line]:
        seen = len(LOG.rows)
        while True:
            changed = LOG.changed
            for row in LOG.rows[seen:]:
                yield row
            seen = len(LOG.rows)
            await changed.wait()


async def exact(grafana, query_type="log", **query):
    (frame,) = await grafana.query(
        {"queryType": query_type, "name": "a", "exact": True, **query},
        start=moment(0),
        end=moment(10_000),
    )
    return frame, frame.meta.custom["cursor"] if frame.meta else None


def moment(ms):
    return datetime.fromtimestamp((START + ms) / 1000, UTC)


def numbers(frame):
    return next((list(f.values) for f in frame.fields if f.name == "n"), [])


def cursors(viewer):
    return [msgspec.json.decode(packet)["cursor"] for packet in viewer.packets]


def ranges(viewer):
    return [(cursor["prev"], cursor["last"]) for cursor in cursors(viewer)]


async def rows_after(grafana, after, path="x/log/a", **more):
    extra = "".join(f"&{key}={value}" for key, value in more.items())
    answer = await grafana.resource(f"replay/rows?path={path}&after={after}{extra}")
    body = msgspec.json.decode(answer.body)
    if answer.status == 200:
        body["numbers"] = body.get("data", {}).get("values", [[], []])[1]
    return answer.status, body


async def settle():
    await anyio.sleep(0.2)


async def test_a_query_returns_its_last_cursor_and_the_exact_channel(log):
    log.write(1, 2, 3)
    async with serve_in_memory(Source) as grafana:
        frame, cursor = await exact(grafana)
    assert numbers(frame) == [1, 2, 3]
    assert not frame.meta.channel, "Grafana's own class must not subscribe"
    assert (cursor["channel"], cursor["last"], cursor["column"]) == ("ds/test/x/log/a", 3, 1)


async def test_a_stream_with_a_cursor_names_its_upstream_system_by_the_settings(log):
    named = []
    for settings in ({"url": "a"}, {"url": "a"}, {"url": "b"}):
        async with serve_in_memory(Source, settings=settings) as grafana:
            _, cursor = await exact(grafana)
            named.append(cursor["upstream"])
            (frame,) = await grafana.query({"queryType": "logged", "exact": True})
            assert "upstream" not in frame.meta.custom["cursor"], "nothing can be read again"
    assert named[0] == named[1] != named[2]


async def test_a_range_that_ends_now_has_no_upper_limit(log):
    now = datetime.now(UTC)
    ahead = round((now + timedelta(seconds=30)).timestamp() * 1000) - START
    log.write(1, ahead)
    async with serve_in_memory(Source) as grafana:
        query = {"queryType": "log", "name": "a", "exact": True}
        (frame,) = await grafana.query(query, start=now - timedelta(minutes=1), end=now)
    assert numbers(frame) == [ahead]


async def test_an_empty_range_returns_the_newest_cursor_of_the_log(log):
    log.write(20_000)
    async with serve_in_memory(Source) as grafana:
        frame, cursor = await exact(grafana)
    assert (numbers(frame), cursor["last"]) == ([], 20_000)


async def test_a_query_without_streaming_names_no_channel(log):
    async with serve_in_memory(Source) as grafana:
        frame, _ = await exact(grafana, withStreaming=False)
    assert frame.meta is None or not (frame.meta.channel or frame.meta.custom)


async def test_the_channel_continues_the_rows_of_the_query(log):
    log.write(1, 2)
    async with serve_in_memory(Source) as grafana:
        _, cursor = await exact(grafana)
        viewer = await grafana.follow("x/log/a")
        await settle()
        log.write(3, 4)
        await settle()
        log.write(9)
        await settle()
    assert {s["epoch"] for s in cursors(viewer)} == {cursor["epoch"]}
    assert ranges(viewer) == [(2, 2), (2, 2), (2, 4), (4, 9)], "initial data, hello, rows"
    assert not any(b'"schema"' in packet for packet in viewer.packets)


async def test_heartbeats_have_the_cursor_and_no_rows(log):
    log.write(5)
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("x/log/a")
        await anyio.sleep(3 * HEARTBEAT + 0.5)
    assert ranges(viewer) == [(5, 5)] * 5


async def test_exact_and_stock_viewers_share_one_run(log):
    async with serve_in_memory(Source) as grafana:
        one, other = await grafana.follow("x/log/a"), await grafana.follow("log/a")
        await settle()
        log.write(1)
        assert (await other.next())["n"] == 1
        await settle()
    assert len(log.runs) == 1
    assert ranges(one)[-1] == (-1, 1)
    assert all(b'"cursor"' not in packet for packet in other.packets)


async def test_a_later_viewer_gets_the_cursor_of_the_running_stream_at_once(log):
    async with serve_in_memory(Source) as grafana, serve_in_memory(Source) as second:
        await grafana.follow("log/a")
        await settle()
        log.write(1, 2, 3)
        await settle()
        reads = log.reads
        late = await grafana.follow("x/log/a")
        await anyio.sleep(0.1)
        assert ranges(late) == [(3, 3), (3, 3)] and log.reads == reads
        assert cursors(late)[0] == cursors(await second.follow("x/log/a"))[0]


async def test_an_interrupted_run_continues_after_its_last_row(log):
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("x/log/a")
        await settle()
        Source.broken = True
        log.write(1, 2)
        await settle()
        log.write(3)
        await anyio.sleep(2)
    assert log.runs == [Cursor("one", -1), Cursor("one", 3)], "the gap was filled"
    last = [each for each in ranges(viewer) if each[0] != each[1]]
    assert last == [(-1, 2), (2, 3)]


async def test_a_viewer_may_subscribe_while_the_log_cannot_be_read(log):
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("x/down")
        assert viewer.packets == []
        await anyio.sleep(1)
    first = msgspec.json.decode(viewer.packets.pop(0))  # the cursor is not known yet
    text = "reconnecting (1): not now"
    assert first == {"status": {"severity": "warning", "text": text}}
    assert ranges(viewer)[:2] == [(7, 7), (7, 8)]
    assert any(msgspec.json.decode(p).get("status", 0) is None for p in viewer.packets)


async def test_another_log_has_another_epoch(log):
    log.write(1, 2)
    async with serve_in_memory(Source) as grafana:
        _, before = await exact(grafana)
        viewer = await grafana.follow("x/log/a")
        await settle()
        log.replace()
        log.write(1)
        await settle()
        _, after = await exact(grafana)
    assert before["epoch"] != after["epoch"]
    assert cursors(viewer)[-1] == {"epoch": after["epoch"], "prev": -1, "last": 1, "column": 1}


async def test_a_replaced_log_without_rows_is_reported_by_a_cursor(log):
    log.write(1, 2)
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("x/log/a")
        await settle()
        log.replace()
        await settle()
        _, after = await exact(grafana)
    assert cursors(viewer)[-1] == {"epoch": after["epoch"], "prev": -1, "last": -1}


async def test_other_settings_are_another_epoch_and_the_same_ones_are_not(log):
    async with serve_in_memory(Source, settings={"a": 1}) as grafana:
        _, first = await exact(grafana)
        await grafana.change_settings({"a": 1})
        _, same = await exact(grafana)
        await grafana.change_settings({"a": 2})
        _, other = await exact(grafana)
    assert first["epoch"] == same["epoch"] != other["epoch"]


# Rows after a cursor


async def test_the_rows_after_a_cursor_are_replayed(log):
    log.write(1, 2, 5, 9)
    async with serve_in_memory(Source) as grafana:
        _, cursor = await exact(grafana)
        _, body = await rows_after(grafana, 1)
        assert body["cursor"] == {"epoch": cursor["epoch"], "prev": 1, "last": 9, "column": 1}
        assert (body["numbers"], body["first"]) == ([2, 5, 9], 2)
        assert not body["more"] and not body["truncated"]
        _, body = await rows_after(grafana, 1, upto=5)
        assert (body["numbers"], body["cursor"]["last"]) == ([2, 5], 5)
        _, body = await rows_after(grafana, 9)
        assert (body["numbers"], body["cursor"]["prev"], body["cursor"]["last"]) == ([], 9, 9)


async def test_many_rows_take_several_answers(log, monkeypatch):
    monkeypatch.setattr(replay, "REPLAY_ROWS", 3)
    log.write(*range(1, 8))
    async with serve_in_memory(Source) as grafana:
        _, body = await rows_after(grafana, 0)
        assert (body["numbers"], body["more"], body["cursor"]["last"]) == ([1, 2, 3], True, 3)
        _, body = await rows_after(grafana, 6)
        assert (body["numbers"], body["more"]) == ([7], False)


async def test_lost_rows_are_reported_as_truncated(log):
    log.write(*range(1, 8))
    log.first = 5
    async with serve_in_memory(Source) as grafana:
        _, body = await rows_after(grafana, 1)
    assert body["truncated"] and (body["first"], body["cursor"]["prev"]) == (5, 4)


@pytest.mark.parametrize("path", ["x/log/secret", "log/secret"])
async def test_a_user_who_may_not_subscribe_gets_no_rows_from_any_call(log, path):
    async with serve_in_memory(Source) as grafana:
        status, body = await rows_after(grafana, 0, path)
        assert (status, body["message"]) == (403, "not yours")
        with pytest.raises(Refused, match="PERMISSION_DENIED"):
            await grafana.follow(path)
        with pytest.raises(QueryFailed) as failed:
            await exact(grafana, name="secret")
    assert failed.value.status == 403


@pytest.mark.parametrize(
    "path, found",
    [("x/x/log/a", 404), ("x/", 404), ("x", 404), ("X/log/a", 404), ("x//log/a", 404), ("", 400)],
)
async def test_each_exact_channel_has_one_path(log, path, found):
    async with serve_in_memory(Source) as grafana:
        status, _ = await rows_after(grafana, 0, path)
        assert status == found
        with pytest.raises(Refused, match="NOT_FOUND"):
            await grafana.follow(path or "x/x")


@pytest.mark.parametrize(
    "after, more, text",
    [
        ("", {}, "after must be a cursor, or -1 for all rows"),
        ("-2", {}, f"after must be -1 to {2**53 - 1}, got '-2'"),
        ("5", {"upto": 4}, "upto must be at least after = 5, got 4"),
        ("1e3", {}, "after must be an integer, got '1e3'"),
        (str(1 << 60), {}, f"after must be -1 to {2**53 - 1}, got '{1 << 60}'"),
    ],
)
async def test_an_invalid_cursor_is_refused(log, after, more, text):
    async with serve_in_memory(Source) as grafana:
        status, body = await rows_after(grafana, after, **more)
    assert status == 400 and text in body["message"]


async def test_rows_are_replayed_with_get_only(log):
    async with serve_in_memory(Source) as grafana:
        answer = await grafana.resource("replay/rows?path=x/log/a&after=1", method="POST")
    assert answer.status == 400 and b"must be GET, got 'POST'" in answer.body


async def test_a_cancelled_replay_is_not_logged_as_a_bug(log, caplog):
    async with serve_in_memory(Source) as grafana:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rows_after, grafana, 0, "x/uncancellable")
            while not log.reads:
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()
        await settle()
        log.write(1)
        await settle()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Without a cursor: the log of the channel


async def exact_logged(grafana, **query):
    return await exact(grafana, "logged", **query)


async def test_rows_without_a_cursor_are_numbered_by_the_process(log):
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("x/logged")
        await settle()
        log.write(7, 8)
        await settle()
        frame, cursor = await exact_logged(grafana)
        assert (numbers(frame), cursor["last"], "column" in cursor) == ([7, 8], 2, False)
        assert cursors(viewer)[-1] == {"epoch": cursor["epoch"], "prev": 0, "last": 2}
        _, body = await rows_after(grafana, 1, "x/logged")
        assert (body["numbers"], body["first"], body["cursor"]["last"]) == ([8], 2, 2)


async def test_a_stream_without_history_is_answered_from_its_log(log):
    async with serve_in_memory(Source) as grafana:
        (frame,) = await grafana.query({"queryType": "logged"}, start=moment(0), end=moment(99))
        assert frame.rows == 0
        viewer = await grafana.follow("logged")
        await settle()
        log.write(*range(1, 4), 98, 200)
        await viewer.take(5)
        query = {"queryType": "logged", "withStreaming": False}
        (frame,) = await grafana.query(query, start=moment(2), end=moment(99), max_data_points=2)
        assert numbers(frame) == [2, 98], "of the range, up to the limit"


async def test_the_log_reports_rows_that_it_has_forgotten(log):
    async with serve_in_memory(Source) as grafana:
        await grafana.follow("x/logged")
        await settle()
        for n in range(1, 9):
            log.write(n)
            await settle()
        _, body = await rows_after(grafana, 2, "x/logged")
        assert body["truncated"] and body["numbers"] == [4, 5, 6, 7, 8] and body["first"] == 4


async def test_the_log_is_kept_for_a_while_after_its_run(log):
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("logged")
        await settle()
        log.write(1, 2)
        await settle()
        viewer.leave()
        await anyio.sleep(16)
        assert grafana.plugin.registry.running == 0
        frame, first = await exact_logged(grafana)
        assert numbers(frame) == [1, 2]
        await anyio.sleep(31)
        frame, second = await exact_logged(grafana)
        assert numbers(frame) == [] and first["epoch"] != second["epoch"]


@pytest.mark.slow
async def test_a_running_stream_keeps_its_columns_and_epoch_however_many_paths_are_queried(
    monkeypatch,
):
    monkeypatch.setattr("aiostream_ds._grafana.instance.ENCODERS", 10)

    class Growing(DataSource):
        @stream("logs/{name}", cursor="n")
        async def logs(self, after: Cursor, name: str):
            yield {"time": START, "n": 2, "early": 1.0}
            await anyio.sleep_forever()

        @logs.history
        async def read(self, history_range: HistoryRange, name: str):
            return HistoryPage([{"time": START, "n": 1}], "one")

    async def epoch(name):
        (frame,) = await grafana.query({"queryType": "logs", "name": name, "exact": True})
        return frame.meta.custom["cursor"]["epoch"]

    async with serve_in_memory(Growing) as grafana:
        viewer = await grafana.follow("x/logs/running")
        await anyio.sleep(1)
        before = await epoch("running")
        for number in range(100):
            await epoch(str(number))
        assert await epoch("running") == before
        (instance,) = grafana.plugin.instances._current.values()
        assert len(instance._encoders) <= 11
        assert viewer.broken is None


async def test_another_process_has_another_epoch(log):
    async with serve_in_memory(Source) as one, serve_in_memory(Source) as other:
        (_, first), (_, second) = await exact_logged(one), await exact_logged(other)
    assert first["epoch"] != second["epoch"]


async def test_rows_that_a_slow_subscriber_loses_are_a_gap_that_can_be_replayed(log):
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("x/logged")
        await settle()
        channel = next(iter(grafana.plugin.registry._open.values()))
        log.write(1)
        await settle()
        # six rows are emitted before the subscriber's task runs: four may be queued
        for n in range(2, 8):
            channel.emit(*RowEncoder(Line).encode([Line(START + n, n)]))
        await settle()
    found = [each for each in ranges(viewer) if each[0] != each[1]]
    assert found[0] == (0, 1)
    assert found[1][0] > 1 and found[-1][1] == 7, "a gap, and the newest row"


@pytest.mark.parametrize(
    ("after", "truncated", "prev"), [(50, True, 84), (84, False, 84), (90, False, 90)]
)
async def test_a_page_before_the_oldest_stored_row_is_truncated(after, truncated, prev):
    class Capped(DataSource):
        @stream("capped", cursor="n")
        async def capped(self, after: Cursor) -> Rows[Line]:
            await anyio.sleep_forever()
            yield Line(START, 0)

        @capped.history
        async def read(self, history_range: HistoryRange) -> HistoryPage:
            after = -1 if history_range.after is None else history_range.after
            rows = [Line(START + n, n) for n in range(85, 101) if n > after]
            return HistoryPage(rows, first=85)

    async with serve_in_memory(Capped) as grafana:
        _, page = await rows_after(grafana, after, "x/capped")
    assert page["truncated"] is truncated and page["cursor"]["prev"] == prev


async def test_nothing_is_lost_before_the_first_row_of_a_numbering(log):
    log.write(1, 2)
    async with serve_in_memory(Source) as grafana:
        _, page = await rows_after(grafana, -1)
    assert page["numbers"] == [1, 2] and not page["truncated"]


class Asked(DataSource):
    """Keeps the questions that its history gets."""

    questions: ClassVar[list[HistoryRange]] = []
    newest: ClassVar[object] = 3

    @stream("asked", cursor="n")
    async def asked(self, after: Cursor) -> Rows[Line]:
        LOG.runs.append(after)
        await anyio.sleep_forever()
        yield Line(START, 0)

    @asked.history
    async def read(self, history_range: HistoryRange) -> HistoryPage:
        self.questions.append(history_range)
        return HistoryPage([Line(START + 2, 2)] if history_range.start < moment(0) else [], "one")


class AskedLast(Asked):
    @Asked.asked.last
    async def last(self) -> Cursor | int | None:
        return self.newest


async def test_a_history_is_never_asked_for_times_that_no_upstream_system_has():
    Asked.questions.clear()
    now = datetime.now(UTC)
    async with serve_in_memory(Asked) as grafana:
        query = {"queryType": "asked", "exact": True}
        start = now - timedelta(minutes=1)
        (frame,) = await grafana.query(query, start=start, end=now)
        await grafana.follow("x/asked")
        await rows_after(grafana, 1, "x/asked")
        await settle()
    assert frame.meta.custom["cursor"]["last"] == 2 == LOG.runs[0].value
    earliest = datetime(1970, 1, 1, tzinfo=UTC)
    latest = datetime.now(UTC) + timedelta(days=1)
    assert all(earliest <= q.start < q.end <= latest for q in Asked.questions)
    asked = [q for q in Asked.questions if q.start > earliest]
    assert asked and all(abs(q.start - start) < timedelta(seconds=1) for q in asked)


@pytest.mark.parametrize(
    ("newest", "cursor"),
    [(3, Cursor("", 3)), (None, Cursor("", -1)), (Cursor("one", 4), Cursor("one", 4))],
)
async def test_the_last_hook_answers_for_the_newest_cursor(newest, cursor):
    Asked.questions.clear()
    AskedLast.newest = newest
    async with serve_in_memory(AskedLast) as grafana:
        await grafana.follow("x/asked")
        await settle()
    assert LOG.runs == [cursor] and Asked.questions == []


async def test_a_last_hook_that_returns_something_else_is_a_bug(caplog):
    AskedLast.newest = "3"
    async with serve_in_memory(AskedLast) as grafana:
        with pytest.raises(GRPCError, match="last must return"):
            await grafana.follow("x/asked")
    assert "last must return a Cursor, its value or None: " in caplog.text
    assert "what last returns must be from -1 to 9007199254740991, got '3'" in caplog.text


def test_a_last_hook_needs_a_cursor():
    with pytest.raises(TypeError, match="newest: expected a cursor of the stream 'ticks'"):

        class Without(Asked):
            @stream("ticks")
            async def ticks(self):
                yield {}

            @CursorStream.last.__get__(ticks)
            async def newest(self):
                return 1


class Undeclared(DataSource):
    """A stream of dicts with a hook for the newest cursor: nothing reads a row at a start."""

    rows: ClassVar[list[dict[str, int]]] = []
    reads: ClassVar[list[HistoryRange]] = []
    problem: ClassVar[Exception | None] = None
    seconds: ClassVar[float] = 0

    @stream("dicts", cursor="n")
    async def dicts(self, after: Cursor) -> Rows:
        await anyio.sleep_forever()
        yield {}

    @dicts.history
    async def read(self, history_range: HistoryRange) -> HistoryPage:
        self.reads.append(history_range)
        await anyio.sleep(self.seconds)
        if self.problem is not None:
            raise self.problem
        after = -1 if history_range.after is None else history_range.after
        return HistoryPage([row for row in self.rows if row["n"] > after][-history_range.limit :])

    @dicts.last
    async def newest(self) -> int | None:
        return self.rows[-1]["n"] if self.rows else None


@pytest.fixture
def undeclared():
    Undeclared.rows = [{"time": START + n, "n": n} for n in range(1, 4)]
    Undeclared.reads, Undeclared.problem, Undeclared.seconds = [], None, 0
    return Undeclared


async def epoch_of_a_query(source):
    async with serve_in_memory(source) as grafana:
        query = {"queryType": "dicts", "exact": True}
        start = datetime(2023, 1, 1, tzinfo=UTC)
        (frame,) = await grafana.query(query, start=start, end=datetime.now(UTC))
        return frame.meta.custom["cursor"]["epoch"]


async def test_the_first_packet_after_a_restart_has_the_epoch_of_the_history(undeclared):
    epoch = await epoch_of_a_query(undeclared)
    async with serve_in_memory(undeclared) as grafana:
        viewer = await grafana.follow("x/dicts")
        await settle()
        await grafana.kill()  # Grafana calls RunStream again, and does not subscribe
        before = len(viewer.packets)
        await anyio.sleep(2 * HEARTBEAT)
    found = cursors(viewer)
    assert len(found) > before and {each["epoch"] for each in found} == {epoch}


async def test_a_page_without_rows_has_the_epoch_of_the_history(undeclared):
    epoch = await epoch_of_a_query(undeclared)
    async with serve_in_memory(undeclared) as grafana:
        _, page = await rows_after(grafana, 3, "x/dicts")
    assert page["cursor"]["epoch"] == epoch and page["numbers"] == []


async def test_the_initial_data_of_a_subscription_has_the_epoch_of_the_history(undeclared):
    epoch = await epoch_of_a_query(undeclared)
    async with serve_in_memory(undeclared) as grafana:
        data = await grafana.initial_data("x/dicts")
    assert msgspec.json.decode(data)["cursor"]["epoch"] == epoch


async def test_known_columns_are_not_read_again(undeclared):
    async with serve_in_memory(undeclared) as grafana:
        for _ in range(3):
            await grafana.follow("x/dicts")
    assert len(undeclared.reads) == 1


async def test_a_stream_runs_while_its_columns_cannot_be_read(undeclared, caplog):
    undeclared.problem = UpstreamError("away")
    async with serve_in_memory(undeclared) as grafana:
        viewer = await grafana.follow("x/dicts")
        await anyio.sleep(HEARTBEAT + 1)
    assert viewer.position is not None and viewer.position.value == 3
    assert "dicts: the columns are unknown: away" in caplog.text


async def test_a_stream_waits_for_its_columns_for_a_limited_time(undeclared, caplog):
    undeclared.seconds = inf
    async with serve_in_memory(undeclared) as grafana:
        with anyio.fail_after(10):
            viewer = await grafana.follow("x/dicts")
        await anyio.sleep(HEARTBEAT + COLUMNS_WAIT + 1)
    assert viewer.position is not None and viewer.position.value == 3
    assert f"its newest rows were not read within {COLUMNS_WAIT:g} s" in caplog.text


async def test_viewers_who_come_together_have_the_columns_read_once(undeclared):
    undeclared.seconds = COLUMNS_WAIT / 2
    async with serve_in_memory(undeclared) as grafana, anyio.create_task_group() as viewers:
        for _ in range(3):
            viewers.start_soon(grafana.initial_data, "x/dicts")
    assert len(undeclared.reads) == 1


async def test_a_viewer_who_leaves_does_not_keep_others_from_the_columns(undeclared):
    epoch = await epoch_of_a_query(undeclared)
    undeclared.seconds = COLUMNS_WAIT / 2
    async with serve_in_memory(undeclared) as grafana, anyio.create_task_group() as viewers:
        leaving = anyio.CancelScope()

        async def leave():
            with leaving:
                await grafana.initial_data("x/dicts")

        viewers.start_soon(leave)
        await settle()
        found = []

        async def stay():
            found.append(await grafana.initial_data("x/dicts"))

        viewers.start_soon(stay)
        await settle()
        leaving.cancel()
    assert [msgspec.json.decode(data)["cursor"]["epoch"] for data in found] == [epoch]


async def test_an_empty_history_is_not_read_for_columns_at_each_join(undeclared):
    undeclared.rows = []
    async with serve_in_memory(undeclared) as grafana:
        for _ in range(3):
            await grafana.follow("x/dicts")
        assert len(undeclared.reads) == 1
        await anyio.sleep(COLUMNS_AGAIN + 1)
        await grafana.follow("x/dicts")
        assert len(undeclared.reads) == 2


async def test_a_history_that_hangs_delays_only_the_first_viewers(undeclared, caplog):
    undeclared.seconds = inf
    async with serve_in_memory(undeclared) as grafana:
        await grafana.follow("x/dicts")
        before = anyio.current_time()
        await grafana.follow("x/dicts")
        assert anyio.current_time() - before < COLUMNS_WAIT
    assert caplog.text.count("the columns are unknown") == 1


class UndeclaredWithoutLast(DataSource):
    """A stream of dicts without a hook for the newest cursor: the run reads the history for it."""

    rows: ClassVar[list[dict[str, object]]] = []

    @stream("dicts", cursor="n")
    async def dicts(self, after: Cursor) -> Rows:
        await anyio.sleep_forever()
        yield {}

    @dicts.history
    async def read(self, history_range: HistoryRange) -> list[dict[str, object]]:
        return history_range.select(self.rows, cursor="n")


VARYING = [{"time": START + n, "n": n, **({"b": 1.5} if n == 2 else {})} for n in range(1, 4)]


@pytest.fixture(params=[Undeclared, UndeclaredWithoutLast])
def varying(request, undeclared):
    request.param.rows = VARYING
    return request.param


async def test_columns_that_only_some_rows_have_are_known_after_a_restart(varying):
    epoch = await epoch_of_a_query(varying)
    async with serve_in_memory(varying) as grafana:
        viewer = await grafana.follow("x/dicts")
        await anyio.sleep(HEARTBEAT + 1)
    found = cursors(viewer)
    assert found and {each["epoch"] for each in found} == {epoch}


async def test_columns_are_read_from_a_limited_number_of_rows(undeclared):
    async with serve_in_memory(undeclared) as grafana:
        await grafana.follow("x/dicts")
        assert [each.limit for each in undeclared.reads] == [COLUMNS_ROWS]


async def test_old_rows_that_do_not_fit_the_newest_do_not_keep_a_stream_from_running(varying):
    varying.rows = [{"time": START, "n": 0, "a": "text"}, {"time": START + 1, "n": 1, "a": 1.5}]
    async with serve_in_memory(varying) as grafana:
        viewer = await grafana.follow("x/dicts")
        await anyio.sleep(HEARTBEAT + 1)
    assert viewer.position is not None and viewer.position.value == 1
