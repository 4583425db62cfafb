"""The source `file` with exact panels: histories and live rows, refusals, two servers."""

import json
import time

import anyio
import msgspec
import pytest

from aiostream_ds.sources.file import file_source as file
from aiostream_ds.sources.file.file_source import File
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory

EXACT = {"queryType": "rows", "file": "app/a.ndjson", "exact": True}
PATH = "x/rows/app/a.ndjson"
NOW = time.time_ns() // 1_000_000


def lines(*numbers):
    return "".join(json.dumps({"time": NOW - 1000 + n, "n": n}) + "\n" for n in numbers)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(file, "POLL", 0.001)
    # not when it is imported: minutes later the rows would be older than the range of a query
    monkeypatch.setitem(globals(), "NOW", time.time_ns() // 1_000_000)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "app").mkdir()
    return tmp_path / "app/a.ndjson"


@pytest.fixture
def settings(tmp_path):
    return {"directory": str(tmp_path)}


def append(path, *numbers):
    with path.open("a") as out:
        out.write(lines(*numbers))


def column(frame, name):
    return next(list(field.values) for field in frame.fields if field.name == name)


def cursor(frame):
    return frame.meta.custom["cursor"]


async def rows_after(grafana, after):
    answer = await grafana.resource(f"replay/rows?path={PATH}&after={after}")
    assert answer.status == 200
    return msgspec.json.decode(answer.body)


async def test_live_rows_continue_where_the_history_ends(path, settings):
    append(path, 1, 2, 3)
    async with serve_in_memory(File, settings=settings) as grafana:
        (frame,) = await grafana.query(EXACT)
        assert column(frame, "n") == [1, 2, 3]
        assert cursor(frame)["last"] == path.stat().st_size
        append(path, 4)
        viewer = await grafana.follow(PATH, frame=frame)
        missed = await rows_after(grafana, cursor(frame)["last"])
        assert missed["data"]["values"][-1] == [4]
        await viewer.message()  # the initial data of the subscription
        await viewer.message()  # the cursor at the start of the run
        append(path, 5)
        assert (await viewer.next())["n"] == 5
        packets = [msgspec.json.decode(packet)["cursor"] for packet in viewer.packets]
        assert {packet["epoch"] for packet in packets} == {cursor(frame)["epoch"]}


async def test_a_restarted_plugin_has_the_same_epoch(path, settings):
    append(path, 1, 2)
    async with serve_in_memory(File, settings=settings) as grafana:
        (frame,) = await grafana.query(EXACT)
    append(path, 3)
    async with serve_in_memory(File, settings=settings) as grafana:
        answer = await rows_after(grafana, cursor(frame)["last"])
    assert answer["cursor"]["epoch"] == cursor(frame)["epoch"]
    assert answer["data"]["values"][-1] == [3]
    assert (answer["more"], answer["truncated"]) == (False, False)


async def test_two_servers_give_equal_rows_although_one_read_the_file_later(path, settings):
    append(path, *range(5))
    async with serve_in_memory(File, settings=settings) as one:
        (frame,) = await one.query(EXACT)
        append(path, *range(5, 10))
        async with serve_in_memory(File, settings=settings) as two:
            (later,) = await two.query(EXACT)
            assert cursor(later)["epoch"] == cursor(frame)["epoch"]
            assert await rows_after(one, 40) == await rows_after(two, 40)


async def test_a_rotated_file_has_another_epoch_and_its_rows_are_not_replayed(path, settings):
    append(path, 1, 2, 3)
    async with serve_in_memory(File, settings=settings) as grafana:
        (frame,) = await grafana.query(EXACT)
        path.rename(path.with_name("a.ndjson.1"))
        append(path, 4)
        answer = await rows_after(grafana, cursor(frame)["last"])
        assert answer["cursor"]["epoch"] != cursor(frame)["epoch"]
        (frame,) = await grafana.query(EXACT)
        assert column(frame, "n") == [1, 2, 3, 4]
        assert cursor(frame)["epoch"] == answer["cursor"]["epoch"]
        assert cursor(frame)["last"] == path.stat().st_size


async def test_a_file_outside_the_directory_is_refused_for_all_calls(path, settings):
    (path.parent.parent / "app" / "a.ndjson").symlink_to("/etc/hosts")
    async with serve_in_memory(File, settings=settings) as grafana:
        for channel in (PATH, PATH.removeprefix("x/")):
            with pytest.raises(Refused, match="PERMISSION_DENIED"):
                await grafana.follow(channel)
        with pytest.raises(QueryFailed, match="is outside the directory"):
            await grafana.query(EXACT)
        assert (await grafana.resource(f"replay/rows?path={PATH}&after=0")).status == 403


async def test_a_panel_waits_for_a_file_that_does_not_exist_yet(path, settings):
    async with serve_in_memory(File, settings=settings) as grafana:
        (frame,) = await grafana.query(EXACT)
        (notice,) = frame.meta.notices
        assert notice.text == "no such file: 'app/a.ndjson'; rows appear when it exists"
        exact, stock = await grafana.follow(PATH), await grafana.follow(PATH.removeprefix("x/"))
        while not any(channel.cursors for channel in grafana.plugin.registry.channels):
            await anyio.sleep(0)  # rows before the run knows its start would be history only
        append(path, 1, 2)
        assert [row["n"] for row in await stock.take(2)] == [1, 2]
        while "data" not in (message := await exact.message()):
            pass
        assert message["cursor"]["epoch"] != cursor(frame)["epoch"], "an exact panel reloads"
        (frame,) = await grafana.query(EXACT)
        assert cursor(frame)["epoch"] == message["cursor"]["epoch"]
        assert column(frame, "n") == [1, 2] and not frame.meta.notices


async def test_a_file_that_cannot_come_to_exist_is_not_found(path, settings):
    append(path, 1)
    query = {**EXACT, "file": "app/a.ndjson/b"}
    async with serve_in_memory(File, settings=settings) as grafana:
        with pytest.raises(Refused, match="NOT_FOUND"):
            await grafana.follow("rows/app/a.ndjson/b")
        with pytest.raises(QueryFailed, match="no such file: 'app/a.ndjson/b'"):
            await grafana.query(query)
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        with pytest.raises(QueryFailed, match="no such file: 'app/a.ndjson'"):
            await grafana.query(EXACT)


async def test_an_invalid_file_name_is_an_error_that_names_the_valid_ones(settings):
    async with serve_in_memory(File, settings=settings) as grafana:
        with pytest.raises(QueryFailed, match="file must be segments of .* got 'a b.csv'"):
            await grafana.query({**EXACT, "file": "a b.csv"})


async def test_health_names_an_invalid_directory():
    async with serve_in_memory(File, settings={"directory": "/missing"}) as grafana:
        ok, text = await grafana.health()
    assert not ok and "the directory '/missing' cannot be opened" in text
    async with serve_in_memory(File) as grafana:
        ok, text = await grafana.health()
    assert not ok and "directory" in text
