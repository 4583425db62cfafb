"""Lines of files as a log: each with the time that is written in it, filtered, live and past."""

import base64
import os
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.file import text_lines
from aiostream_ds.sources.file.file_source import File
from aiostream_ds.sources.file.log_file import ForwardReader, LogFile, Text, oldest_rows
from aiostream_ds.testing import serve_in_memory

WIDE = {"start": datetime(2000, 1, 1, tzinfo=UTC), "end": datetime(2100, 1, 1, tzinfo=UTC)}


def ms(*moment) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("2026-11-29 10:00:00,123 INFO start", ms(2026, 11, 29, 10) + 123),
        ("2026-11-29T10:00:00Z ERROR", ms(2026, 11, 29, 10)),
        ("[2026-11-29T10:00:00.5+01:00] x", ms(2026, 11, 29, 9) + 500),
        ("2026/11/29 10:00:00 [error] 7#7: open() failed", ms(2026, 11, 29, 10)),
        ("INFO 2026-11-29 10:00:00 UTC x", ms(2026, 11, 29, 10)),
        ('1.2.3.4 - - [10/Oct/2026:13:55:36 -0700] "GET /"', ms(2026, 10, 10, 20, 55, 36)),
        ("level=info ts=2026-11-29T10:00:00.123456789Z msg=x", ms(2026, 11, 29, 10) + 123),
        ("Traceback (most recent call last):", None),
        ("2026-13-29 10:00:00 no such month", None),
        ("10/Foo/2026:13:55:36", None),
        ("Feb 30 10:00:00 host", None),
        (" " * 250 + "2026-11-29T10:00:00Z", None),
        ("", None),
    ],
)
def test_the_time_of_a_line_is_the_one_that_is_written_at_its_beginning(line, expected):
    assert text_lines.line_time(line) == expected


@pytest.mark.parametrize("prefix", ["", "<34>"])
def test_a_time_without_a_year_is_the_last_such_moment(prefix):
    now = datetime.now(UTC).replace(microsecond=0)
    line = f"{prefix}{now:%b} {now.day:2} {now:%H:%M:%S} host app: x"
    assert text_lines.line_time(line) == round(now.timestamp() * 1000)


def read_all(path, contains="", after=0):
    log = LogFile(str(path), RowSettings(), format=Text(contains), max_line=1000)
    with log:
        start = log.start()
        return [] if start is None else oldest_rows(log, start, after, None, 1_000)[0]


