"""An engine that takes its time for each call: many channels that join at once do not hold each
other up until none of them is shared. In virtual time."""

import asyncio

import pytest

from aiostream_ds._cluster import call_limits
from tests.cluster.simulation import History, Scenario, Upstream
from tests.cluster.test_takeover_times import playing

CHANNELS = 200
WORK = 0.0018  # seconds for a call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("read_work", [WORK, 8 * WORK])
@pytest.mark.parametrize("outage", [0.0, 3.0])
def test_all_channels_are_shared_again_soon_after_an_outage(outage, read_work):
    history = History(1, Scenario(channels=CHANNELS, rate=1.0))
    server = history.server

    async def interrupt() -> None:
        async with playing(history):
            await until_shared(history, 20)
            server.work, server.read_work = WORK, read_work
            server.is_up = False
            server.restart(keep=True)
            await asyncio.sleep(outage)
            server.is_up = True
            await until_shared(history, 40)

    history.loop.run_until_complete(interrupt())
    history.loop.settle()
    history.loop.close()
    assert not history.failures


def test_a_channel_is_opened_before_the_checks_of_silent_ones(monkeypatch):
    monkeypatch.setattr(call_limits, "_MOST", 4)
    monkeypatch.setattr(call_limits, "_FEWEST", 4)
    history = History(1, Scenario(nodes=1, channels=CHANNELS, rate=0.0))

    async def opened_after() -> float:
        async with playing(history):
            await until_shared(history, 20)
            process = history.processes[0]
            process.engine.latency = (0.1, 0.1)  # 20 calls a second; there are 33 checks
            await asyncio.sleep(20)
            upstream = history.upstreams["new"] = Upstream(history, "new")
            began = history.loop.time()
            process.view("new")
            while not upstream.runs:
                await asyncio.sleep(0.1)
            return history.loop.time() - began

    seconds = history.loop.run_until_complete(opened_after())
    history.loop.settle()
    history.loop.close()
    assert seconds < 4 and not history.failures


async def until_shared(history: History, seconds: float) -> None:
    """Wait until each channel has one run, for three seconds on end."""
    loop, upstreams = history.loop, history.upstreams.values()
    began = since = loop.time()
    while loop.time() - since < 3:
        await asyncio.sleep(0.1)
        shared = sum(len(each.runs) == 1 for each in upstreams)
        if shared < len(upstreams):
            since = loop.time()
        assert since - began < seconds, f"{shared} of {len(upstreams)} channels have one run"
    print(f"shared after {since - began:.1f} s, {history.server.operations}")
