"""The source `file`: every complete line once and in order, from any offset, whatever happens."""

import asyncio
import contextlib
import json
import os
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
    UpstreamError,
)
from aiostream_ds.sources.file import file_source as file
from aiostream_ds.sources.file import log_file as logfile
from aiostream_ds.sources.file import range_reader as past
from aiostream_ds.sources.file.file_source import File, FileSettings
from aiostream_ds.sources.file.follow import Follower
from aiostream_ds.sources.file.log_file import LogFile
from aiostream_ds.testing import create_instance

START = 1_700_000_000_000
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


def behind(after, upto=None, limit=1000):
    return HistoryRange(**WIDEST, limit=limit, after=after, upto=upto)


def numbers(rows):
    return [row["n"] for row in rows]


class Rows:
    """What a run yields, one row or position at a time."""

    def __init__(self, rows):
        self.rows = rows
        self.left = []

    async def next(self):
        while not self.left:
            found = await anext(self.rows)
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
        "time": START + 1, "offset": len(text), "n": 1.0, "name": "a", "on": True,
        "nothing": None, "deep": {"x": [1]},
    }  # fmt: skip
    assert list(row)[:2] == ["time", "offset"]
    assert type(row["n"]) is float


async def test_a_line_is_a_row_when_its_newline_has_come(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1) + line(2)[:9])
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        await rows.next()
        assert await rows.numbers(1) == [1]
        assert numbers((await source.past(span(), "a.ndjson")).rows) == [1]
        with path.open("a") as out:
            out.write(line(2)[9:])
        assert await rows.numbers(1) == [2]


async def test_a_run_goes_on_behind_its_position(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2, 3, 4))
    async with opened(tmp_path) as source:
        page = await source.past(span(last=2), "a.ndjson")
        after = Cursor(page.epoch, page.rows[-1]["offset"])
        async with running(source, "a.ndjson", after) as rows:
            assert await rows.numbers(2) == [3, 4]


async def test_a_run_of_another_numbering_begins_at_the_files_beginning(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2))
    async with opened(tmp_path) as source:
        async with running(source, "a.ndjson", Cursor("older", 9)) as rows:
            begins = await rows.next()
            assert begins == Cursor((await source.past(span(), "a.ndjson")).epoch, 0)
            assert await rows.numbers(2) == [1, 2]


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path):
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        follower = Follower(str(tmp_path / "a"), lambda: source._open("a"), None, {})
        assert not follower.read().rows
        (tmp_path / "a.ndjson").write_text(lines(1))
        await rows.next()
        assert await rows.numbers(1) == [1]


async def test_two_readers_do_not_disturb_each_other(tmp_path):
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
        page = await source.past(span(), "a.ndjson")
        assert page.epoch == second.epoch
        assert numbers(page.rows) == [1, 2, 3, 4, 5]
        assert [row["offset"] for row in page.rows] == [0] * 4 + [page.last]


async def test_history_reaches_back_into_as_many_rotated_files_as_it_needs(tmp_path):
    for name, text in {"a.csv.2": "1,2", "a.csv.1": "3,4", "a.csv": "5,6"}.items():
        rows = "".join(f"{START + int(n)},{n}\n" for n in text.split(","))
        (tmp_path / name).write_text("time,n\n" + rows)
    async with opened(tmp_path) as source:
        assert numbers((await source.past(span(), "a.csv")).rows) == [1, 2, 3, 4, 5, 6]
        assert numbers((await source.past(span(limit=3), "a.csv")).rows) == [4, 5, 6]
        assert numbers((await source.past(span(2, 3), "a.csv")).rows) == [2, 3]
        assert numbers((await source.past(span(1, 1), "a.csv")).rows) == [1]
        assert numbers((await source.past(behind(0), "a.csv")).rows) == [5, 6]
        (tmp_path / "a.csv").unlink()
        page = await source.past(span(4), "a.csv")
        assert (numbers(page.rows), page.epoch, page.last) == ([4], "", 0)


async def test_a_file_that_is_renamed_while_history_reads_it_is_there_once(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2))
    (tmp_path / "a.ndjson.1").hardlink_to(tmp_path / "a.ndjson")
    (tmp_path / "a.ndjson.2").write_text(lines(0))
    async with opened(tmp_path) as source:
        assert numbers((await source.past(span(), "a.ndjson")).rows) == [0, 1, 2]


