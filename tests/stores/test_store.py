"""A store of rows, in a file and in memory: cursors, keys, reads, followers."""

import asyncio
import threading
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostream_ds import Cursor, HistoryRange
from aiostream_ds._thread_limits import THREADS, run_in_thread
from aiostream_ds.stores import Retention, SqliteStore, StoreError, sqlite_file, sqlite_store
from aiostream_ds.stores.row_blocks import split_rows
from aiostream_ds.stores.sqlite_writer import ReplicaBatch
from tests.waiting import until

NOW = 1_790_000_000_000


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"time": NOW + n, "n": n} for n in range(start, start + count)]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [row["n"] for row in found]


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path):
    directory = tmp_path if request.param == "file" else None
    async with SqliteStore(directory) as opened:
        yield opened


async def test_rows_get_consecutive_cursors_in_each_channel(store):
    assert await store.append("a", rows(3)) == (1, 3, False)
    assert await store.append("b", rows(2)) == (1, 2, False)
    assert await store.append("a", rows(2)) == (4, 5, False)
    found = await store.rows_after("a", 0, 10)
    assert [row["cursor"] for row in found.rows] == [1, 2, 3, 4, 5]
    assert (found.first, found.last) == (1, 5)


async def test_rows_are_read_as_they_were_stored(store):
    row = {
        "time": datetime(2026, 5, 1, 12, 0, 0, 250, tzinfo=UTC),
        "flag": True,
        "int": -(2**63),
        "float": 1e300,
        "text": "Grüße 🎉",
        "none": None,
        "json": {"a": [1, {"b": None}]},
    }
    await store.append("a", [row, {"time": 5.75}])
    found = await store.rows_after("a", 0, 10)
    assert found.rows == [row | {"cursor": 1}, {"time": 5.75, "cursor": 2}]


async def test_the_time_of_a_row_without_the_column_is_its_first_datetime(store):
    at = datetime(2026, 5, 1, tzinfo=UTC)
    ms = int(at.timestamp() * 1000)
    rows = [{"n": 1, "at": at}, {"n": 2, "at": at, "b": None}, {"n": 3, "at": None, "b": at}]
    await store.append("a", rows)
    assert numbers((await store.rows_between("a", ms, ms, 10)).rows) == [1, 2, 3]
    assert numbers((await store.rows_between("a", ms + 1, ms + 2, 10)).rows) == []


async def test_the_caller_may_change_the_rows_after_the_call(store):
    row = {"time": NOW, "tags": [1]}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.append, "a", [row])
        await asyncio.sleep(0)
        row["time"] = 0
        row["tags"].append(2)
    assert (await store.rows_after("a", 0, 1)).rows == [{"time": NOW, "tags": [1], "cursor": 1}]


@pytest.mark.slow
async def test_many_rows_are_stored_by_one_append(store):
    assert await store.append("a", rows(20_000)) == (1, 20_000, False)
    assert numbers((await store.rows_after("a", 19_990, 99)).rows) == list(range(19_990, 20_000))
    bad = [*rows(9_999), {"time": "noon"}]
    with pytest.raises(ValueError, match="row 9999: column 'time' must be"):
        await store.append("a", bad)


async def test_a_repeated_key_stores_nothing_and_returns_the_first_cursors(store):
    assert await store.append("a", rows(3), key="x") == (1, 3, False)
    assert await store.append("a", rows(9), key="x") == (1, 3, True)
    assert await store.append("b", rows(2), key="x") == (1, 2, False)  # keys are of one channel
    assert await store.append("a", rows(1), key="y") == (4, 4, False)


