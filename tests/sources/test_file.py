"""The source `file`: every complete line once and in order, from any offset, through rotations."""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiostream_ds import (
    ConfigError,
    Cursor,
    HistoryRange,
    NotFound,
    PermissionDenied,
    Status,
    UpstreamError,
)
from aiostream_ds._thread_limits import AUTHOR_THREADS
from aiostream_ds.sources.file import file_source as file
from aiostream_ds.sources.file import log_file as logfile
from aiostream_ds.sources.file import range_reader
from aiostream_ds.sources.file.file_source import File, FileSettings
from aiostream_ds.sources.file.follow import FileFollower
from aiostream_ds.sources.file.log_file import LogFile
from aiostream_ds.testing import create_instance, serve_in_memory

START = 1_700_000_000_000
WIDE = {"start": datetime(2000, 1, 1, tzinfo=UTC), "end": datetime(2100, 1, 1, tzinfo=UTC)}
WIDEST = {"start": datetime.min.replace(tzinfo=UTC), "end": datetime.max.replace(tzinfo=UTC)}


@asynccontextmanager
async def opened(directory, **more) -> AsyncIterator[File]:
    source = create_instance(File, FileSettings(directory=str(directory), **more))
    async with source.lifespan():
        yield source


def line(n, **more):
    return json.dumps({"time": START + n, "n": n, **more}) + "\n"


def lines(*numbers):
    return "".join(map(line, numbers))


def span(first=None, last=None, limit=1000):
    def moment(n, default):
        return default if n is None else datetime.fromtimestamp((START + n) / 1000, UTC)

    return HistoryRange(
        start=moment(first, WIDEST["start"]), end=moment(last, WIDEST["end"]), limit=limit
    )


def after_offset(after, upto=None, limit=1000):
    return HistoryRange(**WIDEST, limit=limit, after=after, upto=upto)


def numbers(rows):
    return [row["n"] for row in rows]


class Rows:
    """A run's rows and cursors, one at a time."""

    def __init__(self, rows):
        self.rows = rows
        self.left = []
        self.statuses = []

    async def next(self):
        while not self.left:
            found = await anext(self.rows)
            if isinstance(found, Status):
                self.statuses.append(found)
                continue
            self.left = list(found) if isinstance(found, list) else [found]
        return self.left.pop(0)

    async def numbers(self, count):
        return [(await self.next())["n"] for _ in range(count)]


@asynccontextmanager
async def running(source, name, after=None):
    async with aclosing(source.rows(after, name)) as rows:
        yield Rows(rows)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(file, "POLL", 0.001)


# -- following -------------------------------------------------------------------------------------


async def test_rows_have_time_offset_and_the_lines_own_keys(tmp_path):
    text = line(1, name="a", on=True, nothing=None, deep={"x": [1]})
    (tmp_path / "a.ndjson").write_text(text)
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        begins = await rows.next()
        row = await rows.next()
    assert begins == Cursor(begins.epoch, 0) and begins.epoch
    assert row == {
        "time": START + 1,
        "offset": len(text),
        "n": 1.0,
        "name": "a",
        "on": True,
        "nothing": None,
        "deep": {"x": [1]},
    }
    assert list(row)[:2] == ["time", "offset"]
    assert type(row["n"]) is float


async def test_a_line_is_a_row_once_it_has_its_newline(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1) + line(2)[:9])
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        await rows.next()
        assert await rows.numbers(1) == [1]
        assert numbers((await source.rows_history(span(), "a.ndjson")).rows) == [1]
        with path.open("a") as out:
            out.write(line(2)[9:])
        assert await rows.numbers(1) == [2]


async def test_a_run_continues_after_its_cursor(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2, 3, 4))
    async with opened(tmp_path) as source:
        page = await source.rows_history(span(last=2), "a.ndjson")
        after = Cursor(page.epoch, page.rows[-1]["offset"])
        async with running(source, "a.ndjson", after) as rows:
            assert await rows.numbers(2) == [3, 4]


async def test_a_run_with_a_cursor_of_another_epoch_starts_at_the_beginning(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2))
    async with opened(tmp_path) as source:
        async with running(source, "a.ndjson", Cursor("older", 9)) as rows:
            begins = await rows.next()
            assert begins == Cursor((await source.rows_history(span(), "a.ndjson")).epoch, 0)
            assert await rows.numbers(2) == [1, 2]


async def test_a_run_waits_for_a_file_that_does_not_exist(tmp_path):
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        follower = FileFollower(str(tmp_path / "a"), lambda: source._open("a", "ndjson"), None, {})
        assert not follower.read().rows
        (tmp_path / "a.ndjson").write_text(lines(1))
        await rows.next()
        assert await rows.numbers(1) == [1]


