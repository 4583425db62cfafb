"""The rules of the registry. The planted faults run the same tests with modified modules."""

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from aiostream_ds._channels import exceptions
from aiostream_ds._channels.channel import State
from aiostream_ds._channels.log import MemoryLog
from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._channels.policy import Buffer, Policy, Replay
from aiostream_ds._channels.status import Status, status_packet
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from tests.channels.parts import REAL, SCHEMA, Parts, packet, rows_of
from tests.suspensions import rest_of

pytestmark = pytest.mark.virtual
KEY = ChannelKey("instance", "path")


@pytest.fixture
def parts() -> Parts:
    return REAL


def rows(*values):
    """A generator that yields these and then waits forever."""

    async def generator():
        for value in values:
            yield value
        await asyncio.Event().wait()

    return generator


def now():
    return asyncio.get_running_loop().time()


async def first(subscription):
    return rows_of(await anext(subscription))


async def end_of(subscription):
    """All rows, and the error at the end."""
    got = []
    try:
        async for taken in subscription:
            got += rows_of(taken)
    except Exception as error:
        return got, error
    return got, None


async def test_the_first_join_starts_a_stream_and_the_last_leave_runs_its_finally_to_the_end(parts):
    registry, log = parts.registry.ChannelRegistry(), []

    async def generator():
        log.append("start")
        try:
            number = 0
            while True:
                yield number
                number += 1
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0.5)
            log.append("end")

    one = registry.join(KEY, parts.stream(generator))
    two = registry.join(KEY, parts.stream(generator))
    assert registry.running == 1 and registry.subscriptions == 2
    assert await first(one) == await first(two) == [0]
    one.leave()
    assert await first(two) == [1]
    two.leave()
    two.leave()
    assert registry.running == 1 and registry.subscriptions == 0
    three = registry.join(KEY, parts.stream(generator))
    assert registry.peek(KEY).state.value == "opening"
    assert await first(three) == [0]
    assert log == ["start", "end", "start"]
    assert await registry.aclose() == ()
    assert log == ["start", "end", "start", "end"] and registry.running == 0


async def test_the_last_leave_cancels_once_before_the_close_timeout(parts):
    registry, seen = parts.registry.ChannelRegistry(close_timeout=5), []

    async def generator():
        try:
            yield 1
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(asyncio.current_task().cancelling())
            await asyncio.sleep(4)
            seen.append(asyncio.current_task().cancelling())
            raise

    subscription = registry.join(KEY, parts.stream(generator))
    await first(subscription)
    subscription.leave()
    await asyncio.sleep(10)
    assert seen == [1, 1] and registry.running == 0


async def test_leaving_before_the_first_step_never_runs_the_author_and_frees_the_key(parts):
    registry, log = parts.registry.ChannelRegistry(), []

    async def generator():
        log.append(1)
        yield 1

    registry.join(KEY, parts.stream(generator)).leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == [] and registry.running == 0 and not registry._closing
    assert await first(registry.join(KEY, parts.stream(generator))) == [1]
    await registry.aclose()


async def test_a_third_join_still_waits_for_the_first_stream(parts):
    registry, live = parts.registry.ChannelRegistry(close_timeout=5), []

    async def generator():
        live.append(1)
        most.append(len(live))
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)
            live.pop()

    most: list[int] = []
    one = registry.join(KEY, parts.stream(generator))
    await first(one)
    one.leave()
    await asyncio.sleep(1)
    registry.join(KEY, parts.stream(generator)).leave()
    three = registry.join(KEY, parts.stream(generator))
    await first(three)
    assert most == [1, 1]
    await registry.aclose(10)


async def test_a_stream_that_suppresses_its_cancellation_ends_at_its_next_yield(parts):
    registry = parts.registry.ChannelRegistry(close_timeout=50)

    async def generator():
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass
            yield 1

    subscription = registry.join(KEY, parts.stream(generator))
    await first(subscription)
    subscription.leave()
    await asyncio.sleep(3)
    assert registry.running == 0


async def test_a_stream_that_never_ends_is_stuck_and_never_runs_twice(parts):
    seen, free = [], asyncio.Event()

    class Watch(Observer):
        def on_stuck(self, key, seconds):
            seen.append((key, seconds))

    registry = parts.registry.ChannelRegistry(close_timeout=5, observer=Watch())
    cancels = []

    async def generator():
        yield 1
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                cancels.append(now() - start)

    one = registry.join(KEY, parts.stream(generator))
    await first(one)
    start = now()
    one.leave()
    _, error = await end_of(registry.join(KEY, parts.stream(generator)))
    assert isinstance(error, exceptions.StreamStuck) and now() == start + 15
    assert seen == [(KEY, 15)]
    with pytest.raises(exceptions.StreamStuck, match="path"):
        registry.join(KEY, parts.stream(generator))
    await asyncio.sleep(120)
    assert cancels == [0, 5, 15, 35, 75, 115]
    free.set()
    await asyncio.sleep(0.1)
    two = registry.join(KEY, parts.stream(generator))
    assert await first(two) == [1] and len(seen) == 1
    await registry.aclose()