@pytest.mark.parametrize("longer", [False, True])
async def test_an_emptied_file_is_a_new_numbering(tmp_path, longer):
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


async def test_a_file_cut_back_to_its_own_beginning_is_a_new_numbering_too(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2, 3))
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        first = await rows.next()
        assert await rows.numbers(3) == [1, 2, 3]
        os.truncate(path, len(lines(1)))
        second = await rows.next()
        assert second.epoch != first.epoch
        assert await rows.numbers(1) == [1]
        assert (await source.past(span(), "a.ndjson")).epoch == second.epoch


async def test_a_longer_copy_that_takes_the_name_is_the_same_numbering(tmp_path):
    path, copy = tmp_path / "a.ndjson", tmp_path / "copy"
    path.write_text(lines(1, 2))
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        await rows.next()
        assert await rows.numbers(2) == [1, 2]
        copy.write_text(lines(1, 2, 3))
        copy.rename(path)
        assert await rows.numbers(1) == [3]


async def test_the_numbering_is_the_same_on_every_machine_that_sees_the_file(tmp_path):
    text = lines(1, 2)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here/a.ndjson").write_text(text)
    (tmp_path / "there/a.ndjson").write_text(text + lines(3))
    async with opened(tmp_path / "here") as here, opened(tmp_path / "there") as there:
        one, two = await here.past(span(), "a.ndjson"), await there.past(span(), "a.ndjson")
    assert one.epoch == two.epoch
    assert two.rows[:2] == one.rows


async def test_equal_headers_and_preambles_do_not_make_two_files_one(tmp_path):
    (tmp_path / "a.csv").write_text(f"time,n\n{START},1\n")
    (tmp_path / "b.csv").write_text(f"time,n\n{START + 1},1\n")
    (tmp_path / "a.ndjson").write_text('{"version": 1}\n' + lines(1))
    (tmp_path / "b.ndjson").write_text('{"version": 1}\n' + lines(2))
    async with opened(tmp_path) as source:
        epochs = {
            (await source.past(span(), name)).epoch
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
    """Of `a`, which has the rows 1 and 2; both are read."""
    path = tmp_path / "a"
    path.write_text(lines(1, 2))

    def open_log():
        return LogFile(str(path), FileSettings(directory="."), is_csv=False, max_line=1000)

    with contextlib.closing(Follower(str(path), open_log, None, {})) as follower:
        assert follower.read().begins.value == 0
        assert numbers(follower.read().rows) == [1, 2]
        yield follower


def test_a_new_file_takes_over_when_it_has_a_row_and_the_old_one_is_at_its_end(tmp_path, follower):
    path = tmp_path / "a"
    with path.open("a", buffering=1) as writer:
        path.rename(tmp_path / "a.1")
        path.touch()
        assert not follower.read().more
        writer.write(lines(3))
        assert numbers(follower.read().rows) == [3]
        path.write_text(lines(5))
        assert follower.read().more  # it has seen the new row, now it looks at the old file again
        writer.write(lines(4))
    assert numbers(follower.read().rows) == [4]
    assert follower.read().begins is not None
    assert numbers(follower.read().rows) == [5]


def test_a_file_cut_back_is_another_numbering_though_it_has_grown_since(tmp_path, follower):
    path = tmp_path / "a"
    os.truncate(path, len(lines(1)))
    assert follower.read().more
    path.write_text(lines(1, 7, 8))
    assert follower.read().begins.epoch.endswith("~1")
    assert numbers(follower.read().rows) == [1, 7, 8]


@pytest.mark.parametrize("cursor", [1000, 5])
def test_a_position_that_the_file_has_not_is_another_numbering(tmp_path, follower, cursor):
    epoch = follower._forward.start.epoch
    other = Follower(follower._path, follower._open_log, Cursor(epoch, cursor), {})
    with contextlib.closing(other):
        assert other.read().begins == Cursor(epoch + "~1", 0)
        assert numbers(other.read().rows) == [1, 2]


# -- bad lines -------------------------------------------------------------------------------------


async def test_a_bad_line_is_left_out_counted_and_said_once(tmp_path, caplog):
    bad = ["no json\n", "[1]\n", '{"n": 3}\n', '{"time": true}\n', line(9, pad="x" * 2000)]
    (tmp_path / "a.ndjson").write_text(line(1) + "".join(bad) + "\n" + line(2))
    async with opened(tmp_path, max_line=1000) as source:
        async with running(source, "a.ndjson") as rows:
            await rows.next()
            assert await rows.numbers(2) == [1, 2]
        health = await source.health()
        assert numbers((await source.past(span(), "a.ndjson")).rows) == [1, 2]
    assert health.details["lines_left_out"] == {"a.ndjson": 5}
    (said,) = [r.getMessage() for r in caplog.records if r.name == file.__name__]
    assert f"a.ndjson: a line is left out, at offset {len(line(1) + bad[0])}: no JSON" in said


async def test_a_line_beyond_the_limit_costs_no_more_than_its_reading(tmp_path):
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
        assert source._left_out["a.ndjson"] == 1
        assert numbers((await source.past(span(), "a.ndjson")).rows) == [1, 2, 3]
        assert numbers((await source.past(behind(len(line(1))), "a.ndjson")).rows) == [2, 3]


async def test_a_line_that_a_rotation_left_unfinished_is_counted(tmp_path, caplog):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1) + "{")
    async with opened(tmp_path) as source, running(source, "a.ndjson") as rows:
        await rows.next()
        assert await rows.numbers(1) == [1]
        path.rename(tmp_path / "a.ndjson.1")
        path.write_text(lines(2))
        await rows.next()
        assert await rows.numbers(1) == [2]
        assert source._left_out["a.ndjson"] == 1
    assert f"at offset {len(lines(1)) + 1}: cut off by the file's end" in caplog.text


