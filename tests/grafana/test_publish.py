"""PublishStream: data that a user sends to a channel."""

import anyio
import msgspec
import pytest
from grpclib import GRPCError, Status

from aiostream_ds import DataSource, PermissionDenied, User, stream
from aiostream_ds._grafana.services.stream_service import PUBLISH_LIMIT
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import ANN, BEN, publish

pytestmark = pytest.mark.virtual

Answer = pb.PublishStreamResponseStatus


class Command(msgspec.Struct):
    level: int


class Lamps(DataSource):
    def __init__(self) -> None:
        self.commands = []
        Lamps.last = self

    @stream("lamps/{id}")
    async def lamp(self, id: str):
        yield {"level": 0}
        await anyio.sleep_forever()

    @lamp.subscribe
    async def may_see(self, user: User | None, id: str) -> None:
        if user is None or user.role == "Viewer":
            raise PermissionDenied("editors only")

    @lamp.publish
    async def set_level(self, data: Command, id: str) -> dict[str, int] | None:
        self.commands.append((data, id))
        if id == "faulty":
            raise KeyError("oops")
        return {"level": data.level} if id == "echo" else None

    @stream("read-only")
    async def read_only(self):
        yield {"n": 1}


async def test_the_hook_gets_the_decoded_data_and_the_path():
    async with serve_in_memory(Lamps) as grafana:
        reply = await publish(grafana, "lamps/desk", b'{"level": 3}', BEN)
        assert Lamps.last.commands == [(Command(3), "desk")]
    assert (reply.status, reply.data) == (Answer.OK, b"")


async def test_the_hooks_result_is_the_response_as_json():
    async with serve_in_memory(Lamps) as grafana:
        reply = await publish(grafana, "lamps/echo", b'{"level": 3}', BEN)
    assert (reply.status, reply.data) == (Answer.OK, b'{"level":3}')


async def test_without_a_hook_publishing_is_denied():
    async with serve_in_memory(Lamps) as grafana:
        assert (await publish(grafana, "read-only", b"{}")).status == Answer.PERMISSION_DENIED


async def test_a_user_who_may_not_subscribe_may_not_publish():
    async with serve_in_memory(Lamps) as grafana:
        for user in (ANN, None):
            reply = await publish(grafana, "lamps/desk", b'{"level": 3}', user)
            assert reply.status == Answer.PERMISSION_DENIED
        assert Lamps.last.commands == []


async def test_an_unknown_path_is_not_found():
    async with serve_in_memory(Lamps) as grafana:
        assert (await publish(grafana, "nowhere", b"{}", BEN)).status == Answer.NOT_FOUND


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"level":"x"}', b'"\xff"', b"[" * 100_000],
    ids=["empty", "cut", "list", "type", "utf8", "nested"],
)
async def test_invalid_data_is_refused_before_the_hook(data, caplog):
    caplog.set_level("INFO")
    async with serve_in_memory(Lamps) as grafana:
        reply = await publish(grafana, "lamps/desk", data, BEN)
        assert Lamps.last.commands == []
    assert reply.status == Answer.NOT_FOUND
    assert "published data" in caplog.text


async def test_a_bug_in_the_hook_fails_the_call():
    async with serve_in_memory(Lamps) as grafana:
        with pytest.raises(GRPCError, match="KeyError") as failed:
            await publish(grafana, "lamps/faulty", b'{"level": 3}', BEN)
    assert failed.value.status == Status.INTERNAL


class Signed(DataSource):
    @stream("signed/{topic}")
    async def signed(self, topic: str):
        await anyio.sleep_forever()
        yield {}

    @signed.publish
    async def sign(self, data: str, user: User | None, topic: str) -> str:
        return f"{user.login if user else 'nobody'} in {topic}: {data}"


async def test_a_hook_may_take_the_user():
    async with serve_in_memory(Signed) as grafana:
        assert await grafana.publish("signed/lobby", "hi", user=ANN) == b'"ann in lobby: hi"'
        assert await grafana.publish("signed/lobby", "hi", user=None) == b'"nobody in lobby: hi"'


async def test_published_data_is_limited(caplog):
    caplog.set_level("INFO")
    async with serve_in_memory(Lamps) as grafana:
        data = b'{"level": 3}' + b" " * PUBLISH_LIMIT
        assert (await publish(grafana, "lamps/desk", data, BEN)).status == Answer.NOT_FOUND
        assert Lamps.last.commands == []
    assert "published data must have at most 1,048,576 bytes, got 1,048,588" in caplog.text
