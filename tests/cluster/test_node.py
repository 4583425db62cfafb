"""A node and its channels, one rule at a time; `test_histories` has everything at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds.errors import ConfigError
from tests.cluster.model_engine import ModelEngine, ModelServer

pytestmark = pytest.mark.virtual


class Recorder:
    """A sink that keeps what it gets, and a source whose messages come from a queue."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.tail: list[bytes] | None = None
        self.roles: list[Role] = []
        self.resets: list[str] = []
        self.reasons: list[str | None] = []
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.opened: list[Incoming | None] = []
        self.closed = 0

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None:
        self.tail = [message.payload for message in tail]

    def receive(self, message: Incoming) -> None:
        self.payloads.append(message.payload)

    def reset(self, reason: str) -> None:
        self.resets.append(reason)

    def role(self, role: Role, owner: str) -> None:
        self.roles.append(role)

    def degraded(self, reason: str | None) -> None:
        self.reasons.append(reason)

    async def source(self, resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
        self.opened.append(resume)
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield Outgoing(item, b"schema")
        finally:
            self.closed += 1


class Nodes:
    """Nodes of one server. `run` starts the channel `c` on a node."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.server = ModelServer(largest=1000)
        self.engines: list[ModelEngine] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def node(self) -> ClusterNode:
        engine = ModelEngine(self.server, seed=len(self.engines))
        engine.latency = (0.001, 0.002)
        self.engines.append(engine)
        loop = asyncio.get_running_loop()
        options = NodeOptions(clock=loop.time, wall_clock=loop.time)
        node = ClusterNode(engine, f"n{len(self.engines)}", options)
        return await self.stack.enter_async_context(node)

    async def run(self, node: ClusterNode) -> tuple[Recorder, "asyncio.Task[None]"]:
        recorder = Recorder()
        task = asyncio.create_task(node.run_channel("c", recorder.source, recorder))
        self.tasks.append(task)
        await asyncio.sleep(0.1)
        return recorder, task


@asynccontextmanager
async def nodes() -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        made = Nodes(stack)
        yield made
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_the_first_node_owns_a_channel_and_all_receive_its_messages():
    async with nodes() as made:
        (a, _), (b, _) = await made.run(await made.node()), await made.run(await made.node())
        a.queue.put_nowait(b"1")
        await asyncio.sleep(0.1)
        c, _ = await made.run(await made.node())
        a.queue.put_nowait(b"2")
        await asyncio.sleep(0.1)
        assert (a.payloads, b.payloads, c.payloads) == ([b"1", b"2"], [b"1", b"2"], [b"2"])
        assert (a.tail, b.tail, c.tail) == ([], [], [b"1"])
        assert (a.roles[-1], b.roles[-1]) == (Role.OWNER, Role.FOLLOWER)
        assert (len(a.opened), len(b.opened), len(c.opened)) == (1, 0, 0)


async def test_run_channel_returns_on_all_nodes_when_the_source_has_ended():
    async with nodes() as made:
        (a, one), (b, two) = await made.run(await made.node()), await made.run(await made.node())
        a.queue.put_nowait(b"1")
        a.queue.put_nowait(None)
        await asyncio.wait_for(asyncio.gather(one, two), 1)
        assert a.payloads == b.payloads == [b"1"] and not b.opened


async def test_an_error_of_the_source_is_raised_on_its_node_and_another_one_takes_over():
    async with nodes() as made:
        (a, one), (b, two) = await made.run(await made.node()), await made.run(await made.node())
        a.queue.put_nowait(ValueError("bad"))
        with pytest.raises(ValueError, match="bad"):
            await asyncio.wait_for(one, 1)
        await asyncio.sleep(0.1)
        assert b.roles[-1] is Role.OWNER and len(b.opened) == 1 and not two.done()


async def test_a_cancelled_owner_closes_its_source_before_another_one_opens_it():
    async with nodes() as made:
        (a, one), (b, _) = await made.run(await made.node()), await made.run(await made.node())
        a.queue.put_nowait(b"1")
        await asyncio.sleep(0.1)
        one.cancel()
        await asyncio.sleep(0.05)
        assert a.closed == 1 and [m.payload for m in b.opened if m] == [b"1"]


async def test_a_follower_without_subscribers_returns_at_once():
    async with nodes() as made:
        await made.run(await made.node())
        node = await made.node()
        _, task = await made.run(node)
        node.set_subscribed("c", False)
        await asyncio.wait_for(task, 0.1)
        assert node.channels() == {}


async def test_an_owner_without_subscribers_goes_on_for_those_of_other_nodes():
    async with nodes() as made:
        node, other = await made.node(), await made.node()
        (a, one), (b, two) = await made.run(node), await made.run(other)
        node.set_subscribed("c", False)
        await asyncio.sleep(20)
        a.queue.put_nowait(b"1")
        await asyncio.sleep(0.1)
        assert b.payloads == [b"1"] and not one.done()
        other.set_subscribed("c", False)
        await asyncio.wait_for(asyncio.gather(one, two), 5)
        assert a.closed == 1 and not b.opened


async def test_a_node_that_ends_hands_its_channels_over():
    async with nodes() as made:
        other = await made.node()
        async with AsyncExitStack() as made.stack:
            first, one = await made.run(await made.node())
            b, _ = await made.run(other)
        await asyncio.sleep(0.3)
        assert one.done() and first.closed == 1 and b.roles[-1] is Role.OWNER


async def test_a_channel_runs_once_on_a_node():
    async with nodes() as made:
        node = await made.node()
        recorder, _ = await made.run(node)
        with pytest.raises(RuntimeError, match="c: the channel runs on this node already"):
            await node.run_channel("c", recorder.source, recorder)


async def test_a_message_that_is_too_large_is_counted_and_a_reset():
    async with nodes() as made:
        node = await made.node()
        (a, _), (b, _) = await made.run(node), await made.run(await made.node())
        for payload in (b"1", bytes(5000), b"2"):
            a.queue.put_nowait(payload)
        await asyncio.sleep(0.2)
        assert a.payloads == b.payloads == [b"1", b"2"]
        assert (len(a.resets), len(b.resets), node.state.too_large) == (1, 1, 1)


async def test_without_the_engine_each_node_reads_the_source_and_then_they_share_again():
    async with nodes() as made:
        node = await made.node()
        (a, _), (b, _) = await made.run(node), await made.run(await made.node())
        made.server.is_up = False
        made.server.disconnect_all()
        await asyncio.sleep(4)
        assert a.roles[-1] is b.roles[-1] is Role.LOCAL and len(b.opened) == 1
        assert len(a.opened) == 1  # the owner's source goes on
        assert node.state.reason and not node.state.connected
        a.queue.put_nowait(b"a")
        b.queue.put_nowait(b"b")
        await asyncio.sleep(0.1)
        assert (a.payloads, b.payloads) == ([b"a"], [b"b"])
        made.server.is_up = True
        await asyncio.sleep(3)
        assert {a.roles[-1], b.roles[-1]} == {Role.OWNER, Role.FOLLOWER}
        assert a.reasons[-1] is b.reasons[-1] is None and node.state.connected
        assert len(a.opened) + len(b.opened) - a.closed - b.closed == 1


async def test_a_dead_owner_is_replaced_within_two_seconds():
    async with nodes() as made:
        (a, _), (b, _) = await made.run(await made.node()), await made.run(await made.node())
        await asyncio.sleep(3)
        made.engines[0].is_cut = True
        await asyncio.sleep(2.2)
        assert b.roles[-1] is Role.OWNER
        await asyncio.sleep(1)
        assert a.roles[-1] is Role.LOCAL


async def test_a_server_that_cannot_be_used_is_an_error_at_the_start():
    class Unfit(ModelEngine):
        async def open(self) -> None:
            raise ConfigError("the server evicts")

    node = ClusterNode(Unfit(ModelServer()), "n")
    with pytest.raises(ConfigError, match="evicts"):
        async with node:
            raise AssertionError("entered")


@pytest.mark.parametrize(
    "given",
    [{"margin": 2.0}, {"margin": 0}, {"lease": -1.0}, {"tail": 1000}, {"grace": -1}],
)
def test_options_are_checked(given):
    with pytest.raises(ValueError, match="must be"):
        NodeOptions(**given)


async def test_a_channel_whose_resignation_was_interrupted_is_given_up_later():
    async with nodes() as made:
        (_, one), (b, _) = await made.run(await made.node()), await made.run(await made.node())
        made.engines[0].is_cut = True
        one.cancel()
        await asyncio.sleep(0.05)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        made.engines[0].is_cut = False
        made.engines[0].disconnect()
        await asyncio.sleep(1)
        assert b.roles[-1] is Role.OWNER
