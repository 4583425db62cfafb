"""The packaged plugin, started by a real go-plugin host as by Grafana."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aiostream_ds.sources.builtin_plugin import SOURCES

from ..requirements import require
from .driver import Host, HostError

pytestmark = [pytest.mark.go, pytest.mark.timeout(60)]

KILL_MS = 2_000
"""Milliseconds after which go-plugin kills a plugin. An idle machine needs some 50."""

WALK = {"queryType": "walk", "hz": 10, "seed": 1}


@pytest_asyncio.fixture
async def host(host_binary: Path, packaged: Path) -> AsyncIterator[Host]:
    async with Host(host_binary) as host:
        await host.start(packaged)
        yield host


async def ask(host: Host, **model: Any) -> dict[str, Any]:
    """The response to one query."""
    now = round(time.time() * 1000)
    query = {"refId": "A", "json": model, "from": now - 60_000, "to": now}
    query |= {"queryType": model.pop("queryType", ""), "maxDataPoints": 1000}
    answer: dict[str, Any] = (await host.call("query", queries=[query]))["responses"]["A"]
    return answer


async def gone(pid: int, within: float) -> bool:
    """Whether the process exits within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while is_running(pid):
                await asyncio.sleep(0.02)
    return not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether the process has not ended; that of a dead parent may be a zombie for a while."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("env", ["full", "empty"])
@pytest.mark.parametrize("automtls", [False, True], ids=["no TLS", "automtls"])
async def test_the_plugin_starts_in_any_environment(
    host_binary: Path, packaged: Path, env: str, automtls: bool
) -> None:
    if automtls:
        require("mtls", _has_cryptography(), "the package cryptography is missing")
    async with Host(host_binary) as host:
        started = await host.start(packaged, env=env, automtls=automtls)
        assert started["network"] == "unix"
        assert (await host.call("health"))["status"] == "OK"
        assert (await host.call("grpchealth", service="plugin"))["status"] == "SERVING"


def _has_cryptography() -> bool:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


async def test_live_rows_of_the_walk_continue_where_its_history_ends(host: Host) -> None:
    answer = await ask(host, **WALK)
    assert answer["status"] == 200
    (frame,) = answer["frames"]
    assert [field["type"] for field in frame["fields"]] == ["time.Time", "float64"]
    uid, _, path = frame["meta"]["channel"].removeprefix("ds/").partition("/")
    assert path == "walk/10/1"
    subscribed = await host.call("subscribe", path=path, ctx={"uid": uid})
    assert subscribed["status"] == "OK"
    assert not subscribed["data"], "else a refresh draws the history twice"
    await host.call("run", path=path, run="walk", ctx={"uid": uid})
    live = await host.frames("walk", 5)
    history = _rows(frame)
    rows = [row for packet in live for row in _rows(packet)]
    steps = [abs(b[1] - a[1]) for a, b in itertools.pairwise(history)]
    assert rows[0][0] > history[-1][0]
    assert all(b[0] > a[0] for a, b in itertools.pairwise(rows))
    ticks = round((rows[0][0] - history[-1][0]).total_seconds() * 10)
    assert abs(rows[0][1] - history[-1][1]) <= max(steps) * 2 * ticks
    stats = await host.call("stats", run="walk")
    assert (stats["mismatches"], stats["bad"]) == (0, 0)
    again = await ask(host, **WALK)
    assert set(rows) <= set(_rows(again["frames"][0])) | set(rows[-1:])


def _rows(frame: dict[str, Any]) -> list[tuple[datetime, float]]:
    times, values = (field["values"] for field in frame["fields"])
    return [
        (datetime.fromisoformat(time.replace("Z", "+00:00")), value)
        for time, value in zip(times, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"hz": -1}, "hz: expected int >= 1, got -1"),
        ({"hz": "x"}, "hz: expected int, got 'x'"),
        ({"hz": 1e99}, "hz: expected int, got 1e+99"),
        ({"hz": 1001}, "hz: expected int <= 1000, got 1001"),
        ({"queryType": "wolk"}, "the query type must be one of 'walk', got 'wolk'"),
        ({"padding": "x" * 10_000_000}, "expected a query of at most"),
    ],
    ids=["hz -1", "hz x", "hz 1e99", "hz 1001", "unknown type", "10 MB"],
)
async def test_a_bad_query_is_a_400_that_names_the_value_and_the_process_keeps_running(
    host: Host, model: dict[str, Any], message: str
) -> None:
    answer = await ask(host, **{**WALK, **model})
    assert answer["status"] == 400
    assert message in answer["error"]
    assert answer["errorSource"] == "downstream"
    assert (await ask(host, **WALK))["status"] == 200


