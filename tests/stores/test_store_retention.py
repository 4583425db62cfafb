"""Retention: by age, rows and bytes of a channel, and by bytes of all; the file stays bounded."""

import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds.stores import Retention, SqliteStore, sqlite_writer
from aiostream_ds.stores import channel_tables as tables
from tests.waiting import until

NOW = 1_790_000_000_000
MILLIONS = float(os.environ.get("AIOSTREAM_DS_STORE_MILLIONS", "0.3"))


def rows(count: int, start: int = 0, size: int = 0) -> list[dict[str, Any]]:
    text = {"text": os.urandom(size).hex()} if size else {}
    return [{"time": NOW + n, "n": n, **text} for n in range(start, start + count)]


async def kept(store: SqliteStore, channel: str = "a") -> list[int]:
    found = await store.rows_after(channel, 0, 1_000_000)
    numbers = [row["n"] for row in found.rows]
    assert [row["cursor"] for row in found.rows] == list(range(found.first, found.last + 1))
    return numbers


@pytest.fixture
def clock(monkeypatch):
    """The time at which rows are stored, in seconds; the store looks for expired ones at once."""
    now = [1_000_000.0]
    monkeypatch.setattr(sqlite_writer, "now_ms", lambda: int(now[0] * 1000))
    monkeypatch.setattr(sqlite_writer, "_SWEEP_INTERVAL", 0.02)
    return now


@pytest.mark.parametrize(
    "bad", [{"seconds": 0}, {"seconds": math.nan}, {"rows": 0}, {"bytes": 1.5}]
)
def test_a_bound_is_a_positive_number(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Retention(**bad)


async def test_exactly_so_many_rows_are_kept(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(rows=25)) as store:
        for start in range(0, 100, 10):
            await store.append("a", rows(10, start))
            assert len(await kept(store)) == min(start + 10, 25)
        assert await kept(store) == list(range(75, 100))
        assert store.rows_removed == 75
        assert (await store.channels())[0].rows == 25


async def test_one_append_may_exceed_the_rows(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(rows=5)) as store:
        await store.append("a", rows(5_000))
        assert await kept(store) == list(range(4_995, 5_000))


async def test_rows_are_removed_when_they_are_too_old_whatever_their_time_is(tmp_path, clock):
    async with SqliteStore(tmp_path, retention=Retention(seconds=100)) as store:
        await store.append("a", [{"time": 2**60, "n": 0}, {"time": -(2**60), "n": 1}])
        clock[0] += 60
        await store.append("a", rows(2, 2))
        clock[0] += 60

        async def has_removed() -> bool:
            return await kept(store) == [2, 3]

        await until(has_removed)
        clock[0] += 100
        await until(lambda: store.rows_removed == 4)
        found = await store.rows_after("a", 0, 10)
        assert (found.rows, found.first, found.last) == ([], 5, 4)
        assert (await store.append("a", rows(1, 4))).first == 5


async def test_a_clock_that_was_wrong_for_a_while_does_not_keep_rows_for_ever(tmp_path, clock):
    async with SqliteStore(tmp_path, retention=Retention(seconds=100)) as store:
        clock[0] += 10**9
        await store.append("a", rows(1))
        clock[0] -= 10**9
        await store.append("a", rows(1, 1, size=10_000))
        clock[0] += 101
        await until(lambda: store.rows_removed == 2)


async def test_no_cursor_is_used_again_after_everything_was_removed(tmp_path, clock):
    for start in range(0, 30, 10):
        async with SqliteStore(tmp_path, retention=Retention(seconds=1)) as store:
            assert (await store.append("a", rows(10))).first == start + 1
            clock[0] += 10
            await until(lambda store=store: store.rows_removed == 10)
            assert (await store.newest("a")).value == start + 10


@pytest.mark.slow
async def test_the_bytes_of_a_channel_are_bounded(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(bytes=100_000)) as store:
        for start in range(100):
            await store.append("a", rows(1, start, size=5_000))
            (channel,) = await store.channels()
            assert channel.bytes <= 100_000
        numbers = await kept(store)
        assert 14 <= len(numbers) <= 18
        assert numbers[-1] == 99


async def test_the_newest_rows_are_kept_however_large_they_are(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(bytes=1_000, total_bytes=1_000)) as store:
        for start in range(3):
            await store.append("a", rows(1, start, size=50_000))
            assert await kept(store) == [start]


@pytest.mark.slow
async def test_of_all_channels_the_largest_one_loses_rows_first(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(total_bytes=200_000)) as store:
        await store.append("quiet", rows(3, size=1_000))
        for start in range(200):
            await store.append("loud", rows(1, start, size=5_000))
            assert store.bytes <= 200_000
        assert await kept(store, "quiet") == [0, 1, 2]
        assert 28 <= len(await kept(store, "loud")) <= 36


@pytest.mark.slow
async def test_the_total_bytes_are_bounded_while_the_largest_channel_has_one_row(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(total_bytes=300_000)) as store:
        await store.append("big", rows(1, size=250_000))
        for start in range(20):
            for channel in "abcdef":
                await store.append(channel, rows(1, start, size=10_000))
                assert store.bytes <= 300_000
                assert (await kept(store, channel))[-1] == start


async def test_rows_of_the_largest_channel_are_kept_while_others_have_older_ones(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(total_bytes=300_000)) as store:
        await store.append("big", rows(1, size=200_000))
        for start in range(20):
            await store.append("small", rows(1, start, size=10_000))
        assert await kept(store, "big") == [0]
        assert store.bytes <= 300_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "memory"])
