"""Broadcast: rows from threads, callbacks and coroutines reach every subscriber, or are counted."""

import asyncio
import copy
import logging
import os
import pickle
import threading
from collections import OrderedDict
from dataclasses import dataclass

import anyio
import pytest

from aiostream_ds import Broadcast, Buffer, NotFound, Row, UpstreamError


class Reading(Row):
    value: int


@dataclass
class Sample:
    value: int


async def take(subscription, count):
    return [await anext(subscription) for _ in range(count)]


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


async def join(thread):
    await anyio.to_thread.run_sync(thread.join)


# Publishing


async def test_every_subscriber_gets_each_row_from_its_subscription_on():
    broadcast = Broadcast()
    broadcast.publish("before")
    first = broadcast.subscribe()
    broadcast.publish("one")
    second = broadcast.subscribe()
    broadcast.publish("two")
    assert await take(first, 2) == ["one", "two"]
    assert await take(second, 1) == ["two"]
    assert broadcast.statistics().unmatched == 1
    assert broadcast.statistics().published == 3


async def test_rows_of_many_threads_arrive_once_and_in_the_order_of_each_thread():
    broadcast = Broadcast(buffer=Buffer(rows=100_000))
    subscriptions = [broadcast.subscribe() for _ in range(3)]

    def publish(name):
        for number in range(2_000):
            broadcast.publish((name, number))

    threads = [in_thread(publish, name) for name in range(4)]
    for subscription in subscriptions:
        rows = await take(subscription, 8_000)
        for name in range(4):
            assert [number for found, number in rows if found == name] == list(range(2_000))
    for thread in threads:
        await join(thread)


async def test_a_waiting_subscriber_is_woken_by_a_thread_and_by_a_callback():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    pending = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    await join(in_thread(broadcast.publish, 1))
    assert await pending == 1
    asyncio.get_running_loop().call_soon(broadcast.publish, 2)
    assert await anext(subscription) == 2


async def test_a_burst_is_read_without_suspending():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    for number in range(500):
        broadcast.publish(number)
    reading = take(subscription, 500)
    with pytest.raises(StopIteration) as end:
        reading.send(None)
    assert end.value.value == list(range(500))


async def test_a_reader_that_never_waits_lets_other_tasks_run():
    broadcast = Broadcast(buffer=Buffer(rows=10_000))
    subscription = broadcast.subscribe()
    for number in range(10_000):
        broadcast.publish(number)
    ran = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await take(subscription, 5_000)
    assert ran


@pytest.mark.parametrize(
    "row",
    [{"v": 1}, OrderedDict(v=1), [{"v": 1}], Reading(value=1), Sample(1)],
    ids=lambda row: type(row).__name__,
)
async def test_a_published_row_may_be_changed_afterwards(row):
    broadcast = Broadcast(replay=1)
    subscription = broadcast.subscribe()
    before = copy.deepcopy(row)
    broadcast.publish(row)
    await broadcast.send(row)
    if isinstance(row, Reading | Sample):
        row.value = 2
    else:
        (row[0] if isinstance(row, list) else row)["v"] = 2
    found = await take(subscription, 2)
    assert found == [before, before] and {type(each) for each in found} == {type(row)}


def test_rows_may_be_published_where_no_event_loop_runs():
    broadcast = Broadcast(replay=2)
    for number in range(5):
        broadcast.publish(number)

    async def read():
        return await take(broadcast.subscribe(), 2)

    assert asyncio.run(read()) == [3, 4]
    broadcast.publish(5)
    assert asyncio.run(read()) == [4, 5]


def test_a_loop_that_has_closed_under_a_subscriber_does_not_disturb_publishers():
    broadcast = Broadcast(buffer=Buffer(rows=1))
    loop = asyncio.new_event_loop()

    async def subscribe():
        return broadcast.subscribe()

    subscription = loop.run_until_complete(subscribe())
    pending = loop.create_task(anext(subscription))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    for number in range(3):
        broadcast.publish(number)
    assert broadcast.statistics().dropped == 2
    pending._log_destroy_pending = False