async def test_two_runs_of_a_file_are_independent(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2))
    async with (
        opened(tmp_path) as source,
        running(source, "a.ndjson") as one,
        running(source, "a.ndjson") as two,
    ):
        assert await one.next() == await two.next()
        assert await one.numbers(2) == await two.numbers(2) == [1, 2]
        with path.open("a") as out:
            out.write(lines(3))
        assert await one.numbers(1) == await two.numbers(1) == [3]


# -- rotation, truncation, replacement -------------------------------------------------------------


async def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(tmp_path):
    path, old = tmp_path / "a.ndjson", tmp_path / "a.ndjson.1"
    path.write_text(lines(1, 2))
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        first = await rows.next()
        assert await rows.numbers(2) == [1, 2]
        writer = path.open("a")
        path.rename(old)
        path.touch()
        writer.write(lines(3))  # a writer that has not opened the new file yet
        writer.flush()
        assert await rows.numbers(1) == [3]
        writer.write(lines(4))
        writer.close()
        path.write_text(lines(5))
        assert await rows.numbers(1) == [4]
        second = await rows.next()
        assert second.value == 0 and second.epoch != first.epoch
        assert await rows.numbers(1) == [5]
        page = await source.rows_history(span(), "a.ndjson")
        assert page.epoch == second.epoch
        assert numbers(page.rows) == [1, 2, 3, 4, 5]
        assert [row["offset"] for row in page.rows] == [0] * 4 + [page.last]


async def test_a_history_reads_as_many_rotated_files_as_it_needs(tmp_path):
    for name, text in {"a.csv.2": "1,2", "a.csv.1": "3,4", "a.csv": "5,6"}.items():
        rows = "".join(f"{START + int(n)},{n}\n" for n in text.split(","))
        (tmp_path / name).write_text("time,n\n" + rows)
    async with opened(tmp_path) as source:
        assert numbers((await source.rows_history(span(), "a.csv")).rows) == [1, 2, 3, 4, 5, 6]
        assert numbers((await source.rows_history(span(limit=3), "a.csv")).rows) == [4, 5, 6]
        assert numbers((await source.rows_history(span(2, 3), "a.csv")).rows) == [2, 3]
        assert numbers((await source.rows_history(span(1, 1), "a.csv")).rows) == [1]
        assert numbers((await source.rows_history(after_offset(0), "a.csv")).rows) == [5, 6]
        (tmp_path / "a.csv").unlink()
        page = await source.rows_history(span(4), "a.csv")
        assert (numbers(page.rows), page.epoch, page.last) == ([4], "", 0)


async def test_a_file_that_is_renamed_during_a_history_is_read_once(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2))
    (tmp_path / "a.ndjson.1").hardlink_to(tmp_path / "a.ndjson")
    (tmp_path / "a.ndjson.2").write_text(lines(0))
    async with opened(tmp_path) as source:
        assert numbers((await source.rows_history(span(), "a.ndjson")).rows) == [0, 1, 2]


@pytest.mark.parametrize("longer", [False, True])
async def test_a_truncated_file_has_a_new_epoch(tmp_path, longer):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2, 3))
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        first = await rows.next()
        assert await rows.numbers(3) == [1, 2, 3]
        with path.open("r+") as out:
            out.truncate()
            out.write(lines(*range(4, 20 if longer else 6)))
        second = await rows.next()
        assert second.value == 0 and second.epoch != first.epoch
        assert await rows.numbers(2) == [4, 5]


async def test_a_file_truncated_to_its_own_beginning_has_a_new_epoch(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2, 3))
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        first = await rows.next()
        assert await rows.numbers(3) == [1, 2, 3]
        os.truncate(path, len(lines(1)))
        second = await rows.next()
        assert second.epoch != first.epoch
        assert await rows.numbers(1) == [1]
        assert (await source.rows_history(span(), "a.ndjson")).epoch == second.epoch


async def test_a_longer_copy_that_replaces_the_file_has_the_same_epoch(tmp_path):
    path, copy = tmp_path / "a.ndjson", tmp_path / "copy"
    path.write_text(lines(1, 2))
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        await rows.next()
        assert await rows.numbers(2) == [1, 2]
        copy.write_text(lines(1, 2, 3))
        copy.rename(path)
        assert await rows.numbers(1) == [3]


async def test_the_epoch_is_equal_on_every_machine_that_reads_the_file(tmp_path):
    text = lines(1, 2)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here/a.ndjson").write_text(text)
    (tmp_path / "there/a.ndjson").write_text(text + lines(3))
    async with opened(tmp_path / "here") as here, opened(tmp_path / "there") as there:
        one, two = (
            await here.rows_history(span(), "a.ndjson"),
            await there.rows_history(span(), "a.ndjson"),
        )
    assert one.epoch == two.epoch
    assert two.rows[:2] == one.rows


