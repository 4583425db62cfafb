"""The leases of nodes, one in each partition: a script reads the keys of one slot only.

A renewal has succeeded when more than half of the partitions have it. So a server of a Redis
Cluster that is down takes the channels away that it has, and not the others. A node whose lease has
ended in one partition may be fenced there, as every writer.
"""

import asyncio
from collections.abc import Mapping

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.redis.channel_keys import KeyNames
from aiostream_ds._cluster.redis.redis_calls import RedisCalls
from aiostream_ds._cluster.redis.redis_scripts import Scripts

__all__ = ["NodeLeases"]


class NodeLeases:
    """Renews and ends leases, and lists them."""

    def __init__(self, calls: RedisCalls, keys: KeyNames, scripts: Scripts) -> None:
        self._calls, self._scripts = calls, scripts
        self._partitions = keys.partitions
        self._renewing: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def renew(self, node: str, seconds: float) -> None:
        """Renew the lease in each partition; a slow server gets it in the background, until the
        next call: the answer to an earlier request is not one to this call, from which the node
        counts its lease.

        Raises:
            EngineError: half of the partitions or more do not have it, or another call has begun.
        """
        enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = {"successes": len(self._partitions) // 2 + 1, "failures": 0}
        left["failures"] = len(self._partitions) - left["successes"] + 1

        def count(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if enough.done():
                return
            failed = task.cancelled() or error is not None
            kind = "failures" if failed else "successes"
            left[kind] -= 1
            if left[kind] > 0:
                return
            if failed:
                enough.set_exception(
                    error or EngineError("the lease was renewed again or released")
                )
            else:
                enough.set_result(None)

        for number in range(len(self._partitions)):
            self._start(node, number, seconds).add_done_callback(count)
        await enough

    def _start(self, node: str, number: int, seconds: float) -> asyncio.Task[None]:
        call = self._calls.run(
            self._scripts.renew, (self._partitions[number].leases,), node, int(seconds * 1000)
        )
        earlier = self._renewing.get((node, number))
        if earlier is not None:
            earlier.cancel()
        task = self._renewing[node, number] = asyncio.create_task(call)
        task.add_done_callback(lambda done: self._ended((node, number), done))
        return task

    def _ended(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        if self._renewing.get(key) is task:
            del self._renewing[key]

    async def release(self, node: str) -> None:
        """End the lease in each partition. Raises EngineError."""
        renewing = [task for (name, _), task in self._renewing.items() if name == node]
        await _cancel(renewing)
        await asyncio.gather(
            *(
                self._calls.run(self._scripts.release, (each.leases,), node)
                for each in self._partitions
            )
        )

    async def nodes(self) -> Mapping[str, float]:
        """The nodes with a lease in one partition, and its age in seconds. Raises EngineError."""
        now, leases = await self._calls.run(self._scripts.nodes, (self._partitions[0].leases,))
        found: dict[str, float] = {}
        for node, lease in zip(leases[::2], leases[1::2], strict=True):
            start, duration = map(int, lease.split())
            if abs(now - start) < duration:
                found[node.decode()] = (now - start) / 1000
        return found

    async def end(self, node: str, age: float) -> None:
        """End a lease in each partition that has it, unless it was renewed there less than `age`
        seconds ago.

        Raises:
            EngineError: the first of the errors, when all partitions were tried.
        """
        milliseconds = int(age * 1000)
        calls = [
            self._calls.run(self._scripts.end_lease, (each.leases,), node, milliseconds)
            for each in self._partitions
        ]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def aclose(self) -> None:
        """End what runs in the background."""
        await _cancel(list(self._renewing.values()))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