def test_a_log_handler_may_publish_what_the_broadcast_itself_logs(caplog):
    broadcast = Broadcast()

    class Handler(logging.Handler):
        def emit(self, record):
            broadcast.publish(record.getMessage())

    handler = Handler()
    logging.getLogger("aiostream_ds").addHandler(handler)
    try:
        broadcast.close()
        broadcast.publish(1)
    finally:
        logging.getLogger("aiostream_ds").removeHandler(handler)
    assert broadcast.statistics().ignored == 2


# Full queues


async def test_a_full_queue_drops_its_oldest_rows_and_counts_them():
    broadcast = Broadcast(buffer=Buffer(rows=3))
    subscription = broadcast.subscribe()
    for number in range(10):
        broadcast.publish(number)
    assert await take(subscription, 3) == [7, 8, 9]
    assert broadcast.statistics().dropped == 7


@pytest.mark.parametrize("rows", [1, 1_000])
async def test_with_latest_only_the_newest_row_is_queued(rows):
    broadcast = Broadcast(buffer=Buffer(rows=rows, full="latest"))
    subscription = broadcast.subscribe()
    for number in range(10):
        broadcast.publish(number)
    assert await anext(subscription) == 9
    broadcast.publish(10)
    assert await anext(subscription) == 10


async def test_with_fail_a_slow_subscriber_gets_an_error_and_others_continue():
    broadcast = Broadcast(buffer=Buffer(rows=2, full="fail"), name="readings")
    slow, fast = broadcast.subscribe(), broadcast.subscribe()
    for number in range(3):
        broadcast.publish(number)
        assert await anext(fast) == number
    with pytest.raises(UpstreamError, match="readings: expected at most 2 queued rows, got 3"):
        await anext(slow)
    assert broadcast.subscribers == 1


@pytest.mark.virtual
async def test_drops_are_logged_when_they_begin_and_when_they_have_ended(caplog):
    broadcast = Broadcast(buffer=Buffer(rows=2), name="readings")
    subscription = broadcast.subscribe()
    for _ in range(5):
        for number in range(10):
            broadcast.publish(number)
        await anyio.sleep(1)
        await take(subscription, 2)
    await anyio.sleep(20)
    assert [record.getMessage() for record in caplog.records] == [
        "readings: a subscriber is too slow: rows are dropped",
        "readings: caught up; 40 rows were dropped",
    ]


@pytest.mark.virtual
async def test_a_subscription_that_is_gone_is_not_kept_by_its_drops(caplog):
    broadcast = Broadcast(buffer=Buffer(rows=1))
    subscription = broadcast.subscribe()
    broadcast.publish(1)
    broadcast.publish(2)
    await anyio.sleep(1)
    del subscription
    assert broadcast.subscribers == 0
    await anyio.sleep(20)


@pytest.mark.parametrize("full", ["drop_oldest", "latest"])
async def test_every_row_of_many_threads_is_received_or_counted(full):
    broadcast = Broadcast(buffer=Buffer(rows=20, full=full))
    subscription, found = broadcast.subscribe(), []

    def publish(name):
        for number in range(3_000):
            broadcast.publish((name, number))

    threads = [in_thread(publish, name) for name in range(4)]
    while any(thread.is_alive() for thread in threads):
        with anyio.move_on_after(0.01):
            while True:
                found.append(await anext(subscription))
    broadcast.close()
    found += [row async for row in subscription]
    counts = broadcast.statistics()
    assert counts.published == 12_000
    assert len(found) + counts.dropped == counts.published
    for name in range(4):
        numbers = [number for sender, number in found if sender == name]
        assert numbers == sorted(set(numbers))
    assert found[-1][1] == 2_999


# Back-pressure