async def test_lingering_keeps_the_stream_for_the_next_subscriber(parts):
    registry, starts = parts.registry.ChannelRegistry(), []

    async def generator():
        starts.append(now())
        while True:
            yield len(starts)
            await asyncio.sleep(1)

    policy = Policy(linger=5)
    registry.join(KEY, parts.stream(generator), policy)
    for subscription in tuple(registry.peek(KEY)._subscriptions):
        await first(subscription)
        subscription.leave()
    assert registry.peek(KEY).state.value == "lingering" and registry.running == 1
    await asyncio.sleep(4)
    two = registry.join(KEY, parts.stream(generator), policy)
    await asyncio.sleep(4)
    assert await first(two) == [1] and await first(two) == [1] * 3 and len(starts) == 1
    two.leave()
    await asyncio.sleep(4.9)
    assert registry.running == 1
    await asyncio.sleep(0.2)
    assert registry.running == 0


async def test_an_error_reaches_every_subscriber_after_the_rows_before_it(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        await asyncio.sleep(1)
        yield 2
        raise ValueError("broken")

    one = registry.join(KEY, parts.stream(generator))
    two = registry.join(KEY, parts.stream(generator))
    found = [await end_of(one), await end_of(two)]
    assert [got for got, _ in found] == [[1, 2], [1, 2]]
    for _, error in found:
        assert isinstance(error, exceptions.StreamFailed) and str(error) == "broken"
        assert isinstance(error.__cause__, ValueError)
    assert found[0][1] is not found[1][1]
    assert await one.wait() is False


async def test_a_return_ends_every_subscription_without_an_error(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1

    assert await end_of(registry.join(KEY, parts.stream(generator))) == ([1], None)
    assert registry.peek(KEY) is None


async def test_a_join_in_the_iteration_in_which_a_stream_ends_starts_another_one(parts):
    registry, starts = parts.registry.ChannelRegistry(), []

    async def generator():
        starts.append(1)
        yield 1
        await asyncio.sleep(1)

    registry.join(KEY, parts.stream(generator))
    await asyncio.sleep(1)  # wakes in the same iteration of the event loop as the author
    task = registry.peek(KEY).task
    while not task.done():
        await asyncio.sleep(0)
    assert registry.peek(KEY) is None
    assert await first(registry.join(KEY, parts.stream(generator))) == [1] and len(starts) == 2
    await registry.aclose()


async def test_a_bad_row_ends_the_subscriptions_at_once_even_if_finally_waits(parts):
    registry = parts.registry.ChannelRegistry(close_timeout=5)

    async def generator():
        try:
            yield 1
            yield 2
            yield "bad"
            yield 4
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)

    start = now()
    got, error = await end_of(registry.join(KEY, parts.stream(generator)))
    assert got == [1, 2] and isinstance(error.__cause__, TypeError) and now() == start
    two = registry.join(KEY, parts.stream(rows(5)))
    assert registry.peek(KEY).state.value == "opening"
    assert await first(two) == [5] and now() == start + 3
    await registry.aclose()


async def test_a_bad_row_ends_an_author_who_catches_errors(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        number = 0
        while True:
            try:
                number += 1
                yield number if number < 3 else "bad"
                await asyncio.sleep(1)
            except Exception:
                pass

    got, error = await end_of(registry.join(KEY, parts.stream(generator)))
    assert got == [1, 2] and isinstance(error, exceptions.StreamFailed)
    await asyncio.sleep(5)
    assert registry.running == 0


async def test_a_join_whose_flush_ends_the_channel_waits_for_the_next_stream(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        await asyncio.sleep(1)
        yield "bad"  # held back: row 1 has not been received
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.5)

    one = registry.join(KEY, parts.stream(generator))
    await asyncio.sleep(2)
    two = registry.join(KEY, parts.stream(rows(7)))
    assert registry.peek(KEY).state.value == "opening" and registry.subscriptions == 1
    assert (await end_of(one))[0] == [1]
    assert await first(two) == [7]
    await registry.aclose()


async def test_rows_held_back_for_a_slow_subscriber_are_emitted_before_a_join(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        await asyncio.sleep(1)
        yield 2
        await asyncio.sleep(1)
        yield 3
        await asyncio.Event().wait()

    slow = registry.join(KEY, parts.stream(generator))
    await asyncio.sleep(1.5)
    late = registry.join(KEY, parts.stream(generator))
    await asyncio.sleep(1)
    assert rows_of(late.receive_nowait()) == [3]
    assert rows_of(slow.receive_nowait()) == [1, 2, 3]
    await registry.aclose()


async def test_newer_settings_end_the_older_stream_first(parts):
    registry, live = parts.registry.ChannelRegistry(close_timeout=5), []

    def settings(name):
        async def generator():
            assert not live
            live.append(name)
            try:
                while True:
                    yield name
                    await asyncio.sleep(1)
            finally:
                await asyncio.sleep(2)
                live.remove(name)

        return parts.stream(generator)

    old = registry.join(KEY, settings("old"), generation=1)
    assert await first(old) == ["old"]
    new = registry.join(KEY, settings("new"), generation=2)
    assert isinstance((await end_of(old))[1], exceptions.Superseded)
    assert await first(new) == ["new"]
    late = registry.join(KEY, settings("old"), generation=1)
    assert await first(late) == ["new"] and registry.running == 1
    await registry.aclose()


async def test_older_settings_never_start_a_stream(parts):
    registry = parts.registry.ChannelRegistry()
    other = ChannelKey("instance", "other")
    registry.join(KEY, parts.stream(rows(1)), generation=2)
    with pytest.raises(exceptions.Superseded):
        registry.join(other, parts.stream(rows(1)), generation=1)
    registry.join(ChannelKey("stranger", "path"), parts.stream(rows(1)), generation=1)
    await registry.aclose()


async def test_a_waiting_stream_of_older_settings_is_not_started(parts):
    registry, started = parts.registry.ChannelRegistry(), []

    async def slow_end():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.5)

    async def generator():
        started.append(1)
        yield 1

    one = registry.join(KEY, parts.stream(slow_end), generation=1)
    await first(one)
    one.leave()
    waiting = registry.join(KEY, parts.stream(generator), generation=1)
    registry.join(ChannelKey("instance", "other"), parts.stream(rows(1)), generation=2)
    assert isinstance((await end_of(waiting))[1], exceptions.Superseded) and not started
    await registry.aclose()


async def test_supersede_ends_the_older_streams_of_one_instance(parts):
    registry = parts.registry.ChannelRegistry()
    old = registry.join(KEY, parts.stream(rows(1)), generation=1)
    new = registry.join(ChannelKey("instance", "new"), parts.stream(rows(1)), generation=2)
    stranger = registry.join(ChannelKey("stranger", "path"), parts.stream(rows(1)), generation=1)
    await asyncio.sleep(1)
    registry.supersede("instance", 2)
    got, error = await end_of(old)
    assert got == [1] and isinstance(error, exceptions.Superseded)
    assert await first(new) == await first(stranger) == [1]
    with pytest.raises(exceptions.Superseded):
        registry.join(KEY, parts.stream(rows(1)), generation=1)
    await registry.aclose()


async def test_close_instance_ends_all_its_streams_and_forgets_its_settings(parts):
    registry = parts.registry.ChannelRegistry()
    one = registry.join(KEY, parts.stream(rows(1)), generation=7)
    registry.close_instance("instance")
    assert isinstance((await end_of(one))[1], exceptions.Superseded)
    two = registry.join(KEY, parts.stream(rows(2)), generation=1)
    assert await first(two) == [2]
    await registry.aclose()


async def test_a_stream_does_not_run_in_the_context_of_its_first_subscriber(parts):
    user = contextvars.ContextVar("user", default="nobody")
    registry, seen = parts.registry.ChannelRegistry(), []

    async def generator():
        seen.append(user.get())
        yield 1

    user.set("alice")
    await end_of(registry.join(KEY, parts.stream(generator)))
    assert seen == ["nobody"]


async def test_sys_exit_in_a_stream_is_an_error_of_that_stream(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        sys.exit(3)

    got, error = await end_of(registry.join(KEY, parts.stream(generator)))
    assert got == [1] and isinstance(error.__cause__.__cause__, SystemExit)


def eager(loop, coroutine, *, context, name=None):
    """A task whose first step runs in `create_task`, as an eager task's of Python 3.12."""
    signal = context.run(coroutine.send, None)
    return asyncio.Task(rest_of(coroutine, signal), loop=loop, context=context)


@pytest.mark.parametrize("how", ["fail", "supersede", "leave"])
async def test_a_stream_that_is_ended_in_the_first_step_of_an_eager_task_closes(parts, how):
    registry = parts.registry.ChannelRegistry()
    ended = []

    async def run(channel):
        if how == "fail":
            channel.fail(ValueError("bad"))
        elif how == "supersede":
            registry.supersede(KEY.instance, 5)
        else:
            for subscription in tuple(channel._subscriptions):
                subscription.leave()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(how)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager)
    try:
        registry.join(KEY, run, Policy(linger=0))
    finally:
        loop.set_task_factory(None)
    await anyio.sleep(1)
    assert ended == [how] and registry.running == 0


async def test_channels_of_two_threads_close_at_the_same_moment(parts):
    """As those of two consoles of one notebook, each with an event loop of its own."""
    inside, over = threading.Event(), False

    class Slow(Observer):
        def on_end(self, key, error):
            inside.set()
            while not over:  # an event would block the loop, which the tests forbid
                pass

    async def close_one(observer):
        registry = parts.registry.ChannelRegistry(observer=observer)
        registry.join(KEY, parts.stream(rows(1)), Policy(linger=0)).leave()  # before its first step
        for _ in range(3):
            await asyncio.sleep(0)
        return registry.running

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(asyncio.run, close_one(Slow()))
        try:
            assert inside.wait(10)
            assert await close_one(Observer()) == 0
        finally:
            over = True
        assert slow.result(10) == 0


async def test_awaiting_a_cancelled_future_is_an_error_of_the_stream(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        yield 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    got, error = await end_of(registry.join(KEY, parts.stream(generator)))
    assert got == [1] and "awaited a task or future that was cancelled" in str(error)


async def test_an_error_in_finally_while_closing_is_logged_and_frees_the_key(parts, caplog):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("in finally")

    subscription = registry.join(KEY, parts.stream(generator))
    await first(subscription)
    subscription.leave()
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(1)
    assert registry.running == 0 and "failed while it closed" in caplog.text
    caplog.clear()


async def test_a_stream_whose_task_somebody_else_cancels_ends_with_an_error(parts):
    registry = parts.registry.ChannelRegistry()
    subscription = registry.join(KEY, parts.stream(rows(1)))
    registry.peek(KEY).task.cancel()  # before its first step
    assert isinstance((await end_of(subscription))[1], exceptions.StreamFailed)
    assert registry.running == 0


@pytest.mark.slow
async def test_aclose_ends_a_thousand_streams_and_leaves_no_task(parts):
    registry, ended = parts.registry.ChannelRegistry(), []

    async def generator():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.5)
            ended.append(1)

    async def handler(number):
        subscription = registry.join(ChannelKey("i", str(number)), parts.stream(generator))
        try:
            async for _ in subscription:
                pass
        except exceptions.ShuttingDown:
            return "shutting down"
        finally:
            subscription.leave()

    handlers = [asyncio.create_task(handler(number)) for number in range(1000)]
    await asyncio.sleep(1)
    for task in handlers[:500]:
        task.cancel()
        task.cancel()
    await asyncio.sleep(0.1)
    assert all(task.done() for task in handlers[:500]) and registry.subscriptions == 500
    assert await registry.aclose(5) == ()
    results = await asyncio.gather(*handlers, return_exceptions=True)
    assert results[500:] == ["shutting down"] * 500 and len(ended) == 1000
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(exceptions.ShuttingDown):
        registry.join(KEY, parts.stream(generator))


async def test_aclose_returns_the_keys_of_streams_that_do_not_end(parts):
    registry, free = parts.registry.ChannelRegistry(), asyncio.Event()

    async def generator():
        yield 1
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                pass

    await first(registry.join(KEY, parts.stream(generator)))
    await first(registry.join(ChannelKey("i", "good"), parts.stream(rows(1))))
    start = now()
    assert await registry.aclose(2) == (KEY,) and now() == start + 2
    free.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert registry.running == 0


async def test_nothing_of_an_ended_stream_stays_in_memory(parts):
    registry, alive = parts.registry.ChannelRegistry(), []
    gc.collect()
    gc.disable()
    try:
        for number in range(200):

            async def generator(number=number):
                try:
                    yield 1
                    if number % 3 == 0:
                        raise ValueError
                    if number % 3 == 1:
                        yield "bad"
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.1)

            subscription = registry.join(KEY, parts.stream(generator))
            channel = registry.peek(KEY)
            alive += [weakref.ref(channel), weakref.ref(channel.task)]
            del channel
            await first(subscription)
            try:
                if number % 3 != 2:
                    await anext(subscription)
            except exceptions.StreamFailed:
                pass
            subscription.leave()
            del subscription, generator
            await asyncio.sleep(0.2)
        assert sum(reference() is not None for reference in alive) == 0
    finally:
        gc.enable()


async def test_the_last_subscriber_may_be_evicted_inside_emit(parts):
    registry, log = parts.registry.ChannelRegistry(), []

    async def generator():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0.5)
            log.append("end")

    policy = Policy(Buffer(rows=25, full="fail"))
    subscription = registry.join(KEY, parts.stream(generator, rows=10), policy)
    await asyncio.sleep(2)
    assert isinstance((await end_of(subscription))[1], exceptions.SlowSubscriber)
    assert log == ["end"] and registry.running == 0


