"""What a cluster costs its engine, to plan beyond one machine.

`python -m tests.cluster.cluster_size` prints a table and writes docs/cluster-size.svg.

The real nodes, with the code that elects and follows, in virtual time over the model of an engine.
All nodes run. Of the channels some are played: what a channel does depends on others only by the
number of channels of its node, which is the full one. The calls of channels are multiplied, those
of nodes are not.
"""

import asyncio
import logging
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds._frames.packet import CursorRange
from tests.cluster.frozen_loop import FrozenLoop
from tests.cluster.model_engine import ModelEngine, ModelServer

SIZES = ((3, 100), (10, 1_000), (100, 10_000), (1_000, 100_000))
"""Nodes and channels."""

PLAYED = 50  # channels with messages, and as many without
SERVERS = 3  # with viewers of a channel
SETTLED = 14.0  # seconds until intervals have grown
MEASURED = 6.0  # seconds
LATENCY = (0.0005, 0.004)  # seconds of one way
PICTURE = Path(__file__).parents[2] / "docs" / "cluster-size.svg"


class Counts(NamedTuple):
    """Calls of the engine in a second: of nodes, and of all channels if they are silent, or have
    one message a second."""

    nodes: float
    silent: float
    busy: float


class Found(NamedTuple):
    """One size.

    Attributes:
        calls: while nothing happens.
        peak: calls of silent channels in the busiest second after the death of an owner.
        takeover: seconds until all channels of that node had owners.
    """

    nodes: int
    channels: int
    calls: Counts
    peak: float
    takeover: float


class CountingServer(ModelServer):
    """Counts calls of nodes apart from calls of channels."""

    def __init__(self) -> None:
        super().__init__(entries=20)
        self.of_nodes = self.of_silent = self.of_busy = 0

    def count(self, name: str, channel: object) -> None:
        if name in ("renew", "nodes", "watched", "end_lease"):
            self.of_nodes += 1
        elif str(channel).startswith("busy"):
            self.of_busy += 1
        else:
            self.of_silent += 1


class CountingEngine(ModelEngine):
    """Counts what it sends."""

    async def _call(self, function: Any, *arguments: Any) -> Any:
        assert isinstance(self.server, CountingServer)
        self.server.count(function.__name__, arguments[0] if arguments else "")
        return await super()._call(function, *arguments)


class SizedNode(ClusterNode):
    """A node with more channels than are played."""

    channels_of_node = 0

    def channel_count(self) -> int:
        return self.channels_of_node


class Viewers:
    """A sink that only keeps the role."""

    def __init__(self) -> None:
        self.role_now = Role.JOINING

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None: ...
    def receive(self, message: Incoming) -> None: ...
    def reset(self, reason: str) -> None: ...
    def degraded(self, reason: str | None) -> None: ...

    def role(self, role: Role, owner: str) -> None:
        self.role_now = role


