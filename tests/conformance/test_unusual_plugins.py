"""Author's code that misbehaves, under a real go-plugin host."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from .driver import Host, HostError
from .test_packaged import KILL_MS, gone

pytestmark = [pytest.mark.go, pytest.mark.timeout(60)]

PLUGINS = Path(__file__).parent / "plugins"


def executable(path: Path, file: Path) -> Path:
    """Write a plugin's executable for an author's file, as scripts/package does."""
    path.write_text(
        f"#!{sys.executable} -IBXutf8\n"
        f"import runpy\nrunpy.run_path({str(file)!r}, run_name='__main__')\n"
    )
    path.chmod(0o755)
    return path


@pytest_asyncio.fixture
async def host(host_binary: Path, tmp_path: Path) -> AsyncIterator[Host]:
    async with Host(host_binary) as host:
        await host.start(executable(tmp_path / "gpx_lab", PLUGINS / "lab.py"))
        yield host


async def counts(host: Host) -> dict[str, Any]:
    message = (await host.call("resource", path="counts", method="GET"))["messages"][0]
    found: dict[str, Any] = json.loads(message["body"])
    return found


async def metric(host: Host, name: str) -> float:
    text: str = (await host.call("metrics"))["text"]
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def log_text(host: Host) -> str:
    return str((await host.call("logs"))["stderr"])


async def logged(host: Host, text: str) -> None:
    """Wait until the plugin has logged it: its log arrives separately from answers."""
    async with asyncio.timeout(30):
        while text not in await log_text(host):
            await asyncio.sleep(0.05)


async def test_fifty_viewers_share_one_run_that_ends_with_the_last_one(host: Host) -> None:
    names = [f"viewer {n}" for n in range(50)]
    for name in names:
        await host.call("run", path="shared/a", run=name)
    for name in names:
        assert await host.packets(name, 3)
    assert (await counts(host))["runs"] == 1
    assert await metric(host, "aiostream_ds_streams_running ") == 1
    assert await metric(host, "aiostream_ds_subscriptions ") == 50
    for name in names[:-1]:
        await host.call("cancel", run=name)
    assert (await counts(host))["finals"] == []
    left = time.time()
    await host.call("cancel", run=names[-1])
    finals = (await counts(host))["finals"]
    assert len(finals) == 1
    assert finals[0] - left < 5, "at once, and not when empty channels are closed"
    await host.call("run", path="shared/a", run="again")
    await host.packets("again", 1)
    assert (await counts(host))["runs"] == 2


async def test_followers_in_the_plugin_share_the_run_of_the_viewers(host: Host) -> None:
    for name, path in (("one", "followed/a"), ("two", "shared/a"), ("three", "followed/a")):
        await host.call("run", path=path, run=name)
    for name in ("one", "two", "three"):
        assert await host.packets(name, 3)
    assert (await counts(host))["runs"] == 1
    assert await metric(host, "aiostream_ds_streams_running ") == 2
    await host.call("cancel", run="two")
    await host.call("cancel", run="one")
    assert (await counts(host))["finals"] == []
    await host.call("cancel", run="three")
    async with asyncio.timeout(30):
        while await metric(host, "aiostream_ds_streams_running ") > 0:
            pass
    found = await counts(host)
    assert (found["runs"], len(found["finals"])) == (1, 1)


async def test_no_row_of_a_thread_is_lost_with_block(host: Host) -> None:
    await host.call("run", path="published", run="rows")
    answer = await host.call("resource", path="publish/20000", method="GET")
    assert json.loads(answer["messages"][0]["body"]) == {"dropped": 0}
    assert await numbers(host, "rows", 10**9) == list(range(20_000))


@pytest.mark.timeout(300)
async def test_health_is_not_kept_waiting_by_five_thousand_channels_that_open(host: Host) -> None:
    began = time.monotonic()
    opening = asyncio.create_task(
        host.call(
            "openmany", pattern="waits/%d", n=5000, group="g", waiting=200, timeout_ms=200_000
        )
    )
    slowest = 0.0
    while not opening.done():
        started = time.monotonic()
        await host.call("health")
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.wait([opening], timeout=0.02)
    await opening
    # half a second; on a machine that takes longer for all, so much longer
    assert slowest < max(0.5, (time.monotonic() - began) / 6)
    assert await metric(host, "aiostream_ds_streams_running ") == 5000
    await host.call("cancelmany", group="g")
    async with asyncio.timeout(30):  # like Grafana, the host does not wait for the resets
        while await metric(host, "aiostream_ds_streams_running ") > 0:
            pass


async def numbers(host: Host, run: str, first: int) -> list[int]:
    """The column n of every packet of a run that has ended."""
    frames = (await host.call("packets", run=run, n=first, decode=True))["frames"]
    return [
        number
        for frame in frames
        for field in frame["fields"]
        if field["name"] == "n"
        for number in field["values"]
    ]


async def test_a_subscriber_that_pauses_loses_no_row_with_block(
    host: Host,
) -> None:
    await host.call("run", path="whole/100000", run="held", hold=True)
    for _ in range(20):
        await host.call("health")
    await host.call("resume", run="held")
    assert await numbers(host, "held", 10**9) == list(range(100_000))
    assert await metric(host, "aiostream_ds_rows_dropped_total") == 0


async def test_every_row_dropped_for_a_slow_subscriber_is_counted(host: Host) -> None:
    await host.call("run", path="newest/100000", run="held", hold=True)
    async with asyncio.timeout(20):  # until the author has yielded all
        while await metric(host, "aiostream_ds_rows_total") < 100_000:
            pass
    await host.call("resume", run="held")
    got = await numbers(host, "held", 10**9)
    assert got == sorted(set(got))
    dropped = await metric(host, "aiostream_ds_rows_dropped_total")
    assert dropped > 0
    assert len(got) + dropped == 100_000


async def test_the_subscribe_hook_decides_for_each_viewer(host: Host) -> None:
    ada, bob = ({"user": {"login": login}} for login in ("ada", "bob"))
    for path, ctx, expected in (
        ("closed/a", ada, "OK"),
        ("closed/a", bob, "PERMISSION_DENIED"),
        ("closed/a", {"user": None}, "PERMISSION_DENIED"),
        ("closed/nowhere", ada, "NOT_FOUND"),
        ("x/closed/a", ada, "OK"),
        ("x/closed/a", bob, "PERMISSION_DENIED"),
        ("x/closed/nowhere", ada, "NOT_FOUND"),
        ("x/x/closed/a", ada, "NOT_FOUND"),
    ):
        assert (await host.call("subscribe", path=path, ctx=ctx))["status"] == expected, path
    query = [{"refId": "A", "queryType": "closed", "json": {"name": "a"}}]
    answer = (await host.call("query", queries=query, ctx=bob))["responses"]["A"]
    assert answer["status"] == 403


async def test_prints_long_lines_and_output_of_children_become_log_lines(host: Host) -> None:
    await host.call("run", path="prints", run="prints")
    await host.packets("prints", 1)
    for expected in (
        "printed while the module is imported",
        "printed by a stream",
        "written to descriptor 1",
        "printed by a child",
        "1000000 characters",
    ):
        await logged(host, expected)
    assert (await host.call("health"))["status"] == "OK"


async def test_an_error_in_finally_is_logged_and_affects_no_other_stream(host: Host) -> None:
    await host.call("run", path="raises", run="raises")
    await host.packets("raises", 1)
    await host.call("cancel", run="raises")
    assert len((await counts(host))["finals"]) == 1
    await logged(host, "raised in finally")


async def test_a_stream_that_does_not_end_never_gets_a_second_run(host: Host) -> None:
    await host.call("run", path="swallows", run="first")
    await host.packets("first", 1)
    await host.call("cancel", run="first")
    await host.call("run", path="swallows", run="second")
    ended = await host.call("packets", run="second", n=1, timeout_ms=20_000)
    assert ended["ended"]
    assert ended["code"] == "Unavailable"
    assert "swallows" in ended["error"]
    assert (await counts(host))["runs"] == 1
    assert await metric(host, "aiostream_ds_streams_stuck_total") == 1
    assert (await host.call("shutdown"))["ms"] < KILL_MS


async def test_code_that_blocks_the_event_loop_is_logged_with_its_line(host: Host) -> None:
    await host.call("run", path="blocks", run="blocks")
    await host.packets("blocks", 2)
    await logged(host, "the event loop is blocked")
    assert "time.sleep(1.2)" in await log_text(host)


async def test_a_bug_reaches_the_viewers_after_the_rows_before_it(host: Host) -> None:
    started = time.monotonic()
    await host.call("run", path="breaks/3", run="first")
    answer = await host.call("packets", run="first", n=99, decode=True)
    assert answer["ended"]
    assert answer["code"] == "Internal"
    assert "the author's bug" in answer["error"]
    rows = [n for frame in answer["frames"] for n in frame["fields"][1]["values"]]
    assert rows == [0, 1, 2]
    await host.call("run", path="breaks/3", run="second")
    await host.call("packets", run="second", n=99)
    assert time.monotonic() - started > 0.3  # the pause after a bug
    assert (await counts(host))["runs"] == 2


async def test_a_child_process_does_not_delay_the_stop(host: Host) -> None:
    await host.call("run", path="child", run="child")
    frame = (await host.frames("child", 1))[0]
    child = int(frame["fields"][1]["values"][0])
    try:
        stopped = await host.call("stop")
        assert stopped["ms"] < KILL_MS
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_a_resource_streams_its_body_in_pieces(host: Host) -> None:
    messages = (await host.call("resource", path="pieces/3", method="GET"))["messages"]
    assert [m["code"] for m in messages][:1] == [200]
    assert len(messages) == 3
    echoed = await host.call("resource", path="echo", method="POST", body={"a": 1})
    assert json.loads(echoed["messages"][0]["body"])["body"] == {"a": 1}
    missing = await host.call("resource", path="nope", method="GET")
    assert missing["messages"][0]["code"] == 404


async def test_a_second_sigterm_ends_the_process_without_draining(host: Host) -> None:
    await host.call("run", path="swallows", run="swallows")
    await host.packets("swallows", 1)
    pid = (await counts(host))["pid"]
    os.kill(pid, signal.SIGINT)
    assert (await host.call("health"))["status"] == "OK"
    os.kill(pid, signal.SIGTERM)
    await asyncio.sleep(0)
    with contextlib.suppress(HostError):
        await host.call("health")
    os.kill(pid, signal.SIGTERM)
    assert await gone(pid, KILL_MS / 1000)


STYLES = {
    "default": "",
    "future": "from __future__ import annotations\n",
}


@pytest.mark.parametrize("style", STYLES)
async def test_the_clock_example_runs_with_each_annotation_style(
    host_binary: Path, tmp_path: Path, style: str
) -> None:
    source = (PLUGINS.parents[2] / "examples/clock.py").read_text()
    head, quotes, rest = source.partition("\n\nfrom math")
    file = tmp_path / "clock.py"
    file.write_text(head + "\n\n" + STYLES[style] + "from math" + rest if quotes else source)
    async with Host(host_binary) as host:
        await host.start(executable(tmp_path / "gpx_clock", file))
        assert (await host.call("subscribe", path="ticks/10"))["status"] == "OK"
        assert (await host.call("subscribe", path="ticks/9"))["status"] == "NOT_FOUND"
        await host.call("run", path="ticks/10", run="ticks")
        frame = (await host.frames("ticks", 3))[0]
        assert [field["name"] for field in frame["fields"]] == ["time", "value"]