async def test_the_total_bytes_are_bounded_with_any_number_of_channels(tmp_path, kind):
    directory = tmp_path if kind == "file" else None
    async with SqliteStore(directory, retention=Retention(total_bytes=100_000)) as store:
        for start in range(200):
            await store.append(f"c{start}", rows(1, start, size=2_000))
            assert store.bytes <= 100_000
            assert await kept(store, f"c{start}") == [start]
        found = await store.channels()
        assert sum(each.bytes for each in found) == store.bytes
        assert sum(each.rows for each in found) > 30
        assert {each.last for each in found} == {1}


async def test_rows_that_exceed_the_total_bytes_are_kept_after_a_restart(tmp_path):
    retention = Retention(total_bytes=1_000)
    async with SqliteStore(tmp_path, retention=retention) as store:
        await store.append("a", rows(1, size=50_000))
        await store.append("b", rows(1, size=50_000))
    async with SqliteStore(tmp_path, retention=retention) as store:
        store.retain("a", None)
        await store.write_note("n", "")
        assert await kept(store, "a") == []
        assert await kept(store, "b") == [0]
        await store.append("c", rows(1, 1, size=50_000))
        assert await kept(store, "b") == []
        assert await kept(store, "c") == [1]


async def test_smaller_bounds_apply_to_what_is_stored(tmp_path):
    async with SqliteStore(tmp_path) as store:
        for start in range(0, 5_000, 100):
            await store.append("a", rows(100, start, size=20))
            await store.append("b", rows(100, start, size=20))
        async with SqliteStore(tmp_path, retention=Retention(rows=150)):
            await until(lambda: store.rows_removed == 2 * 4_850)
            assert await kept(store) == list(range(4_850, 5_000))
            store.retain("b", Retention(rows=10))
            await until(lambda: store.rows_removed == 2 * 4_850 + 140)
            assert await kept(store, "b") == list(range(4_990, 5_000))


async def test_a_large_removal_is_done_in_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "STEP", 3)
    async with SqliteStore(tmp_path) as store:
        for start in range(0, 300, 10):
            await store.append("a", rows(10, start, size=1_000))
            await store.append("b", rows(10, start, size=1_000))
        async with SqliteStore(tmp_path, retention=Retention(rows=20)):
            await until(lambda: store.rows_removed == 560)
        assert await store.delete("b")
        assert [each.channel for each in await store.channels()] == ["a"]
        assert await kept(store) == list(range(280, 300))


