"""Stores that cannot be used: each error names the path and the cure."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds import ConfigError, UpstreamError
from aiostream_ds.stores import SqliteStore, StoreError, sqlite_file

NOW = 1_790_000_000_000

as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")


def rows(count: int, size: int = 10) -> list[dict[str, Any]]:
    return [{"time": NOW + n, "text": os.urandom(size).hex()} for n in range(count)]


async def opened(directory: Path) -> None:
    async with SqliteStore(directory):
        pass


async def made(directory: Path, count: int = 10) -> Path:
    """The file of a store with some rows."""
    async with SqliteStore(directory) as store:
        for _ in range(count):
            await store.append("a", rows(100, size=50))
    return directory / "rows.sqlite"


async def test_a_file_that_is_not_a_database_is_named(tmp_path):
    path = tmp_path / "rows.sqlite"
    path.write_text("something else" * 100)
    with pytest.raises(ConfigError, match=r"rows\.sqlite is damaged \(file is not a database\)"):
        await opened(tmp_path)
    assert path.read_text() == "something else" * 100


async def test_a_database_of_another_program_is_not_touched(tmp_path):
    path = tmp_path / "rows.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(ConfigError, match="is a database of another program; choose another"):
        await opened(tmp_path)


@pytest.mark.parametrize(("version", "age"), [(99, "a newer"), (-1, "an older")])
async def test_a_file_of_another_version_is_refused(tmp_path, version, age):
    path = await made(tmp_path)
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(ConfigError, match=f"has version {version}, of {age} version of the plugin"):
        await opened(tmp_path)


async def test_a_truncated_file_is_damaged(tmp_path):
    path = await made(tmp_path)
    with path.open("r+b") as file:
        file.truncate(6 << 10)
    with pytest.raises((ConfigError, StoreError), match=r"rows\.sqlite is damaged"):
        async with SqliteStore(tmp_path) as store:
            await store.rows_after("a", 0, 10_000)


async def test_rows_of_a_damaged_block_are_named_and_the_others_are_read(tmp_path):
    path = await made(tmp_path, 3)
    database = sqlite3.connect(path)
    (number,) = database.execute("SELECT id FROM blocks ORDER BY id LIMIT 1 OFFSET 1").fetchone()
    database.execute(
        "UPDATE blocks SET data = substr(data, 1, 50) || x'FF' || substr(data, 52) WHERE id = ?",
        (number,),
    )
    database.execute("UPDATE blocks SET data = CAST(data AS BLOB)")
    database.commit()
    database.close()
    async with SqliteStore(tmp_path) as store:
        found = await store.rows_between("a", 0, 2 * NOW, 10_000)
        assert len(found.rows) == 200
        (notice,) = found.notices
        assert notice.text == "Rows 101 to 200 are damaged in the store, and are missing."
        assert len((await store.rows_after("a", 0, 10_000)).rows) == 200


@as_root
async def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        await opened(tmp_path / "rows")
    tmp_path.chmod(0o700)


async def test_a_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the directory .*/file of the rows cannot be written"):
        await opened(tmp_path / "file")


async def test_a_path_that_is_a_directory_is_named(tmp_path):
    (tmp_path / "rows.sqlite").mkdir()
    with pytest.raises(ConfigError, match=r"rows\.sqlite cannot be written \(unable to open"):
        await opened(tmp_path)


OTHER = """
import asyncio, sys
from aiostream_ds.stores import SqliteStore
async def main():
    async with SqliteStore(sys.argv[1]):
        print("ready", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_directory_is_open_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "LOCK_WAIT", 0.1)
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(UpstreamError, match=rf"another process \(id {other.pid}\)"):
            await opened(tmp_path)
        other.kill()
    await opened(tmp_path)


async def test_a_database_that_another_program_has_locked_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.1)
    path = await made(tmp_path, 1)
    async with SqliteStore(tmp_path) as store:
        database = sqlite3.connect(path)
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another program"):
            await store.append("a", rows(1))
        database.close()
        assert await store.append("a", rows(1)) == (101, 101, False)


@pytest.mark.parametrize("damage", ["removed", "replaced"])
async def test_a_file_that_is_removed_while_it_is_open_is_an_error(tmp_path, damage, monkeypatch):
    monkeypatch.setattr("aiostream_ds.stores.sqlite_writer._FILE_INTERVAL", 0.0)
    path = await made(tmp_path, 1)
    async with SqliteStore(tmp_path) as store:
        await store.append("a", rows(1))
        path.unlink()
        if damage == "replaced":
            path.write_bytes(b"")
        with pytest.raises(StoreError, match="was removed or replaced while it was open"):
            await store.append("a", rows(1))