async def test_files_with_equal_headers_have_different_epochs(tmp_path):
    (tmp_path / "a.csv").write_text(f"time,n\n{START},1\n")
    (tmp_path / "b.csv").write_text(f"time,n\n{START + 1},1\n")
    (tmp_path / "a.ndjson").write_text('{"version": 1}\n' + lines(1))
    (tmp_path / "b.ndjson").write_text('{"version": 1}\n' + lines(2))
    async with opened(tmp_path) as source:
        epochs = {
            (await source.rows_history(span(), name)).epoch
            for name in ("a.csv", "b.csv", "a.ndjson", "b.ndjson")
        }
    assert len(epochs) == 4


async def test_a_rotation_to_another_header_brings_its_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"time,n\n{START},1\n")
    async with opened(tmp_path) as source, running(source, "a.csv") as rows:
        await rows.next()
        assert (await rows.next())["n"] == 1
        path.rename(tmp_path / "a.csv.1")
        path.write_text(f"n,unit,time\n2,C,{START + 1}\n")
        await rows.next()
        assert list((await rows.next()).items())[2:] == [("n", 2.0), ("unit", "C")]


@pytest.fixture
def follower(tmp_path):
    """A follower of `a`, which has read its rows 1 and 2."""
    path = tmp_path / "a"
    path.write_text(lines(1, 2))

    def open_log():
        return LogFile(str(path), FileSettings(directory="."), format="ndjson", max_line=1000)

    with contextlib.closing(FileFollower(str(path), open_log, None, {})) as follower:
        assert follower.read().begins.value == 0
        assert numbers(follower.read().rows) == [1, 2]
        yield follower


def test_a_new_file_is_read_once_it_has_a_row_and_the_old_one_is_read_to_its_end(
    tmp_path, follower
):
    path = tmp_path / "a"
    with path.open("a", buffering=1) as writer:
        path.rename(tmp_path / "a.1")
        path.touch()
        assert not follower.read().more
        writer.write(lines(3))
        assert numbers(follower.read().rows) == [3]
        path.write_text(lines(5))
        assert follower.read().more  # it has seen the new row and reads the old file again
        writer.write(lines(4))
    assert numbers(follower.read().rows) == [4]
    assert follower.read().begins is not None
    assert numbers(follower.read().rows) == [5]


def test_a_truncated_file_has_a_new_epoch_even_if_it_has_grown_since(tmp_path, follower):
    path = tmp_path / "a"
    os.truncate(path, len(lines(1)))
    assert follower.read().more
    path.write_text(lines(1, 7, 8))
    assert follower.read().begins.epoch.endswith("~1")
    assert numbers(follower.read().rows) == [1, 7, 8]


@pytest.mark.parametrize("cursor", [1000, 5])
def test_a_cursor_that_is_not_in_the_file_starts_a_new_epoch(tmp_path, follower, cursor):
    epoch = follower._forward.start.epoch
    other = FileFollower(follower._path, follower._open_log, Cursor(epoch, cursor), {})
    with contextlib.closing(other):
        assert other.read().begins == Cursor(epoch + "~1", 0)
        assert numbers(other.read().rows) == [1, 2]


# -- bad lines -------------------------------------------------------------------------------------


async def test_a_bad_line_is_skipped_counted_and_logged_once(tmp_path, caplog):
    bad = ["no json\n", "[1]\n", '{"n": 3}\n', '{"time": true}\n', line(9, pad="x" * 2000)]
    (tmp_path / "a.ndjson").write_text(line(1) + "".join(bad) + "\n" + line(2))
    async with opened(tmp_path, max_line=1000) as source:
        async with running(source, "a.ndjson") as rows:
            await rows.next()
            assert await rows.numbers(2) == [1, 2]
        health = await source.health()
        assert numbers((await source.rows_history(span(), "a.ndjson")).rows) == [1, 2]
    assert health.details["lines_skipped"] == {"a.ndjson": 5}
    (message,) = [r.getMessage() for r in caplog.records if r.name == file.__name__]
    assert f"a.ndjson: skipped a line at offset {len(line(1) + bad[0])}: invalid JSON" in message


