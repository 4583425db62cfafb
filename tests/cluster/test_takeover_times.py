"""Another node takes a channel soon after its owner has died: in virtual time, over many deaths."""

import asyncio

import pytest

from tests.cluster.simulation import LEASE, History, Scenario, Upstream

KILLS = 60


async def times_of(history: History) -> list[float]:
    """Seconds from each death of an owner to the next run of each of its upstreams."""
    names = [f"c{number}" for number in range(history.scenario.channels)]
    history.upstreams = {name: Upstream(history, name) for name in names}
    for number in range(history.scenario.nodes):
        history.start(number)
    await asyncio.sleep(0.1)
    for process in history.processes.values():
        for name in names:
            process.view(name)
    await asyncio.sleep(2)
    found: list[float] = []
    for _ in range(KILLS):
        await asyncio.sleep(1.5 + history.random.random())
        number = history.random.choice(list(history.processes))
        process = history.processes.pop(number)
        lost = {n for n in names if process in history.upstreams[n].runs.values()}
        process.kill()
        history.dead.append(process)
        died = history.loop.time()
        while lost:
            await asyncio.sleep(0.005)
            taken = {name for name in lost if history.upstreams[name].runs}
            found += [history.loop.time() - died] * len(taken)
            lost -= taken
        history.start(number)
        await asyncio.sleep(0.1)
        for name in names:
            history.processes[number].view(name)
    for process in [*history.processes.values(), *history.dead]:
        await process.stop()
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("latency", [0.004, 0.03])
def test_a_channel_has_another_owner_soon_after_the_lease_of_the_last_one(latency):
    history = History(1, Scenario(channels=4, latency=latency))
    times = sorted(history.loop.run_until_complete(times_of(history)))
    history.loop.settle()
    history.loop.close()
    assert not history.failures
    assert len(times) > KILLS
    print(f"{len(times)} takeovers: p99 {times[int(len(times) * 0.99)]:.2f} s, {times[-1]:.2f} s")
    # the list of nodes is asked for eight times in a lease; then some calls
    assert times[-1] < LEASE + LEASE / 8 + 8 * latency
