"""Another node takes a channel soon after its owner has died: in virtual time, over many deaths."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiostream_ds._cluster.engine import Ownership
from tests.cluster.simulation import LEASE, History, Process, Scenario, Upstream

DEATHS = 60
CRASH = 1.1 * LEASE / 3 + LEASE / 5  # seconds until a missed renewal, and of silence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@asynccontextmanager
async def playing(history: History) -> AsyncIterator[None]:
    """All nodes have viewers of all channels."""
    names = [f"c{number}" for number in range(history.scenario.channels)]
    history.upstreams = {name: Upstream(history, name) for name in names}
    for number in range(history.scenario.nodes):
        await start(history, number)
    await asyncio.sleep(2)
    yield
    for process in [*history.processes.values(), *history.dead]:
        await process.stop()


async def start(history: History, number: int) -> None:
    history.start(number)
    await asyncio.sleep(0.1)
    for name in history.upstreams:
        history.processes[number].view(name)


async def times_after(history: History, is_killed: bool) -> list[float]:
    """Seconds from each death of an owner to the next run of each of its upstreams. It is killed,
    or stopped as by SIGSTOP."""
    found: list[float] = []
    async with playing(history):
        for _ in range(DEATHS):
            await asyncio.sleep(1.5 + history.random.random())
            number = history.random.choice(list(history.processes))
            process = history.processes[number]
            lost = [n for n, each in history.upstreams.items() if process in each.runs.values()]
            died = history.loop.time()
            if is_killed:
                process.kill()
                history.dead.append(history.processes.pop(number))
            else:
                history.loop.stop_node(process.name)
            while lost:
                await asyncio.sleep(0.005)
                left = [name for name in lost if not is_read_elsewhere(history, name, process)]
                found += [history.loop.time() - died] * (len(lost) - len(left))
                lost = left
            if is_killed:
                await start(history, number)
            else:
                history.loop.continue_node(process.name)
    return found


def is_read_elsewhere(history: History, name: str, process: Process) -> bool:
    return any(each is not process for each in history.upstreams[name].runs.values())


def play(history: History, is_killed: bool = True) -> list[float]:
    times = sorted(history.loop.run_until_complete(times_after(history, is_killed)))
    history.loop.settle()
    history.loop.close()
    assert not history.failures
    assert len(times) > DEATHS / 2
    print(f"{len(times)} takeovers: {times[0]:.2f} to {times[-1]:.2f} s")
    return times


@pytest.mark.parametrize("latency", [0.004, 0.03])
def test_a_crash_is_noticed_before_the_lease_ends(latency):
    times = play(History(1, Scenario(channels=4, latency=latency)))
    # the list of nodes is asked for eight times in a lease, also for the silence; then some calls
    assert times[-1] < CRASH + LEASE / 4 + 8 * latency < LEASE
    assert times[0] > LEASE / 5


@pytest.mark.parametrize("latency", [0.004, 0.03])
def test_a_channel_has_another_owner_after_the_lease_if_the_engine_knows_no_watchers(latency):
    history = History(1, Scenario(channels=4, latency=latency, knows_watchers=False))
    times = play(history)
    assert times[-1] < LEASE + LEASE / 8 + 8 * latency
    assert times[0] > LEASE * 2 / 3 - latency


def test_an_owner_that_is_stopped_keeps_its_channels_until_its_lease_ends():
    times = play(History(1, Scenario(channels=4)), is_killed=False)
    assert times[0] > LEASE * 2 / 3 - 0.01
    assert times[-1] < LEASE + LEASE / 8 + 0.1


def test_no_channel_moves_when_the_engine_starts_again():
    history = History(1, Scenario(channels=4))

    async def restart_often() -> None:
        async with playing(history):
            nodes = [process.node for process in history.processes.values()]
            before = [node.state.takeovers for node in nodes]
            for _ in range(DEATHS):
                history.server.is_up = False
                await asyncio.sleep(history.random.uniform(0.05, 0.6))
                history.server.is_up = True
                history.server.restart(keep=True)
                await asyncio.sleep(2 + history.random.random())
            assert [node.state.takeovers for node in nodes] == before

    history.loop.run_until_complete(restart_often())
    history.loop.settle()
    history.loop.close()
    assert not history.failures


def test_a_crash_is_noticed_by_nodes_that_have_connected_again_since_they_saw_the_owner():
    history = History(1, Scenario(channels=4))
    early: list[float] = []  # seconds before the end of the lease

    async def reconnect_and_kill() -> None:
        async with playing(history):
            while len(early) < DEATHS // 4:
                number = history.random.choice(list(history.processes))
                process = history.processes.pop(number)
                for other in history.processes.values():
                    other.engine.disconnect()
                await asyncio.sleep(2 + history.random.random())
                owned = [
                    n for n, each in history.upstreams.items() if process in each.runs.values()
                ]
                end = history.server.leases[process.name]
                process.kill()
                history.dead.append(process)
                while not all(is_read_elsewhere(history, name, process) for name in owned):
                    await asyncio.sleep(0.005)
                early.extend([end - history.loop.time()] * bool(owned))
                await start(history, number)

    history.loop.run_until_complete(reconnect_and_kill())
    history.loop.settle()
    history.loop.close()
    assert not history.failures
    assert min(early) > 0


def test_each_channel_is_taken_by_one_of_the_nodes_with_many_and_each_node_takes_a_share():
    history = History(1, Scenario(nodes=3, channels=60, channels_of_node=500))
    attempts: list[str] = []
    take = history.server.take

    def counted(channel: str, node: str, payload: bytes) -> Ownership:
        attempts.append(node)
        return take(channel, node, payload)

    async def kill() -> None:
        async with playing(history):
            number, process = max(
                history.processes.items(),
                key=lambda each: sum(
                    each[1] in upstream.runs.values() for upstream in history.upstreams.values()
                ),
            )
            lost = [n for n, each in history.upstreams.items() if process in each.runs.values()]
            assert len(lost) > 15
            history.server.take = counted
            process.kill()
            history.dead.append(history.processes.pop(number))
            while not all(is_read_elsewhere(history, name, process) for name in lost):
                await asyncio.sleep(0.005)
            shares = Counter(attempts)
            assert shares.total() == len(lost)
            assert len(shares) == 2 and min(shares.values()) > len(lost) / 5

    history.loop.run_until_complete(kill())
    history.loop.settle()
    history.loop.close()
    assert not history.failures