async def test_a_line_that_is_too_long_is_skipped(tmp_path):
    path = tmp_path / "a.ndjson"
    with path.open("w") as out:
        out.write(line(1))
        for _ in range(8):
            out.write("x" * 200_000)
        out.write("\n" + line(2))
    async with opened(tmp_path, max_line=1000) as source:
        async with running(source, "a.ndjson") as rows:
            await rows.next()
            assert await rows.numbers(2) == [1, 2]
            with path.open("a") as out:
                out.write(lines(3))
            assert await rows.numbers(1) == [3]
        assert source._lines_skipped["a.ndjson"] == 1
        assert numbers((await source.rows_history(span(), "a.ndjson")).rows) == [1, 2, 3]
        assert numbers(
            (await source.rows_history(after_offset(len(line(1))), "a.ndjson")).rows
        ) == [2, 3]


async def test_a_line_without_a_newline_before_a_rotation_is_counted(tmp_path, caplog):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1) + "{")
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        await rows.next()
        assert await rows.numbers(1) == [1]
        path.rename(tmp_path / "a.ndjson.1")
        path.write_text(lines(2))
        await rows.next()
        assert await rows.numbers(1) == [2]
        assert source._lines_skipped["a.ndjson"] == 1
    assert f"at offset {len(lines(1)) + 1}: no newline at the end" in caplog.text


async def test_a_csv_header_that_is_too_long_is_an_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x" * logfile.HEAD)
    async with opened(tmp_path) as source:
        with pytest.raises(UpstreamError, match=r"'a.csv': the CSV header must have at most"):
            await source.rows_history(span(), "a.csv")
        async with running(source, "a.csv") as rows:
            with pytest.raises(UpstreamError, match=r"'a.csv': the CSV header must have at most"):
                await rows.next()
        path.write_text(f"time,n\n{START},1\n")
        async with running(source, "a.csv") as rows:
            await rows.next()
            await rows.next()
            (tmp_path / "other").write_text("x" * logfile.HEAD)
            (tmp_path / "other").rename(path)
            with pytest.raises(UpstreamError, match=r"'a.csv': the CSV header must have at most"):
                await rows.next()


@pytest.mark.slow
async def test_a_file_of_only_bad_lines_has_an_epoch(tmp_path):
    (tmp_path / "a.ndjson").write_text("no row of it\n" * 6_000)
    async with opened(tmp_path) as source:
        page = await source.rows_history(span(), "a.ndjson")
        assert page.rows == [] and page.epoch and page.last == 13 * 6_000
        async with running(source, "a.ndjson") as rows:
            assert (await rows.next()).epoch == page.epoch
            with (tmp_path / "a.ndjson").open("a") as out:
                out.write(lines(1))
            assert await rows.numbers(1) == [1]
            assert source._lines_skipped["a.ndjson"] == 6_000


def test_only_regular_files_are_opened_and_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UpstreamError, match="expected a regular file"):
        LogFile(str(tmp_path / "pipe"), FileSettings(directory="."), format="ndjson", max_line=1000)


async def test_invalid_utf8_is_replaced_and_counted(tmp_path):
    start = lines(1).encode()
    (tmp_path / "a.ndjson").write_bytes(
        start + b'{"time": %d, "n": 2, "s": "a\xff"}\n' % (START + 2)
    )
    (tmp_path / "a.csv").write_bytes(b"time,n,s\n%d,1,b\n%d,2,a\xff\n" % (START + 1, START + 2))
    async with opened(tmp_path) as source:
        for name in ("a.ndjson", "a.csv"):
            async with running(source, name) as rows:
                await rows.next()
                await rows.next()
                assert (await rows.next())["s"] == "a�"
        details = (await source.health()).details
        assert details["lines_not_utf8"] == {"a.ndjson": 1, "a.csv": 1}