async def test_block_pauses_the_author_while_another_subscriber_has_demand(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        number = 0
        while True:
            for _ in range(8):
                number += 1
                yield number
            await asyncio.sleep(1)

    policy = Policy(Buffer(rows=20, full="block"))
    slow = registry.join(KEY, parts.stream(generator, rows=10), policy)
    fast = registry.join(KEY, parts.stream(generator, rows=10), policy)
    task = asyncio.create_task(end_of(fast))
    await asyncio.sleep(50)
    assert (
        slow.statistics().queued_rows <= 19 + 10 + 1
    )  # the bound, a batch, and the row that notices
    assert rows_of(slow.receive_nowait()) == list(range(1, 26))
    await asyncio.sleep(1)
    assert slow.statistics().queued_rows
    slow.leave()
    await asyncio.sleep(5)
    assert fast.statistics().sent_rows > 40, "a subscriber that has left does not block the author"
    await registry.aclose()
    assert isinstance((await task)[1], exceptions.ShuttingDown)


async def test_a_full_subscription_that_is_left_does_not_block_the_author(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(100):
            yield number
            await asyncio.sleep(0.1)

    policy = Policy(Buffer(rows=5, full="block"))
    slow = registry.join(KEY, parts.stream(generator), policy)
    fast = registry.join(KEY, parts.stream(generator), policy)
    task = asyncio.create_task(end_of(fast))
    await asyncio.sleep(20)
    assert fast.statistics().sent_rows < 10
    left = now()
    slow.leave()
    assert await task == (list(range(100)), None)
    assert now() - left < 11, "the author does not wait until the subscription would be stalled"


async def test_a_stalled_subscription_is_ended_and_the_author_continues(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(100):
            yield number
            await asyncio.sleep(0.1)

    policy = Policy(Buffer(rows=5, full="block", stall_timeout=30))
    stuck = registry.join(KEY, parts.stream(generator), policy)
    fast = registry.join(KEY, parts.stream(generator), policy)
    task = asyncio.create_task(end_of(fast))
    await asyncio.sleep(25)
    assert not stuck.ended and fast.statistics().sent_rows < 10
    await asyncio.sleep(10)
    assert (
        stuck.stalled and stuck.statistics().dropped_rows == 6
    )  # the bound, and the row that notices
    assert isinstance((await end_of(stuck))[1], exceptions.StalledSubscriber)
    assert await task == (list(range(100)), None), "with block the other subscribers lose no rows"


async def test_a_subscriber_that_receives_now_and_then_is_not_stalled(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(40):
            yield number
            await asyncio.sleep(0.1)

    policy = Policy(Buffer(rows=5, full="block", stall_timeout=30))
    slow = registry.join(KEY, parts.stream(generator, rows=2), policy)
    got = []
    while not slow.ended:
        await asyncio.sleep(29)
        received = rows_of(slow.receive_nowait())
        assert not slow.stalled and len(received) < 10, "the author waits for the subscriber"
        got += received
    assert got + rows_of(slow.receive_nowait()) == list(range(40))


async def test_paced_packets_lose_no_row_of_a_subscriber_that_receives_each_half_second(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        for number in range(40):
            channel.emit(packet([number] * 9))
            await channel.pace()

    got = {}
    for full in ("drop_oldest", "fail", "block"):
        key = KEY._replace(path=full)
        subscription = registry.join(key, run, Policy(Buffer(rows=10, full=full)))
        got[full] = []
        while not subscription.ended:
            await asyncio.sleep(0.5)
            got[full] += rows_of(subscription.receive_nowait())
        assert subscription.statistics().dropped_rows == 0
    assert got == dict.fromkeys(got, [number for number in range(40) for _ in range(9)])


async def test_paced_packets_wait_once_for_a_subscriber_that_receives_nothing(parts):
    registry, seconds = parts.registry.ChannelRegistry(), []

    async def run(channel):
        for number in range(40):
            before = now()
            channel.emit(packet([number] * 9))
            await channel.pace()
            seconds.append(now() - before)

    deaf = registry.join(KEY, run, Policy(Buffer(rows=10)))
    fast = registry.join(KEY, run)
    rows, _ = await end_of(fast)
    assert len(rows) == 360 and deaf.statistics().dropped_rows == 351
    assert sum(seconds) == pytest.approx(1, abs=0.01)


async def test_no_row_enters_the_queue_of_a_stalled_subscription(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        channel.on_status = lambda: channel.emit(packet(["status"]))
        while True:
            channel.emit(packet([1] * 9))
            await channel.drain()
            await asyncio.sleep(100)

    policy = Policy(Buffer(rows=9, full="block", stall_timeout=10))
    subscription = registry.join(KEY, run, policy)
    other = registry.join(KEY, run, policy)
    other.on_ready = other.receive_nowait
    await asyncio.sleep(9)
    assert not subscription.ended
    await asyncio.sleep(2)
    got, error = await end_of(subscription)
    assert got == [] and isinstance(error, exceptions.StalledSubscriber)
    await registry.aclose()


async def test_a_row_that_waits_for_its_packet_is_sent_when_the_packet_is_due(parts):
    registry, start = parts.registry.ChannelRegistry(), now()
    subscription = registry.join(KEY, parts.stream(rows(1)), Policy(flush=2))
    assert await first(subscription) == [1] and now() == start + 2
    await registry.aclose()


async def test_pacing_ends_when_the_channel_closes(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        while True:
            channel.emit(packet([1] * 9))
            await channel.pace()

    subscription = registry.join(KEY, run, Policy(Buffer(rows=10)))
    await asyncio.sleep(0.5)
    subscription.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert registry.running == 0


async def test_an_eager_stream_that_closes_its_channel_in_its_first_step_is_cancelled(parts):
    registry, log = parts.registry.ChannelRegistry(), []
    loop = registry.loop
    create_task = loop.create_task

    async def run(channel):
        channel.end_subscriptions(None)
        channel.close()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("end")

    # as an eager task after its first step (Python 3.12)
    loop.create_task = lambda work, **kw: create_task(rest_of(work, work.send(None)), **kw)
    try:
        registry.join(KEY, run)
    finally:
        del loop.create_task
    await asyncio.sleep(0.5)
    assert log == ["end"] and registry.running == 0


async def test_each_drop_is_reported_with_exact_sums(parts):
    for full in ("drop_oldest", "latest", "fail"):
        await check_drops(parts, full)


async def check_drops(parts, full):
    drops, episodes = [], []

    class Watch(Observer):
        def on_drop(self, key, rows, packets):
            drops.append((rows, packets))

        def on_lagging(self, key):
            episodes.append("lagging")

        def on_caught_up(self, key, rows, packets):
            episodes.append((rows, packets))

    registry = parts.registry.ChannelRegistry(observer=Watch())
    taken = 0

    async def run(channel):
        for _ in range(40):
            channel.emit(packet([1]), packet([2, 3]), packet([4]))
            await asyncio.sleep(1)
        await asyncio.sleep(60)

    policy = Policy(Buffer(rows=10, full=full))
    subscription = registry.join(KEY, run, policy)
    while not subscription.ended:
        await asyncio.sleep(5.5)
        taken += len(rows_of(subscription.receive_nowait()))
    rows = sum(rows for rows, _ in drops)
    emitted = 160 if full != "fail" else 12
    assert rows == subscription.statistics().dropped_rows and taken + rows == emitted
    assert sum(packets for _, packets in drops) == subscription.statistics().dropped_packets
    if full == "latest":
        assert episodes == [], "with latest, drops are intended"
    else:
        assert episodes == ["lagging", (rows, subscription.statistics().dropped_packets)]
    await registry.aclose()


async def test_subscribers_of_the_exact_channel_see_each_status_until_it_ends(parts):
    registry = parts.registry.ChannelRegistry()
    seen = []

    async def run(channel):
        channel.statuses.set("reconnecting", Status("warning", "away"))
        await asyncio.sleep(1)
        channel.emit(packet([1]))
        await asyncio.sleep(1)
        channel.emit(packet([2]), status_packet(Status("info", "night")))
        await asyncio.sleep(1)
        channel.emit(status_packet(Status()), packet([3]))
        await asyncio.sleep(1)

    exact = registry.join(KEY, run, exact=True)
    ordinary = registry.join(KEY, run)
    while await exact.wait():
        exact.receive_nowait()
        text = exact.status and exact.status.text
        if not seen or seen[-1] != text:
            seen.append(text)
    assert seen == ["away", None, "night", None]
    assert rows_of(ordinary.receive_nowait()) == [1, 2, 3]


async def test_each_subscriber_gets_the_schema_before_its_rows(parts):
    registry = parts.registry.ChannelRegistry()
    schemas = [Schema(b"%d" % number, str(number)) for number in range(2)]

    async def run(channel):
        for number in (0, 0, 1, 0):
            channel.emit(packet([number], schemas[number]))
            await asyncio.sleep(1)

    slow = registry.join(KEY, run, Policy(Buffer(rows=1)))
    await asyncio.sleep(1.5)
    late = registry.join(KEY, run)
    assert registry.peek(KEY).schema is schemas[0]
    await asyncio.sleep(1)
    assert [schema for schema, _ in late.receive_nowait()] == [schemas[1]]
    await asyncio.sleep(1)
    assert registry.peek(KEY).schema is schemas[0]
    assert [schema for schema, _ in late.receive_nowait()] == [schemas[0]]
    assert [schema for schema, _ in slow.receive_nowait()] == [schemas[0]]
    assert slow.statistics().dropped_rows == 3
    await registry.aclose()


async def test_a_packet_without_rows_changes_the_schema_and_is_not_delivered(parts):
    registry = parts.registry.ChannelRegistry()
    new = Schema(b"new", "new")

    async def run(channel):
        channel.emit(packet([], new))
        await asyncio.Event().wait()

    subscription = registry.join(KEY, run)
    await asyncio.sleep(1)
    assert subscription.receive_nowait() == [] and registry.peek(KEY).schema is new
    await registry.aclose()


async def test_emitting_into_a_closing_channel_raises(parts):
    registry, seen = parts.registry.ChannelRegistry(), []

    async def run(channel):
        try:
            await asyncio.Event().wait()
        finally:
            try:
                channel.emit(packet([1]))
            except exceptions.ChannelClosed as error:
                seen.append(str(error))

    subscription = registry.join(KEY, run)
    await asyncio.sleep(1)
    subscription.leave()
    await asyncio.sleep(1)
    assert seen == ["path: the channel is closing"]


async def test_an_error_of_on_demand_fails_the_channel_and_is_not_raised_in_receive_nowait(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        def broken():
            raise ValueError("runner")

        channel.emit(packet([1]))
        channel.on_demand = broken
        await asyncio.Event().wait()

    subscription = registry.join(KEY, run)
    await asyncio.sleep(1)
    assert rows_of(subscription.receive_nowait()) == [1]
    assert isinstance((await end_of(subscription))[1], exceptions.StreamFailed)
    await asyncio.sleep(0)
    assert registry.running == 0


async def test_on_demand_is_never_called_while_emit_gives_packets(parts):
    registry, inside, calls = parts.registry.ChannelRegistry(), False, []

    async def run(channel):
        nonlocal inside
        channel.on_demand = lambda: calls.append(inside)
        for _ in range(3):
            inside = True
            channel.emit(packet([1]), packet([2]))
            inside = False
            await asyncio.sleep(1)

    policy = Policy(Buffer(rows=3, full="fail"))
    slow = registry.join(KEY, run, policy)
    fast = registry.join(KEY, run, policy)
    task = asyncio.create_task(end_of(fast))
    await task
    assert isinstance((await end_of(slow))[1], exceptions.SlowSubscriber)
    assert calls and not any(calls)


async def test_a_status_that_emit_itself_causes_follows_its_rows_everywhere(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        texts = []

        def send_status():
            texts.append(channel.status and channel.status.text)
            channel.emit(packet([f"status {len(texts)}"]))

        channel.on_status = send_status
        for number in range(6):
            channel.emit(packet([number]))
            await asyncio.sleep(1)

    log = registry.open_log(KEY, Replay())
    slow = registry.join(KEY, run, Policy(Buffer(rows=3)))
    exact = registry.join(KEY, run, exact=True)
    rows, error = await end_of(exact)
    logged = await log.after(0, now())
    assert rows == rows_of([(None, each) for each in logged.packets])
    assert rows == [0, 1, 2, 3, "status 1", 4, 5] and error is None
    assert slow.statistics().dropped_rows == 4


async def test_each_change_of_the_status_is_reported_to_the_runner(parts):
    registry, seen = parts.registry.ChannelRegistry(), []

    async def run(channel):
        channel.on_status = lambda: seen.append(channel.status and channel.status.text)
        for text in ("one", "two", ""):
            channel.emit(status_packet(Status("info", text)))
            await asyncio.sleep(1)

    await end_of(registry.join(KEY, run))
    assert seen == ["one", "two", None]


async def test_a_status_row_drops_no_rows_of_a_subscriber_that_keeps_up(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        channel.on_status = lambda: channel.emit(packet(["status"]))
        for number in range(3):
            channel.emit(packet([number] * 20))  # more than a queue holds
            await asyncio.sleep(1)

    policy = Policy(Buffer(rows=10))
    registry.join(KEY, run, policy)
    got, _ = await end_of(registry.join(KEY, run, policy))
    assert got == [0] * 20 + [1] * 20 + ["status"] + [2] * 20


async def test_rows_that_a_subscriber_requests_within_emit_follow_the_cursor_of_that_emit(parts):
    registry = parts.registry.ChannelRegistry()

    def cursor_packet(last):
        return Packet(SCHEMA, b"", 0, CursorRange("", last, last))

    async def run(channel):
        await asyncio.sleep(1)

        def more():
            channel.on_demand = None
            channel.emit(packet([2]), cursor_packet(2))

        channel.on_demand = more
        channel.emit(packet([1]), cursor_packet(1))
        await asyncio.sleep(1)

    eager = registry.join(KEY, run)
    eager.on_ready = eager.receive_nowait
    exact = registry.join(KEY, run, exact=True)
    cursors = []
    while await exact.wait():
        cursors += [each.cursors.last for _, each in exact.receive_nowait() if each.cursors]
    assert cursors == [1, 2]


async def test_emit_within_emit_is_an_error(parts):
    registry, seen = parts.registry.ChannelRegistry(), []

    async def run(channel):
        def emit_again():
            try:
                channel.emit(packet([2]))
            except RuntimeError as error:
                seen.append(str(error))

        subscription.on_ready = emit_again
        channel.emit(packet([1]))

    subscription = registry.join(KEY, run)
    await asyncio.sleep(1)
    assert seen[:1] == ["emit must not be called from within itself"]
    assert rows_of(subscription.receive_nowait()) == [1]


async def test_an_error_of_on_status_fails_the_channel(parts):
    registry = parts.registry.ChannelRegistry()

    async def run(channel):
        def broken():
            raise ValueError("runner")

        channel.on_status = broken
        channel.statuses.set("author", Status("info", "x"))
        await asyncio.Event().wait()

    subscription = registry.join(KEY, run)
    assert isinstance((await end_of(subscription))[1], exceptions.StreamFailed)
    await asyncio.sleep(0)
    assert registry.running == 0


async def test_the_observer_gets_each_event_once(parts):
    log = []

    class Watch(Observer):
        def on_start(self, key):
            log.append("start")

        def on_end(self, key, error):
            log.append(("end", type(error)))

        def on_join(self, key):
            log.append("join")

        def on_leave(self, key):
            log.append("leave")

        def on_emit(self, key, packets, rows, size):
            log.append(("packet", rows))

        def on_fail(self, key, error):
            log.append(("fail", type(error)))

    registry = parts.registry.ChannelRegistry(observer=Watch())

    async def generator():
        yield 1
        await asyncio.sleep(1)
        yield 2
        yield "bad"
        await asyncio.sleep(1)

    one = registry.join(KEY, parts.stream(generator))
    two = registry.join(KEY, parts.stream(generator))
    await first(one)
    two.leave()
    await end_of(one)
    one.leave()
    await asyncio.sleep(1)
    assert log == [
        "join",
        "start",
        "join",
        ("packet", 1),
        "leave",
        ("packet", 1),
        ("fail", TypeError),
        "leave",
        ("end", type(None)),
    ]


async def log_of_cleanup(parts, cleanup, seconds):
    """What `cleanup` logs in the `finally` of a cancelled stream, which has ended by then."""
    registry, log = parts.registry.ChannelRegistry(close_timeout=5), []

    async def generator():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await cleanup(log)

    subscription = registry.join(KEY, parts.stream(generator))
    await first(subscription)
    subscription.leave()
    await asyncio.sleep(seconds)
    assert registry.running == 0
    return log


async def test_scopes_and_task_groups_work_in_finally_after_the_cancellation(parts):
    async def cleanup(log):
        with anyio.move_on_after(0.1):
            await anyio.sleep(1)
        try:
            with anyio.fail_after(0.1):
                await asyncio.sleep(1)
        except TimeoutError:
            log.append("timeout")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(1))
        log.append("end")

    assert await log_of_cleanup(parts, cleanup, 4) == ["timeout", "end"]


@pytest.mark.skipif(
    sys.version_info < (3, 11, 3),
    reason="before Python 3.11.3 asyncio.timeout does not end in a task that was cancelled before",
)
async def test_a_timeout_of_asyncio_works_in_finally_after_the_cancellation(parts):
    async def cleanup(log):
        try:
            async with asyncio.timeout(0.1):
                await asyncio.sleep(1)
        except TimeoutError:
            log.append("timeout")

    assert await log_of_cleanup(parts, cleanup, 1) == ["timeout"]


def test_the_states_are_those_of_the_diagram():
    assert [state.value for state in State] == [
        "opening",
        "running",
        "lingering",
        "closing",
        "closed",
    ]


async def test_rows_before_newer_settings_are_not_lost(parts):
    registry = parts.registry.ChannelRegistry()

    async def generator():
        for number in range(3):
            yield number
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    old = registry.join(KEY, parts.stream(generator), generation=1)
    await asyncio.sleep(5)
    registry.supersede("instance", 2)
    got, error = await end_of(old)
    assert got == [0, 1, 2] and isinstance(error, exceptions.Superseded)
    await registry.aclose()


async def test_a_registry_wraps_the_runner_of_each_channel_that_it_opens(parts):
    wrapped = []

    def wrap(key, run):
        async def elsewhere(channel):
            wrapped.append(key)
            channel.emit(packet(["before"]))
            await run(channel)
            channel.emit(packet(["after"]))

        return elsewhere

    async def generator():
        yield "row"

    registry = parts.registry.ChannelRegistry(wrap_runner=wrap)
    one = registry.join(KEY, parts.stream(generator))
    two = registry.join(KEY, parts.stream(generator))
    assert await end_of(one) == await end_of(two) == (["before", "row", "after"], None)
    assert wrapped == [KEY]


async def test_a_registry_makes_logs_with_its_factory(parts):
    made = []

    def make_log(key, replay, generation):
        made.append((key, generation))
        return MemoryLog(replay, "durable", generation)

    registry = parts.registry.ChannelRegistry(make_log=make_log)
    subscription = registry.join(KEY, parts.stream(rows(1)), Policy(replay=Replay()), 3)
    assert await first(subscription) == [1]
    log = registry.open_log(KEY, Replay(), 3)
    assert made == [(KEY, 3)] and (log.epoch, log.last) == ("durable", 1)
    await registry.aclose()


async def test_a_log_whose_stream_appends_is_kept_when_it_is_opened_for_the_settings_before(parts):
    registry = parts.registry.ChannelRegistry()
    replay = Replay(keep=5)
    subscription = registry.join(KEY, parts.stream(rows(1)), Policy(replay=replay), 3)
    assert await first(subscription) == [1]
    registry.keep_logs("instance", 3, 4)  # the settings are opened again and are the same
    log = registry.open_log(KEY, replay, 3)
    await asyncio.sleep(6)
    assert registry.has_log(KEY) and registry.open_log(KEY, replay, 3) is log
    await registry.aclose()
