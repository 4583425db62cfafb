"""The limits of what the queues of many subscriptions hold together, in virtual time."""

import asyncio
import logging

import pytest

from aiostream_ds._channels.exceptions import SlowSubscriber
from aiostream_ds._channels.memory_pool import FREE_BYTES, STEP_BYTES, MemoryPool
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Buffer, Policy
from aiostream_ds._frames.packet import Packet
from aiostream_ds._grafana.channel_counts import CountingObserver
from aiostream_ds._telemetry import Counters
from tests.channels.parts import REAL, SCHEMA, Parts

pytestmark = pytest.mark.virtual
KIB = 1024


@pytest.fixture
def parts() -> Parts:
    return REAL


def packet(size: int) -> Packet:
    return Packet(SCHEMA, b"x" * size, 1)


class Stage:
    """A registry whose channels only emit what the test gives them."""

    def __init__(self, parts: Parts, limit: int, instance_limit: int = 1 << 30) -> None:
        self.counters = Counters()
        self.memory = parts.memory.MemoryPool(limit, instance_limit)
        self.registry = parts.registry.ChannelRegistry(
            observer=CountingObserver(self.counters), memory=self.memory
        )

    def join(self, path="a", instance="i", **bounds):
        async def run(channel):
            await asyncio.Event().wait()

        key = ChannelKey(instance, path)
        buffer = Buffer(**{"rows": 1_000, "bytes": 1 << 20, **bounds})
        subscription = self.registry.join(key, run, Policy(buffer))
        return subscription, self.registry.peek(key)


