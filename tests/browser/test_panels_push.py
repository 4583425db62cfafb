"""Exact panels of pushed rows in a real browser, while the plugin is killed and the network is cut.

A client pushes the rows of the log with retries; each frame that a panel gets is compared with it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.exact.client import CallFailed
from tests.exact.upstream import Plugin

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

_SERVE = (
    "from aiostream_ds import serve; from aiostream_ds.sources.push import Pushed; serve(Pushed)"
)
COMMAND = [sys.executable, "-c", _SERVE]
PUSH = Plugin(COMMAND, COMMAND, {"queryType": "table", "path": "log"}, "maxMessage")
LINES = 100  # of a batch, at most


async def push_lines(server: Any, path: Path) -> None:
    """Push the lines of a log as they are written, each batch until it is acknowledged."""
    batch, rest = 0, b""
    with path.open("rb") as file:
        while True:
            *lines, rest = (rest + file.read()).split(b"\n")
            for start in range(0, len(lines), LINES):
                body = b"\n".join(lines[start : start + LINES])
                while not await is_taken(server, body, f"batch {batch}"):
                    await asyncio.sleep(0.05)
                batch += 1
            await asyncio.sleep(0.02)


async def is_taken(server: Any, body: bytes, key: str) -> bool:
    try:
        answer = await server._call(
            "resource",
            path="push/log",
            method="POST",
            body=body.decode(),
            headers={"Idempotency-Key": [key], "Content-Type": ["application/x-ndjson"]},
        )
    except CallFailed:
        return False
    (message,) = answer["messages"]
    assert message["code"] in (200, 502, 503), message
    return bool(message["code"] == 200)


@asynccontextmanager
async def pushing(stage: Any) -> AsyncIterator[None]:
    """Push the rows of the stage's log meanwhile."""
    task = asyncio.create_task(push_lines(stage.server, stage.logs[0].path))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_no_row_is_missing_or_doubled_while_the_plugin_is_killed(open_stage):
    async with open_stage(plugin=PUSH) as stage, pushing(stage):
        tab = await stage.tab()
        await stage.open(tab, "p", 10)
        await stage.open(tab, "wide", 30)
        await stage.caught_up()
        for _ in range(4):
            await anyio.sleep(0.7)
            await stage.server.kill()
        await stage.server.wire.cut(http=False)
        await anyio.sleep(1)
        stage.server.wire.restore()
        await stage.caught_up()
        await anyio.sleep(0.5)
        tally = await stage.verdict()
    print(f"\nkilled 4 times, one cut: {tally}, {sorted(stage.notices) or 'no notice'}")
    assert tally.exact and tally.drawings > 10