async def test_a_csv_without_a_header_of_bearable_length_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x" * logfile.HEAD)
    async with opened(tmp_path) as source:
        with pytest.raises(UpstreamError, match=r"'a.csv': its CSV header is longer"):
            await source.past(span(), "a.csv")
        async with running(source, "a.csv") as rows:
            with pytest.raises(UpstreamError, match=r"'a.csv': its CSV header is longer"):
                await rows.next()
        path.write_text(f"time,n\n{START},1\n")
        async with running(source, "a.csv") as rows:
            await rows.next()
            await rows.next()
            (tmp_path / "other").write_text("x" * logfile.HEAD)
            (tmp_path / "other").rename(path)
            with pytest.raises(UpstreamError, match=r"'a.csv': its CSV header is longer"):
                await rows.next()


async def test_a_file_of_bad_lines_only_has_a_numbering_all_the_same(tmp_path):
    (tmp_path / "a.ndjson").write_text("no row of it\n" * 6_000)
    async with opened(tmp_path) as source:
        page = await source.past(span(), "a.ndjson")
        assert page.rows == [] and page.epoch and page.last == 13 * 6_000
        async with running(source, "a.ndjson") as rows:
            assert (await rows.next()).epoch == page.epoch
            with (tmp_path / "a.ndjson").open("a") as out:
                out.write(lines(1))
            assert await rows.numbers(1) == [1]
            assert source._left_out["a.ndjson"] == 6_000


def test_only_regular_files_are_opened_and_nothing_waits_for_a_pipes_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UpstreamError, match="no regular file"):
        LogFile(str(tmp_path / "pipe"), FileSettings(directory="."), is_csv=False, max_line=1000)


async def test_bytes_that_are_no_utf8_are_shown_replaced_and_counted(tmp_path):
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


