"""The watchdog of the event loop."""

import asyncio
import threading
import time

import anyio
import pytest

from aiostream_ds import DataSource, Rows, stream
from aiostream_ds._process import watchdog
from aiostream_ds.testing import serve_in_memory


@pytest.fixture
def short_limit(monkeypatch):
    monkeypatch.setattr(watchdog, "BLOCKED_AFTER", 0.08)


async def until_heartbeat(watch_task):
    for _ in range(3):
        await asyncio.sleep(0.01)
    assert not watch_task.done()


def block(is_seen):
    """Block the event loop until the watchdog has seen it, whenever its thread gets a processor."""
    deadline = time.monotonic() + 15
    while not is_seen() and time.monotonic() < deadline:
        time.sleep(0.01)


async def test_a_blocked_loop_is_logged_once_with_the_line_that_blocks(short_limit, caplog):
    watching = asyncio.create_task(watchdog.watch_loop())
    await until_heartbeat(watching)
    block(lambda: caplog.records)
    time.sleep(0.1)  # it goes on
    await until_heartbeat(watching)
    watching.cancel()
    await asyncio.wait([watching])
    (record,) = caplog.records
    assert "the event loop is blocked" in record.getMessage()
    assert "block(lambda: caplog.records)" in record.stack


@pytest.mark.slow
@pytest.mark.parametrize("again, lines", [(watchdog.SAME_LINE_AGAIN, 1), (0.0, 2)])
async def test_a_line_that_blocks_again_is_logged_after_a_while(
    short_limit, caplog, monkeypatch, again, lines
):
    monkeypatch.setattr(watchdog, "SAME_LINE_AGAIN", again)
    watching = asyncio.create_task(watchdog.watch_loop())
    for _ in range(2):
        await until_heartbeat(watching)
        time.sleep(1.0)  # the watchdog's thread may wait for a processor
    await until_heartbeat(watching)
    watching.cancel()
    await asyncio.wait([watching])
    assert len(caplog.records) == lines


class Blocking(DataSource):
    @stream
    async def numbers(self) -> Rows:
        for n in range(20):
            time.sleep(0.05)  # a mistake: it never awaits
            yield {"n": n}


@pytest.mark.slow
async def test_a_stream_that_blocks_and_never_awaits_lets_others_run(short_limit):
    watching = asyncio.create_task(watchdog.watch_loop())
    await until_heartbeat(watching)
    async with serve_in_memory(Blocking) as grafana:
        viewer = await grafana.follow("numbers")
        row = await viewer.next(10)
        assert row["n"] == 0 and len(viewer.rows) < 20
    watching.cancel()
    await asyncio.wait([watching])


@pytest.mark.slow
async def test_a_loop_that_waits_without_authors_code_is_not_logged(short_limit, caplog):
    """As on a machine that is short of processor time: the stack ends in the loop itself."""
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(watchdog.watch_loop())
    for blocks in (time.sleep, lambda_of_the_runtime(time.sleep)):
        await until_heartbeat(watching)
        loop.call_soon(blocks, 0.2)
    await until_heartbeat(watching)
    watching.cancel()
    await asyncio.wait([watching])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def lambda_of_the_runtime(function):
    """A function with the same effect whose file is one of the runtime's."""
    names = {"function": function}
    code = compile("def call(*args): function(*args)", anyio.__file__, "exec")
    exec(code, names)
    return names["call"]


@pytest.mark.parametrize(
    "file, expected",
    [
        ("/home/me/plugin.py", True),
        (pytest.__file__, True),
        (anyio.__file__, False),
        (asyncio.__file__, False),
        (watchdog.__file__, False),
        ("<frozen runpy>", False),
    ],
)
def test_authors_code_is_all_that_the_runtime_did_not_bring(file, expected):
    assert watchdog._is_author_file(file) == expected


async def test_the_thread_ends_with_the_task():
    before = threading.active_count()
    watching = asyncio.create_task(watchdog.watch_loop())
    await until_heartbeat(watching)
    assert threading.active_count() == before + 1
    watching.cancel()
    await asyncio.wait([watching])
    assert threading.active_count() == before
