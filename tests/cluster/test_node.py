"""A node and its channels, one rule at a time; `test_histories` has everything at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from aiostream_ds._cluster.engine import EngineError, Ownership
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
    """Nodes of one server. `run` starts a channel on a node."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.server = ModelServer(largest=1000)
        self.engines: list[ModelEngine] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def node(self, kind: type[ModelEngine] = ModelEngine) -> ClusterNode:
        engine = kind(self.server, seed=len(self.engines))
        engine.latency = (0.001, 0.002)
        self.engines.append(engine)
        loop = asyncio.get_running_loop()
        options = NodeOptions(clock=loop.time, wall_clock=loop.time)
        node = ClusterNode(engine, f"n{len(self.engines)}", options)
        return await self.stack.enter_async_context(node)

    async def run(
        self, node: ClusterNode, channel: str = "c"
    ) -> tuple[Recorder, "asyncio.Task[None]"]:
        recorder = Recorder()
        task = asyncio.create_task(node.run_channel(channel, recorder.source, recorder))
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


async def test_a_listener_that_cannot_be_watched_does_not_keep_the_others_from_theirs(caplog):
    class Partial(ModelEngine):
        refused = frozenset({"a", "c"})

        async def watch(self, channel: str) -> None:
            if channel in self.refused:
                raise EngineError(f"no right to {channel}")
            await super().watch(channel)

    async with nodes() as made:
        node = await made.node(Partial)
        heard: list[str] = []
        for channel in "abcd":
            node.listen(channel, lambda event, channel=channel: heard.append(channel))
        await asyncio.sleep(10)
        assert sorted(heard) == ["b", "d"]
        reasons = sorted(each.reason for each in caplog.records if hasattr(each, "reason"))
        assert reasons == ["no right to a", "no right to c"]  # once, not at each attempt
        made.engines[0].refused = frozenset()
        await asyncio.sleep(1)
        assert sorted(heard) == ["a", "b", "c", "d"]


@pytest.mark.slow
async def test_a_node_gives_up_what_the_engine_has_as_its_own_long_after_it_has_left():
    async with nodes() as made:
        first, second = await made.node(), await made.node()
        _, task = await made.run(first)
        task.cancel()
        await asyncio.sleep(600)
        made.server.channels["c"].node = first.name  # the resignation is lost
        b, _ = await made.run(second)
        assert b.roles[-1] is Role.FOLLOWER
        await asyncio.sleep(3)
        assert b.roles[-1] is Role.OWNER


@pytest.mark.slow
async def test_an_owner_that_does_not_know_of_it_is_asked_until_it_hears():
    async with nodes() as made:
        first, second = await made.node(), await made.node()
        _, task = await made.run(first)
        task.cancel()
        await asyncio.sleep(600)
        made.server.channels["c"].node = first.name  # the resignation is lost
        made.engines[0].missed = 1.0  # as every question
        b, _ = await made.run(second)
        await asyncio.sleep(30)
        assert b.roles[-1] is Role.FOLLOWER
        made.engines[0].missed = 0.0
        await asyncio.sleep(5 * 7.2 + 1)
        assert b.roles[-1] is Role.OWNER


async def test_a_node_that_cannot_read_the_list_of_nodes_does_not_take_channels_at_each_attempt():
    class Listless(ModelEngine):
        takes = 0

        async def nodes(self) -> Mapping[str, float]:
            raise EngineError("no list")

        async def take(self, channel: str, node: str, payload: bytes) -> Ownership:
            self.takes += 1
            return await super().take(channel, node, payload)

    async with nodes() as made:
        await made.run(await made.node())
        b, _ = await made.run(await made.node(Listless))
        await asyncio.sleep(20)
        assert b.roles[-1] is Role.FOLLOWER
        assert made.engines[1].takes < 10  # the checks of a silent channel


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


# -- channels are given up once more after a lost connection ------------------------------------


async def left(made: Nodes, node: ClusterNode, *channels: str) -> None:
    """Run channels on a node, and leave them."""
    runs = [(await made.run(node, channel))[1] for channel in channels]
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)


async def sent(made: Nodes, operation: str) -> None:
    """Wait until a node calls the engine once more."""
    before = made.server.operations.get(operation, 0)
    while made.server.operations.get(operation, 0) == before:
        await asyncio.sleep(0.001)


@pytest.mark.diagonal
@pytest.mark.parametrize("channel", ["c", "c5", "c39"])
@pytest.mark.parametrize("operation", ["take", "resign", "leave"])
async def test_a_viewer_returns_while_channels_that_were_left_are_given_up(channel, operation):
    async with nodes() as made:
        node = await made.node()
        await left(made, node, "c", *(f"c{number}" for number in range(40)))
        made.engines[0].latency = (0.02, 0.02)
        made.engines[0].disconnect()
        await sent(made, operation)
        a, _ = await made.run(node, channel)
        await asyncio.sleep(1)
        a.queue.put_nowait(b"1")
        await asyncio.sleep(1)
        assert a.payloads == [b"1"] and len(a.opened) == 1 and node.counters.fencings == 0
        assert made.server.members(channel) == {"n1"}
        assert list(made.server.watchers[channel]) == made.engines
        assert all(
            made.server.channels[f"c{n}"].node == "" for n in range(40) if channel != f"c{n}"
        )