async def test_lines_before_the_first_row_are_told_once_also_while_there_is_none(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("time,n\nsoon,1\n")
    async with opened(tmp_path) as source, running(source, "a.csv") as rows:
        waiting = asyncio.ensure_future(rows.next())
        while not source._left_out["a.csv"]:
            await asyncio.sleep(0.001)
        with path.open("a") as out:
            out.write(f"later,2\n{START},3\n")
        await waiting
        assert await rows.numbers(1) == [3]
        assert source._left_out == {"a.csv": 2}
    assert "at offset 14: the time 'soon' is neither" in caplog.text
    assert "later" not in caplog.text


# -- history ---------------------------------------------------------------------------------------


async def test_a_span_gives_the_newest_rows_and_how_far_it_tells(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(*range(10)))
    async with opened(tmp_path) as source:
        page = await source.past(span(2, 6, limit=3), "a.ndjson")
        assert numbers(page.rows) == [4, 5, 6]
        assert page.last == page.rows[-1]["offset"] == len(lines(*range(7)))
        page = await source.past(span(8), "a.ndjson")
        assert numbers(page.rows) == [8, 9] and page.last == len(lines(*range(10)))
        page = await source.past(span(limit=1), "a.ndjson")
        assert numbers(page.rows) == [9]
        assert (await source.past(span(50), "a.ndjson")).rows == []


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_rows_behind_any_offset_are_the_oldest_of_them(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("a") / "a.ndjson"
    path.write_text(lines(*range(10)) + "{}\n" + line(11)[:-1])
    log = LogFile(str(path), FileSettings(directory="."), is_csv=False, max_line=1000)
    with log:
        start = log.start()
        everything, end = logfile.oldest(log, start, 0, None, 100)
        assert end == path.stat().st_size - len(line(11)) + 1
        after = data.draw(st.integers(0, log.size()))
        upto = data.draw(st.none() | st.integers(0, log.size()))
        limit = data.draw(st.integers(1, 12))
        rows, last = logfile.oldest(log, start, after, upto, limit)
        expected = [
            row for row in everything
            if row["offset"] > after and (upto is None or row["offset"] <= upto)
        ]  # fmt: skip
        assert rows == expected[:limit]
        assert not rows or last >= rows[-1]["offset"]
        assert not any(row["offset"] <= last for row in expected[limit:])


async def test_an_offset_behind_the_end_says_that_rows_are_gone(tmp_path):
    (tmp_path / "a.ndjson").write_text(lines(1, 2))
    async with opened(tmp_path) as source:
        page = await source.past(behind(1000), "a.ndjson")
        assert page.truncated and page.rows == []
        page = await source.past(behind(len(lines(1, 2))), "a.ndjson")
        assert not page.truncated and page.rows == [] and page.last == len(lines(1, 2))


async def test_a_file_that_is_emptied_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.ndjson"
    path.write_text(lines(1, 2))
    contents = [lines(3), lines(4)]
    newest = past.newest

    def emptied(*args):
        found = newest(*args)
        if contents:
            path.write_text(contents.pop(0))
        return found

    monkeypatch.setattr(past, "newest", emptied)
    async with opened(tmp_path) as source:
        page = await source.past(span(), "a.ndjson")
        assert numbers(page.rows) == [4]
        monkeypatch.undo()
        assert (await source.past(span(), "a.ndjson")) == page


async def test_a_file_without_a_row_is_an_empty_page(tmp_path):
    for name, text in {"a.csv": "time,n\n", "b.ndjson": "", "c.csv": "time"}.items():
        (tmp_path / name).write_text(text)
        async with opened(tmp_path) as source:
            for asked in (span(), behind(0)):
                page = await source.past(asked, name)
                assert (page.rows, page.epoch, page.truncated) == ([], "", False)


async def test_a_large_file_is_hardly_read_for_a_span_of_it(tmp_path, monkeypatch):
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
        page = await source.past(span(limit=1), "a.ndjson")
        assert numbers(page.rows) == [count - 1]
        assert read < 500_000
        read = 0
        page = await source.past(span(20_000, 20_099), "a.ndjson")
        assert numbers(page.rows) == list(range(20_000, 20_100))
        assert read < 3_000_000


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(0, 100), st.integers(0, 100),
       st.integers(1, 30))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_a_span_of_rows_out_of_order_has_all_that_fit(tmp_path_factory, times, first, last, limit):
    path = tmp_path_factory.mktemp("a") / "a.ndjson"
    path.write_text(lines(*times))
    with LogFile(str(path), FileSettings(directory="."), is_csv=False, max_line=1000) as log:
        start = log.start()
        if start is None:
            assert not times
            return
        rows, _ = logfile.newest(log, start, START + first, START + last, limit)
    assert numbers(rows) == [n for n in times if first <= n <= last][-limit:]


async def test_a_late_row_does_not_hide_those_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "BLOCK", 100)
    (tmp_path / "a.ndjson").write_text(lines(*range(10, 20), 2, *range(20, 30)))
    async with opened(tmp_path) as source:
        assert numbers((await source.past(span(10), "a.ndjson")).rows) == list(range(10, 30))