async def test_a_query_that_is_not_json_does_not_affect_the_others(host: Host) -> None:
    bad = {"refId": "A", "json": "{", "queryType": "walk"}
    good = {"refId": "B", "json": WALK, "queryType": "walk"}
    responses = (await host.call("query", queries=[bad, good]))["responses"]
    assert responses["A"]["status"] == 400
    assert "must be valid JSON" in responses["A"]["error"]
    assert responses["B"]["status"] == 200


async def test_a_query_may_request_json_or_chunks(host: Host) -> None:
    query = {"refId": "A", "json": WALK, "queryType": "walk"}
    answer = (await host.call("query", queries=[query], format="JSON"))["responses"]["A"]
    assert [field["name"] for field in answer["frames"][0]["fields"]] == ["time", "value"]
    chunks = (await host.call("chunked", queries=[query]))["chunks"]
    assert [chunk["status"] for chunk in chunks] == [200]


async def test_an_unknown_path_is_not_found_and_publishing_is_denied(host: Host) -> None:
    assert (await host.call("subscribe", path="nope"))["status"] == "NOT_FOUND"
    assert (await host.call("subscribe", path="walk/0/1"))["status"] == "NOT_FOUND"
    assert (await host.call("subscribe", path="walk/010/1"))["status"] == "NOT_FOUND"
    published = await host.call("publish", path="walk/10/1", data={"v": 1})
    assert published["status"] == "PERMISSION_DENIED"


async def test_the_host_source_sends_metrics_of_this_machine(host: Host) -> None:
    ctx = {"uid": "h", "jsonData": {"source": "host", "interval": 0.1}}
    assert (await host.call("health", ctx=ctx))["status"] == "OK"
    await host.call("run", path="cpu", run="cpu", ctx=ctx)
    frame = (await host.frames("cpu", 1))[0]
    busy = next(field for field in frame["fields"] if field["name"] == "busy")
    assert busy["config"]["unit"] == "percent"
    assert 0 <= busy["values"][0] <= 100
    denied = await host.call("subscribe", path="net/bm9zdWNobmlj", ctx=ctx)
    assert denied["status"] == "NOT_FOUND"


async def test_save_and_test_names_an_unknown_source(host: Host) -> None:
    answer = await host.call("health", ctx={"uid": "x", "jsonData": {"source": "demoo"}})
    assert answer["status"] == "ERROR"
    assert answer["message"].endswith(
        f"source must be one of {', '.join(map(repr, SOURCES))}, got 'demoo'"
    )


async def test_shutdown_ends_the_process_before_the_host_kills_it(
    host_binary: Path, packaged: Path
) -> None:
    async with Host(host_binary) as host:
        await host.start(packaged)
        await host.call("run", path="walk/100/1", run="walk")
        await host.packets("walk", 1)
        assert (await host.call("shutdown"))["ms"] < KILL_MS


@pytest.mark.alone
async def test_the_plugin_exits_within_two_seconds_after_the_host_was_killed(
    host_binary: Path, packaged: Path
) -> None:
    async with Host(host_binary) as host:
        pid = (await host.start(packaged))["pid"]
        await host.call("run", path="walk/100/1", run="walk")
        await host.packets("walk", 1)
        host.kill()
        assert await gone(pid, 2.0)


async def test_a_compressed_message_fails_its_call_and_the_plugin_goes_on(host: Host) -> None:
    with pytest.raises(HostError) as caught:
        await host.call("compressed")
    assert caught.value.code == "Unimplemented"
    assert (await host.call("health"))["status"] == "OK"