async def test_a_small_queue_reserves_no_memory(parts):
    stage = Stage(parts, 0, 0)
    subscription, channel = stage.join()
    for _ in range(10):
        channel.emit(packet(FREE_BYTES // 2))
        channel.emit(packet(FREE_BYTES // 2))
        assert not subscription.is_full and len(subscription.receive_nowait()) == 2
        subscription.sent()
    assert stage.counters.memory_exhausted == 0
    await stage.registry.aclose()


async def test_memory_is_reserved_in_steps_and_released_when_the_packets_are_sent(parts):
    stage = Stage(parts, 1 << 20)
    subscription, channel = stage.join()
    channel.emit(packet(FREE_BYTES))
    assert stage.memory.used == 0
    channel.emit(packet(1))
    assert stage.memory.used == STEP_BYTES
    channel.emit(packet(STEP_BYTES))
    assert stage.memory.used == 2 * STEP_BYTES
    subscription.receive_nowait()
    assert stage.memory.used == 2 * STEP_BYTES
    subscription.sent()
    assert stage.memory.used == 0
    await stage.registry.aclose()


async def test_what_is_received_and_not_sent_counts(parts):
    stage = Stage(parts, 4 * STEP_BYTES)
    subscription, channel = stage.join()
    for _ in range(4):
        channel.emit(packet(STEP_BYTES))
    assert len(subscription.receive_nowait()) == 4
    channel.emit(packet(STEP_BYTES))
    channel.emit(packet(STEP_BYTES))
    assert subscription.statistics().dropped_packets == 1
    waiter = asyncio.ensure_future(subscription.wait())
    await asyncio.sleep(0)
    assert await waiter and stage.memory.used == STEP_BYTES
    await stage.registry.aclose()


async def test_a_queue_that_gets_no_memory_drops_its_oldest_packets(parts):
    for limits in ((4 * STEP_BYTES, 1 << 30), (1 << 30, 4 * STEP_BYTES)):
        stage = Stage(parts, *limits)
        first, of_first = stage.join("a")
        for _ in range(4):
            of_first.emit(packet(STEP_BYTES))
        second, of_second = stage.join("b")
        for _ in range(20):
            of_second.emit(packet(STEP_BYTES))
        assert second.statistics().queued_packets == 1, "the newest is always queued"
        assert second.statistics().dropped_packets == 19
        assert first.statistics().queued_packets == 4
        assert of_second.above_high_water
        first.leave()
        for _ in range(3):
            of_second.emit(packet(STEP_BYTES))
        assert second.statistics().dropped_packets == 19
        second.leave()
        assert stage.memory.used == 0
        await stage.registry.aclose()


async def test_one_instance_cannot_take_the_memory_of_another(parts):
    stage = Stage(parts, 8 * STEP_BYTES, 4 * STEP_BYTES)
    for path in "abc":
        _, channel = stage.join(path, "greedy")
        for _ in range(10):
            channel.emit(packet(STEP_BYTES // 2))
    assert stage.memory.used <= 4 * STEP_BYTES + 3 * STEP_BYTES
    other, channel = stage.join("a", "other")
    channel.emit(packet(STEP_BYTES // 2))
    channel.emit(packet(STEP_BYTES // 2))
    assert other.statistics().dropped_packets == 0
    await stage.registry.aclose()


async def test_block_makes_the_author_wait_when_there_is_no_memory(parts):
    stage = Stage(parts, STEP_BYTES)
    subscription, channel = stage.join(full="block")
    assert not channel.is_blocked
    channel.emit(packet(2 * STEP_BYTES))
    assert channel.is_blocked
    drained = asyncio.ensure_future(channel.drain())
    await asyncio.sleep(1)
    assert not drained.done()
    subscription.receive_nowait()
    await drained
    assert subscription.statistics().dropped_packets == 0
    await stage.registry.aclose()


async def test_a_queue_that_was_refused_is_not_full_when_it_was_received_and_sent(parts):
    stage = Stage(parts, STEP_BYTES)
    subscription, channel = stage.join(full="block")
    channel.emit(packet(2 * STEP_BYTES))
    subscription.receive_nowait()
    subscription.sent()
    channel.emit(packet(1))
    assert not channel.is_blocked
    await stage.registry.aclose()


async def test_latest_keeps_the_newest_packet_without_memory(parts):
    stage = Stage(parts, 0)
    subscription, channel = stage.join(full="latest")
    for size in (STEP_BYTES, 2 * STEP_BYTES):
        channel.emit(packet(size))
    assert stage.memory.used == 2 * STEP_BYTES, "it counts nevertheless"
    ((_, received),) = subscription.receive_nowait()
    assert len(received.data) == 2 * STEP_BYTES
    await stage.registry.aclose()


async def test_fail_names_the_memory_limit(parts):
    stage = Stage(parts, STEP_BYTES)
    subscription, channel = stage.join(full="fail")
    channel.emit(packet(STEP_BYTES))
    channel.emit(packet(STEP_BYTES))
    assert stage.memory.used == 0, "its queue is gone at once"
    with pytest.raises(SlowSubscriber, match="memory limit, got 2 rows and 131072 bytes queued"):
        await subscription.wait()
    await stage.registry.aclose()


async def test_an_exhausted_limit_is_logged_and_counted_once_until_it_is_over(parts, caplog):
    caplog.set_level(logging.WARNING)
    stage = Stage(parts, 1 << 30, 4 * STEP_BYTES)
    first, of_first = stage.join("a")
    second, of_second = stage.join("b")
    for _ in range(3):
        for _ in range(10):
            of_first.emit(packet(STEP_BYTES))
            of_second.emit(packet(STEP_BYTES))
    lines = [r.getMessage() for r in caplog.records if "hold" in r.getMessage()]
    assert lines == [
        "the queues of slow subscribers hold 0.25 MiB, the limit of the data source: each is now"
        " full, and its stream's buffer policy applies"
    ]
    assert stage.counters.memory_exhausted == 1
    for subscription in (first, second):
        subscription.receive_nowait()
        subscription.sent()
    for _ in range(10):
        of_first.emit(packet(STEP_BYTES))
    assert stage.counters.memory_exhausted == 2
    await stage.registry.aclose()


@pytest.mark.slow
async def test_many_stalled_subscriptions_hold_little_more_than_the_limit(parts):
    limit = 64 * STEP_BYTES
    stage = Stage(parts, limit, 1 << 30)
    joined = [stage.join(str(number), str(number % 5)) for number in range(200)]
    for _ in range(20):
        for _, channel in joined:
            channel.emit(packet(32 * KIB))
    queued = sum(each.statistics().queued_bytes for each, _ in joined)
    assert queued < limit + len(joined) * (FREE_BYTES + STEP_BYTES)
    for subscription, _ in joined:
        subscription.leave()
    assert stage.memory.used == 0
    await stage.registry.aclose()


def test_a_pool_is_exhausted_again_only_after_it_was_used_to_three_quarters():
    calls = []
    pool = MemoryPool(100)
    pool.on_exhausted = lambda: calls.append(pool.used)
    assert pool.reserve(100)
    assert not pool.reserve(1) and not pool.reserve(1)
    pool.release(10)
    assert not pool.reserve(11)
    assert calls == [100]
    pool.release(15)
    assert not pool.reserve(100)
    assert calls == [100, 75]
