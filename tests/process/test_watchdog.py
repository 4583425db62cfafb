"""The watchdog of the event loop."""

import asyncio
import threading
import time

import pytest

from aiostream_ds._process import watchdog


@pytest.fixture
def short_limit(monkeypatch):
    monkeypatch.setattr(watchdog, "BLOCKED_AFTER", 0.08)


async def until_heartbeat(watch_task):
    for _ in range(3):
        await asyncio.sleep(0.01)
    assert not watch_task.done()


async def test_a_blocked_loop_is_logged_once_with_the_line_that_blocks(short_limit, caplog):
    watching = asyncio.create_task(watchdog.watch_loop())
    await until_heartbeat(watching)
    time.sleep(0.2)
    await until_heartbeat(watching)
    watching.cancel()
    await asyncio.wait([watching])
    (record,) = caplog.records
    assert "the event loop is blocked" in record.getMessage()
    assert "time.sleep(0.2)" in record.stack


async def test_each_block_is_logged(short_limit, caplog):
    watching = asyncio.create_task(watchdog.watch_loop())
    for _ in range(2):
        await until_heartbeat(watching)
        time.sleep(0.2)
    await until_heartbeat(watching)
    watching.cancel()
    await asyncio.wait([watching])
    assert len(caplog.records) == 2


async def test_the_thread_ends_with_the_task():
    before = threading.active_count()
    watching = asyncio.create_task(watchdog.watch_loop())
    await until_heartbeat(watching)
    assert threading.active_count() == before + 1
    watching.cancel()
    await asyncio.wait([watching])
    assert threading.active_count() == before