async def test_lines_before_the_first_row_are_reported_once(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("time,n\nsoon,1\n")
    async with opened(tmp_path) as source, running(source, "a.csv") as rows:
        waiting = asyncio.ensure_future(rows.next())
        while not source._lines_skipped["a.csv"]:
            await asyncio.sleep(0.001)
        with path.open("a") as out:
            out.write(f"later,2\n{START},3\n")
        await waiting
        assert await rows.numbers(1) == [3]
        assert source._lines_skipped == {"a.csv": 2}
    assert "at offset 14: the time must be ISO 8601 or a number, got 'soon'" in caplog.text
    assert "later" not in caplog.text


# -- history ---------------------------------------------------------------------------------------


async def test_a_time_range_gives_the_newest_rows_and_the_offset_read(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(*range(10)))
    async with opened(tmp_path) as source:
        page = await source.rows_history(span(2, 6, limit=3), "a.ndjson")
        assert numbers(page.rows) == [4, 5, 6]
        assert page.last == page.rows[-1]["offset"] == len(lines(*range(7)))
        page = await source.rows_history(span(8), "a.ndjson")
        assert numbers(page.rows) == [8, 9] and page.last == len(lines(*range(10)))
        page = await source.rows_history(span(limit=1), "a.ndjson")
        assert numbers(page.rows) == [9]
        assert (await source.rows_history(span(50), "a.ndjson")).rows == []


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_rows_after_an_offset_are_the_oldest_ones(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("a") / "a.ndjson"
    path.write_text(lines(*range(10)) + "{}\n" + line(11)[:-1])
    log = LogFile(str(path), FileSettings(directory="."), format="ndjson", max_line=1000)
    with log:
        start = log.start()
        everything, end = logfile.oldest_rows(log, start, 0, None, 100)
        assert end == path.stat().st_size - len(line(11)) + 1
        after = data.draw(st.integers(0, log.size()))
        upto = data.draw(st.none() | st.integers(0, log.size()))
        limit = data.draw(st.integers(1, 12))
        rows, last = logfile.oldest_rows(log, start, after, upto, limit)
        expected = [
            row
            for row in everything
            if row["offset"] > after and (upto is None or row["offset"] <= upto)
        ]
        assert rows == expected[:limit]
        assert not rows or last >= rows[-1]["offset"]
        assert not any(row["offset"] <= last for row in expected[limit:])


async def test_rows_beyond_the_end_of_a_file_do_not_exist_yet(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2))
    async with opened(tmp_path) as source:
        page = await source.rows_history(after_offset(len(lines(1, 2, 3))), "a.ndjson")
        assert not page.truncated and page.rows == [] and page.last is None
        page = await source.rows_history(after_offset(len(lines(1, 2))), "a.ndjson")
        assert not page.truncated and page.rows == [] and page.last == len(lines(1, 2))
        path.write_text(lines(1, 2, 3, 4))
        page = await source.rows_history(after_offset(len(lines(1, 2, 3))), "a.ndjson")
        assert [row["n"] for row in page.rows] == [4]


async def test_rows_beyond_the_end_of_a_file_that_was_longer_are_truncated(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2, 3))
    async with opened(tmp_path) as source:
        await source.rows_history(after_offset(0), "a.ndjson")
        path.write_text(lines(1, 2))
        page = await source.rows_history(after_offset(len(lines(1, 2, 3))), "a.ndjson")
        assert page.truncated and page.rows == []


async def test_a_file_that_is_truncated_during_a_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2))
    contents = [lines(3), lines(4)]
    newest_rows = range_reader.newest_rows

    def emptied(*args):
        found = newest_rows(*args)
        if contents:
            path.write_text(contents.pop(0))
        return found

    monkeypatch.setattr(range_reader, "newest_rows", emptied)
    async with opened(tmp_path) as source:
        page = await source.rows_history(span(), "a.ndjson")
        assert numbers(page.rows) == [4]
        monkeypatch.undo()
        assert (await source.rows_history(span(), "a.ndjson")) == page


async def test_a_file_without_a_row_is_an_empty_page(tmp_path):
    for name, text in {"a.csv": "time,n\n", "b.ndjson": "", "c.csv": "time"}.items():
        (tmp_path / name).write_text(text)
        async with opened(tmp_path) as source:
            for wanted in (span(), after_offset(0)):
                page = await source.rows_history(wanted, name)
                assert (page.rows, page.epoch, page.truncated) == ([], "", False)


@pytest.mark.slow
async def test_a_time_range_reads_a_small_part_of_a_large_file(tmp_path, monkeypatch):
    count = 60_000
    path = tmp_path / "a.ndjson"
    path.write_text("".join(line(n, text="x" * 60) for n in range(count)))
    assert path.stat().st_size > 5_000_000
    read = 0
    pread = os.pread

    def counted(*args):
        nonlocal read
        data = pread(*args)
        read += len(data)
        return data

    monkeypatch.setattr(logfile.os, "pread", counted)
    async with opened(tmp_path) as source:
        page = await source.rows_history(span(limit=1), "a.ndjson")
        assert numbers(page.rows) == [count - 1]
        assert read < 500_000
        read = 0
        page = await source.rows_history(span(20_000, 20_099), "a.ndjson")
        assert numbers(page.rows) == list(range(20_000, 20_100))
        assert read < 3_000_000


@given(
    st.lists(st.integers(0, 100), max_size=30),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(1, 30),
)
@settings(max_examples=50, deadline=None)
def test_a_time_range_of_unordered_rows_has_all_its_rows(
    tmp_path_factory, times, first, last, limit
):
    path = tmp_path_factory.mktemp("a") / "a.ndjson"
    path.write_text(lines(*times))
    with LogFile(str(path), FileSettings(directory="."), format="ndjson", max_line=1000) as log:
        start = log.start()
        if start is None:
            assert not times
            return
        rows, _ = logfile.newest_rows(log, start, START + first, START + last, limit)
    assert numbers(rows) == [n for n in times if first <= n <= last][-limit:]


