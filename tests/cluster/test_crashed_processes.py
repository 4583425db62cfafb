"""What the owner of a channel does to its process, and when another node takes it: real processes
and servers."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Role
from tests.cluster.node_process import CHANNEL, Silent, engine_at
from tests.servers import Nats, Redis
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

LEASE = 4.5  # seconds: long, for a busy machine


@pytest.fixture(params=[Redis, Nats], ids=["redis", "nats"])
def server(request) -> Iterator[Redis | Nats]:
    with request.param() as server:
        yield server


@asynccontextmanager
async def process_and_node(
    url: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, ClusterNode, Silent]]:
    """A process that owns the channel, and a node of this one that follows."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.cluster.node_process", url, str(LEASE)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"process\n"
        silent = Silent("here")
        async with ClusterNode(engine_at(url), "here", NodeOptions(lease=LEASE)) as node:
            run = asyncio.create_task(node.run_channel(CHANNEL, silent.source, silent))
            await until(lambda: silent.role_now is Role.FOLLOWER)
            await asyncio.sleep(LEASE / 2)  # it has seen the process
            yield process, node, silent
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_channels_of_a_killed_process_are_taken_before_its_lease_ends(server):
    async with process_and_node(server.url) as (process, node, silent):
        left = LEASE - (await node.engine.nodes())["process"]
        process.kill()
        killed = time.monotonic()
        await until(silent.is_read.is_set)
        assert time.monotonic() - killed < left


async def test_the_channels_of_a_stopped_process_are_taken_when_its_lease_has_ended(server):
    async with process_and_node(server.url) as (process, node, silent):
        os.kill(process.pid, signal.SIGSTOP)
        left = LEASE - (await node.engine.nodes())["process"]
        stopped = time.monotonic()
        await until(silent.is_read.is_set)
        assert time.monotonic() - stopped >= left - 0.05


async def test_no_channel_moves_when_the_server_is_killed_and_starts_again(server):
    async with process_and_node(server.url) as (_, node, silent):
        await asyncio.to_thread(server.restart)
        await until(lambda: node.state.connected)
        await asyncio.sleep(2 * LEASE)
        assert silent.role_now is Role.FOLLOWER
        assert node.state.takeovers == 0
        assert node.state.nodes == {"process", "here"}
