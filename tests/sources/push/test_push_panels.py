"""Panels of pushed rows: history and live rows, exact over restarts and changes of the settings."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from aiostream_ds.models import Response
from aiostream_ds.sources.push import Pushed
from aiostream_ds.testing import Viewer, serve_in_memory
from aiostream_ds.testing.grafana import Grafana

from .bodies import T

EXACT = {"queryType": "rows", "path": "lab/a", "exact": True}
START = datetime.fromtimestamp(T / 1000 - 1, UTC)


async def push(grafana: Grafana, path: str, body: Any) -> Response:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await grafana.resource(f"push/{path}", method="POST", body=body)
    assert response.status == 200, response.body
    return response


def column(frame: Any, name: str) -> list[Any]:
    return next((list(field.values) for field in frame.fields if field.name == name), [])


def cursor(frame: Any) -> dict[str, Any]:
    found: dict[str, Any] = frame.meta.custom["cursor"]
    return found


async def with_data(viewer: Viewer) -> dict[str, Any]:
    while "data" not in (message := await viewer.message()):
        pass
    return message


async def rows_after(grafana: Grafana, path: str, after: int) -> dict[str, Any]:
    answer = await grafana.resource(f"replay/rows?path={path}&after={after}")
    assert answer.status == 200
    found: dict[str, Any] = msgspec.json.decode(answer.body)
    return found


async def test_live_rows_continue_where_the_history_ends():
    async with serve_in_memory(Pushed) as grafana:
        await push(grafana, "lab/a", [{"v": 1}, {"v": 2}])
        (frame,) = await grafana.query(EXACT)
        assert column(frame, "v") == [1, 2] and cursor(frame)["last"] == 2
        viewer = await grafana.follow("x/rows/lab/a", frame=frame)
        await viewer.message()  # the initial data of the subscription
        await viewer.message()  # the cursor at the start of the run
        await push(grafana, "lab/a", [{"v": 3}, {"v": 4}])
        message = await with_data(viewer)
        assert (message["cursor"]["prev"], message["cursor"]["last"]) == (2, 4)
        assert message["cursor"]["epoch"] == cursor(frame)["epoch"]


@pytest.mark.parametrize("is_durable", [True, False])
async def test_panels_go_on_when_the_settings_change(is_durable: bool, tmp_path: Path):
    settings = {"directory": str(tmp_path)} if is_durable else {}
    async with serve_in_memory(Pushed, settings=settings) as grafana:
        await push(grafana, "lab/a", {"v": 1})
        (before,) = await grafana.query(EXACT)
        await grafana.change_settings({**settings, "pushRole": "Admin"})
        await push(grafana, "lab/a", {"v": 2})
        (after,) = await grafana.query(EXACT)
        assert column(after, "v") == [1, 2]
        assert cursor(after)["last"] == 2 and cursor(before)["last"] == 1


async def test_rows_in_a_directory_outlive_the_plugin(tmp_path: Path):
    settings = {"directory": str(tmp_path / "made")}
    async with serve_in_memory(Pushed, settings=settings) as grafana:
        await push(grafana, "lab/a", [{"v": 1}, {"v": 2}])
        (before,) = await grafana.query(EXACT)
    async with serve_in_memory(Pushed, settings=settings) as grafana:
        await push(grafana, "lab/a", {"v": 3})
        missed = await rows_after(grafana, "x/rows/lab/a", cursor(before)["last"])
        assert missed["cursor"]["epoch"] == cursor(before)["epoch"]
        assert (missed["truncated"], missed["data"]["values"][-1]) == (False, [3])
        ok, text = await grafana.health()
        assert ok and f"rows are kept in {tmp_path / 'made'}; 3 rows of 1 channel: lab/a" in text


async def test_rows_in_memory_end_with_the_plugin_and_panels_reload():
    async with serve_in_memory(Pushed) as grafana:
        await push(grafana, "lab/a", [{"v": 1}, {"v": 2}])
        (before,) = await grafana.query(EXACT)
        await grafana.kill()
        await push(grafana, "lab/a", {"v": 3})
        (after,) = await grafana.query(EXACT)
        assert column(after, "v") == [3]
        assert cursor(after)["epoch"] != cursor(before)["epoch"]
        ok, text = await grafana.health()
        assert ok and "rows are kept in memory: they are lost when" in text


async def test_data_sources_of_one_directory_have_files_of_their_own(tmp_path: Path):
    settings = {"directory": str(tmp_path)}
    async with (
        serve_in_memory(Pushed, settings=settings, uid="one") as one,
        serve_in_memory(Pushed, settings=settings, uid="two") as two,
    ):
        await push(one, "lab/a", {"v": 1})
        await push(two, "lab/a", {"v": 2})
        assert [column((await each.query(EXACT))[0], "v") for each in (one, two)] == [[1], [2]]
    assert sorted(path.stem for path in tmp_path.glob("*.sqlite")) == ["push-1-one", "push-1-two"]


async def test_labels_are_series_in_rows_and_columns_in_table():
    lines = f"m,host=a v=1 {T}\nm,host=b v=2 {T}\nm,host=a v=3 {T + 1}\n"
    async with serve_in_memory(Pushed) as grafana:
        await push(grafana, "lab/a", lines.replace(str(T), f"{T}000000").encode())
        (series,) = await grafana.query(EXACT, start=START)
        assert [dict(field.labels) for field in series.fields[2:]] == [
            {"host": "a", "measurement": "m"},
            {"host": "b", "measurement": "m"},
        ]
        assert column(series, "cursor") == [2, 3]
        (table,) = await grafana.query({**EXACT, "queryType": "table"}, start=START)
        assert column(table, "host") == ["a", "b", "a"] and column(table, "cursor") == [1, 2, 3]


async def test_live_rows_of_one_path_reach_both_streams():
    lines = b"m,host=a v=1\n"
    async with serve_in_memory(Pushed) as grafana:
        await push(grafana, "lab/a", lines)
        rows, table = await grafana.follow("rows/lab/a"), await grafana.follow("table/lab/a")
        while sum(channel.cursors is not None for channel in grafana.plugin.registry.channels) < 2:
            await push(grafana, "lab/a", lines)
        await push(grafana, "lab/a", b"m,host=a v=7\n")
        while (row := await rows.next()).get('v {host="a", measurement="m"}') != 7:
            pass
        assert "host" not in row
        while (row := await table.next())["v"] != 7:
            pass
        assert (row["host"], row["measurement"]) == ("a", "m")


async def test_a_panel_of_a_path_without_rows_has_a_notice_and_then_its_rows():
    async with serve_in_memory(Pushed) as grafana:
        (frame,) = await grafana.query(EXACT)
        (notice,) = frame.meta.notices
        assert notice.text == "nothing was pushed to 'lab/a' yet; rows appear when it is"
        viewer = await grafana.follow("rows/lab/a")
        while not any(channel.cursors for channel in grafana.plugin.registry.channels):
            await anyio.sleep(0)  # rows before the run knows its start would be history only
        await push(grafana, "lab/a", {"v": 1})
        assert (await viewer.next())["v"] == 1
        (frame,) = await grafana.query(EXACT)
        assert not frame.meta.notices


async def test_rows_of_wrong_clocks_do_not_hide_others():
    now = round(datetime.now(UTC).timestamp() * 1000)
    times = [now - 2_000, 4_000_000_000_000, -1, now - 1_000, 0]
    async with serve_in_memory(Pushed) as grafana:
        await push(grafana, "lab/a", [{"time": t, "v": n} for n, t in enumerate(times)])
        (frame,) = await grafana.query(EXACT)
        assert column(frame, "v") == [0, 3] and cursor(frame)["last"] == 5


@pytest.mark.slow
async def test_the_retention_of_the_settings_removes_old_rows(tmp_path: Path):
    settings = {"directory": str(tmp_path), "keepRows": 1_000}
    async with serve_in_memory(Pushed, settings=settings) as grafana:
        for start in range(0, 5_000, 500):
            await push(grafana, "lab/a", [{"v": n} for n in range(start, start + 500)])
        missed = await rows_after(grafana, "x/rows/lab/a", 0)
        assert missed["truncated"]
        assert missed["data"]["values"][-1][-1] == 4_999 and missed["first"] >= 3_500


@pytest.mark.slow
async def test_other_bounds_of_rows_in_memory_are_used_at_once():
    async with serve_in_memory(Pushed) as grafana:
        for start in range(0, 5_000, 500):
            await push(grafana, "lab/a", [{"v": n} for n in range(start, start + 500)])
        await grafana.change_settings({"keepRows": 1_000})
        with anyio.fail_after(10):
            while (await rows_after(grafana, "x/rows/lab/a", 0))["first"] < 3_500:
                await push(grafana, "lab/a", {"v": 5_000})


async def test_paths_are_suggested():
    async with serve_in_memory(Pushed) as grafana:
        for path in ("lab/a", "lab/b", "other"):
            await push(grafana, path, {"v": 1})
        for stream in ("rows", "table"):
            found = await grafana.resource(f"forms/suggest?stream={stream}&field=path&typed=lab")
            assert json.loads(found.body) == ["lab/a", "lab/b"]


@pytest.mark.slow
async def test_a_hundred_thousand_series_are_bounded_and_counted():
    async with serve_in_memory(Pushed, settings={"rowsPerSecond": 0}) as grafana:
        viewer = await grafana.follow("rows/lab/a")
        for start in range(0, 100_000, 20_000):
            lines = "".join(f"m,host=h{n} v=1\n" for n in range(start, start + 20_000))
            await push(grafana, "lab/a", lines.encode())
        await viewer.take(1)
        (frame,) = await grafana.query(EXACT)
        assert len(frame.fields) <= 2_002
        (table,) = await grafana.query({**EXACT, "queryType": "table"})
        assert len(set(column(table, "host"))) > 1  # thinned
