"""Five hundred viewers of fifty channels join and leave ten thousand times, under the Go host: each
channel has one run, counted by the upstream system, and no object is leaked."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from .driver import Host
from .test_pressure import counts, resident
from .test_unusual_plugins import PLUGINS, executable, metric

pytestmark = [
    pytest.mark.go,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's"),
]

CHANNELS, VIEWERS, JOINS = 50, 500, 10_000
CONCURRENT = 50  # calls at a time


@pytest_asyncio.fixture
async def host(host_binary: Path, tmp_path: Path) -> AsyncIterator[Host]:
    async with Host(host_binary) as host:
        await host.start(executable(tmp_path / "gpx_crowd", PLUGINS / "crowd.py"))
        yield host


class Crowd:
    """Viewers by name, each on at most one channel."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.chance = random.Random(seed)
        self.joins = 0

    async def join(self, name: str, channel: int) -> None:
        self.joins += 1
        await self.host.call("run", path=f"c/{channel}", run=name)

    async def leave(self, name: str) -> None:
        await self.host.call("cancel", run=name)

    async def wander(self, name: str) -> None:
        await self.leave(name)
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.random() / 50)
        await self.join(name, self.chance.randrange(CHANNELS))

    async def wander_until(self, names: list[str], joins: int) -> None:
        while self.joins < joins:
            some = self.chance.sample(names, min(CONCURRENT, joins - self.joins))
            await asyncio.gather(*map(self.wander, some))


async def all_have_joined(host: Host, viewers: int = VIEWERS) -> None:
    """Wait for all joins: `run` answers before the plugin has read it."""
    for _ in range(100):
        if await metric(host, "aiostream_ds_subscriptions ") == viewers:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("some viewers have not joined")


async def emptied(host: Host, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The counts once the last stream and its calls have ended, or after ten seconds.

    Calls end a moment after their streams: then there are as many tasks and files as `before`, and
    not more calls.
    """
    for _ in range(100):
        found = await counts(host)
        as_before = before is None or (
            all(found[what] == before[what] for what in ("tasks", "fds"))
            and found["kept"]["Call"] <= before["kept"]["Call"]
        )
        if not found["running"] and not found["kept"]["Channel"] and as_before:
            return found
        await asyncio.sleep(0.1)
    return found


@pytest.mark.alone
async def test_ten_thousand_joins_leak_nothing_and_start_each_stream_once(host: Host) -> None:
    crowd = Crowd(host, seed=6)
    await metric(host, "aiostream_ds_subscriptions ")  # the first call imports modules
    empty = await emptied(host)
    pinned = [f"pinned {n}" for n in range(CHANNELS)]
    wandering = [f"viewer {n}" for n in range(VIEWERS - CHANNELS)]
    await asyncio.gather(*(crowd.join(name, n) for n, name in enumerate(pinned)))
    for start in range(0, len(wandering), CONCURRENT):
        some = wandering[start : start + CONCURRENT]
        await asyncio.gather(*(crowd.join(n, crowd.chance.randrange(CHANNELS)) for n in some))
    for name in (*pinned, *wandering):
        assert await host.packets(name, 1)
    await crowd.wander_until(wandering, 2_000)
    early = resident(empty["pid"], "VmRSS")
    await crowd.wander_until(wandering, JOINS)
    await all_have_joined(host)
    full = await counts(host)
    late = resident(empty["pid"], "VmRSS")

    assert crowd.joins == JOINS
    assert full["starts"] == full["subscribed"] == [1] * CHANNELS, "each channel has one run"
    assert (full["opened"], full["most"], full["followers"]) == (1, 1, CHANNELS)
    assert full["kept"]["Subscription"] == VIEWERS and full["kept"]["Channel"] == CHANNELS
    assert await metric(host, "aiostream_ds_streams_running ") == CHANNELS
    for name in (*pinned, *wandering):  # each of them gets rows
        assert await host.packets(name, 1, timeout_ms=5_000)

    for name in (*pinned, *wandering):
        await crowd.leave(name)
    after = await emptied(host, empty)
    assert after["running"] == after["followers"] == 0
    assert after["tasks"] == empty["tasks"] and after["fds"] == empty["fds"]
    for name in ("Subscription", "Channel", "_Queue"):
        assert after["kept"][name] == 0, name
    assert after["kept"]["Call"] <= empty["kept"]["Call"]
    assert after["kept"]["CallStream"] <= empty["kept"]["CallStream"]
    kept = after["objects"] - empty["objects"]
    print(f"{late - early:,} bytes more after 8,000 more joins, {kept} more objects at the end")
    # the caches of fifty paths, and modules that the first row and join have imported
    assert kept < 100 * CHANNELS
    assert late - early < 4_000_000, "a connection remembers 4,096 closed streams"


async def test_a_channel_that_empties_never_has_two_runs_at_a_time(host: Host) -> None:
    crowd = Crowd(host, seed=7)
    names = [f"viewer {n}" for n in range(20)]
    await asyncio.gather(*(crowd.join(name, n % 5) for n, name in enumerate(names)))
    while crowd.joins < 1_000:
        some = crowd.chance.sample(names, 15)
        await asyncio.gather(*map(crowd.leave, some))
        await asyncio.gather(*(crowd.join(name, crowd.chance.randrange(5)) for name in some))
    await all_have_joined(host, len(names))
    found = await counts(host)
    assert found["most"] == 1 and found["followers"] <= 5
    # some runs are cancelled before their first step
    assert sum(found["starts"]) <= await metric(host, "aiostream_ds_stream_starts_total ")
    for name in names:
        assert await host.packets(name, 1, timeout_ms=5_000), "each viewer gets rows"
        await crowd.leave(name)
    assert (await emptied(host))["kept"]["Subscription"] == 0
