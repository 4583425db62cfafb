"""How yields become packets, and how the author's generator is read and closed."""

import asyncio
import sys

import anyio
import orjson
import pytest

from aiostream_ds._channels.memory_pool import STEP_BYTES
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import (
    AHEAD_BYTES,
    BATCH_BYTES,
    BROWSER_QUEUE,
    DEMAND_WAIT,
    HIGH_WATER_ITERATIONS,
    Buffer,
    Policy,
)
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._streams.producer import pause_generator
from tests.channels.parts import REAL, SCHEMA, Parts, encode, packet, rows_of

pytestmark = pytest.mark.virtual
KEY = ChannelKey("instance", "path")


@pytest.fixture
def parts() -> Parts:
    return REAL


def packets_of(received):
    return [orjson.loads(packet.data)[0] for _, packet in received]


async def all_of(subscription):
    """Each packet's rows, and the error at the end."""
    got = []
    try:
        async for received in subscription:
            got += packets_of(received)
    except Exception as error:
        return got, error
    return got, None


async def test_rows_without_a_wait_between_them_are_one_packet(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        yield 2
        await asyncio.sleep(1)
        yield 3
        yield 4

    got, error = await all_of(registry.join(KEY, parts.stream(generator)))
    assert got == [[1, 2], [3, 4]] and error is None


async def test_rows_are_merged_while_no_subscriber_has_demand(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(5):
            yield number
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    subscription = registry.join(KEY, parts.stream(generator))
    await asyncio.sleep(10)
    assert packets_of(subscription.receive_nowait()) == [[0]]
    assert packets_of(subscription.receive_nowait()) == [[1, 2, 3, 4]]
    await registry.aclose()


async def test_a_batch_is_emitted_at_a_wait_when_one_of_two_subscribers_has_demand(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(3):
            yield number
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    slow = registry.join(KEY, parts.stream(generator))
    fast = registry.join(KEY, parts.stream(generator))
    for number in range(3):
        assert packets_of(await anext(fast)) == [[number]]
    assert packets_of(slow.receive_nowait()) == [[0], [1], [2]]
    await registry.aclose()


async def test_a_packet_has_at_most_the_maximum_number_of_rows(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(25):
            yield number

    got, _ = await all_of(registry.join(KEY, parts.stream(generator, rows=10)))
    assert [len(rows) for rows in got] == [10, 10, 5]


async def test_an_author_who_never_waits_blocks_no_task_and_loses_no_rows(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        number = 0
        while True:
            yield number
            number += 1

    policy = Policy(Buffer(rows=50))
    subscription = registry.join(KEY, parts.stream(generator, rows=40), policy)
    got = []
    async for received in subscription:
        got += rows_of(received)
        if len(got) >= 5000:
            break
    counts = subscription.statistics()
    subscription.leave()
    assert got == list(range(len(got))) and counts.dropped_rows == 0
    await registry.aclose()


@pytest.mark.parametrize("streams", [1, 8])
async def test_with_block_authors_who_never_wait_are_little_ahead_of_subscribers_that_take(
    parts, streams
):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        number = 0
        while True:
            yield f"{number:4000}"
            number += 1

    policy = Policy(Buffer(full="block"))
    runner = parts.stream(generator, rows=BATCH_BYTES // 4000)
    subscriptions = [
        registry.join(ChannelKey("instance", f"path/{index}"), runner, policy)
        for index in range(streams)
    ]
    got = [[] for _ in subscriptions]
    while min(map(len, got)) < 500:
        await asyncio.sleep(DEMAND_WAIT / 2)
        queued = sum(each.statistics().queued_bytes for each in subscriptions)
        assert queued < AHEAD_BYTES + (streams + 1) * (BATCH_BYTES + STEP_BYTES)
        for rows, subscription in zip(got, subscriptions, strict=True):
            rows += map(int, rows_of(subscription.receive_nowait()))
            subscription.sent()
    assert all(rows == list(range(len(rows))) for rows in got)
    await registry.aclose()


async def test_with_block_an_author_goes_on_while_what_is_queued_fits_the_cache(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        while True:
            yield "x" * 4000

    policy = Policy(Buffer(full="block"))
    subscription = registry.join(KEY, parts.stream(generator), policy)
    for _ in range(100):  # iterations, without the time of a pause
        await asyncio.sleep(0)
    assert subscription.statistics().queued_bytes > AHEAD_BYTES
    await registry.aclose()


async def test_with_block_an_author_fills_the_queue_of_a_subscriber_that_takes_nothing(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(100):
            yield number

    policy = Policy(Buffer(rows=50, full="block"))
    subscription = registry.join(KEY, parts.stream(generator, rows=10), policy)
    await asyncio.sleep(10 * DEMAND_WAIT)
    assert subscription.is_full
    assert rows_of(subscription.receive_nowait()) == list(range(50))
    await registry.aclose()


async def test_an_author_who_never_waits_blocks_no_task_while_the_channel_lingers(parts):
    registry, count = parts.registry.ChannelRegistry(), 0

    async def generator():
        nonlocal count
        for _ in range(100_000):
            count += 1
            yield count

    subscription = registry.join(KEY, parts.stream(generator), Policy(linger=10))
    await anext(subscription)
    subscription.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert registry.peek(KEY).state.value == "lingering" and count < 20_000
    await registry.aclose()


async def test_large_yields_are_merged_up_to_batch_bytes(parts):
    registry = parts.registry.ChannelRegistry()
    sizes = []

    def heavy(rows):
        sizes.append(len(rows))
        return [Packet(SCHEMA, b"x" * 30_000, 100) for _ in rows]

    async def generator():
        for number in range(200):
            yield number

    run = parts.producer.drive(generator, heavy)
    subscription = registry.join(KEY, run)
    task = asyncio.create_task(_count(subscription))
    assert await task == 200 * 100 and subscription.statistics().dropped_rows == 0
    assert sizes[0] == 64 and set(sizes[1:]) == {BATCH_BYTES // 30_000}


async def _count(subscription):
    total = 0
    async for received in subscription:
        total += sum(packet.rows for _, packet in received)
    return total


async def test_all_packets_of_one_batch_reach_a_subscriber_that_keeps_up(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(30):
            yield number
        await asyncio.Event().wait()

    def singly(rows):
        return [packet([row]) for row in rows]

    subscription = registry.join(
        KEY, parts.producer.drive(generator, singly), Policy(Buffer(rows=5))
    )
    assert rows_of(await anext(subscription)) == list(range(30))
    await registry.aclose()


async def test_the_author_pauses_longer_above_high_water_before_rows_are_dropped(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(400):
            yield number

    subscription = registry.join(KEY, parts.stream(generator, rows=40), Policy(Buffer(rows=60)))
    got = []
    async for received in subscription:
        got += rows_of(received)
        for _ in range(5):  # a subscriber that needs some iterations to send what it received
            await asyncio.sleep(0)
    assert got == list(range(400))


async def test_the_rows_before_a_bad_row_are_sent_and_the_error_names_it(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        yield 2
        yield "bad"
        yield 3

    got, error = await all_of(registry.join(KEY, parts.stream(generator)))
    assert sum(got, []) == [1, 2]
    assert isinstance(error, parts.subscription.StreamFailed) and "'bad'" in str(error)


async def test_a_batch_that_can_only_be_encoded_row_by_row_is_sent(parts):
    registry = parts.registry.ChannelRegistry()

    def alone(rows):
        if len(rows) > 1:
            raise ValueError("one at a time")
        return encode(rows)

    async def generator():
        yield 1
        yield 2

    got = await all_of(registry.join(KEY, parts.producer.drive(generator, alone)))
    assert got == ([[1], [2]], None)


async def test_the_runner_raises_the_error_of_the_author_unchanged(parts):
    registry, seen, wrong = parts.registry.ChannelRegistry(), [], ValueError("wrong")

    async def generator():
        yield 1
        raise wrong

    async def supervised(channel):
        try:
            await parts.stream(generator)(channel)
        except ValueError as error:
            seen.append(error)

    assert await all_of(registry.join(KEY, supervised)) == ([[1]], None)
    assert seen == [wrong]


async def test_the_runner_can_run_again_in_one_channel(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1

    async def twice(channel):
        run = parts.stream(generator)
        await run(channel)
        await run(channel)
        assert channel.on_demand is None

    assert await all_of(registry.join(KEY, twice)) == ([[1], [1]], None)


@pytest.mark.parametrize("scope", ["asyncio.timeout", "anyio.move_on_after", "anyio.fail_after"])
async def test_a_timeout_around_a_yield_works_while_the_author_waits(parts, scope):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        try:
            if scope == "asyncio.timeout":
                async with asyncio.timeout(1):
                    while True:
                        yield 1
                        await asyncio.sleep(0.3)
            with anyio.move_on_after(1) if "move" in scope else anyio.fail_after(1):
                while True:
                    yield 1
                    await anyio.sleep(0.3)
        except TimeoutError:
            pass
        yield 2

    got, error = await all_of(registry.join(KEY, parts.stream(generator)))
    assert got == [[1]] * 4 + [[2]] and error is None


@pytest.mark.parametrize("scope", ["asyncio.timeout", "anyio.move_on_after"])
async def test_a_timeout_that_expires_at_a_yield_is_an_error(parts, scope):
    registry, log = parts.registry.ChannelRegistry(), []

    async def generator():
        try:
            if scope == "asyncio.timeout":
                async with asyncio.timeout(1):
                    while True:
                        for _ in range(25):
                            yield 1
                        await asyncio.sleep(0.1)
            with anyio.move_on_after(1):
                while True:
                    for _ in range(25):
                        yield 1
                    await anyio.sleep(0.1)
        finally:
            log.append("finally")
            await asyncio.sleep(0.5)
            log.append("end")

    policy = Policy(Buffer(rows=20, full="block"))
    subscription = registry.join(KEY, parts.stream(generator, rows=30), policy)
    await asyncio.sleep(3)
    got, error = await all_of(subscription)
    assert isinstance(error.__cause__, parts.producer.YieldInScope)
    assert "timeout or cancel scope" in str(error)
    assert log == ["finally", "end"]
    assert len(sum(got, [])) == 26, "the row that waited for the subscriber is not lost"


async def test_a_yield_in_finally_while_closing_is_logged_and_frees_the_key(parts, caplog):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        try:
            while True:
                yield 1
        finally:
            yield 2

    subscription = registry.join(KEY, parts.stream(generator, rows=10))
    await anext(subscription)
    subscription.leave()
    await asyncio.sleep(1)
    assert registry.running == 0 and "yields in its finally" in caplog.text
    caplog.clear()


async def test_the_generator_is_closed_by_the_task_that_read_it(parts):
    registry, tasks = parts.registry.ChannelRegistry(), []

    async def generator():
        tasks.append(asyncio.current_task())
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 1000)
                try:
                    while True:
                        yield 1
                        await anyio.sleep(0.1)
                finally:
                    group.cancel_scope.cancel()
        finally:
            tasks.append(asyncio.current_task())

    subscription = registry.join(KEY, parts.stream(generator))
    await anext(subscription)
    await anext(subscription)
    subscription.leave()
    await asyncio.sleep(1)
    assert len(tasks) == 2 and tasks[0] is tasks[1] and registry.running == 0


async def test_a_stream_that_is_left_at_a_yield_has_not_ended_before_its_finally(parts):
    registry, tasks = parts.registry.ChannelRegistry(close_timeout=50), []

    async def generator():
        tasks.append(asyncio.current_task())
        try:
            while True:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    pass  # it goes on to its yield, and nobody resumes it there
                yield 1
        finally:
            await asyncio.sleep(3)
            tasks.append(asyncio.current_task())

    subscription = registry.join(KEY, parts.stream(generator))
    await anext(subscription)
    subscription.leave()
    await asyncio.sleep(2)
    assert registry.running == 1 and len(tasks) == 1
    await asyncio.sleep(2)
    assert registry.running == 0 and tasks[0] is tasks[1]


async def test_a_schema_change_inside_a_batch_gives_packets_in_their_order(parts):
    registry = parts.registry.ChannelRegistry()
    schemas = {kind: Schema(kind.encode(), kind) for kind in "ab"}

    def by_kind(rows):
        return [packet([row], schemas[row[0]]) for row in rows]

    async def generator():
        yield "a1"
        yield "b1"
        yield "a2"

    subscription = registry.join(KEY, parts.producer.drive(generator, by_kind))
    received = await anext(subscription)
    assert [(schema and schema.fingerprint) for schema, _ in received] == ["a", "b", "a"]
    assert rows_of(received) == ["a1", "b1", "a2"]
    assert await all_of(subscription) == ([], None)


def test_sizes_below_one_are_an_error(parts):
    for sizes in ({"rows": 0}, {"batch_bytes": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got "):
            parts.producer.drive(lambda: None, encode, **sizes)


async def test_rows_that_a_join_emits_count_as_older_only_after_subscribers_could_receive(parts):
    registry = parts.registry.ChannelRegistry()
    author = asyncio.Event()

    async def generator():
        yield [1]
        await asyncio.sleep(0)
        yield [2]
        await author.wait()
        for _ in range(2):
            yield [3] * 4

    def encode_lists(yields):
        return [packet([row for rows in yields for row in rows])]

    run = parts.producer.drive(generator, encode_lists, rows=2)
    policy = Policy(Buffer(rows=8, full="fail"), max_hz=1)
    reader = asyncio.create_task(all_of(registry.join(KEY, run, policy)))
    await asyncio.sleep(0.1)  # the second row is held back until a packet is due
    author.set()
    registry.join(KEY, run, policy)
    got, error = await reader
    assert (got, error) == ([[1], [2], [3] * 8], None)


async def test_a_row_that_old_versions_of_grafana_cannot_queue_is_logged_once(parts, caplog):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for size in (BROWSER_QUEUE - 100, BROWSER_QUEUE, BROWSER_QUEUE):
            yield "x" * size
            await asyncio.sleep(1)

    subscription = registry.join(KEY, parts.stream(generator), Policy(Buffer(bytes=1 << 24)))
    got, error = await all_of(subscription)
    assert len(got) == 3 and error is None
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("a row has 1048582 bytes as JSON: Grafana 9.4 disconnects")


async def test_after_a_block_other_calls_get_several_iterations_of_the_event_loop(parts):
    registry, loop = parts.registry.ChannelRegistry(), asyncio.get_running_loop()
    iterations, found = 0, []

    def count():
        nonlocal iterations
        iterations += 1
        if len(found) < 3:
            loop.call_soon(count)

    async def generator():
        count()
        for number in range(3):
            if number == 1:
                pause_generator(sys._getframe())  # what the watchdog does for code that blocks
            before = iterations
            yield number
            found.append(iterations - before)
        await asyncio.Event().wait()

    registry.join(KEY, parts.stream(generator))
    while len(found) < 3:
        await asyncio.sleep(0)
    await registry.aclose()
    assert found[0] == 0 and found[1] >= HIGH_WATER_ITERATIONS and found[2] == 0