async def test_one_of_many_concurrent_appends_with_one_key_stores(store):
    results: list[Any] = []

    async def append() -> None:
        results.append(await store.append("a", rows(2), key="x"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(append)
    assert sorted(results) == [(1, 2, False)] + [(1, 2, True)] * 19
    assert (await store.newest("a")).value == 2


async def test_without_rows_nothing_is_stored(store):
    assert await store.append("a", []) == (1, 0, False)
    assert await store.append("a", [], key="x") == (1, 0, False)
    assert await store.append("a", rows(1), key="x") == (1, 1, False)
    assert [each.channel for each in await store.channels()] == ["a"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x": 1}, "row 1: a row must have the column 'time', or a datetime, got x"),
        ({"time": "noon"}, "row 1: column 'time' must be Unix milliseconds or an aware datetime"),
        ({"time": True}, "row 1: column 'time' must be Unix milliseconds"),
        ({"time": float("nan")}, "row 1: column 'time' must be Unix milliseconds"),
        ({"time": 2**63}, "row 1: column 'time' must be 64-bit"),
        ({"time": datetime(2026, 1, 1)}, "row 1: column 'time': a datetime must have a time zone"),
        ({"time": 1, "cursor": 1}, "row 1: the column 'cursor' is the store's own"),
        ({"time": 1, "x": 2**64}, "row 1: column 'x': can't serialize ints"),
        ({"time": 1, "x": object()}, "row 1: column 'x': expected bool"),
        ({"time": 1, "x": [object()]}, "row 1: column 'x': Encoding objects of type object"),
        ({"time": 1, "x": "\ud800"}, "row 1: column 'x': .*surrogates not allowed"),
        ({"time": 1, "\ud800": 1}, "row 1: .*surrogates not allowed"),
        ({"time": 1, 2: 3}, "row 1: the names of columns must be str, got 2"),
        (3, "row 1: expected a dict, got 3"),
    ],
)
async def test_a_row_that_cannot_be_stored_is_named_and_none_is_stored(store, bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        await store.append("a", [{"time": NOW, "x": 1}, bad])
    assert (await store.newest("a")).value == 0


@pytest.mark.parametrize("channel", ["", None, 3, "\ud800"])
async def test_a_channel_is_a_text(store, channel):
    with pytest.raises(ValueError, match="the channel must be a text that is not empty"):
        await store.append(channel, rows(1))


@pytest.mark.parametrize("key", [3, b"k", "\udfff"])
async def test_a_key_is_a_text(store, key):
    with pytest.raises(ValueError, match="the key must be a text"):
        await store.append("a", rows(1), key)


async def test_names_of_any_text_are_channels(store):
    names = ["a/b", "é", "\0", "a" * 10_000, "'; DROP TABLE blocks"]
    for name in names:
        await store.append(name, rows(1), key=name)
    assert {each.channel for each in await store.channels()} == set(names)


async def test_rows_after_a_cursor_are_the_oldest_ones_up_to_a_bound(store):
    for start in range(0, 30, 3):
        await store.append("a", rows(3, start))
    assert numbers((await store.rows_after("a", 7, 4)).rows) == [7, 8, 9, 10]
    assert numbers((await store.rows_after("a", 7, 4, upto=9)).rows) == [7, 8]
    assert (await store.rows_after("a", 30, 4)).rows == []
    assert (await store.rows_after("a", 99, 4)).rows == []


async def test_rows_between_two_times_are_the_newest_ones_in_the_order_of_cursors(store):
    times = [5, 1, 9, 3, 7, 3, 2**62, -(2**62)]
    for n, time in enumerate(times):
        await store.append("a", [{"time": time, "n": n}])
    assert numbers((await store.rows_between("a", 0, 100, 100)).rows) == [0, 1, 2, 3, 4, 5]
    assert numbers((await store.rows_between("a", 0, 100, 3)).rows) == [0, 2, 4]
    assert numbers((await store.rows_between("a", 3, 3, 100)).rows) == [3, 5]
    assert numbers((await store.rows_between("a", -(2**63), 2**63, 100)).rows) == list(range(8))


async def test_a_channel_that_does_not_exist_has_no_rows_and_is_not_made(store):
    found = await store.rows_between("none", 0, NOW, 10)
    assert (found.rows, found.first, found.last) == ([], 1, 0)
    assert (await store.newest("none")).value == 0
    assert await store.channels() == []
    await store.append("none", rows(1))
    assert (await store.newest("none")).epoch == found.epoch


async def test_the_channels_have_their_numbers(store):
    await store.append("b", rows(3))
    await store.append("a", [{"time": 7}])
    a, b = await store.channels()
    assert (a.channel, a.rows, a.first, a.last, a.oldest, a.newest) == ("a", 1, 1, 1, 7, 7)
    assert (b.channel, b.rows, b.oldest, b.newest) == ("b", 3, NOW, NOW + 2)
    assert a.bytes + b.bytes == store.bytes


async def test_a_channel_that_was_deleted_begins_with_another_epoch(store):
    await store.append("a", rows(3), key="x")
    await store.append("b", rows(1))
    before = await store.newest("a")
    assert await store.delete("a")
    assert not await store.delete("a")
    assert [each.channel for each in await store.channels()] == ["b"]
    assert await store.append("a", rows(1), key="x") == (1, 1, False)
    assert (await store.newest("a")).epoch != before.epoch
    assert numbers((await store.rows_after("a", 0, 10)).rows) == [0]


async def take(store, channel: str, after: Cursor, count: int) -> list[Any]:
    """The rows, or cursors, that a follower gets first."""
    found: list[Any] = []
    async with aclosing(store.follow(channel, after)) as items:
        async for item in items:
            found += [item] if isinstance(item, Cursor) else item
            if len(found) >= count:
                return found
    return found


async def test_a_follower_gets_old_rows_and_then_each_row_that_is_stored(store):
    await store.append("a", rows(3))
    after = Cursor((await store.newest("a")).epoch, 1)
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(take(store, "a", after, 5))
        for start in range(3, 6):
            await store.append("a", rows(1, start))
    assert numbers(follower.result()) == [1, 2, 3, 4, 5]


@pytest.mark.slow
async def test_a_slow_follower_reads_from_the_store_what_it_has_missed(store):
    epoch = (await store.newest("a")).epoch
    async with aclosing(store.follow("a", Cursor(epoch, 0))) as items:
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.01)
        await store.append("a", rows(1))
        found = list(await waiting)
        for start in range(1, 12_001, 1_000):
            await store.append("a", rows(1_000, start))
        while len(found) < 12_001:
            found += await anext(items)
    assert numbers(found) == list(range(12_001))


async def test_a_follower_of_a_deleted_channel_gets_the_new_epoch(store):
    await store.append("a", rows(2))
    after = await store.newest("a")
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(take(store, "a", after, 2))
        await asyncio.sleep(0.01)
        await store.delete("a")
        await store.append("a", rows(1, 7))
    epoch, row = follower.result()
    assert epoch == ((await store.newest("a")).epoch, 0)
    assert (row["n"], row["cursor"]) == (7, 1)


async def epoch_after_first_row(store, change) -> tuple[str, str]:
    """The epoch that a follower of a channel without rows gets with its first one, and that of the
    stored rows."""
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(take(store, "new", await store.newest("new"), 2))
        await until(lambda: "new" in store._open.followers)
        await asyncio.sleep(0)
        await change()
    given, row = follower.result()
    assert row["n"] == 0
    return given.epoch, (await store.newest("new")).epoch


async def test_a_follower_of_a_channel_without_rows_gets_the_epoch_of_its_first_row(store):
    async def change() -> None:
        await store.append("other", rows(1))
        await store.delete("other")
        await store.append("new", rows(1))

    given, stored = await epoch_after_first_row(store, change)
    assert given == stored


async def test_a_follower_of_a_channel_without_rows_gets_the_epoch_of_other_servers(store):
    async def change() -> None:
        batch = ReplicaBatch("new", 1, split_rows(rows(1), NOW), None, NOW)
        await store.replicate([batch], {}, epoch="of all servers")

    given, stored = await epoch_after_first_row(store, change)
    assert given == stored == "of all servers"


async def test_a_follower_whose_rows_were_removed_gets_a_cursor_beyond_them(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(rows=3)) as store:
        epoch = (await store.newest("a")).epoch
        for start in range(0, 10, 5):
            await store.append("a", rows(5, start))
        found = await take(store, "a", Cursor(epoch, 2), 4)
        assert found[0] == (epoch, 7)
        assert numbers(found[1:]) == [7, 8, 9]


async def test_a_follower_ends_with_an_error_when_the_store_is_closed():
    async with SqliteStore() as store:
        follower = asyncio.ensure_future(take(store, "a", await store.newest("a"), 1))
        await asyncio.sleep(0.01)
    with pytest.raises(StoreError, match="the store in memory is not open"):
        await follower


async def test_a_history_is_the_page_of_a_hook(store):
    await store.append("a", rows(10))
    start = datetime.fromtimestamp(NOW / 1000, UTC)
    wanted = HistoryRange(start=start, end=start + timedelta(seconds=1), limit=4)
    page = await store.history("a", wanted)
    assert numbers(page.rows) == [6, 7, 8, 9]
    assert (page.first, page.last) == (1, 10)
    after = HistoryRange(start=start, end=start, limit=4, after=2)
    page = await store.history("a", after)
    assert (numbers(page.rows), page.last) == ([2, 3, 4, 5], None)
    page = await store.history("a", HistoryRange(start=start, end=start, limit=4, after=12))
    assert (page.rows, page.last) == ([], 12)


async def test_stores_of_one_process_share_a_file(tmp_path):
    async with SqliteStore(tmp_path) as first:
        await first.append("a", rows(1))
        async with SqliteStore(Path(tmp_path) / "." / "..") as other:
            assert await other.channels() == []
        async with SqliteStore(str(tmp_path)) as second:
            await second.append("a", rows(1))
        assert (await first.newest("a")).value == 2


async def test_a_store_that_is_opened_again_goes_on(tmp_path):
    async with SqliteStore(tmp_path) as store:
        await store.append("a", rows(3), key="x")
        before = await store.newest("a")
    async with SqliteStore(tmp_path) as store:
        assert await store.newest("a") == before
        assert await store.append("a", rows(3), key="x") == (1, 3, True)
        assert await store.append("a", rows(3)) == (4, 6, False)


def is_open(directory: Path) -> bool:
    """Whether the thread that writes the file runs."""
    name = f"store {directory / 'rows.sqlite'}"
    return any(thread.name == name for thread in threading.enumerate())


@pytest.mark.parametrize("is_file_open", [False, True])
async def test_a_store_whose_opening_is_cancelled_is_closed(tmp_path, monkeypatch, is_file_open):
    opening, go_on = threading.Event(), threading.Event()

    def open_slowly(*arguments: Any, **options: Any) -> Any:
        file = sqlite_file.open_file(*arguments, **options) if is_file_open else None
        opening.set()
        assert go_on.wait(10)
        return file or sqlite_file.open_file(*arguments, **options)

    monkeypatch.setattr(sqlite_store, "open_file", open_slowly)
    store = SqliteStore(tmp_path)
    task = asyncio.create_task(store.__aenter__())
    await until(opening.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await until(lambda: not is_open(tmp_path) and not sqlite_store._stores)
    async with store:
        assert is_open(tmp_path)
        await store.append("a", rows(1))
    assert not is_open(tmp_path)


@pytest.mark.slow
async def test_a_store_whose_opening_is_cancelled_at_any_moment_is_closed(tmp_path):
    for turns in range(30):
        task = asyncio.create_task(SqliteStore(tmp_path).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(turns % 3 / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await task.result().aclose()
    await until(lambda: not is_open(tmp_path) and not sqlite_store._stores)


async def test_a_store_whose_closing_is_cancelled_is_closed_also_if_no_thread_is_free(tmp_path):
    store = await SqliteStore(tmp_path).__aenter__()
    go_on, running = threading.Event(), threading.Semaphore(0)

    def occupy() -> None:
        running.release()
        assert go_on.wait(10)

    others = [asyncio.create_task(run_in_thread(occupy)) for _ in range(THREADS)]
    for _ in others:
        await until(lambda: running.acquire(blocking=False))
    task = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not is_open(tmp_path))
    go_on.set()
    await asyncio.gather(*others)


async def test_a_store_that_is_not_open_is_an_error(tmp_path):
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreError, match="is not open; use it in `async with`"):
        await store.append("a", rows(1))
    async with store:
        pass
    with pytest.raises(StoreError, match="is not open"):
        await store.channels()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a\0", "ä"])
def test_the_name_of_a_store_is_that_of_a_file(name):
    with pytest.raises(ValueError, match="the name of a store must be"):
        SqliteStore(name=name)


def test_sync_is_one_of_two_policies():
    with pytest.raises(ValueError, match="sync must be 'normal' or 'full', got 'off'"):
        SqliteStore(sync="off")  # type: ignore[arg-type]