class Cluster:
    """The nodes, and the channels that are played."""

    def __init__(self, nodes: int, channels: int) -> None:
        self.loop = FrozenLoop()
        self.random = random.Random(nodes)
        self.server = CountingServer()
        self.nodes, self.channels = nodes, channels
        self.factor = channels / PLAYED
        self.engines: list[CountingEngine] = []
        self.members: list[SizedNode] = []
        self.viewers: dict[tuple[str, int], Viewers] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self.ends = asyncio.Event()

    async def silence(self, resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
        await asyncio.sleep(1e9)
        yield Outgoing(b"row")

    async def rows(self, resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
        cursor = 0 if resume is None or resume.cursors is None else resume.cursors.last
        while True:
            await asyncio.sleep(self.random.uniform(0.9, 1.1))
            yield Outgoing(b"row", b"schema", CursorRange("e", cursor, cursor + 1))
            cursor += 1

    def start(self) -> None:
        for number in range(self.nodes):
            engine = CountingEngine(self.server, seed=number)
            engine.latency = LATENCY
            options = NodeOptions(
                clock=self.loop.time, wall_clock=self.loop.time, random=random.Random(number)
            )
            node = SizedNode(engine, f"n{number}", options)
            node.channels_of_node = round(self.channels * min(SERVERS, self.nodes) / self.nodes)
            self.engines.append(engine)
            self.members.append(node)
            self.tasks.append(self.loop.task_of(node.name, self.run_node(node)))

    async def run_node(self, node: ClusterNode) -> None:
        async with node:
            await self.ends.wait()

    def view(self) -> None:
        names = [f"{kind}{number}" for number in range(PLAYED) for kind in ("busy", "silent")]
        for name in names:
            source = self.rows if name.startswith("busy") else self.silence
            for number in self.random.sample(range(self.nodes), min(SERVERS, self.nodes)):
                viewers = self.viewers[name, number] = Viewers()
                node = self.members[number]
                work = node.run_channel(name, source, viewers)
                self.tasks.append(self.loop.task_of(node.name, work))

    async def measure(self, seconds: float) -> Counts:
        server = self.server
        nodes, silent, busy = server.of_nodes, server.of_silent, server.of_busy
        await asyncio.sleep(seconds)
        return Counts(
            (server.of_nodes - nodes) / seconds,
            (server.of_silent - silent) * self.factor / seconds,
            (server.of_busy - busy) * self.factor / seconds,
        )

    async def kill_an_owner(self) -> tuple[float, float]:
        """The calls of the busiest second, and the seconds until each channel has an owner."""
        owned: dict[int, list[str]] = {}
        for (channel, number), viewers in self.viewers.items():
            if viewers.role_now is Role.OWNER:
                owned.setdefault(number, []).append(channel)
        victim = max(owned, key=lambda number: len(owned[number]))
        engine = self.engines[victim]
        engine.is_dead = True
        engine.disconnect(again=False)
        self.loop.stop_node(f"n{victim}")
        died = self.loop.time()
        waiting, peaks, before = set(owned[victim]), [0.0], self.server.of_silent
        ends, second, found = died + 4.0, died + 1.0, 0.0
        while self.loop.time() < ends:
            await asyncio.sleep(0.02)
            for (channel, number), viewers in self.viewers.items():
                if number != victim and viewers.role_now is Role.OWNER and channel in waiting:
                    waiting.discard(channel)
                    found = self.loop.time() - died
            if self.loop.time() >= second:
                peaks.append((self.server.of_silent - before) * self.factor)
                before, second = self.server.of_silent, second + 1.0
        assert not waiting, f"no owner of {waiting}"
        self.loop.continue_node(f"n{victim}")
        return max(peaks), found

    async def play(self) -> tuple[Counts, float, float]:
        self.start()
        await asyncio.sleep(2.0)
        self.view()
        await asyncio.sleep(SETTLED)
        counts = await self.measure(MEASURED)
        peak, takeover = await self.kill_an_owner()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return counts, peak, takeover


def measure(nodes: int, channels: int) -> Found:
    """Play one size."""
    cluster = Cluster(nodes, channels)
    try:
        calls, peak, takeover = cluster.loop.run_until_complete(cluster.play())
        cluster.loop.settle()
    finally:
        cluster.loop.close()
    return Found(nodes, channels, calls, peak, takeover)


def main() -> None:
    """Measure all sizes."""
    logging.disable(logging.CRITICAL)
    most = int(sys.argv[1]) if len(sys.argv) > 1 else len(SIZES)
    found = []
    for nodes, channels in SIZES[:most]:
        found.append(measure(nodes, channels))
        print(found[-1], flush=True)
    if most == len(SIZES):
        PICTURE.write_text(picture(found), "utf-8")


_STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .grid { stroke: #8b949e; stroke-opacity: .35 }
  path { fill: none; stroke-width: 2.5 }
  .silent { stroke: #1f6feb } .busy { stroke: #bc4c00 } .nodes { stroke: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #c9d1d9 }
    .silent { stroke: #58a6ff } .busy { stroke: #f0883e } .nodes { stroke: #3fb950 }
  }
</style>"""
_LEFT, _TOP, _WIDTH, _HEIGHT = 60, 46, 400, 220


def picture(found: Sequence[Found]) -> str:
    """Calls a second and channel, by the number of channels."""
    lines = {
        "silent": [each.calls.silent / each.channels for each in found],
        "busy": [each.calls.busy / each.channels for each in found],
        "nodes": [each.calls.nodes / each.channels for each in found],
    }
    names = {
        "silent": "channels without messages",
        "busy": "with one message a second",
        "nodes": "leases and list of nodes",
    }
    top = max(map(max, lines.values())) * 1.1
    step = _WIDTH / (len(found) - 1)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 310" role="img">',
        "<title>Calls of the engine in a second, for each channel</title>",
        _STYLE,
        f'<text class="title" x="{_LEFT}" y="24">Calls of the engine a second and channel</text>',
    ]
    for number in range(5):
        y = _TOP + _HEIGHT * (1 - number / 4)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}h{_WIDTH}"/>')
        label = f"{top * number / 4:.2f}"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for number, each in enumerate(found):
        x, y = _LEFT + step * number, _TOP + _HEIGHT + 20
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{each.channels:,}</text>')
        parts.append(f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{each.nodes:,}</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH + 40}" y="{_TOP + _HEIGHT + 20}">channels</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH + 40}" y="{_TOP + _HEIGHT + 38}">servers</text>')
    for kind, values in lines.items():
        points = [
            f"{_LEFT + step * n:.1f} {_TOP + _HEIGHT * (1 - value / top):.1f}"
            for n, value in enumerate(values)
        ]
        parts.append(f'<path class="{kind}" d="M{" L".join(points)}"/>')
        y = float(points[-1].split()[1])
        parts.append(f'<text x="{_LEFT + _WIDTH + 10}" y="{y + 4:.1f}">{names[kind]}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
