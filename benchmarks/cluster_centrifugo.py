"""Compares centrifugo and a shared stream: the same rows over the same Redis, in turns.

    python -m benchmarks.cluster_centrifugo [--rate 100] [--seconds 10] [--channels 5] [--rounds 3]

Two nodes of centrifugo 6, which is in PATH, with its engine for Redis, and a history of 1,000
publications for recovery: as many as the log of a shared channel keeps. This process publishes each
row at the first node over HTTP, and subscribes at both by WebSocket. A shared stream makes its rows
in the process of the owner, and this process is both Grafanas.

`processor` is that of each node in microseconds a row that its viewers got: without the publisher,
for a shared stream with the generator. `age` is the time from a row's making to its packet.
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import aiohttp
import msgspec
from benchmarks.cluster_cost import NODES, Viewer, due, main, print_run
from tests.servers.process import Server

HISTORY = 1_000


class Centrifugo(Server):
    """A node whose subscribers recover by offset and epoch."""

    program: ClassVar[str] = "centrifugo"

    def __init__(self, redis: str) -> None:
        self.redis = redis
        super().__init__()

    def prepare(self) -> None:
        channel = {
            "history_size": HISTORY,
            "history_ttl": "600s",
            "force_recovery": True,
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
        }
        config = {
            "http_server": {"address": "127.0.0.1", "port": str(self.port)},
            "engine": {"type": "redis", "redis": {"address": self.redis}},
            "client": {"insecure": True, "allowed_origins": ["*"]},
            "http_api": {"insecure": True},
            "health": {"enabled": True},
            "channel": {"without_namespace": channel},
            "log": {"level": "error"},
        }
        (self.folder / "config.json").write_bytes(msgspec.json.encode(config))

    def command(self) -> list[str]:
        return [self.binary, "--config", str(self.folder / "config.json")]

    def answers(self) -> bool:
        self.connect().close()
        return True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


class _Publication(msgspec.Struct):
    data: msgspec.Raw


class _Push(msgspec.Struct):
    channel: str
    pub: _Publication | None = None


class _Reply(msgspec.Struct):
    push: _Push | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Reply).decode


class Subscriber:
    """One connection with the subscriptions of all viewers."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, viewers: list[Viewer]) -> None:
        self.socket = socket
        self.viewers = {f"ticks-{number}": viewer for number, viewer in enumerate(viewers)}

    async def run(self) -> None:
        commands = [{"id": 1, "connect": {}}]
        for id, channel in enumerate(self.viewers, 2):
            subscribe = {"channel": channel, "recoverable": True, "positioned": True}
            commands.append({"id": id, "subscribe": subscribe})
        for command in commands:
            await self.socket.send_json(command)
        async for message in self.socket:
            for line in message.data.splitlines():
                if line == "{}":
                    await self.socket.send_str("{}")  # a ping
                    continue
                reply = _decode(line)
                if reply.error is not None:
                    raise RuntimeError(f"centrifugo: {reply.error}")
                if reply.push is not None and reply.push.pub is not None:
                    self.viewers[reply.push.channel].push(bytes(reply.push.pub.data))


async def publish(session: aiohttp.ClientSession, host: str, channel: int, rate: float) -> None:
    """The rows of a channel, as the stream of `cluster_cost` makes them."""
    async for number in due(channel, rate):
        row = [[number], [time.perf_counter()], [20 + number % 7 / 10]]
        body = {"channel": f"ticks-{channel}", "data": {"data": {"values": row}}}
        async with session.post(f"http://{host}/api/publish", json=body) as answer:
            found = await answer.json()
            if "error" in found:
                raise RuntimeError(f"centrifugo: {found['error']}")


async def measure(options: argparse.Namespace, url: str) -> list[tuple[float, float]]:
    """As `cluster_cost.measure`."""
    async with AsyncExitStack() as stack:
        nodes = [stack.enter_context(Centrifugo(url)) for _ in range(NODES)]
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        viewers, tasks = [], []
        for node in nodes:
            viewers.append([Viewer() for _ in range(options.channels)])
            socket = await session.ws_connect(f"ws://{node.host}/connection/websocket")
            tasks.append(group.create_task(Subscriber(socket, viewers[-1]).run()))
        await asyncio.sleep(1)
        for channel in range(options.channels):
            work = publish(session, nodes[0].host, channel, options.rate)
            tasks.append(group.create_task(work))
        found = await print_run(options, "centrifugo", viewers, [node.pid for node in nodes])
        for task in tasks:
            task.cancel()
    return found


if __name__ == "__main__":
    main(measure)