async def test_a_late_row_does_not_hide_earlier_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "BLOCK", 100)
    (tmp_path / "a.ndjson").write_text(lines(*range(10, 20), 2, *range(20, 30)))
    async with opened(tmp_path) as source:
        assert numbers((await source.rows_history(span(10), "a.ndjson")).rows) == list(
            range(10, 30)
        )


# -- the property ----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12)


@pytest.mark.slow
@given(
    st.lists(TEXTS, min_size=1, max_size=12),
    st.lists(st.integers(0, 1_000), max_size=12),
    st.integers(0, 12),
    st.sampled_from([8, 40, 1 << 17]),
)
@settings(max_examples=60, deadline=None)
def test_every_complete_line_is_read_once_and_in_order_for_any_split_of_writes(
    tmp_path_factory, texts, cuts, skip, chunk
):
    """Also for splits inside a multi-byte character, and from the end of any line."""
    path = str(tmp_path_factory.mktemp("a") / "a")
    encoded = [
        json.dumps({"time": START, "n": n, "text": text}, ensure_ascii=False).encode() + b"\n"
        for n, text in enumerate(texts)
    ]
    everything = b"".join(encoded)
    places = sorted({0, len(everything), *(c % (len(everything) + 1) for c in cuts)})
    skip = min(skip, len(texts))
    epoch = ""
    rows = []

    def open_log():
        return LogFile(path, FileSettings(directory="."), format="ndjson", max_line=10_000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "CHUNK", chunk)
        with open(path, "wb", buffering=0) as out:
            out.write(encoded[0])
            with open_log() as log:
                epoch = log.start().epoch
            out.seek(0)
            out.truncate()
            after = Cursor(epoch, sum(map(len, encoded[:skip])))
            out.write(everything[: after.value])
            follower = FileFollower(path, open_log, after if skip else None, {})
            for begin, end in zip(places, places[1:], strict=False):
                out.write(everything[max(begin, after.value) : max(end, after.value)])
                while True:
                    batch = follower.read()
                    assert not batch.skipped
                    rows += batch.rows
                    if not batch.more:
                        break
            follower.close()
    expected = texts[skip:] if skip else texts
    assert [row["text"] for row in rows] == expected
    assert [row["offset"] for row in rows] == [
        sum(map(len, encoded[: n + 1])) for n in range(len(texts) - len(expected), len(texts))
    ]


# -- reports of what cannot be read ----------------------------------------------------------------

OTHERS = ["offline", True, {"deep": 1}, [1], "12"]


@pytest.mark.parametrize("other", OTHERS)
async def test_a_value_of_another_type_is_left_out_and_all_rows_are_read(tmp_path, other):
    path = tmp_path / "a.ndjson"
    path.write_text(line(1, v=1) + line(2, v=other) + line(3, v=2.5))
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        (frame,) = await grafana.query({"queryType": "rows", "file": "a.ndjson"}, **WIDE)
        viewer = await grafana.follow("x/rows/a.ndjson", frame=frame)
        await viewer.message()  # the initial data of the subscription
        await viewer.message()  # the cursor at the start of the run
        with path.open("a") as out:
            out.write(line(4, v=other) + line(5, v=3))
        rows = await viewer.take(2)
        metrics = await grafana.metrics()
    assert list(frame.fields[-1].values) == [1, None, 2.5]
    (notice,) = frame.meta.notices
    assert notice.severity == "warning" and "1 values or rows are left out" in notice.text
    assert [row["v"] for row in rows] == [None, 3]
    assert metrics['aiostream_ds_dropped_total{reason="conflict"}'] == 1


async def test_a_value_that_does_not_have_its_columns_fixed_type_is_counted(tmp_path):
    (tmp_path / "a.ndjson").write_text(line(1, v=1) + line(2, v="off") + line(3) + line(4, v=""))
    (tmp_path / "a.csv").write_text(f"time,v\n{START},1\n{START},off\n{START},\n{START},NaN\n")
    async with opened(tmp_path, columns={"v": "number"}) as source:
        for name in ("a.ndjson", "a.csv"):
            async with running(source, name) as rows:
                await rows.next()
                assert [(await rows.next())["v"] for _ in range(4)] == [1, None, None, None]
        details = (await source.health()).details
    assert details["values_left_out"] == {"a.ndjson": 1, "a.csv": 1}


NO_ROWS = {
    "a.csv": "moment,n\n2026-11-28T10:00:00,1\n",
    "b.csv": "time,n\nyesterday,1\nyesterday,2\n",
    "c.ndjson": '{"n": 1}\n',
    "d.ndjson": "no json\n" * 20_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_ROWS)