@pytest.mark.parametrize("rows", [1, 2, 10])
async def test_with_block_a_thread_waits_and_no_row_is_lost(rows):
    broadcast = Broadcast(buffer=Buffer(rows=rows, full="block"))
    subscriptions = [broadcast.subscribe() for _ in range(2)]
    most = 0

    def publish():
        nonlocal most
        for number in range(500):
            broadcast.publish(number)
            most = max(most, *(len(each._items) for each in subscriptions))

    thread = in_thread(publish)
    for number in range(500):
        for subscription in subscriptions:
            assert await anext(subscription) == number
    await join(thread)
    assert most <= rows
    assert broadcast.statistics().dropped == 0


@pytest.mark.virtual
@pytest.mark.parametrize("rows", [1, 2, 10])
async def test_with_block_a_coroutine_waits_and_no_row_is_lost(rows):
    broadcast = Broadcast(buffer=Buffer(rows=rows, full="block"))
    subscription = broadcast.subscribe()

    async def send(name):
        for number in range(50):
            await broadcast.send((name, number))

    async with anyio.create_task_group() as tasks:
        for name in range(3):
            tasks.start_soon(send, name)
        await anyio.sleep(1)
        assert broadcast.statistics().published == rows
        found = await take(subscription, 150)
    for name in range(3):
        assert [number for sender, number in found if sender == name] == list(range(50))


async def test_with_block_publish_in_an_event_loop_names_send_also_with_space():
    broadcast = Broadcast(buffer=Buffer(full="block"), name="readings")
    with pytest.raises(RuntimeError, match=r"readings\.publish\(\) .* use `await send\(row\)`"):
        broadcast.publish(1)
    assert broadcast.statistics().published == 0


@pytest.mark.virtual
async def test_a_sender_that_is_cancelled_sends_nothing():
    broadcast = Broadcast(buffer=Buffer(rows=1, full="block"))
    subscription = broadcast.subscribe()
    await broadcast.send(1)
    with anyio.move_on_after(1):
        await broadcast.send(2)
    assert not broadcast._senders and not broadcast._waiting
    assert await anext(subscription) == 1
    await broadcast.send(3)
    assert await anext(subscription) == 3


@pytest.mark.virtual
async def test_a_subscriber_that_takes_nothing_is_not_waited_for_longer_than_the_stall_timeout():
    broadcast = Broadcast(buffer=Buffer(rows=2, full="block", stall_timeout=5))
    stalled = broadcast.subscribe()
    begun = anyio.current_time()
    for number in range(3):
        await broadcast.send(number)
    assert anyio.current_time() - begun == 5
    assert await take(stalled, 2) == [0, 1]
    with pytest.raises(UpstreamError, match="has taken nothing for 5 s"):
        await anext(stalled)


