"""An exact panel of a source over cuts and restarts: it draws each row once."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import anyio

from aiostream_ds._grafana.application import background_tasks
from tests.exact.client import Tab
from tests.exact.hosts import open_node
from tests.exact.judge import Judge
from tests.exact.network import Network
from tests.servers import Proxy
from tests.sources.outage_run import Write

__all__ = ["BUILTIN", "check_drawings"]

BUILTIN = "from aiostream_ds.sources.builtin_plugin import main; main()"


async def check_drawings(
    binary: Path,
    server: Any,
    proxy: Proxy,
    settings: dict[str, Any],
    secrets: dict[str, str],
    query: dict[str, Any],
    judge: Judge,
    write: Write,
) -> None:
    """Write 1,300 numbered rows meanwhile, under the Go host, and check what a panel has drawn."""
    written = 0
    command = [sys.executable, "-c", BUILTIN]
    async with (
        open_node(binary, command, settings, secrets) as node,
        background_tasks() as tasks,
    ):

        async def add(count: int) -> None:
            nonlocal written
            for _ in range(count // 10):
                await write(range(written, written + 10))
                written += 10
                await asyncio.sleep(0.01)

        async def drawn() -> None:
            with anyio.fail_after(30):
                while len(panel.rows) < written:
                    await asyncio.sleep(0.05)

        await add(100)
        panel = Tab(Network([node]), tasks).open(query, width=3_600, on_draw=judge)
        await drawn()
        for fault in (proxy.cut, server.restart, node.kill, proxy.cut):
            async with anyio.create_task_group() as both:
                both.start_soon(add, 300)
                if fault == node.kill:
                    both.start_soon(node.kill)
                else:
                    both.start_soon(asyncio.to_thread, fault)
            await drawn()
    assert not judge.wrong and len(panel.rows) == written == 1_300 and not panel.faults
