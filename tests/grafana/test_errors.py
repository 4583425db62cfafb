"""The response of each call to each exception that an author may raise."""

from contextlib import suppress

import anyio
import pytest
from grpclib import GRPCError

import aiostream_ds
from aiostream_ds import (
    DataSource,
    Health,
    PluginError,
    Query,
    Secret,
    Settings,
    UpstreamError,
    User,
    errors,
    query,
    resource,
    secret,
    stream,
)
from aiostream_ds._frames.frame import Frame
from aiostream_ds._telemetry import JsonLines
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import a_query, publish, query_data, run_stream, subscribe

pytestmark = pytest.mark.virtual

# class: query and resource status, source, subscribe and publish, stream
TABLE = {
    "BadQuery": (400, "downstream", "NOT_FOUND", "permanent"),
    "NotFound": (404, "downstream", "NOT_FOUND", "permanent"),
    "PermissionDenied": (403, "downstream", "PERMISSION_DENIED", "permanent"),
    "QuotaExceeded": (429, "downstream", "PERMISSION_DENIED", "permanent"),
    "ConfigError": (400, "downstream", "gRPC FAILED_PRECONDITION", "permanent"),
    "UpstreamError": (502, "downstream", "gRPC UNAVAILABLE", "transient"),
    "KeyError": (500, "plugin", "gRPC INTERNAL", "bug"),
}
KINDS = {name: getattr(aiostream_ds, name, KeyError) for name in TABLE}


class Broker(Settings):
    password: Secret = secret()


class Failing(DataSource[Broker]):
    kind: type[Exception] = KeyError

    def fail(self) -> None:
        raise self.kind(f"failed with {self.settings.password.reveal()}")

    @stream("live")
    async def live(self):
        self.fail()
        yield

    @stream("guarded")
    async def guarded(self):
        yield {"n": 1}

    @guarded.subscribe
    async def may(self, user: User | None) -> None:
        self.fail()

    @stream("pushed")
    async def pushed(self):
        yield {"n": 1}

    @pushed.publish
    async def push(self, data: int) -> None:
        self.fail()

    @query
    async def ask(self, q: Query) -> Frame:
        self.fail()

    @resource("thing")
    async def thing(self) -> None:
        self.fail()

    async def health(self) -> Health:
        self.fail()


@pytest.fixture(params=TABLE)
def row(request, monkeypatch):
    monkeypatch.setattr(Failing, "kind", KINDS[request.param])
    return TABLE[request.param]


def serving():
    return serve_in_memory(Failing, secrets={"password": "hunter22"})


def test_every_declared_error_has_a_row():
    def below(kind):
        return {kind.__name__}.union(*map(below, kind.__subclasses__()))

    ours = {k for k in below(PluginError) if hasattr(aiostream_ds, k)} - {"PluginError"}
    declared = {name for name in errors.__all__ if name[0].isupper()}
    assert ours == TABLE.keys() - {"KeyError"} == declared - {"PluginError"}


async def answer(call):
    try:
        reply = await call
    except GRPCError as error:
        assert "hunter22" not in error.message
        return f"gRPC {error.status.name}"
    return reply.status.name


async def test_query(row):
    async with serving() as grafana:
        response = (await query_data(grafana, a_query("A", "ask")))["A"]
    assert (response.status, response.error_source) == row[:2]
    assert "failed with ***" in response.error


async def test_resource(row):
    async with serving() as grafana:
        response = await grafana.resource("thing")
    assert response.status == row[0]
    assert b"failed with ***" in response.body


async def test_health(row):
    async with serving() as grafana:
        ok, message = await grafana.health()
    assert not ok and "failed with ***" in message


async def test_subscribe(row):
    async with serving() as grafana:
        assert await answer(subscribe(grafana, "guarded")) == row[2]


async def test_publish(row):
    async with serving() as grafana:
        assert await answer(publish(grafana, "pushed", b"1")) == row[2]


async def test_stream(row):
    async with serving() as grafana:
        async with run_stream(grafana, "live") as call:
            await anyio.sleep(0.1)
            metrics = await grafana.metrics()
            open_still = grafana.plugin.registry.subscriptions == 1
            if row[3] == "bug":
                with pytest.raises(GRPCError, match=r"failed with \*\*\*") as failed:
                    await call.recv_message()
                    await call.recv_trailing_metadata()
                assert failed.value.status.name == "INTERNAL"
    assert metrics[f'aiostream_ds_stream_errors_total{{kind="{row[3]}"}}'] == 1
    assert open_still == (row[3] != "bug")


async def test_log_lines_do_not_contain_secrets(row, caplog):
    caplog.set_level("DEBUG", "aiostream_ds")
    async with serving() as grafana:
        await query_data(grafana, a_query("A", "ask"))
        await grafana.resource("thing")
        await grafana.health()
        await answer(subscribe(grafana, "guarded"))
        with suppress(GRPCError):
            async with run_stream(grafana, "live"):
                await anyio.sleep(0.1)
        lines = [JsonLines().format(record) for record in caplog.records]
    assert any("failed with ***" in line for line in lines)
    assert not any("hunter22" in line for line in lines)


async def test_the_cause_is_only_in_the_log(caplog):
    class Caused(DataSource):
        @query
        async def ask(self, q: Query) -> Frame:
            try:
                raise OSError("errno 111")
            except OSError as error:
                raise UpstreamError("the broker refuses") from error

    caplog.set_level("INFO", "aiostream_ds")
    async with serve_in_memory(Caused) as grafana:
        response = (await query_data(grafana, a_query("A")))["A"]
    assert response.error == "the broker refuses"
    assert "errno 111" in caplog.text


def test_the_message_of_an_error_defaults_to_its_class_name():
    assert UpstreamError().message == "UpstreamError"