@pytest.mark.virtual
async def test_a_subscriber_that_takes_rows_slowly_is_waited_for():
    broadcast = Broadcast(buffer=Buffer(rows=4, full="block", stall_timeout=5))
    subscription = broadcast.subscribe()

    async def send():
        for number in range(8):
            await broadcast.send(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        found = []
        for _ in range(8):
            await anyio.sleep(4)
            found.append(await anext(subscription))
    assert found == list(range(8))


async def test_a_thread_is_not_blocked_for_longer_than_the_stall_timeout():
    broadcast = Broadcast(buffer=Buffer(rows=1, full="block", stall_timeout=0.05))
    stalled = broadcast.subscribe()

    def publish():
        broadcast.publish(1)
        broadcast.publish(2)

    await join(in_thread(publish))
    assert await anext(stalled) == 1
    with pytest.raises(UpstreamError):
        await anext(stalled)


@pytest.mark.parametrize("ending", ["close", "fail", "leave", "forget"])
async def test_a_blocked_thread_goes_on_when_nobody_is_left_to_wait_for(ending):
    broadcast = Broadcast(buffer=Buffer(rows=1, full="block"))
    subscription = broadcast.subscribe()
    full = threading.Event()

    def publish():
        broadcast.publish(1)
        full.set()
        broadcast.publish(2)

    thread = in_thread(publish)
    await anyio.to_thread.run_sync(full.wait)
    if ending == "close":
        broadcast.close()
    elif ending == "fail":
        broadcast.fail(UpstreamError("away"))
    elif ending == "leave":
        await subscription.aclose()
    else:
        del subscription
    await join(thread)


# Replay


async def test_a_later_subscriber_gets_the_last_rows_first():
    broadcast = Broadcast(replay=2)
    for number in range(5):
        broadcast.publish(number)
    subscription = broadcast.subscribe()
    broadcast.publish(5)
    assert await take(subscription, 3) == [3, 4, 5]
    broadcast.close()
    assert [row async for row in broadcast.subscribe()] == [4, 5]


async def test_with_latest_a_replay_is_one_row():
    broadcast = Broadcast(replay=3, buffer=Buffer(full="latest"))
    for number in range(5):
        broadcast.publish(number)
    subscription = broadcast.subscribe()
    assert await anext(subscription) == 4
    broadcast.publish(5)
    assert await anext(subscription) == 5


# The end


async def test_close_ends_the_loops_after_the_rows_that_are_queued():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    broadcast.publish(1)
    broadcast.close()
    broadcast.close()
    assert broadcast.is_closed
    assert [row async for row in subscription] == [1]
    assert [row async for row in subscription] == []
    assert [row async for row in broadcast.subscribe()] == []


async def test_close_in_a_thread_ends_a_subscriber_that_waits():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    pending = asyncio.ensure_future(anext(subscription, "end"))
    await asyncio.sleep(0)
    await join(in_thread(broadcast.close))
    assert await pending == "end"


async def test_rows_after_close_are_ignored_counted_and_logged_once(caplog):
    broadcast = Broadcast(name="readings")
    broadcast.close()
    broadcast.publish(1)
    await broadcast.send(2)
    assert broadcast.statistics().ignored == 2
    assert [record.getMessage() for record in caplog.records] == [
        "readings: a row was published after the broadcast was closed; it is ignored. Stop the"
        " publisher when `lifespan` ends"
    ]


async def test_fail_raises_in_the_present_subscribers_and_spares_later_ones():
    broadcast = Broadcast()
    first, second = broadcast.subscribe(), broadcast.subscribe()
    broadcast.publish(1)
    broadcast.fail(NotFound("no press"))
    later = broadcast.subscribe()
    broadcast.publish(2)
    errors = []
    for subscription in (first, second, second):
        with pytest.raises(NotFound, match="no press") as raised:
            await take(subscription, 2)
        errors.append(raised.value)
    assert len(set(map(id, errors))) == 3
    assert await anext(later) == 2


async def test_an_exception_of_a_client_is_a_transient_error():
    broadcast = Broadcast(name="the hub")
    subscription = broadcast.subscribe()
    cause = ConnectionResetError("reset by peer")
    broadcast.fail(cause)
    with pytest.raises(UpstreamError, match="the hub failed: reset by peer") as raised:
        await anext(subscription)
    assert raised.value.__cause__ is cause


async def test_an_error_whose_message_waits_for_another_publisher_does_not_block_it():
    broadcast = Broadcast(name="the hub")
    subscription = broadcast.subscribe()

    class Waiting(Exception):
        def __str__(self):
            publisher = in_thread(broadcast.publish, 1)
            publisher.join(5)
            return "still blocked" if publisher.is_alive() else "published"

    broadcast.fail(Waiting())
    assert await anext(subscription) == 1
    with pytest.raises(UpstreamError, match="the hub failed: published"):
        await anext(subscription)


async def test_a_subscription_ends_when_nothing_refers_to_it():
    broadcast = Broadcast()
    broadcast.publish(1)

    async def stream():
        async for row in broadcast.subscribe():
            yield row

    rows = stream()
    pending = asyncio.ensure_future(anext(rows))
    await asyncio.sleep(0)
    assert broadcast.subscribers == 1
    broadcast.publish(1)
    assert await pending == 1
    await rows.aclose()
    assert broadcast.subscribers == 0


async def test_a_subscription_can_be_left():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    broadcast.publish(1)
    await subscription.aclose()
    await subscription.aclose()
    assert broadcast.subscribers == 0
    assert [row async for row in subscription] == []


@pytest.mark.virtual
async def test_a_timeout_around_the_next_row_loses_none():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    for number in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscription), 1)
        broadcast.publish(number)
        assert await anext(subscription) == number


