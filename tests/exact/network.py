"""The network between one browser and Grafana's servers, with faults: a `client.Backend`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import anyio

from .client import CallFailed, History, OnEvent
from .packets import Cursor, Message

Receive = Callable[[Message], None]
"""Receives the packets of one channel."""


class Node(Protocol):
    """The calls of a browser to one server. They raise CallFailed."""

    def now(self) -> int: ...

    async def query(self, query: Message, start: int, end: int, points: int) -> History: ...

    async def rows_after(self, path: str, after: Cursor) -> Message: ...

    async def subscribe(self, path: str, receive: Receive) -> Message | None:
        """Returns the initial data; from then on `receive` is called with each packet."""
        ...

    def unsubscribe(self, path: str, receive: Receive) -> None: ...


class Network:
    """Which server has the socket and which one answers calls, and the faults.

    `up`: a socket can be opened. `reachable`: calls arrive. `lossy`: packets are lost. `join_loss`:
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
        """Set some of these attributes and wake the waiting tasks."""
        for name, value in state.items():
            getattr(self, name)
            setattr(self, name, value)
        self._changed.set()
        self._changed = anyio.Event()

    def now(self) -> int:
        return self.nodes[self.http].now()

    async def query(self, query: Message, start: int, end: int, points: int) -> History:
        self._check_reachable()
        history = await self.nodes[self.http].query(query, start, end, points)
        self._check_reachable()
        return history

    async def rows_after(self, path: str, after: Cursor) -> Message:
        self._check_reachable()
        page = await self.nodes[self.http].rows_after(path, after)
        self._check_reachable()
        return page

    async def follow(self, path: str, on_event: OnEvent) -> None:
        while True:
            while not self.up:
                await self._changed.wait()
            number = self.socket
            node = self.nodes[number]
            try:
                await self._connect(node, number, path, on_event)
            except CallFailed:
                await anyio.sleep(1)

    async def _connect(self, node: Node, number: int, path: str, on_event: OnEvent) -> None:
        """One connection, until it is lost."""
        drop_until = anyio.current_time() + self.join_loss

        def receive(message: Message) -> None:
            if self.up and self.socket == number and not self.lossy:
                if anyio.current_time() >= drop_until:
                    on_event(None, message)

        initial = await node.subscribe(path, receive)
        try:
            if self.up and self.socket == number:
                on_event("connected", initial)
            while self.up and self.socket == number:
                await self._changed.wait()
        finally:
            node.unsubscribe(path, receive)
        on_event("connecting", None)

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise CallFailed("the network is down")