def test_a_line_without_a_time_has_that_of_the_line_before_it(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("2026-11-29 10:00:00 ERROR bad\nTraceback:\n  x\n2026-11-29 10:00:01 y\n")
    first = ms(2026, 11, 29, 10)
    assert [row["time"] - first for row in read_all(path)] == [0, 0, 0, 1000]


def test_lines_before_the_first_time_have_that_of_the_file(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("one\ntwo\n")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert [row["time"] for row in read_all(path)] == [1_700_000_000_000] * 2


def test_json_lines_have_the_time_of_their_key(tmp_path):
    path = tmp_path / "app.ndjson"
    path.write_text('{"time": 1700000000000, "msg": "x"}\n{"msg": "no time"}\n')
    rows = read_all(path)
    assert [row["time"] for row in rows] == [1_700_000_000_000] * 2
    assert rows[0]["body"] == '{"time": 1700000000000, "msg": "x"}'


LINE = st.one_of(
    st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=40),
    st.integers(0, 59).map(lambda n: f"2026-11-29 10:00:{n:02} INFO x"),
)


@settings(deadline=None)
@given(lines=st.lists(LINE, min_size=1, max_size=12), data=st.data())
def test_a_line_is_the_same_row_from_wherever_the_file_is_read(tmp_path_factory, lines, data):
    path = tmp_path_factory.mktemp("lines") / "app.log"
    path.write_text("\n".join(lines) + "\n", newline="")
    rows = read_all(path)
    after = data.draw(st.sampled_from([0, *(row["offset"] for row in rows)]))
    assert read_all(path, after=after) == [row for row in rows if row["offset"] > after]
    assert [row["body"] for row in rows] == [t for t in (x.rstrip("\r") for x in lines) if t]


def test_a_filter_leaves_the_lines_that_contain_it_in_any_case(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("an Error\nfine\nERROR: Straße\n")
    assert [row["body"] for row in read_all(path, "error")] == ["an Error", "ERROR: Straße"]
    assert [row["body"] for row in read_all(path, "STRASSE")] == ["ERROR: Straße"]


async def query(grafana, **fields):
    (frame,) = await grafana.query({"queryType": "lines", **fields}, **WIDE)
    return frame


async def test_the_history_of_lines_is_a_frame_of_log_lines(tmp_path):
    (tmp_path / "app.log").write_text("2026-11-29 10:00:00 one\n2026-11-29 10:00:01 two\n")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        frame = await query(grafana, file="app.log")
        assert [field.name for field in frame.fields] == ["timestamp", "body", "id", "offset"]
        assert frame.meta.preferred_visualisation_type == "logs"
        assert (frame.meta.type, frame.meta.type_version) == ("log-lines", (0, 0))
        assert frame.meta.channel.endswith("/lines/-/app.log")
        assert list(frame.fields[1].values) == [
            "2026-11-29 10:00:00 one",
            "2026-11-29 10:00:01 two",
        ]


async def test_lines_are_followed_through_the_filter(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("an error\n")
    text = base64.urlsafe_b64encode(b"error").decode().rstrip("=")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        frame = await query(grafana, file="app.log", contains="error")
        assert list(frame.fields[1].values) == ["an error"]
        assert frame.meta.channel.endswith(f"/lines/{text}/app.log")
        viewer = await grafana.follow(f"lines/{text}/app.log")
        with anyio.fail_after(30):
            while not viewer.rows:  # a run begins at the end that the file has then
                with path.open("a") as file:
                    file.write("fine\nERROR\n")
                await anyio.sleep(0.05)
        assert {row["body"] for row in viewer.rows} == {"ERROR"}


@pytest.mark.slow
async def test_rotated_files_that_begin_with_the_same_line_are_followed_row_by_row(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("start\nb0\nb1\n")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        frame = await query(grafana, file="plain.txt", exact=True)
        viewer = await grafana.follow("x/lines/-/plain.txt", frame=frame)
        filtered = await grafana.follow("lines/Yw/plain.txt")  # "c"
        await anyio.sleep(0.5)
        wanted = []
        for number in range(3):
            path.rename(tmp_path / f"plain.txt.{number}")
            path.write_text(f"start\nc{number}\nd{number}\n")
            wanted += ["start", f"c{number}", f"d{number}"]
            with anyio.fail_after(15):
                while len(viewer.rows) < len(wanted) or len(filtered.rows) <= number:
                    await anyio.sleep(0.05)
        assert [row["body"] for row in viewer.rows] == wanted
        assert [row["body"] for row in filtered.rows] == ["c0", "c1", "c2"]
        source = await grafana.data_source(File)
        assert list(source._truncations.values()) == [3]  # both have the same epochs


def test_a_line_that_comes_later_without_any_time_has_that_of_its_write(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("one\n")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    with LogFile(str(path), RowSettings(), format=Text(), max_line=1000) as log:
        forward = ForwardReader(log, log.start(), 0)
        found = forward.read().rows
        with path.open("a") as file:
            file.write("two\n")
        os.utime(path, (1_700_000_060, 1_700_000_060))
        found += forward.read().rows
    assert [row["time"] for row in found] == [1_700_000_000_000, 1_700_000_060_000]


@pytest.mark.slow
def test_the_time_of_an_earlier_line_counts_for_64_kib_from_wherever_the_file_is_read(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("2026-11-29 10:00:00 INFO x\n" + "no time\n" * 20_000)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    with LogFile(str(path), RowSettings(), format=Text(), max_line=1000) as log:
        rows, _ = oldest_rows(log, log.start(), 0, None, 30_000)
    written = ms(2026, 11, 29, 10)
    assert [row["time"] for row in rows if row["offset"] <= text_lines.LOOK_BACK] == (
        [written] * sum(row["offset"] <= text_lines.LOOK_BACK for row in rows)
    )
    assert rows[-1]["time"] == 1_700_000_000_000
    for after in (rows[n]["offset"] for n in range(8_185, 8_195)):
        assert read_all(path, after=after)[0] == next(r for r in rows if r["offset"] > after)


@pytest.mark.slow
async def test_a_filter_finds_lines_that_are_far_apart_in_a_range_that_ends_earlier(tmp_path):
    start = datetime(2026, 11, 1, tzinfo=UTC)
    with (tmp_path / "app.log").open("w") as file:
        for number in range(24_000):  # 24 MB
            moment = start + timedelta(minutes=number)
            word = "needle" if number in (7_000, 17_500, 23_000) else "hay"
            file.write(f"{moment:%Y-%m-%d %H:%M:%S} {word} {'x' * 975}\n")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        span = {"start": start, "end": start + timedelta(minutes=18_000)}
        fields = {"queryType": "lines", "file": "app.log", "contains": "needle"}
        (frame,) = await grafana.query(fields, **span)
    assert list(frame.fields[0].values) == [
        ms(2026, 11, 1) + number * 60_000 for number in (7_000, 17_500)
    ]


async def test_a_file_outside_the_directory_has_no_lines(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "secret.txt").write_text("secret\n")
    (tmp_path / "logs" / "link").symlink_to(tmp_path / "secret.txt")
    async with serve_in_memory(File, settings={"directory": str(tmp_path / "logs")}) as grafana:
        with pytest.raises(Exception, match="'link' is outside the directory"):
            await query(grafana, file="link")


@pytest.mark.parametrize(
    "name, format, ok",
    [
        ("app.log", "auto", True),
        ("app.ndjson", "auto", False),
        ("app.log", "ndjson", False),
        ("app.csv.1", "auto", False),
    ],
)
async def test_health_fails_without_rows_only_if_a_file_should_have_some(
    tmp_path, name, format, ok
):
    (tmp_path / name).write_text("only,text\nwithout,times\n")
    options = {"directory": str(tmp_path), "format": format}
    async with serve_in_memory(File, settings=options) as grafana:
        is_ok, message = await grafana.health()
        assert (is_ok, "query type `lines`" in message) == (ok, ok)


async def test_a_line_has_the_same_id_before_and_after_a_rotation(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("2026-11-29 10:00:00 one\n2026-11-29 10:00:01 two\n")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        before = list((await query(grafana, file="app.log")).fields[2].values)
        path.rename(tmp_path / "app.log.1")
        path.write_text("2026-11-29 10:00:02 three\n")
        after = list((await query(grafana, file="app.log")).fields[2].values)
    assert after[:2] == before
    assert len(set(after)) == 3
