"""Fifty channels over one upstream connection that counts connects and subscriptions."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from aiostream_ds import DataSource, Rows, Upstream, resource, serve, stream


class Numbers(Upstream[int, int]):
    """Sends a number every 20 ms for each subscribed key."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.subscribed: Counter[int] = Counter()
        self.now: set[int] = set()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        self.opened += 1
        yield None

    async def subscribe(self, connection: None, key: int) -> None:
        assert key not in self.now, "subscribed twice"
        self.subscribed[key] += 1
        self.now.add(key)

    async def unsubscribe(self, connection: None, key: int) -> None:
        self.now.remove(key)

    async def messages(self, connection: None) -> Any:
        number = 0
        while True:
            await anyio.sleep(0.02)
            number += 1
            for key in tuple(self.now):
                yield key, number


class Crowd(DataSource):
    def __init__(self) -> None:
        self.starts: Counter[int] = Counter()
        self.running: Counter[int] = Counter()
        self.most = 0

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with Numbers() as self.upstream:
            yield

    @stream("c/{n:int}")
    async def channel(self, n: int) -> Rows:
        self.starts[n] += 1
        self.running[n] += 1
        self.most = max(self.most, self.running[n])
        try:
            async with self.upstream.follow(n) as numbers:
                async for number in numbers:
                    yield {"number": number}
        finally:
            self.running[n] -= 1

    @resource("counts")
    async def counts(self) -> dict[str, Any]:
        gc.collect()
        kept = Counter(type(each).__name__ for each in gc.get_objects())
        names = "Subscription", "Channel", "Call", "CallStream", "_Queue", "Task"
        return {
            "opened": self.upstream.opened,
            "subscribed": sorted(self.upstream.subscribed.values()),
            "starts": sorted(self.starts.values()),
            "most": self.most,
            "running": sum(self.running.values()),
            "tasks": len(asyncio.all_tasks()),
            "fds": len(os.listdir("/proc/self/fd")),
            "kept": {name: kept[name] for name in names},
            "objects": sum(kept.values()),
            "followers": self.upstream.statistics().subscribers,
            "pid": os.getpid(),
        }


if __name__ == "__main__":
    serve(Crowd)
