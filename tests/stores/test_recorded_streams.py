"""Streams with the option `store`: their rows are recorded, and have a history."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import anyio
import pytest

from aiostream_ds import (
    DataSource,
    FieldConfig,
    Frame,
    HistoryRange,
    Replay,
    Row,
    RowOrder,
    Rows,
    Settings,
    Status,
    stream,
)
from aiostream_ds.stores import Retention, SqliteStore, StoreError
from aiostream_ds.testing import serve_in_memory

DAY = timedelta(days=1)


class Place(Settings):
    directory: str = ""


class Reading(Row):
    celsius: Annotated[float, FieldConfig(unit="celsius")]
    note: str | None = None


class Recorded(DataSource[Place]):
    def __init__(self) -> None:
        self.store_directory = self.settings.directory

    @stream("dicts/{name}", store=Retention())
    async def dicts(self, name: str) -> Rows:
        for n in range(3):
            yield {"n": n, "name": name}
        await anyio.sleep_forever()

    @stream("readings", store=Retention())
    async def readings(self) -> Rows[Reading]:
        yield Reading(20.5)
        yield Reading(21.5, "warm")
        await anyio.sleep_forever()

    @stream("mixed", store=Retention())
    async def mixed(self) -> Rows[Any]:
        at = datetime(2026, 5, 1, tzinfo=UTC)
        yield {"at": at, "n": 1}
        yield Status("warning", "careful")
        yield [{"at": at, "n": 2}, {"at": at, "n": 3}]
        yield Reading.from_columns(celsius=[1.0, 2.0], note=["a", None])
        await anyio.sleep_forever()


def now() -> datetime:
    return datetime.now(UTC)


async def history(grafana: Any, stream: str, **fields: Any) -> tuple[Frame, dict[str, Any]]:
    query = {"queryType": stream, "exact": True, **fields}
    (frame,) = await grafana.query(query, start=now() - DAY, end=now())
    return frame, frame.meta.custom["cursor"]


def columns(frame: Frame) -> dict[str, list[Any]]:
    return {field.name: list(field.values) for field in frame.fields}


async def test_rows_of_a_stream_are_there_after_a_restart_and_cursors_go_on(tmp_path):
    settings = {"directory": str(tmp_path)}
    for run in range(2):
        async with serve_in_memory(Recorded, settings=settings) as grafana:
            before, cursor = await history(grafana, "dicts", name="a")
            assert (before.rows, cursor["last"]) == (3 * run, 3 * run)
            viewer = await grafana.follow("dicts/a")
            live = await viewer.take(3)
            assert [row["n"] for row in live] == [0, 1, 2]
            assert [row["cursor"] for row in live] == [3 * run + n for n in (1, 2, 3)]
            after, cursor = await history(grafana, "dicts", name="a")
            assert columns(after)["n"] == [0, 1, 2] * (run + 1)
            assert cursor["last"] == 3 * (run + 1)
            assert [field.name for field in after.fields] == ["time", "n", "name", "cursor"]


async def test_rows_in_memory_outlive_a_change_of_the_settings(tmp_path):
    async with serve_in_memory(Recorded) as grafana:
        viewer = await grafana.follow("dicts/a")
        await viewer.take(3)
        viewer.leave()  # else the stream begins again, with more rows
        await grafana.change_settings({"directory": ""})
        frame, cursor = await history(grafana, "dicts", name="a")
        assert (frame.rows, cursor["last"]) == (3, 3)


async def test_a_declared_class_keeps_its_columns_and_their_config():
    async with serve_in_memory(Recorded) as grafana:
        empty, _ = await history(grafana, "readings")
        viewer = await grafana.follow("readings")
        rows = await viewer.take(2)
        assert [(row["celsius"], row["note"]) for row in rows] == [(20.5, None), (21.5, "warm")]
        frame, _ = await history(grafana, "readings")
        for each in (empty, frame):
            assert [field.name for field in each.fields] == ["time", "celsius", "note", "cursor"]
            assert each.fields[1].config.unit == "celsius"
        assert columns(frame)["celsius"] == [20.5, 21.5]


async def test_everything_that_may_be_yielded_is_recorded():
    async with serve_in_memory(Recorded) as grafana:
        viewer = await grafana.follow("mixed")
        await viewer.take(5)
        page = await (await grafana.data_source(Recorded)).row_store.rows_after("mixed", 0, 10)
        assert [row.get("n") for row in page.rows] == [1, 2, 3, None, None]
        assert [row.get("celsius") for row in page.rows] == [None, None, None, 1.0, 2.0]
        assert all(isinstance(row.get("time", row.get("at")), int | datetime) for row in page.rows)


def test_options_that_contradict_are_refused_when_the_class_is_created():
    with pytest.raises(TypeError, match="expected a cursor or a store, got both"):
        stream(cursor="id", store=Retention())(Recorded.dicts.run)
    with pytest.raises(TypeError, match="expected an order or a store, got both"):
        stream(order=RowOrder(), store=Retention())(Recorded.dicts.run)
    with pytest.raises(TypeError, match="expected a replay or a store, got both"):
        stream(replay=Replay(rows=5), store=Retention())(Recorded.dicts.run)
    with pytest.raises(TypeError, match='expected share="cluster" or a store, got both'):
        stream(share="cluster", store=Retention())(Recorded.dicts.run)
    with pytest.raises(TypeError, match="expected flush or max_hz or a store, got both"):
        stream(max_hz=5, store=Retention())(Recorded.dicts.run)
    with pytest.raises(TypeError, match="store must be a Retention, got True"):
        stream(store=True)(Recorded.dicts.run)  # type: ignore[call-overload]


def test_a_stream_with_a_store_has_no_history_hook():
    with pytest.raises(TypeError, match="expected a history hook or a store of the stream"):

        class Both(DataSource):
            @stream(store=Retention())
            async def rows(self) -> Rows:
                yield {"n": 1}

            @rows.history
            async def read(self, history_range: HistoryRange) -> list[dict[str, Any]]:
                return []


def test_a_row_class_must_not_have_the_column_of_the_cursor():
    class Numbered(Row):
        cursor: int

    with pytest.raises(TypeError, match="must not have the column 'cursor'"):

        class Source(DataSource):
            @stream(store=Retention())
            async def rows(self) -> Rows[Numbered]:
                yield Numbered(1)


class Fast(DataSource):
    @stream(store=Retention())
    async def rows(self) -> Rows:
        for n in range(20_000):
            yield {"n": n}
        await anyio.sleep_forever()


@pytest.mark.slow
async def test_a_stream_that_never_waits_is_recorded_completely():
    async with serve_in_memory(Fast) as grafana:
        viewer = await grafana.follow("rows")
        seen: list[int] = []
        while len(seen) < 20_000:
            seen += [row["n"] for row in await viewer.take(1)]
        store = (await grafana.data_source(Fast)).row_store
        assert (await store.newest("rows")).value == 20_000
        assert seen == list(range(20_000))


class Bad(DataSource):
    @stream(store=Retention())
    async def rows(self) -> Rows[Any]:
        yield {"n": 1}
        yield {"n": 2}
        yield {"n": 3, "cursor": 7}
        yield {"n": 4}
        await anyio.sleep_forever()


async def test_rows_before_one_that_cannot_be_stored_are_stored():
    async with serve_in_memory(Bad) as grafana:
        viewer = await grafana.follow("rows")
        assert [row["n"] for row in await viewer.take(2)] == [1, 2]
        store = (await grafana.data_source(Bad)).row_store
        assert [row["n"] for row in (await store.rows_after("rows", 0, 9)).rows][:2] == [1, 2]


class Ticking(DataSource):
    """Yields a row at each `tick`."""

    def __init__(self) -> None:
        self.tick = anyio.Event()
        self.yielded = 0

    @stream(store=Retention())
    async def rows(self) -> Rows:
        while True:
            yield {"n": self.yielded}
            self.yielded += 1
            await self.tick.wait()
            self.tick = anyio.Event()


async def test_a_store_that_fails_is_the_status_and_its_rows_are_stored_later(monkeypatch):
    monkeypatch.setattr("aiostream_ds._streams.row_recording.RETRY_DELAYS", (0.01,))
    fails = True
    append = SqliteStore.append

    async def failing(self: SqliteStore, *arguments: Any) -> Any:
        if fails:
            raise StoreError("the disk is full")
        return await append(self, *arguments)

    monkeypatch.setattr(SqliteStore, "append", failing)
    async with serve_in_memory(Ticking) as grafana:
        viewer = await grafana.follow("rows")
        exact = await grafana.follow("x/rows")
        while "not stored: the disk is full" not in str(await exact.message()):
            pass
        source = await grafana.data_source(Ticking)
        source.tick.set()
        assert viewer.rows == []
        fails = False
        assert [row["n"] for row in await viewer.take(2)] == [0, 1]
        assert (await source.row_store.newest("rows")).value == 2


async def test_rows_that_others_store_in_the_channel_are_left_to_the_history():
    async with serve_in_memory(Ticking) as grafana:
        viewer = await grafana.follow("rows")
        assert (await viewer.next())["cursor"] == 1
        source = await grafana.data_source(Ticking)
        await source.row_store.append("rows", [{"time": 1, "n": -1}, {"time": 1, "n": -2}])
        source.tick.set()
        row = await viewer.next()
        assert (row["n"], row["cursor"]) == (1, 4)
        missed = await grafana.resource("replay/rows?path=x/rows&after=1")
        assert b'"prev":1,"last":4' in missed.body


async def test_a_channel_that_is_deleted_begins_again():
    async with serve_in_memory(Ticking) as grafana:
        viewer = await grafana.follow("rows")
        await viewer.next()
        source = await grafana.data_source(Ticking)
        before = await source.row_store.newest("rows")
        assert await source.row_store.delete("rows")
        source.tick.set()
        row = await viewer.next()
        assert (row["n"], row["cursor"]) == (1, 1)
        assert (await source.row_store.newest("rows")).epoch != before.epoch


async def test_the_last_rows_are_stored_when_the_last_viewer_leaves(tmp_path):
    class Leaving(DataSource):
        store_directory = tmp_path

        @stream(store=Retention())
        async def rows(self) -> Rows:
            try:
                yield {"n": 1}
                await anyio.sleep_forever()
            finally:
                self.closed = True

    async with serve_in_memory(Leaving) as grafana:
        viewer = await grafana.follow("rows")
        await viewer.next()
        source = await grafana.data_source(Leaving)
        viewer.leave()
    assert source.closed
    async with serve_in_memory(Leaving) as grafana:
        frame, cursor = await history(grafana, "rows")
        assert (frame.rows, cursor["last"]) == (1, 1)


async def test_the_store_of_a_class_without_stored_streams_is_an_error():
    class Without(DataSource):
        @stream
        async def rows(self) -> Rows:
            yield {"n": 1}

    async with serve_in_memory(Without) as grafana:
        source = await grafana.data_source(Without)
        with pytest.raises(RuntimeError, match="row_store exists from `lifespan` on if a stream"):
            _ = source.row_store


async def test_a_directory_that_cannot_be_used_is_the_error_of_all_calls(tmp_path):
    (tmp_path / "file").write_text("")
    settings = {"directory": str(tmp_path / "file")}
    async with serve_in_memory(Recorded, settings=settings) as grafana:
        ok, message = await grafana.health()
        assert not ok
        assert "the directory" in message and "cannot be written" in message


class Counting(DataSource[Place]):
    number = 0

    def __init__(self) -> None:
        self.store_directory = self.settings.directory

    @stream(store=Retention())
    async def rows(self) -> Rows:
        while True:
            for _ in range(3):
                Counting.number += 1
                yield {"n": Counting.number}
            await anyio.sleep(0.001)


@pytest.mark.slow
async def test_what_viewers_have_seen_is_stored_with_the_same_cursors_when_the_plugin_dies(
    tmp_path,
):
    seen: dict[int, int] = {}
    settings = {"directory": str(tmp_path)}
    async with serve_in_memory(Counting, settings=settings) as grafana:
        for count in (1, 50, 7, 200, 20):
            viewer = await grafana.follow("rows")
            for row in await viewer.take(count):
                assert row["cursor"] not in seen
                seen[row["cursor"]] = row["n"]
            viewer.leave()
            await grafana.kill()
        frame, cursor = await history(grafana, "rows", maxDataPoints=100_000)
        found = columns(frame)
        stored = dict(zip(found["cursor"], found["n"], strict=True))
        assert found["cursor"] == list(range(1, cursor["last"] + 1))
        assert seen.items() <= stored.items()
        assert found["n"] == sorted(set(found["n"]))


async def test_the_file_stays_the_same_when_grafana_begins_to_send_namespaces(tmp_path):
    settings = {"directory": str(tmp_path)}
    tenants = [(1, ""), (1, "default"), (2, ""), (2, "org-2"), (1, "stacks-3"), (1, "stacks-4")]
    found = []
    for org_id, namespace in tenants:
        async with serve_in_memory(Recorded, settings=settings) as grafana:
            context = grafana.context(None)
            context.org_id, context.namespace = org_id, namespace
            before = {*tmp_path.glob("*.sqlite")}
            await grafana.plugin.instances.get(context)
            found.append(len({*tmp_path.glob("*.sqlite")} - before))
    assert found == [1, 0, 1, 0, 1, 1]
