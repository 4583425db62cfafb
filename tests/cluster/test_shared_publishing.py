"""Publishing to shared streams: the hook runs once, where the stream runs; all servers see it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import anyio
import msgspec
import pytest
from grpclib import GRPCError

from aiostream_ds import BadQuery, DataSource, PermissionDenied, User, stream
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._grafana.shared_publishing import PUBLISH_KIND
from aiostream_ds.testing import Grafana, Refused, Viewer, serve_in_memory
from tests.cluster.cluster_access import access
from tests.cluster.model_engine import ModelServer

pytestmark = pytest.mark.virtual

calls: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def new_calls():
    calls.clear()


class Chat(DataSource):
    """What the hook gets is known in its process only, as in docs/streams.md."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.changed = anyio.Event()

    @stream("chat/{topic}", share="cluster")
    async def chat(self, topic: str):
        read = len(self.messages)
        while True:
            if read == len(self.messages):
                await self.changed.wait()
            unread, read = self.messages[read:], len(self.messages)
            yield [{"text": text} for to, text in unread if to == topic]

    @chat.subscribe
    def allowed(self, user: User, topic: str):
        if user.login == "stranger":
            raise PermissionDenied("friends only")

    @chat.publish
    async def post(self, data: str, user: User, topic: str) -> str | None:
        calls.append((user.login, data))
        if data == "bad":
            raise BadQuery("no bad words")
        if data == "broken":
            raise ZeroDivisionError
        self.messages.append((topic, data))
        self.changed.set()
        self.changed = anyio.Event()
        return f"{data}!" if data == "loud" else None


@asynccontextmanager
async def servers(
    number: int = 3, engine: ModelServer | None = None, keys: Sequence[bytes] = ()
) -> AsyncIterator[list[Grafana]]:
    engine, numbers = engine or ModelServer(), count(1)
    cipher = Cipher(keys) if keys else None
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                serve_in_memory(Chat, cluster=lambda: access(engine, next(numbers), cipher))
            )
            for _ in range(number)
        ]


async def texts(viewers: Sequence[Viewer], wanted: int) -> list[list[str]]:
    with anyio.fail_after(20):
        while any(len(viewer.rows) < wanted for viewer in viewers):
            await anyio.sleep(0.01)
    await anyio.sleep(1)  # nothing comes twice
    return [[row["text"] for row in viewer.rows] for viewer in viewers]


async def followed(grafanas: Sequence[Grafana]) -> list[Viewer]:
    viewers = [await each.follow("chat/lobby") for each in grafanas]
    await anyio.sleep(3)
    return viewers


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)], ids=["clear", "encrypted"])
async def test_what_is_published_at_each_server_is_seen_at_all_once(keys):
    async with servers(keys=keys) as grafanas:
        viewers = await followed(grafanas)
        sent = []
        for round_ in range(3):
            for number, grafana in enumerate(grafanas):
                sent.append(f"{round_} of {number}")
                assert await grafana.publish("chat/lobby", sent[-1]) == b""
        assert await texts(viewers, 9) == [sent] * 3
        assert len(calls) == 9


async def test_a_server_without_viewers_publishes_at_the_one_that_runs_the_stream():
    async with servers() as grafanas:
        (viewer,) = await followed(grafanas[1:2])
        assert await grafanas[0].publish("chat/lobby", "loud") == b'"loud!"'
        assert await texts([viewer], 1) == [["loud"]]


async def test_without_viewers_the_hook_runs_on_the_server_of_the_user():
    async with servers() as grafanas:
        assert await grafanas[2].publish("chat/lobby", "nobody hears it") == b""
        assert len(calls) == 1


async def test_the_user_is_authorized_before_the_owner_is_asked_and_named_to_it():
    async with servers() as grafanas:
        await followed(grafanas)
        for grafana in grafanas:
            with pytest.raises(Refused):
                await grafana.publish("chat/lobby", "x", user=User(login="stranger"))
        assert calls == []
        for grafana in grafanas:
            await grafana.publish("chat/lobby", "x", user=User(login="friend"))
        assert calls == [("friend", "x")] * 3


@pytest.mark.parametrize("text", ["bad", "broken"])
async def test_an_error_of_the_hook_refuses_at_every_server(text):
    async with servers() as grafanas:
        await followed(grafanas)
        for grafana in grafanas:
            with pytest.raises((Refused, GRPCError)):
                await grafana.publish("chat/lobby", text)
        assert len(calls) == 3


async def test_lost_messages_are_sent_again_and_the_hook_is_called_once():
    engine = ModelServer()
    async with servers(engine=engine) as grafanas:
        viewers = await followed(grafanas)
        for each in engine.connections:
            each.missed = 0.4
        sent = [str(number) for number in range(12)]
        for number, text in enumerate(sent):
            await grafanas[number % 3].publish("chat/lobby", text)
        for each in engine.connections:
            each.missed = 0.0
        assert len(calls) == 12
        assert await texts(viewers, 12) == [sent] * 3


async def test_without_the_engine_the_server_publishes_to_its_own_stream():
    engine = ModelServer()
    async with servers(engine=engine) as grafanas:
        viewers = await followed(grafanas)
        engine.is_up = False
        engine.disconnect_all()
        await anyio.sleep(5)
        await grafanas[0].publish("chat/lobby", "alone")
        await anyio.sleep(1)
        assert [[row["text"] for row in viewer.rows] for viewer in viewers] == [["alone"], [], []]


async def test_an_owner_that_is_gone_is_an_error_and_its_successor_publishes():
    engine = ModelServer()
    async with servers(engine=engine) as grafanas:
        viewers = await followed(grafanas)
        (owner,) = [each for each in grafanas if each.plugin.shared.inner.channels]
        others = [each for each in grafanas if each is not owner]
        connection = owner.plugin.shared.node.engine
        connection.is_cut = True
        connection.disconnect()
        before = anyio.current_time()
        with pytest.raises(GRPCError, match="is not known: the server node1 has not answered"):
            await others[0].publish("chat/lobby", "lost")
        assert anyio.current_time() - before < 6
        await anyio.sleep(5)
        await others[0].publish("chat/lobby", "heard")
        kept = [viewer for viewer, each in zip(viewers, grafanas, strict=True) if each in others]
        assert await texts(kept, 1) == [["heard"]] * 2


async def test_an_owner_does_not_publish_to_another_path_than_that_of_the_channel():
    async with servers(number=2) as grafanas:
        await followed(grafanas)
        owner, other = (each.plugin.shared for each in grafanas)
        (name,) = owner.node.channels()
        if owner.node.channels()[name].owner != owner.node.name:
            owner, other = other, owner
        request = msgspec.msgpack.encode((name, "chat/secret", b'"x"', None))
        with pytest.raises(PermissionDenied, match="'chat/secret' is not the path"):
            await other.requests.request(owner.node.name, PUBLISH_KIND, request, 2)
        assert calls == []
