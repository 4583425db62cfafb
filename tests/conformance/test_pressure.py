"""A stream that is faster than its subscriber, under the Go host: lost rows are counted exactly,
and memory does not grow with the amount sent. `--long` sends 1 GB for each policy, not 100 MB.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from .driver import Host
from .test_unusual_plugins import PLUGINS, executable, log_text

pytestmark = [pytest.mark.go, pytest.mark.timeout(600)]

RATE = 10_000_000  # bytes per second
GROWTH = 16_000_000
"""Most bytes by which the plugin may grow: a subscription's queue of 1 MiB, batches that are being
sent, socket buffers and flow-control windows, and memory that the allocator does not release."""


@pytest_asyncio.fixture
async def host(host_binary: Path, tmp_path: Path) -> AsyncIterator[Host]:
    async with Host(host_binary) as host:
        await host.start(executable(tmp_path / "gpx_pressure", PLUGINS / "pressure.py"))
        yield host


async def counts(host: Host) -> dict[str, Any]:
    message = (await host.call("resource", path="counts", method="GET"))["messages"][0]
    found: dict[str, Any] = json.loads(message["body"])
    return found


async def metrics(host: Host) -> dict[str, float]:
    lines = (await host.call("metrics"))["text"].splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("aiostream_ds_"): float(value) for name, _, value in pairs}


def resident(pid: int, what: str) -> int:
    """VmRSS or VmHWM, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc has no {what}")


async def settled(host: Host) -> dict[str, Any]:
    """The run's counts once there are no more packets."""
    before: dict[str, Any] = {}
    while True:
        now = await host.call("stats", run="run")
        if now == before and now["packets"]:
            return now
        before = now
        await asyncio.sleep(1.5)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("policy", ["drop_oldest", "latest", "block", "fail"])
@pytest.mark.alone
async def test_a_slow_subscriber_takes_bounded_memory_and_the_counts_are_exact(
    host: Host, policy: str, request: pytest.FixtureRequest, record_property: Any
) -> None:
    megabytes = 1_000 if request.config.getoption("--long") else 100
    pid = (await counts(host))["pid"]
    await host.call("run", path=f"{policy}/1", run="warm", rate=RATE)
    await asyncio.sleep(1)
    await host.call("cancel", run="warm")
    before, first = await metrics(host), resident(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM
    await host.call("run", path=f"{policy}/{megabytes}", run="run", rate=RATE)
    got = await settled(host)
    found, yielded = await metrics(host), (await counts(host))["yielded"]

    emitted = found["rows_total"] - before["rows_total"]
    dropped = found["rows_dropped_total"] - before["rows_dropped_total"]
    grown = resident(pid, "VmHWM") - first
    record_property("grown", grown)
    result = f"{emitted:.0f} rows, {got['rows']} read, {dropped:.0f} dropped, {grown:,} bytes more"
    print(f"{policy}, {megabytes} MB: {result}")
    assert got["bad"] == got["mismatches"] == got["guessed"] == 0
    assert got["rows"] + dropped == emitted, "every row that was not read is counted"
    assert grown < GROWTH
    if policy == "block":
        assert got["rows"] == yielded == megabytes * 250 and got["missing"] == dropped == 0
    elif policy == "fail":
        assert got["ended"] and got["missing"] == 0 and dropped > 0, "no gap before the end"
    else:
        assert emitted == yielded == megabytes * 250 and dropped > 0
        assert got["missing"] == dropped, "the gaps are the counted drops"
    episodes = (await log_text(host)).count("a subscriber is too slow")
    assert episodes == (policy in ("drop_oldest", "fail"))
    assert found["drop_episodes_total"] - before["drop_episodes_total"] == episodes