# -- the property ----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12)


@given(
    st.lists(TEXTS, min_size=1, max_size=12),
    st.lists(st.integers(0, 1_000), max_size=12),
    st.integers(0, 12),
    st.sampled_from([8, 40, 1 << 17]),
)
@settings(max_examples=60, deadline=None)
def test_every_complete_line_comes_once_and_in_order_wherever_writes_are_cut(
    tmp_path_factory, texts, cuts, behind, chunk
):
    """Also amid a character of several bytes, and from behind any line."""
    path = str(tmp_path_factory.mktemp("a") / "a")
    encoded = [
        json.dumps({"time": START, "n": n, "text": text}, ensure_ascii=False).encode() + b"\n"
        for n, text in enumerate(texts)
    ]
    everything = b"".join(encoded)
    places = sorted({0, len(everything), *(c % (len(everything) + 1) for c in cuts)})
    behind = min(behind, len(texts))
    epoch = ""
    rows = []

    def open_log():
        return LogFile(path, FileSettings(directory="."), is_csv=False, max_line=10_000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "CHUNK", chunk)
        with open(path, "wb", buffering=0) as out:
            out.write(encoded[0])
            with open_log() as log:
                epoch = log.start().epoch
            out.seek(0)
            out.truncate()
            after = Cursor(epoch, sum(map(len, encoded[:behind])))
            out.write(everything[: after.value])
            follower = Follower(path, open_log, after if behind else None, {})
            for begin, end in zip(places, places[1:], strict=False):
                out.write(everything[max(begin, after.value) : max(end, after.value)])
                while True:
                    batch = follower.read()
                    assert not batch.skipped
                    rows += batch.rows
                    if not batch.more:
                        break
            follower.close()
    expected = texts[behind:] if behind else texts
    assert [row["text"] for row in rows] == expected
    assert [row["offset"] for row in rows] == [
        sum(map(len, encoded[: n + 1])) for n in range(len(texts) - len(expected), len(texts))
    ]


# -- who may read what -----------------------------------------------------------------------------


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
        for name in ("link", "up/secret"):
            for call in (source.may_read(None, name), source.past(span(), name)):
                with pytest.raises(PermissionDenied, match="leads out of the directory"):
                    await call
        for name in ("missing", "a/b", "folder", "pipe"):
            with pytest.raises(NotFound, match=name):
                await source.may_read(None, name)
        with pytest.raises((NotFound, UpstreamError), match="loop"):
            await source.may_read(None, "loop")


async def test_a_link_that_leads_out_later_is_not_followed(tmp_path):
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
        with pytest.raises(UpstreamError, match="leads out"):
            await rows.next()


async def test_what_cannot_be_read_is_refused_before_a_byte_is_read(tmp_path, monkeypatch):
    (tmp_path / "a").write_text(lines(1))
    monkeypatch.setattr(file.os, "access", lambda *_: False)
    monkeypatch.setattr(file, "LogFile", None)
    async with opened(tmp_path) as source:
        with pytest.raises(PermissionDenied, match="'a' cannot be read"):
            await source.may_read(None, "a")


async def test_a_directory_that_is_none_is_named(tmp_path):
    (tmp_path / "a").touch()
    for name in (tmp_path / "missing", tmp_path / "a"):
        with pytest.raises(ConfigError, match=f"directory is '{name}'"):
            async with opened(name):
                pass


async def test_health_names_the_files_and_those_no_channel_can_have(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.csv").touch()
    (tmp_path / "a b.csv").touch()
    async with opened(tmp_path) as source:
        health = await source.health()
    assert health.ok
    assert health.message == ("1 file: sub/a.csv; 1 have names that no channel can have: a b.csv")
    async with opened(tmp_path / "sub") as source:
        assert (await source.health()).message == "1 file: a.csv"