async def test_a_row_that_comes_together_with_the_timeout_is_not_lost():
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    pending = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    broadcast.publish(1)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert await anext(subscription) == 1


# Misuse


async def test_a_second_reader_of_one_subscription_is_refused():
    subscription = Broadcast(name="readings").subscribe()
    pending = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(
        RuntimeError, match=r"readings: expected one task .* a subscription of its own"
    ):
        await anext(subscription)
    pending.cancel()


async def test_a_second_reader_that_takes_the_row_of_the_first_is_not_forgotten():
    broadcast = Broadcast(name="readings")
    subscription = broadcast.subscribe()
    first = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(take(subscription, 2))
    broadcast.publish(1)  # wakes the first one; the second one runs before it
    with pytest.raises(RuntimeError, match="readings: expected one task"):
        await first
    broadcast.publish(2)
    assert await second == [1, 2]


def test_subscribe_without_an_event_loop_names_the_place_to_call_it():
    with pytest.raises(RuntimeError, match=r"readings\.subscribe\(\) must be called in an event"):
        Broadcast(name="readings").subscribe()


@pytest.mark.parametrize("replay", [-1, 1_001, True, 1.0, None])
def test_replay_is_an_integer_within_the_buffer(replay):
    with pytest.raises(ValueError, match=r"replay must be an integer from 0 to .*1000.*, got"):
        Broadcast(replay=replay)


def test_the_buffer_is_a_buffer():
    with pytest.raises(TypeError, match="buffer must be a Buffer, got 100"):
        Broadcast(buffer=100)


def test_fail_takes_an_exception():
    with pytest.raises(TypeError, match="error must be an Exception, got 'away'"):
        Broadcast().fail("away")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_broadcast_cannot_be_copied_or_sent_away(duplicate):
    with pytest.raises(TypeError, match="readings cannot be copied or sent to another process"):
        duplicate(Broadcast(name="readings"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_publishing_in_a_forked_process_is_refused():
    broadcast = Broadcast(name="readings")
    broadcast._lock.acquire()  # as if another thread published during the fork
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            broadcast.publish(1)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert "called in a forked process" in answer.read()
    broadcast._lock.release()
    broadcast.publish(1)


# One for each instance


def test_each_instance_has_its_own_and_the_class_has_none():
    class Press:
        readings = Broadcast(replay=1)

    one, two = Press(), Press()
    assert one.readings is one.readings
    assert one.readings is not two.readings
    one.readings.publish(1)
    assert (one.readings.statistics().published, two.readings.statistics().published) == (1, 0)
    assert str(one.readings) == "Press.readings"
    with pytest.raises(RuntimeError, match=r"expected self\.readings\.publish\(\), .*got Press\."):
        Press.readings.publish(1)


def test_threads_that_are_the_first_at_the_same_time_get_the_same_one():
    class Press:
        readings = Broadcast()

    for _ in range(50):
        press, start, found = Press(), threading.Barrier(4), []

        def get(press=press, start=start, found=found):
            start.wait()
            found.append(press.readings)

        threads = [in_thread(get) for _ in range(4)]
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1