async def test_a_file_whose_lines_are_not_rows_is_reported_by_health_query_and_status(
    tmp_path, name
):
    path = tmp_path / name
    path.write_text(NO_ROWS[name])
    async with opened(tmp_path) as source:
        health = await source.health()
        page = await source.rows_history(span(), name)
        async with aclosing(source.rows(Cursor("", -1), name)) as found:
            while not isinstance(status := await anext(found), Status):
                assert isinstance(status, Cursor)
        assert status.severity == "warning" and status.text.startswith("no rows: ")
    assert not health.ok and f"1 have lines but no row: {name}: " in health.message
    (notice,) = page.notices
    assert not page.rows and f"lines of {name} are not rows" in notice.text
    (tmp_path / "good.ndjson").write_text(lines(1))
    async with opened(tmp_path) as source:
        health = await source.health()
        assert health.ok and name in health.message
        page = await source.rows_history(span(), "good.ndjson")
        assert not page.notices


async def test_a_history_reports_how_many_lines_of_its_range_are_not_rows(tmp_path):
    bad = "oops\n"
    (tmp_path / "a.ndjson").write_text(lines(1) + bad + lines(2) + bad + lines(3))
    async with opened(tmp_path) as source:
        (notice,) = (await source.rows_history(span(), "a.ndjson")).notices
    assert notice.text == (
        f"2 lines of a.ndjson are not rows; the first ends at offset {len(lines(1) + bad)}:"
        " invalid JSON at character 1: expected a value, got 'oops'"
    )


