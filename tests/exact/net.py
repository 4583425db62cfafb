"""The way from one browser to Grafana's servers, and how it is cut: a `client.Backend`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import anyio

from .client import Down, History, Tell
from .packets import Message

Receive = Callable[[Message], None]
"""Takes the packets of one channel."""


class Node(Protocol):
    """What a browser asks of one server. Calls raise Down when they fail."""

    def now(self) -> int: ...

    async def query(self, ask: Message, start: int, end: int, points: int) -> History: ...

    async def rows_after(self, path: str, after: int) -> Message: ...

    async def subscribe(self, path: str, receive: Receive) -> Message | None:
        """The initial data; from now on packets are given to `receive`."""
        ...

    def unsubscribe(self, path: str, receive: Receive) -> None: ...


class Net:
    """Which server has the socket and which answers calls; what of it works.

    `up`: a socket can be had. `reachable`: calls arrive. `lossy`: packets do not. `join_loss`:
    seconds after subscribing in which packets are lost.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.socket = self.http = 0
        self.up = self.reachable = True
        self.lossy = False
        self.join_loss = 0.0
        self._changed = anyio.Event()

    def change(self, **state: Any) -> None:
        """Set some of the above; who waits for it is told."""
        for name, value in state.items():
            getattr(self, name)
            setattr(self, name, value)
        self._changed.set()
        self._changed = anyio.Event()

    def now(self) -> int:
        return self.nodes[self.http].now()

    async def query(self, ask: Message, start: int, end: int, points: int) -> History:
        self._reach()
        history = await self.nodes[self.http].query(ask, start, end, points)
        self._reach()
        return history

    async def rows_after(self, path: str, after: int) -> Message:
        self._reach()
        page = await self.nodes[self.http].rows_after(path, after)
        self._reach()
        return page

    async def follow(self, path: str, tell: Tell) -> None:
        while True:
            while not self.up:
                await self._changed.wait()
            number = self.socket
            node = self.nodes[number]
            try:
                await self._hold(node, number, path, tell)
            except Down:
                await anyio.sleep(1)

    async def _hold(self, node: Node, number: int, path: str, tell: Tell) -> None:
        """One socket, until it is lost."""
        deaf_until = anyio.current_time() + self.join_loss

        def receive(message: Message) -> None:
            if self.up and self.socket == number and not self.lossy:
                if anyio.current_time() >= deaf_until:
                    tell(None, message)

        initial = await node.subscribe(path, receive)
        try:
            if self.up and self.socket == number:
                tell("connected", initial)
            while self.up and self.socket == number:
                await self._changed.wait()
        finally:
            node.unsubscribe(path, receive)
        tell("connecting", None)

    def _reach(self) -> None:
        if not self.reachable:
            raise Down("the network is down")