FULL = """
import asyncio, os, resource, sys
from aiostream_ds.stores import SqliteStore, StoreError
async def main():
    async with SqliteStore(sys.argv[1]) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
        stored = 0
        try:
            while True:
                row = {"time": stored, "text": os.urandom(20_000).hex()}
                stored = (await store.append("a", [row])).last
        except StoreError as error:
            print(stored, error, flush=True)
        try:
            await store.append("a", [row])
        except StoreError:
            pass
        found = await store.rows_after("a", 0, 10_000)
        assert [row["cursor"] for row in found.rows] == list(range(1, found.last + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        result = await store.append("a", [row])
        print(result.last, flush=True)
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_full_disk_is_an_error_and_the_store_goes_on_when_there_is_space(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    stored = int(first.split()[0])
    assert "rows.sqlite: the disk is full, or the file may not become larger" in first
    assert stored > 10
    assert int(second) >= stored + 1
    async with SqliteStore(tmp_path) as store:
        found = await store.rows_after("a", 0, 10_000)
        assert [row["cursor"] for row in found.rows] == list(range(1, int(second) + 1))


FULL_AND_OPENED = """
import asyncio, os, resource, sys
from aiostream_ds.stores import Retention, SqliteStore, StoreError
async def main():
    row = {"time": 1, "text": os.urandom(20_000).hex()}
    limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    async with SqliteStore(sys.argv[1]) as store:
        await store.append("a", [row])
        limit(2 << 20)
        try:
            while True:
                stored = (await store.append("a", [row])).last
        except StoreError:
            pass
        limit(os.path.getsize(sys.argv[1] + "/rows.sqlite"))
    async with SqliteStore(sys.argv[1], retention=Retention(rows=5)) as store:
        for _ in range(3):
            try:
                await store.append("a", [row])
                print("no error")
            except StoreError as error:
                print(error)
        found = await store.rows_after("a", 0, 10_000)
        assert found.last == stored
        assert store.rows_removed == stored - len(found.rows)
        limit(resource.RLIM_INFINITY)
        await store.append("a", [row])
        found = await store.rows_after("a", 0, 10_000)
        assert len(found.rows) == 5
        assert store.rows_removed == stored + 1 - 5
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_store_on_a_full_disk_can_be_opened_and_read_and_counts_what_is_removed(tmp_path):
    command = [sys.executable, "-c", FULL_AND_OPENED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("free 32 MB on the disk: removing rows needs some space, too") == 3


def test_after_a_crash_of_the_system_no_cursor_is_used_again(tmp_path, monkeypatch):
    import asyncio

    async def crash() -> None:
        """Leave a copy of the open file, as after a crash of the system that lost nothing."""
        async with SqliteStore(tmp_path / "a") as store:
            await store.append("a", rows(10))
            await store.append("empty", rows(1))
            shutil.copytree(tmp_path / "a", tmp_path / "b")

    async def after() -> None:
        async with SqliteStore(tmp_path / "b") as store:
            first = (await store.append("a", rows(1))).first
            assert first == 11 + sqlite_file.CURSOR_JUMP
            found = await store.rows_after("a", 9, 10)
            assert [row["cursor"] for row in found.rows] == [10, first]
            found = await store.rows_between("a", 0, 2 * NOW, 100)
            assert len(found.rows) == 11
            assert (await store.channels())[0].rows == 11

    asyncio.run(crash())
    monkeypatch.setattr(sqlite_file, "_boot", lambda: "another")
    asyncio.run(after())


async def copied_main_file(source: Path, target: Path) -> None:
    """The files after a power cut that lost the write-ahead log as a whole."""
    target.mkdir()
    shutil.copy(source / "rows.sqlite", target)


async def test_without_the_write_ahead_log_no_cursor_is_used_again(tmp_path, monkeypatch):
    async with SqliteStore(tmp_path / "a") as store:
        await store.append("old", rows(10))
    async with SqliteStore(tmp_path / "a") as store:
        seen = {(await store.newest("old")).epoch: 15}
        await store.append("old", rows(5))
        await store.append("new", rows(7))
        seen_new = await store.newest("new")
        await copied_main_file(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(sqlite_file, "_boot", lambda: "another")
    for _ in range(2):  # the second crash loses what was stored after the first one
        async with SqliteStore(tmp_path / "b") as store:
            first = (await store.append("old", rows(5))).first
            epoch, last = await store.newest("old")
            assert first > seen[epoch]
            seen[epoch] = last
            await store.append("new", rows(3))
            assert (await store.newest("new")).epoch != seen_new.epoch
            seen_new = await store.newest("new")
            shutil.rmtree(tmp_path / "c", ignore_errors=True)
            await copied_main_file(tmp_path / "b", tmp_path / "c")
        shutil.rmtree(tmp_path / "b")
        shutil.copytree(tmp_path / "c", tmp_path / "b")
        monkeypatch.setattr(sqlite_file, "_boot", lambda: "a third")


async def test_a_new_file_whose_write_ahead_log_is_lost_has_another_epoch(tmp_path, monkeypatch):
    async with SqliteStore(tmp_path / "a") as store:
        await store.append("new", rows(7))
        seen = await store.newest("new")
        await copied_main_file(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(sqlite_file, "_boot", lambda: "another")
    async with SqliteStore(tmp_path / "b") as store:
        await store.append("new", rows(3))
        assert (await store.newest("new")).epoch != seen.epoch


async def test_after_a_lost_deletion_no_cursor_is_used_again(tmp_path, monkeypatch):
    async with SqliteStore(tmp_path / "a") as store:
        await store.append("x", rows(10))
    async with SqliteStore(tmp_path / "a") as store:
        await store.delete("x")
        await store.append("x", rows(20))
        seen = await store.newest("x")
        await copied_main_file(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(sqlite_file, "_boot", lambda: "another")
    async with SqliteStore(tmp_path / "b") as store:
        assert (await store.rows_after("x", 0, 100)).rows[-1]["cursor"] == 10
        for _ in range(2):
            await store.append("x", rows(1))
            assert (await store.newest("x")).epoch != seen.epoch
            await store.delete("x")


@pytest.mark.parametrize(("sync", "value"), [("normal", 1), ("full", 2)])
def test_commits_of_an_open_file_wait_as_sync_demands(tmp_path, sync, value):
    file = sqlite_file.open_file(tmp_path / "rows.sqlite", sync)
    assert file.writer.execute("PRAGMA synchronous").fetchone() == (value,)
    file.close()


async def test_after_a_crash_of_the_process_cursors_go_on(tmp_path):
    async with SqliteStore(tmp_path / "a") as store:
        await store.append("a", rows(10))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with SqliteStore(tmp_path / "b") as store:
        assert (await store.append("a", rows(1))).first == 11