async def test_old_keys_are_forgotten(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(tables, "KEYS", 3)
    async with SqliteStore(tmp_path) as store:
        for n in range(5):
            await store.append("a", rows(1, n), key=str(n))
        assert (await store.append("a", rows(1), key="4")).repeated
        assert (await store.append("a", rows(1), key="2")).repeated
        assert not (await store.append("a", rows(1), key="0")).repeated
        clock[0] += 86_401
        assert not (await store.append("a", rows(1), key="4")).repeated


async def test_keys_of_a_channel_without_further_rows_are_forgotten(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(tables, "STEP", 7)
    async with SqliteStore(tmp_path) as store:
        for n in range(30):
            await store.append("a", rows(1, n), key=str(n))
        before = store.bytes
        clock[0] += 86_401
        await until(lambda: store.bytes <= before - 30 * tables.KEY_BYTES)
        assert (await store.channels())[0].bytes == store.bytes == before - 30 * tables.KEY_BYTES
        assert await kept(store) == list(range(30))
    database = sqlite3.connect(tmp_path / "rows.sqlite")
    assert database.execute("SELECT count(*) FROM keys").fetchone() == (0,)
    database.close()


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["bytes", "total_bytes"])
async def test_keys_count_as_bytes_and_are_forgotten_with_their_rows(tmp_path, bound):
    async with SqliteStore(tmp_path, retention=Retention(**{bound: 100_000})) as store:
        for n in range(2_000):
            await store.append("ab"[n % 2], rows(1, n, size=20), key=str(n))
        assert sum(each.bytes for each in await store.channels()) == store.bytes
        assert store.bytes <= (200_000 if bound == "bytes" else 100_000)
        known = [await store.append("ab"[n % 2], rows(1), key=str(n)) for n in (1_999, 1_998, 0)]
        assert [each.repeated for each in known] == [True, True, False]
        database = sqlite3.connect(tmp_path / "rows.sqlite")
        (count,) = database.execute("SELECT count(*) FROM keys").fetchone()
        database.close()
        assert 300 < count < 2_000


@pytest.mark.slow
async def test_keys_of_removed_rows_are_known_as_long_as_there_is_space(tmp_path):
    async with SqliteStore(tmp_path, retention=Retention(rows=5, bytes=20_000)) as store:
        for n in range(200):
            await store.append("a", rows(1, n), key=str(n))
        assert (await store.append("a", rows(1), key="0")).repeated
        for n in range(200, 400):
            await store.append("a", rows(1, n), key=str(n))
        assert await kept(store) == list(range(395, 400))
        assert store.bytes <= 20_000
        assert (await store.append("a", rows(1), key="399")).repeated
        assert not (await store.append("a", rows(1), key="0")).repeated


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(60 + 100 * MILLIONS)
async def test_the_files_stay_bounded_while_many_rows_pass(tmp_path):
    limit = 3_000_000
    retention = Retention(rows=10_000, total_bytes=limit)
    async with SqliteStore(tmp_path, retention=retention) as store:
        total = int(MILLIONS * 1_000_000)
        largest = 0
        for start in range(0, total, 1_000):
            await store.append(f"c{start // 1_000 % 5}", rows(1_000, start, size=20))
            largest = max(largest, size_of(tmp_path))
        assert store.bytes <= limit
        assert sum(each.rows for each in await store.channels()) <= 5 * 10_000
        assert store.rows_removed >= total - 50_000
    assert largest < 3 * limit + (16 << 20)  # the write-ahead log, and pages that are free


async def test_space_that_is_free_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "_FREE_PAGES", 16)
    async with SqliteStore(tmp_path) as store:
        for start in range(0, 400, 10):
            await store.append("a", rows(10, start, size=5_000))
        before = size_of(tmp_path)
        await store.delete("a")
        await store.append("b", rows(1))
        other = sqlite3.connect(tmp_path / "rows.sqlite")
        await until(lambda: other.execute("PRAGMA page_count").fetchone()[0] < 100)
        other.close()
    assert size_of(tmp_path) < before / 3
