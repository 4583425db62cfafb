"""Requests between nodes are handled once, also if somebody records them and sends them again."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from aiostream_ds._cluster import node_requests
from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds.errors import UpstreamError
from tests.cluster.cluster_access import access
from tests.cluster.model_engine import ModelServer

pytestmark = pytest.mark.virtual

KEYS = [b"k" * 32]


class Recorded(ModelServer):
    """Keeps what is sent, as somebody who can read and write the engine."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, bytes]] = []

    def send(self, channel: str, payload: bytes) -> None:
        self.sent.append((channel, payload))
        super().send(channel, payload)

    def to(self, node: str) -> list[tuple[str, bytes]]:
        return [each for each in self.sent if each[0].endswith(node)]

    async def replay(self, messages: list[tuple[str, bytes]]) -> None:
        for channel, payload in messages:
            super().send(channel, payload)
        await anyio.sleep(2)


@asynccontextmanager
async def nodes(server: ModelServer, *keys: list[bytes]) -> AsyncIterator[list[NodeRequests]]:
    """A node for each list of keys; an empty one has no cipher."""
    async with AsyncExitStack() as stack:
        found = []
        for number, each in enumerate(keys, 1):
            given = access(server, number, Cipher(each) if each else None)
            node = ClusterNode(given.engine, given.node, given.options)
            await stack.enter_async_context(node)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            found.append(NodeRequests(node, tasks, given.cipher))
        await anyio.sleep(1)
        yield found


@pytest.fixture
def handled() -> list[bytes]:
    return []


def answer_with(handled: list[bytes], requests: NodeRequests) -> None:
    async def handle(payload: bytes) -> bytes:
        handled.append(payload)
        return payload + b"!"

    requests.handle("echo", handle)


@pytest.mark.parametrize("keys", [[], KEYS], ids=["clear", "encrypted"])
@pytest.mark.parametrize("later", [0, 2, 30])
async def test_a_request_that_is_sent_again_later_is_not_handled_again(
    handled, monkeypatch, keys, later
):
    monkeypatch.setattr(node_requests, "_REMEMBERED", 4)
    server = Recorded()
    async with nodes(server, keys, keys) as (a, b):
        answer_with(handled, b)
        numbers = [b"%d" % number for number in range(later + 1)]
        for payload in numbers:
            assert await a.request("node2", "echo", payload, 5) == payload + b"!"
        await server.replay(server.to("_node.node2"))
        assert handled == numbers
        assert await a.request("node2", "echo", b"next", 5) == b"next!"


async def test_requests_of_a_process_that_is_started_again_are_handled(handled):
    server = Recorded()
    async with nodes(server, KEYS, KEYS, KEYS) as (a, b, c):
        answer_with(handled, b)
        for sender in (a, c, a, c):
            await sender.request("node2", "echo", b"x", 5)
    assert handled == [b"x"] * 4


async def test_a_request_cannot_be_made_without_the_key_or_be_sent_to_another_node(handled):
    server = Recorded()
    async with nodes(server, KEYS, KEYS, [], KEYS) as (a, b, stranger, d):
        answer_with(handled, b)
        answer_with(handled, d)
        with pytest.raises(EngineError, match="has not answered"):
            await stranger.request("node2", "echo", b"forged", 2)
        await a.request("node2", "echo", b"mine", 5)
        await server.replay([("_node.node4", data) for _, data in server.to("_node.node2")])
    assert handled == [b"mine"]


async def test_a_late_request_is_an_error_and_not_handled(handled, monkeypatch):
    """It was on its way while more requests were answered than are remembered."""
    monkeypatch.setattr(node_requests, "_REMEMBERED", 2)
    server = Recorded()
    async with nodes(server, KEYS, KEYS) as (a, b):
        answer_with(handled, b)
        errors: list[Exception] = []

        async def ask() -> None:
            try:
                await a.request("node2", "echo", b"late", 5)
            except UpstreamError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            send = server.send
            server.send = lambda channel, payload: None  # type: ignore[method-assign]
            tasks.start_soon(ask)
            await anyio.sleep(0.2)
            server.send = send  # type: ignore[method-assign]
            for number in range(4):
                await a.request("node2", "echo", b"%d" % number, 5)
        assert handled == [b"0", b"1", b"2", b"3"]
        assert "not known" in str(errors[0])


async def test_a_request_that_takes_long_is_answered_once_however_many_others_are(
    handled, monkeypatch
):
    monkeypatch.setattr(node_requests, "_REMEMBERED", 2)
    server = Recorded()
    async with nodes(server, KEYS, KEYS) as (a, b):
        answer_with(handled, b)
        answers: list[bytes] = []

        async def wait(payload: bytes) -> bytes:
            handled.append(payload)
            await anyio.sleep(3)
            return b"done"

        async def ask() -> None:
            answers.append(await a.request("node2", "wait", b"long", 5))

        b.handle("wait", wait)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(0.2)
            for number in range(4):
                await a.request("node2", "echo", b"%d" % number, 5)
        assert answers == [b"done"]
        assert handled == [b"long", b"0", b"1", b"2", b"3"]
