"""Numbered rows through outages of the real source: each is stored once, in order.

AIOSTREAM_DS_PUSH_KILLS=200 makes the run of `kill -9` as long.
"""

import contextlib
import os
import random
import threading

import anyio.to_thread
import pytest

from aiostream_ds.push import AsyncPush, Push
from aiostream_ds.sources.push.push_quota import BURST
from tests.servers.proxy import Proxy
from tests.waiting import until

from .console_process import ConsoleProcess, stored_rows

KILLS = int(os.environ.get("AIOSTREAM_DS_PUSH_KILLS", "2"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90 + 30 * KILLS)]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "pushed"


async def test_no_row_is_lost_or_doubled_by_cuts_holds_and_kills(directory):
    console = ConsoleProcess(directory)
    stop = threading.Event()
    sent = 0

    def work():
        nonlocal sent
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):  # the buffer is full: the server is away
                push.send({"n": sent}, timeout=1)
                sent += 1

    async def more():
        """Wait until rows are taken again."""
        before = push.counts.taken
        await until(lambda: push.counts.taken > before + 200, 30)

    with console, Proxy(console.port) as proxy:
        push = Push(
            f"http://127.0.0.1:{proxy.port}", "lab/n",
            buffer_rows=500, batch_rows=50, timeout=2, close_limit=30,
        )  # fmt: skip
        sender = threading.Thread(target=work)
        sender.start()
        try:
            await more()
            for _ in range(5):
                await anyio.to_thread.run_sync(proxy.cut)
                await more()
            await anyio.to_thread.run_sync(proxy.hold)
            await until(lambda: "no answer" in push.counts.last_error, 10)
            await anyio.to_thread.run_sync(proxy.restore)
            await more()
            await anyio.to_thread.run_sync(proxy.refuse)
            await until(lambda: "refused" in push.counts.last_error, 10)
            await anyio.to_thread.run_sync(proxy.restore)
            await more()
            for _ in range(KILLS):
                await anyio.to_thread.run_sync(console.kill)
                await anyio.to_thread.run_sync(console.start)
                await more()
                if KILLS > 2:
                    await anyio.sleep(random.random())  # any moment
        finally:
            stop.set()
            await anyio.to_thread.run_sync(sender.join)
            await anyio.to_thread.run_sync(push.close)
    counts = push.counts
    assert counts.retries >= 3 and counts.taken == counts.sent == sent
    found = [row["n"] for row in await stored_rows(directory, "lab/n")]
    assert found == [*range(sent)]


async def test_rows_wait_for_a_server_that_is_not_there_yet(directory):
    console = ConsoleProcess(directory)
    async with AsyncPush(console.url, "lab/n", close_limit=60) as push:
        await push.send([{"n": n} for n in range(100)])
        await until(lambda: push.counts.retries, 10)
        await anyio.to_thread.run_sync(console.start)
    await anyio.to_thread.run_sync(console.stop)
    assert [row["n"] for row in await stored_rows(directory, "lab/n")] == [*range(100)]


async def test_limits_of_the_source_and_bad_rows_lose_no_other_row(directory):
    rate = 40  # rows per second, which also a busy machine exceeds
    count = int(rate * BURST) + 2 * rate
    refused = []

    def note(row, reason):
        refused.append((row["n"], reason))

    settings = (f"rowsPerSecond={rate}", "maxMessage=2000")
    with ConsoleProcess(directory, *settings) as console:
        async with AsyncPush(console.url, "halved", close_limit=60) as halved:
            await halved.send([{"n": n} for n in range(200)])  # 10 KB
        async with AsyncPush(console.url, "bad", on_refused=note, close_limit=60) as bad:
            await bad.send([{"n": 1}, {"n": 2, "time": "soon"}, {"n": 3}])
            await bad.flush()
            await bad.send({"n": 4, "time": "never"})
        async with AsyncPush(console.url, "slowed", batch_rows=30, close_limit=60) as slowed:
            await slowed.send([{"n": n} for n in range(count)])
    assert halved.counts.refused == 0
    assert [n for n, _ in refused] == [2, 4] and "ISO 8601" in refused[0][1]
    assert (bad.counts.taken, bad.counts.refused) == (2, 2)
    assert slowed.counts.retries >= 1  # 429
    for path, expected in {
        "halved": [*range(200)],
        "bad": [1, 3],
        "slowed": [*range(count)],
    }.items():
        assert [row["n"] for row in await stored_rows(directory, path)] == expected
