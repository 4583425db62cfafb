"""An engine that takes its time for each call: many channels that join at once do not hold each
other up until none of them is shared. In virtual time."""

import asyncio

import pytest

from tests.cluster.simulation import History, Scenario
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