async def test_a_follower_that_returns_while_its_channel_is_given_up_hears_of_messages():
    async with nodes() as made:
        a, _ = await made.run(await made.node())
        node = await made.node()
        await left(made, node, "c")
        made.engines[1].latency = (0.02, 0.02)
        made.engines[1].disconnect()
        await sent(made, "leave")
        b, _ = await made.run(node)
        await asyncio.sleep(0.3)
        a.queue.put_nowait(b"1")
        await asyncio.sleep(0.1)
        assert b.payloads == [b"1"] and made.server.members("c") == {"n1", "n2"}


async def test_a_viewer_that_leaves_while_its_channel_is_given_up_is_not_forgotten():
    async with nodes() as made:
        node = await made.node()
        await left(made, node, "c")
        made.engines[0].latency = (0.02, 0.02)
        made.engines[0].disconnect()
        await sent(made, "take")
        recorder = Recorder()
        run = asyncio.create_task(node.run_channel("c", recorder.source, recorder))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="c: the channel runs on this node already"):
            await node.run_channel("c", recorder.source, recorder)
        node.set_subscribed("c", False)
        await asyncio.wait_for(run, 5)
        assert len(recorder.opened) == recorder.closed
        assert not made.server.members("c") and not made.server.channels["c"].node


async def test_a_node_ends_while_a_viewer_waits_until_its_channel_is_given_up():
    async with nodes() as made:
        async with AsyncExitStack() as made.stack:
            node = await made.node()
            await left(made, node, "c")
            made.engines[0].latency = (0.02, 0.02)
            made.engines[0].disconnect()
            await sent(made, "take")
            recorder = Recorder()
            run = asyncio.create_task(node.run_channel("c", recorder.source, recorder))
            await asyncio.sleep(0)
        await asyncio.wait_for(run, 1)
        assert not recorder.opened


@pytest.mark.slow
async def test_a_lease_is_renewed_while_many_channels_are_given_up():
    async with nodes() as made:
        node = await made.node()
        a, _ = await made.run(node)
        for number in range(0, 300, 50):
            runs = [
                asyncio.create_task(node.run_channel(f"c{number + n}", a.source, Recorder()))
                for n in range(50)
            ]
            await asyncio.sleep(0.2)
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)
        made.engines[0].latency = (0.03, 0.03)
        made.engines[0].disconnect()
        await asyncio.sleep(0.2)
        shortest, takes = 9.0, made.server.operations["take"]
        for _ in range(500):
            await asyncio.sleep(0.01)
            shortest = min(shortest, made.server.leases["n1"] - made.server.time())
        assert shortest > 0.8 and made.server.operations["take"] - takes > 200


class Repeating(ModelEngine):
    """Repeats a call after a lost connection, as the engine of Redis does."""

    async def leave(self, channel: str, node: str) -> None:
        try:
            await super().leave(channel, node)
        except EngineError:
            await asyncio.sleep(0.2)
            await super().leave(channel, node)


@pytest.mark.parametrize("kind", [ModelEngine, Repeating])
@pytest.mark.parametrize("call", ["resign", "leave"])
async def test_a_channel_is_given_up_in_the_term_that_the_engine_has_after_lost_writes(call, kind):
    async with nodes() as made:
        node, other = await made.node(kind), await made.node()
        await left(made, node, "c")  # a term that the engine will have again
        _, run = await made.run(node)
        term = made.server.channels["c"].term
        made.engines[0].latency = (0.01, 0.01)
        run.cancel()
        await sent(made, call)
        channel = made.server.channels["c"]
        while channel.node != "n1" or channel.term == term:
            made.server.lose_writes(1)
        await asyncio.gather(run, return_exceptions=True)
        b, _ = await made.run(other)
        await asyncio.sleep(1.5)
        assert b.roles[-1] is Role.OWNER


async def test_a_lost_message_that_the_engine_does_not_take_again_does_not_end_the_channel():
    async with nodes() as made:
        a, task = await made.run(await made.node())
        b, _ = await made.run(await made.node())
        for payload in (b"1" * 500, b"2"):
            a.queue.put_nowait(payload)
            await asyncio.sleep(0.1)
        made.server.largest = 400  # as one that is made again, with other limits
        made.server.evict("c")
        a.queue.put_nowait(b"3")
        await asyncio.sleep(3)
        assert a.payloads == b.payloads == [b"1" * 500, b"2", b"3"]
        assert not task.done() and a.resets == b.resets == []
        c, _ = await made.run(await made.node())
        assert c.tail == [b"2", b"3"]
