"""One upstream for three Grafana servers: Go hosts with a plugin process each, and a real engine.

The upstream counts its runs; exact panels on all servers are compared with its rows through
`kill -9`, pauses and restarts of the engine. The long run needs AIOSTREAM_DS_CLUSTER_FAULTS.
"""

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from tests.servers import Nats, Redis

from .cluster_logs import check_logs
from .cluster_stage import kill, open_stage, pause

PANELS = 5  # channels with an exact panel on each server
CHANNELS = int(os.environ.get("AIOSTREAM_DS_CLUSTER_CHANNELS", "30"))
FAULTS = int(os.environ.get("AIOSTREAM_DS_CLUSTER_FAULTS", "0"))

pytestmark = [pytest.mark.go, pytest.mark.slow]


@pytest.fixture(params=[Redis, Nats])
def server(request):
    with request.param() as server:
        yield server


@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", [Redis], indirect=True)
async def test_each_channel_has_one_run_for_viewers_on_all_servers(host_binary, server):
    channels = CHANNELS
    async with open_stage(host_binary, server.url, hertz=1) as stage:
        for number in range(channels):
            for node in stage.nodes:
                await node.subscribe(f"plain/c{number}", lambda packet: None)
        running = stage.upstream.running
        await stage.wait_until(lambda: len(running) == channels, 60)
        await anyio.sleep(3)
        assert set(running.values()) == {1}
        assert set(stage.upstream.runs.values()) == {1}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("server", "faults"), [(Redis, 6), (Nats, 3)], indirect=["server"])
async def test_exact_panels_miss_nothing_when_the_owner_is_killed_or_paused(
    host_binary, server, faults
):
    await play(host_binary, server, channels=4, faults=faults, seed=1)


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not FAULTS, reason="set AIOSTREAM_DS_CLUSTER_FAULTS to the number of faults")
async def test_exact_panels_miss_nothing_in_a_long_run(host_binary, server):
    await play(host_binary, server, channels=CHANNELS, faults=FAULTS, seed=FAULTS, settle=True)


async def play(
    binary: Path,
    server: Redis | Nats,
    channels: int,
    faults: int,
    seed: int,
    *,
    settle: bool = False,
) -> None:
    """`settle`: every other fault comes when the one before it is over, not soon after it."""
    chance = random.Random(seed)
    async with open_stage(binary, server.url, hertz=10 if channels < 50 else 1) as stage:
        stage.open_panels(min(channels, PANELS))
        for number in range(PANELS, channels):  # without panels, which need much processor time
            for node in stage.nodes:
                await node.subscribe(f"numbers/c{number}", lambda packet: None)
        names = [f"c{number}" for number in range(channels)]
        await stage.wait_until_shared(names)
        for number in range(1, faults + 1):
            fault = chance.choice([kill, kill, pause, None])
            if fault is None:
                await restart_engine(server, chance)
            else:
                await fault(stage, chance)
            stage.last_fault = time.monotonic()
            await anyio.sleep(chance.uniform(0.5, 2.0))
            if settle and number % 2:
                await stage.wait_until_settled(names)
            if number % 10 == 0:  # a long run may be interrupted
                wrong = len(stage.judge.wrong)
                print(f"{number} faults: {stage.judge.tally}, {wrong} wrong", flush=True)
        await anyio.sleep(3)
        await stage.end()
        counts = await check_logs(server.url)
        assert counts["channels"] == channels and counts["terms"] >= channels
        print(f"{channels} channels, {faults} faults: {stage.judge.tally}, logs: {dict(counts)}")
        print_times("takeovers", stage.takeovers)
        print_times("takeovers soon after another fault", stage.early_takeovers)
        await stage.wait_until_one_run(names)


def print_times(what: str, seconds: Sequence[float]) -> None:
    if times := sorted(seconds):
        median, p99 = statistics.median(times), times[int(len(times) * 0.99)]
        print(f"{len(times)} {what}: {median:.2f}, p99 {p99:.2f}, at most {times[-1]:.2f} s")


async def restart_engine(server: Redis | Nats, chance: random.Random) -> None:
    await asyncio.to_thread(server.stop, chance.choice([signal.SIGTERM, signal.SIGKILL]))
    await anyio.sleep(chance.choice([0.2, 3.0]))
    await asyncio.to_thread(server.start)
