"""Virtual time."""

import asyncio
import queue
import threading
import time

import anyio
import anyio.to_thread
import pytest

from aiostream_ds.testing.virtual_loop import Deadlock, VirtualLoop


@pytest.fixture
def loop():
    loop = VirtualLoop()
    yield loop
    loop.close()


@pytest.mark.virtual
async def test_an_hour_of_sleep_takes_no_time():
    real, virtual = time.monotonic(), asyncio.get_running_loop().time()
    await asyncio.sleep(3600)
    assert asyncio.get_running_loop().time() == virtual + 3600
    assert time.monotonic() - real < 15


def test_a_loop_that_would_wait_for_ever_raises_deadlock(loop, monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.01)
    with pytest.raises(Deadlock):
        loop.run_until_complete(asyncio.Event().wait())


@pytest.mark.virtual
async def test_the_clock_does_not_move_during_a_call_in_the_executor():
    loop = asyncio.get_running_loop()
    now, timer = loop.time(), asyncio.create_task(asyncio.sleep(3600))
    await loop.run_in_executor(None, time.sleep, 0.01)
    assert not timer.done() and loop.time() == now
    timer.cancel()


def test_a_step_is_one_iteration(loop):
    seen = []
    loop.call_soon(lambda: (seen.append(1), loop.call_soon(seen.append, 2)))
    loop.step()
    assert seen == [1]
    loop.step()
    assert seen == [1, 2]


def test_settle_runs_ready_callbacks_and_no_timer(loop):
    seen = []
    loop.call_soon(lambda: loop.call_soon(seen.append, "ready"))
    loop.call_later(0.001, seen.append, "timer")
    now = loop.time()
    loop.settle()
    assert seen == ["ready"] and loop.time() == now


def test_advance_fires_timers_in_their_order_each_at_its_time(loop):
    seen, start = [], loop.time()
    for delay in (3, 1, 2, 9):
        loop.call_later(delay, lambda delay=delay: seen.append((delay, loop.time() - start)))
    loop.advance(5)
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert loop.time() == start + 5


@pytest.mark.virtual
async def test_the_clock_does_not_move_during_a_call_in_an_anyio_worker_thread():
    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def timer():
            await anyio.sleep(3_600)

        tasks.start_soon(timer)
        await anyio.to_thread.run_sync(time.sleep, 0.05)
        assert anyio.current_time() == start
        tasks.cancel_scope.cancel()


@pytest.mark.virtual
async def test_calls_that_wake_the_loop_again_and_again_do_not_stop_the_clock(monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.05)
    loop, ended = asyncio.get_running_loop(), threading.Event()

    def wake():
        while not ended.wait(0.005):
            loop.call_soon_threadsafe(lambda: None)

    call = loop.run_in_executor(None, wake)
    virtual, real = loop.time(), time.monotonic()
    try:
        await asyncio.sleep(0.2)
        assert loop.time() == virtual + 0.2
        assert time.monotonic() - real >= 0.2  # not ahead of what the thread does
    finally:
        ended.set()
        await call


@pytest.mark.virtual
async def test_what_an_earlier_call_took_does_not_move_the_clock_during_a_later_one(monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.1)
    loop = asyncio.get_running_loop()
    for _ in range(5):
        timer = loop.call_later(0.01, lambda: None)
        virtual = loop.time()
        await loop.run_in_executor(None, time.sleep, 0.04)
        assert loop.time() == virtual
        timer.cancel()
        await asyncio.sleep(0)


@pytest.mark.virtual
async def test_a_call_that_has_hung_is_waited_for_when_the_test_lets_it_go_on(monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.05)
    rows: queue.SimpleQueue[int] = queue.SimpleQueue()
    call = asyncio.get_running_loop().run_in_executor(None, rows.get)
    try:
        await asyncio.sleep(3600)
    finally:
        rows.put(1)
    assert await asyncio.wait_for(call, 10) == 1
