"""Five hundred viewers on fifty channels who come and go ten thousand times, through a real host:
one run of each channel throughout, counted by the outside, and nothing left of anybody."""

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
AT_ONCE = 50  # calls under way


@pytest_asyncio.fixture
async def host(host_binary: Path, tmp_path: Path) -> AsyncIterator[Host]:
    async with Host(host_binary) as host:
        await host.start(executable(tmp_path / "gpx_crowd", PLUGINS / "crowd.py"))
        yield host


class Crowd:
    """Viewers by name, each on one channel or on none."""

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
            some = self.chance.sample(names, min(AT_ONCE, joins - self.joins))
            await asyncio.gather(*map(self.wander, some))


async def everybody_is_in(host: Host) -> None:
    """`run` answers before the plugin has read it."""
    for _ in range(100):
        if await metric(host, "aiostream_ds_subscriptions ") == VIEWERS:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("some joins have not arrived")


async def emptied(host: Host, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The counts once the last stream has ended, and its calls, which do so a moment later: as many
    tasks and files are there as `before`, or they stay."""
    for _ in range(100):
        found = await counts(host)
        as_before = before is None or all(found[what] == before[what] for what in ("tasks", "fds"))
        if not found["running"] and not found["kept"]["Channel"] and as_before:
            return found
        await asyncio.sleep(0.1)
    return found


async def test_ten_thousand_joins_leave_nothing_and_start_nothing_twice(host: Host) -> None:
    crowd = Crowd(host, seed=6)
    await metric(host, "aiostream_ds_subscriptions ")  # loads what is loaded when first asked
    empty = await emptied(host)
    pinned = [f"pinned {n}" for n in range(CHANNELS)]
    wandering = [f"viewer {n}" for n in range(VIEWERS - CHANNELS)]
    await asyncio.gather(*(crowd.join(name, n) for n, name in enumerate(pinned)))
    for start in range(0, len(wandering), AT_ONCE):
        some = wandering[start : start + AT_ONCE]
        await asyncio.gather(*(crowd.join(n, crowd.chance.randrange(CHANNELS)) for n in some))
    for name in (*pinned, *wandering):
        assert await host.packets(name, 1)
    await crowd.wander_until(wandering, 2_000)
    early = resident(empty["pid"], "VmRSS")
    await crowd.wander_until(wandering, JOINS)
    await everybody_is_in(host)
    full = await counts(host)
    late = resident(empty["pid"], "VmRSS")

    assert crowd.joins == JOINS
    assert full["starts"] == full["asked"] == [1] * CHANNELS, "one run of each channel throughout"
    assert (full["opened"], full["most"], full["followers"]) == (1, 1, CHANNELS)
    assert full["kept"]["Subscription"] == VIEWERS and full["kept"]["Channel"] == CHANNELS
    assert await metric(host, "aiostream_ds_streams_running ") == CHANNELS
    for name in (*pinned, *wandering):  # each of them sees rows
        assert await host.packets(name, 1, timeout_ms=5_000)

    for name in (*pinned, *wandering):
        await crowd.leave(name)
    after = await emptied(host, empty)
    assert after["running"] == after["followers"] == 0
    assert after["tasks"] == empty["tasks"] and after["fds"] == empty["fds"]
    for name in ("Subscription", "Channel", "Follower"):
        assert after["kept"][name] == 0, name
    assert after["kept"]["Call"] <= empty["kept"]["Call"]
    assert after["kept"]["Http2Stream"] <= empty["kept"]["Http2Stream"]
    kept = after["objects"] - empty["objects"]
    print(f"{late - early:,} bytes more after 8,000 joins more, {kept} objects kept at the end")
    assert kept < 40 * CHANNELS, "what is remembered of fifty paths"
    assert late - early < 4_000_000, "of which h2 remembers 4,096 streams that have ended"


async def test_channels_that_run_empty_never_run_twice_at_a_time(host: Host) -> None:
    crowd = Crowd(host, seed=7)
    names = [f"viewer {n}" for n in range(20)]
    await asyncio.gather(*(crowd.join(name, n % 5) for n, name in enumerate(names)))
    while crowd.joins < 1_000:
        some = crowd.chance.sample(names, 15)
        await asyncio.gather(*map(crowd.leave, some))
        await asyncio.gather(*(crowd.join(name, crowd.chance.randrange(5)) for name in some))
    found = await counts(host)
    assert found["most"] == 1 and found["followers"] <= 5
    # of some runs the last viewer has left before their first step
    assert sum(found["starts"]) <= await metric(host, "aiostream_ds_stream_starts_total ")
    for name in names:
        assert await host.packets(name, 1, timeout_ms=5_000), "everybody is served"
        await crowd.leave(name)
    assert (await emptied(host))["kept"]["Subscription"] == 0