async def test_the_status_ends_with_the_first_row(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text("oops\n")
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        waiting = asyncio.ensure_future(rows.next())
        while not rows.statuses:
            await asyncio.sleep(0.001)
        with path.open("a") as out:
            out.write(lines(1) + "oops\n" + lines(2))
        await waiting
        assert await rows.numbers(2) == [1, 2]
        assert [status.text for status in rows.statuses] == [
            "no rows: the line up to offset 5:"
            " invalid JSON at character 1: expected a value, got 'oops'",
            "",
        ]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
async def test_a_file_in_utf_16_is_refused_with_its_encoding(tmp_path, codec):
    (tmp_path / "a.csv").write_bytes(f"time,n\n{START},1\n".encode(codec))
    async with opened(tmp_path) as source:
        with pytest.raises(UpstreamError, match="expected UTF-8, got UTF-16; convert the file"):
            await source.rows_history(span(), "a.csv")
        async with aclosing(source.rows(Cursor("", -1), "a.csv")) as rows:
            with pytest.raises(UpstreamError, match="expected UTF-8, got UTF-16"):
                await anext(rows)
        health = await source.health()
    assert not health.ok and "a.csv: expected UTF-8" in health.message


async def test_health_fails_once_the_directory_is_gone(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    async with opened(folder) as source:
        assert (await source.health()).message == "no files yet"
        folder.rmdir()
        with pytest.raises(ConfigError, match="directory .*logs.* cannot be opened"):
            await source.health()


# -- access ----------------------------------------------------------------------------------------


async def test_only_files_in_the_directory_are_read(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_text(lines(1))
    (inside / "a").write_text(lines(1))
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "up").symlink_to(tmp_path)
    (inside / "good").symlink_to("a")
    (inside / "loop").symlink_to("loop")
    (inside / "folder").mkdir()
    os.mkfifo(inside / "pipe")
    async with opened(inside) as source:
        await source.may_read(None, "a")
        await source.may_read(None, "good")
        await source.may_read(None, "not there yet")
        with pytest.raises(PermissionDenied, match="is outside the directory"):
            await source.may_read(None, "up/not there yet")
        for name in ("link", "up/secret"):
            for call in (source.may_read(None, name), source.rows_history(span(), name)):
                with pytest.raises(PermissionDenied, match="is outside the directory"):
                    await call
        for name in ("a/b", "folder", "pipe"):
            with pytest.raises(NotFound, match=name):
                await source.may_read(None, name)
        with pytest.raises((NotFound, UpstreamError), match="loop"):
            await source.may_read(None, "loop")


async def test_a_link_that_points_outside_later_is_not_followed(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    path = inside / "a"
    path.write_text(lines(1))
    (tmp_path / "secret").write_text(lines(2))
    async with opened(inside) as source, running(source, "a") as rows:
        await rows.next()
        assert await rows.numbers(1) == [1]
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        with pytest.raises(UpstreamError, match="is outside the directory"):
            await rows.next()


async def test_a_folder_that_becomes_a_link_after_the_check_is_not_followed(tmp_path, monkeypatch):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder, number in ((inside / "deep/sub", 1), (outside / "deep/sub", 2)):
        folder.mkdir(parents=True)
        (folder / "a").write_text(lines(number))
    check = File._locate

    def check_then_replace(source, name):
        path = check(source, name)
        replaced.rename(tmp_path / "old")
        replaced.symlink_to(outside / replaced.relative_to(inside))
        return path

    for replaced in (inside / "deep", inside / "deep/sub"):
        async with opened(inside) as source:
            assert numbers((await source.rows_history(span(), "deep/sub/a")).rows) == [1]
            with monkeypatch.context() as patch:
                patch.setattr(File, "_locate", check_then_replace)
                page = None
                with contextlib.suppress(UpstreamError, NotFound):
                    page = await source.rows_history(span(), "deep/sub/a")
            assert page is None or page.rows == []
        replaced.unlink()
        (tmp_path / "old").rename(replaced)


async def test_a_line_of_gigabytes_does_not_hold_a_history(tmp_path, monkeypatch):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2))
    os.truncate(path, 1 << 33)  # sparse: a line without a newline
    read, pread = 0, os.pread

    def counted(*args):
        nonlocal read
        data = pread(*args)
        read += len(data)
        return data

    monkeypatch.setattr(logfile.os, "pread", counted)
    async with opened(tmp_path, max_line=1000) as source:
        with pytest.raises(
            UpstreamError, match="'a.ndjson': expected lines, got .* without a newl"
        ):
            await source.rows_history(span(), "a.ndjson")
        assert read < 100_000_000
        page = await source.rows_history(after_offset(0, limit=2), "a.ndjson")
        assert numbers(page.rows) == [1, 2]


@pytest.mark.timeout(60)
async def test_a_hung_disk_leaves_the_threads_of_other_data_sources(tmp_path, monkeypatch):
    for name in ("hung", "fine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(lines(1))
    release, read = threading.Event(), FileFollower.read

    def read_or_hang(follower):
        if "/hung/" in str(follower._path):
            release.wait()
        return read(follower)

    monkeypatch.setattr(FileFollower, "read", read_or_hang)
    async with opened(tmp_path / "hung") as hung, opened(tmp_path / "fine") as fine:
        followed = [hung.rows(Cursor("", -1), "a") for _ in range(AUTHOR_THREADS + 1)]
        waiting = [asyncio.ensure_future(anext(rows)) for rows in followed]
        try:
            while not hung.threads.statistics().tasks_waiting:
                await asyncio.sleep(0.001)
            async with asyncio.timeout(20), aclosing(fine.rows(Cursor("", -1), "a")) as rows:
                assert isinstance(await anext(rows), Cursor)
                assert [row["n"] for row in await anext(rows)] == [1]
        finally:
            release.set()
            await asyncio.wait(waiting)
        for rows in followed:
            await rows.aclose()


async def test_histories_leave_threads_for_others(tmp_path, monkeypatch):
    (tmp_path / "a").write_text(lines(1))
    running_now, most = 0, 0
    release = threading.Event()

    def slow(*_):
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        release.wait()
        running_now -= 1
        raise NotFound("slow")

    async with opened(tmp_path) as source:
        monkeypatch.setattr(source, "_read", slow)
        histories = [asyncio.ensure_future(source.rows_history(span(), "a")) for _ in range(50)]
        while running_now < file.HISTORY_THREADS:
            await asyncio.sleep(0.001)
        assert (await source.health()).ok
        release.set()
        await asyncio.wait(histories)
    assert most == file.HISTORY_THREADS
    assert all(isinstance(done.exception(), NotFound) for done in histories)


async def test_an_unreadable_file_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    (tmp_path / "a").write_text(lines(1))
    monkeypatch.setattr(file.os, "access", lambda *_: False)
    monkeypatch.setattr(file, "LogFile", None)
    async with opened(tmp_path) as source:
        with pytest.raises(PermissionDenied, match="'a' is not readable"):
            await source.may_read(None, "a")


async def test_an_invalid_directory_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a").touch()
    for name in (tmp_path / "missing", tmp_path / "a"):
        with pytest.raises(ConfigError, match=f"director.*'{name}'"):
            async with opened(name):
                pass


async def test_health_lists_the_files_and_those_with_invalid_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.csv").touch()
    (tmp_path / "a b.csv").touch()
    async with opened(tmp_path) as source:
        health = await source.health()
    assert health.ok
    assert health.message == (
        "1 file: sub/a.csv; 1 have names that cannot be channel paths: a b.csv"
    )
    async with opened(tmp_path / "sub") as source:
        assert (await source.health()).message == "1 file: a.csv"
