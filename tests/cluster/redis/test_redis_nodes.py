"""Nodes that share streams through a real Redis, which fails: each viewer gets each row once and in
order, and afterwards one node reads each upstream."""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds._frames.packet import CursorRange
from tests.servers import Redis
from tests.servers.proxy import Proxy
from tests.waiting import until

from .engines import EngineRedis, engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

CHANNELS = [f"c{number}" for number in range(20)]
HERTZ = 20
TAKEOVER = 30.0  # seconds until everything is as it should be, on a machine that is busy


class Upstream:
    """Rows that are numbered by time, and can be read again."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.readers = dict.fromkeys(CHANNELS, 0)

    def last(self) -> int:
        return int((time.monotonic() - self._began) * HERTZ)

    def of(self, channel: str) -> Callable[[Incoming | None], AsyncGenerator[Outgoing, None]]:
        async def read(resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
            self.readers[channel] += 1
            try:
                cursor = self.last()
                if resume is not None and resume.cursors is not None:
                    cursor = resume.cursors.last
                while True:
                    if (last := self.last()) > cursor:
                        yield Outgoing(b"%d" % last, b"schema", CursorRange("e", cursor, last))
                        cursor = last
                    await asyncio.sleep(1 / HERTZ)
            finally:
                self.readers[channel] -= 1

        return read


class Viewer:
    """A sink that notes what does not follow on what it had."""

    def __init__(self) -> None:
        self.cursor: int | None = None
        self.mistakes: list[str] = []
        self.role_now = Role.JOINING

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None:
        for message in tail:
            self._take(message)

    def receive(self, message: Incoming) -> None:
        self._take(message)

    def _take(self, message: Incoming) -> None:
        assert message.cursors is not None
        prev = max(message.cursors.prev, message.after or 0)
        if self.cursor is not None and prev != self.cursor:
            self.mistakes.append(f"{prev} to {message.cursors.last} after {self.cursor}")
        self.cursor = message.cursors.last

    def reset(self, reason: str) -> None:
        """Rows of a stream with cursors are not missing."""

    def role(self, role: Role, owner: str) -> None:
        self.role_now = role

    def degraded(self, reason: str | None) -> None:
        """The node reads the upstream itself."""


class Cluster:
    """Three nodes with viewers of all channels, each with a connection through a proxy."""

    def __init__(self, server: Redis, stack: AsyncExitStack) -> None:
        self.server, self._stack = server, stack
        self.upstream = Upstream()
        self.proxies: list[Proxy] = []
        self.viewers: dict[tuple[int, str], Viewer] = {}

    async def start(self) -> None:
        for number in range(3):
            self.proxies.append(self._stack.enter_context(Proxy(self.server.port)))
            made = ClusterNode(
                engine(self.server, self.proxies[-1].port), f"n{number}", NodeOptions(grace=0.5)
            )
            node = await self._stack.enter_async_context(made)
            group = await self._stack.enter_async_context(asyncio.TaskGroup())
            for channel in CHANNELS:
                viewer = self.viewers[number, channel] = Viewer()
                run = node.run_channel(channel, self.upstream.of(channel), viewer)
                self._stack.callback(group.create_task(run).cancel)

    def is_calm(self) -> bool:
        """Whether one node reads each upstream, and all viewers have what has just been written."""
        roles = [[self.viewers[n, c].role_now for n in range(3)] for c in CHANNELS]
        cursors = [viewer.cursor or 0 for viewer in self.viewers.values()]
        return (
            all(sorted(each, key=str) == CALM for each in roles)
            and set(self.upstream.readers.values()) == {1}
            and min(cursors) > self.upstream.last() - HERTZ
        )

    async def check(self) -> None:
        later = self.upstream.last() + 2 * HERTZ  # longer than a lease
        await until(
            lambda: self.is_calm() and all((v.cursor or 0) > later for v in self.viewers.values()),
            TAKEOVER,
        )
        mistakes = {key: v.mistakes for key, v in self.viewers.items() if v.mistakes}
        assert mistakes == {}


CALM = sorted([Role.OWNER, Role.FOLLOWER, Role.FOLLOWER], key=str)


async def cut(cluster: Cluster) -> None:
    await asyncio.to_thread(random.choice(cluster.proxies).cut)


async def partition(cluster: Cluster) -> None:
    proxy = random.choice(cluster.proxies)
    await asyncio.to_thread(proxy.hold)
    await asyncio.sleep(random.uniform(0.5, 4))
    await asyncio.to_thread(proxy.cut)
    await asyncio.to_thread(proxy.restore)


async def restart(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.server.restart)


async def outage(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.server.kill)
    await asyncio.sleep(random.uniform(0.5, 4))
    await asyncio.to_thread(cluster.server.start)


async def flush(cluster: Cluster) -> None:
    cluster.server.call("FLUSHALL")


async def evict_some(cluster: Cluster) -> None:
    for channel in random.sample(CHANNELS, 5):
        cluster.server.call("DEL", f"test:{{0}}:{random.choice(['log', 'state'])}:{channel}")


FAULTS = (cut, partition, restart, outage, flush, evict_some)


MORE = int(os.environ.get("AIOSTREAM_DS_CLUSTER_FAULTS", "0"))
"""How many random faults a long run has."""


async def played(faults: Sequence[Callable[[Cluster], Awaitable[None]]]) -> None:
    with EngineRedis() as server:
        async with AsyncExitStack() as stack:
            cluster = Cluster(server, stack)
            await cluster.start()
            await cluster.check()
            for fault in faults:
                await fault(cluster)
                await cluster.check()


# the others are in the long run
@pytest.mark.parametrize("fault", [partition, outage, evict_some], ids=lambda each: each.__name__)
async def test_rows_arrive_once_and_in_order_over_a_fault(fault):
    await played([fault])


@pytest.mark.timeout(40 * MORE + 60)
@pytest.mark.skipif(not MORE, reason="AIOSTREAM_DS_CLUSTER_FAULTS is not set")
async def test_rows_arrive_once_and_in_order_over_many_faults():
    await played(random.choices(FAULTS, k=MORE))
