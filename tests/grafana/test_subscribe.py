"""SubscribeStream: whether a viewer may follow a path, and the initial data."""

import anyio
import msgspec
import pytest
from grpclib import GRPCError, Status

from aiostream_ds import (
    ConfigError,
    DataSource,
    NotFound,
    PermissionDenied,
    Row,
    Rows,
    UpstreamError,
    User,
    stream,
)
from aiostream_ds._grafana.services.stream_service import StreamService
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing import Refused, serve_in_memory
from tests.grafana.calls import ANN, run_stream, subscribe

pytestmark = pytest.mark.virtual

Answer = pb.SubscribeStreamResponseStatus


class Reading(Row):
    time: int
    celsius: float


class Bug(Exception):
    pass


RAISED = {
    "denied": PermissionDenied("not you"),
    "missing": NotFound("no such sensor"),
    "config": ConfigError("no url is set"),
    "down": UpstreamError("the broker is down"),
    "bug": Bug("a fault of ours"),
}


class Sensors(DataSource):
    @stream("sensors/{id}")
    async def sensor(self, id: str) -> Rows[Reading]:
        yield Reading(time=1, celsius=1.5)
        await anyio.sleep_forever()

    @sensor.subscribe
    async def may_read(self, user: User | None, id: str) -> None:
        self.users = [*getattr(self, "users", ()), user]
        Sensors.last = self
        if id in RAISED:
            raise RAISED[id]
        if id == "group":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._refuse)

    async def _refuse(self) -> None:
        raise PermissionDenied("not you")

    @stream("loose/{n:int}")
    async def loose(self, n: int):
        yield {"value": n}
        await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("source", "path", "answer", "tasks"),
    [
        (Sensors, "loose/1", Answer.OK, 0),
        (Sensors, "x/loose/1", Answer.OK, 1),
        (Sensors, "loose/word", Answer.NOT_FOUND, 1),
        (Sensors, "sensors/kitchen", Answer.OK, 1),
        (Sensors, "sensors/denied", Answer.PERMISSION_DENIED, 1),
    ],
)
async def test_only_what_has_to_be_checked_or_read_takes_a_task(
    source, path, answer, tasks, monkeypatch
):
    paths, original = [], StreamService.subscribe_stream

    async def subscribe_stream(self, request, call):
        paths.append(request.path)
        return await original(self, request, call)

    monkeypatch.setattr(StreamService, "subscribe_stream", subscribe_stream)
    async with serve_in_memory(source) as grafana:
        await subscribe(grafana, "loose/0")  # the first call of a service has a task
        paths.clear()
        assert (await subscribe(grafana, path)).status == answer
        assert len(paths) == tasks
        counted = grafana.plugin.counters.requests["subscribeStream", "ok"]
        assert counted == (2 if answer == Answer.OK else 1)


def has_schema(packet: bytes) -> bool:
    return "schema" in msgspec.json.decode(packet)


@pytest.mark.parametrize("path", ["sensors/kitchen", "loose/1"])
async def test_the_initial_data_is_empty_so_that_a_refresh_does_not_duplicate_the_history(path):
    async with serve_in_memory(Sensors) as grafana:
        first = await subscribe(grafana, path)
        await (await grafana.follow(path)).next()
        running = await subscribe(grafana, path)
    assert [(r.status, r.data) for r in (first, running)] == [(Answer.OK, b"")] * 2


class Ticks(DataSource):
    @stream("ticks")
    async def ticks(self):
        while True:
            yield {"value": 1}
            await anyio.sleep(0.4)


@pytest.mark.virtual
async def test_packets_repeat_the_schema_until_a_new_viewer_must_have_joined():
    async with serve_in_memory(Ticks) as grafana:
        viewer = await grafana.follow("ticks")
        await viewer.take(10)
        assert list(map(has_schema, viewer.packets)) == [True] * 4 + [False] * 6
        viewer.forget()
        await grafana.follow("ticks")
        await viewer.take(6)
        assert list(map(has_schema, viewer.packets)) == [True] * 3 + [False] * 3


@pytest.mark.parametrize("path", ["", "nowhere", "sensors", "sensors/a/b", "loose/x", "loose/007"])
async def test_a_path_that_matches_no_stream_is_not_found(path):
    async with serve_in_memory(Sensors) as grafana:
        assert (await subscribe(grafana, path)).status == Answer.NOT_FOUND


@pytest.mark.parametrize(
    "sensor, status",
    [
        ("denied", Answer.PERMISSION_DENIED),
        ("missing", Answer.NOT_FOUND),
        ("group", Answer.PERMISSION_DENIED),
    ],
)
async def test_the_hook_refuses_by_raising(sensor, status):
    async with serve_in_memory(Sensors) as grafana:
        reply = await subscribe(grafana, f"sensors/{sensor}")
    assert (reply.status, reply.data) == (status, b"")


@pytest.mark.parametrize(
    "sensor, status, text",
    [
        ("config", Status.FAILED_PRECONDITION, "no url is set"),
        ("down", Status.UNAVAILABLE, "the broker is down"),
        ("bug", Status.INTERNAL, "Bug: a fault of ours"),
    ],
)
async def test_other_errors_fail_the_call(sensor, status, text):
    async with serve_in_memory(Sensors) as grafana:
        with pytest.raises(GRPCError) as failed:
            await subscribe(grafana, f"sensors/{sensor}")
    assert failed.value.status == status
    assert text in failed.value.message


async def test_a_bug_in_the_hook_is_logged_with_its_traceback(caplog):
    async with serve_in_memory(Sensors) as grafana:
        with pytest.raises(GRPCError):
            await subscribe(grafana, "sensors/bug")
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info[0] is Bug


async def test_the_hook_is_called_for_each_viewer_with_its_user():
    async with serve_in_memory(Sensors) as grafana:
        await subscribe(grafana, "sensors/kitchen", ANN)
        await subscribe(grafana, "sensors/kitchen", None)
        users = Sensors.last.users
    assert [user and (user.login, user.role) for user in users] == [("ann", "Viewer"), None]


async def test_a_refused_viewer_starts_no_stream():
    async with serve_in_memory(Sensors) as grafana:
        with pytest.raises(Refused, match="PERMISSION_DENIED"):
            await grafana.follow("sensors/denied")
        assert grafana.plugin.registry.running == 0


async def test_a_call_without_a_data_source_is_refused():
    async with serve_in_memory(Sensors) as grafana:
        async with run_stream(grafana, "loose/1", context=pb.PluginContext(org_id=1)) as call:
            with pytest.raises(GRPCError, match="expected a call for a data source") as failed:
                await call.recv_message()
                await call.recv_trailing_metadata()
    assert failed.value.status == Status.FAILED_PRECONDITION
