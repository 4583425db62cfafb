"""Engine operations of a large cluster, in virtual time: the real nodes over a model engine.

    python -m benchmarks.cluster_simulation --nodes 100 --channels 2000 --viewers 3

Prints operations per second, in all and for each channel: while channels are joined, while a part
of them has a message every second and the others are silent, and after a node has died.
"""

import argparse
import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Sequence

from tests.cluster.frozen_loop import FrozenLoop
from tests.cluster.model_engine import ModelEngine, ModelServer

from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds._frames.packet import CursorRange

LATENCY = (0.0002, 0.001)


class CountingSink:
    """Counts what it receives, and knows its role."""

    def __init__(self) -> None:
        self.count = 0
        self.role_now = Role.JOINING

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None: ...

    def receive(self, message: Incoming) -> None:
        self.count += 1

    def reset(self, reason: str) -> None: ...

    def role(self, role: Role, owner: str) -> None:
        self.role_now = role

    def degraded(self, reason: str | None) -> None: ...


class Cluster:
    """The nodes, and the sinks of each channel."""

    def __init__(self, given: argparse.Namespace, loop: FrozenLoop) -> None:
        self.given, self.loop = given, loop
        self.random = random.Random(1)
        self.server = ModelServer(entries=200)
        self.engines: list[ModelEngine] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ends = asyncio.Event()
        self.sinks: dict[str, dict[int, CountingSink]] = {}
        self.upstreams = 0

    async def node(self, number: int, channels: list[str]) -> None:
        engine = ModelEngine(self.server, seed=number)
        engine.latency = LATENCY
        self.engines.append(engine)
        options = NodeOptions(
            clock=self.loop.time, wall_clock=self.loop.time, random=random.Random(number)
        )
        async with ClusterNode(engine, f"n{number}", options) as node:
            async with asyncio.TaskGroup() as group:
                for channel in channels:
                    sink = self.sinks[channel][number] = CountingSink()
                    group.create_task(node.run_channel(channel, self.source(channel), sink))
                await self.ends.wait()
                for channel in channels:
                    node.set_subscribed(channel, False)

    def source(self, channel: str):  # type: ignore[no-untyped-def]
        is_busy = int(channel[1:]) < self.given.busy * self.given.channels

        async def read(resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
            self.upstreams += 1
            try:
                cursor = resume.cursors.last if resume and resume.cursors else 0
                await asyncio.sleep(self.random.random())
                while True:
                    if is_busy or not cursor:
                        yield Outgoing(b"x" * 200, b"schema", CursorRange("e", cursor, cursor + 1))
                        cursor += 1
                    await asyncio.sleep(1)
            finally:
                self.upstreams -= 1

        return read

    def owners(self) -> int:
        return sum(
            any(sink.role_now is Role.OWNER for sink in sinks.values())
            for sinks in self.sinks.values()
        )

    async def measure(self, name: str, seconds: float) -> None:
        before, began = dict(self.server.operations), time.perf_counter()
        received = sum(sink.count for sinks in self.sinks.values() for sink in sinks.values())
        await asyncio.sleep(seconds)
        now = self.server.operations
        rates = {each: (now[each] - before.get(each, 0)) / seconds for each in now}
        total = sum(rates.values())
        after = sum(sink.count for sinks in self.sinks.values() for sink in sinks.values())
        print(
            f"{name}: {total:,.0f} operations/s, {total / self.given.channels:.3f} per channel;"
            f" {(after - received) / seconds:,.0f} messages/s received; {self.owners()} owners,"
            f" {self.upstreams} upstreams; {time.perf_counter() - began:.1f} s real for {seconds} s"
        )
        shown = sorted(rates.items(), key=lambda item: -item[1])
        print("   ", ", ".join(f"{each} {rate:,.1f}/s" for each, rate in shown if rate > 0.05))

    async def takeover(self) -> None:
        """Kill a node, and wait until all channels have owners."""
        victim = 0
        owned = [
            c for c, s in self.sinks.items() if victim in s and s[victim].role_now is Role.OWNER
        ]
        self.engines[victim].is_dead = True
        self.engines[victim].disconnect(again=False)
        self.loop.stop_node("n0")
        for sinks in self.sinks.values():
            sinks.pop(victim, None)
        before, operations = self.loop.time(), sum(self.server.operations.values())
        times: list[float] = []
        left = {channel for channel in owned if self.sinks[channel]}
        while left:
            await asyncio.sleep(0.01)
            for channel in tuple(left):
                if any(s.role_now is Role.OWNER for s in self.sinks[channel].values()):
                    times.append(self.loop.time() - before)
                    left.discard(channel)
        times.sort()
        if times:
            spent = sum(self.server.operations.values()) - operations
            print(
                f"a node dies that owned {len(times)}: all have an owner after {times[-1]:.2f} s,"
                f" half after {times[len(times) // 2]:.2f} s, {spent:,} operations"
            )


async def play(given: argparse.Namespace, loop: FrozenLoop) -> None:
    cluster = Cluster(given, loop)
    names = [f"c{number}" for number in range(given.channels)]
    cluster.sinks = {name: {} for name in names}
    channels: list[list[str]] = [[] for _ in range(given.nodes)]
    for name in names:
        for number in cluster.random.sample(range(given.nodes), given.viewers):
            channels[number].append(name)
    for number in range(given.nodes):
        cluster.tasks.append(loop.task_of(f"n{number}", cluster.node(number, channels[number])))
    await cluster.measure("join", 5)
    await cluster.measure("first seconds", 5)
    await asyncio.sleep(20)
    await cluster.measure("steady", given.seconds)
    await cluster.takeover()
    loop.continue_node("n0")
    cluster.ends.set()
    cluster.tasks[0].cancel()
    await asyncio.wait(cluster.tasks, timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--viewers", type=int, default=3, help="nodes with viewers of a channel")
    parser.add_argument("--busy", type=float, default=0.1, help="channels with a message a second")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"{given.nodes} nodes, {given.channels} channels on {given.viewers} nodes each")
    loop = FrozenLoop()
    try:
        loop.run_until_complete(play(given, loop))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
