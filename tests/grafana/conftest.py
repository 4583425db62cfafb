"""In virtual time, a call in a worker thread stops the clock until it returns."""

import asyncio
from functools import partial

import anyio.to_thread
import pytest


@pytest.fixture(autouse=True)
def threads_stop_the_clock(request, monkeypatch):
    if request.node.get_closest_marker("virtual") is None:
        return

    async def run_sync(function, *args, **_):
        return await asyncio.get_running_loop().run_in_executor(None, partial(function, *args))

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
