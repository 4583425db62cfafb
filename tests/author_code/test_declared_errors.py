"""`declared_errors`: exceptions of a client library as PluginErrors, wherever one is raised."""

import logging
from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import (
    Broadcast,
    ConfigError,
    DataSource,
    NotFound,
    Secret,
    Settings,
    Upstream,
    UpstreamError,
    secret,
    stream,
)
from aiostream_ds._declared_errors import table_of
from aiostream_ds.testing import QueryFailed, Refused, UpstreamDouble, serve_in_memory

from .test_every_entry_point import Blocking, Faulty

pytestmark = pytest.mark.virtual


class ClientError(Exception):
    """The base class of a client library's errors."""


class WrongPassword(ClientError):
    pass


class Coded(ClientError):
    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


class Both(WrongPassword, OSError):
    pass


def by_code(error: Coded):
    return {1: ConfigError, 2: ConfigError("the account is closed")}.get(error.code)


DECLARED = {
    (ClientError, OSError): UpstreamError,
    WrongPassword: ConfigError,
    Coded: by_code,
}


class Client(Faulty):
    declared_errors = DECLARED


class BlockingClient(Blocking):
    declared_errors = DECLARED


async def _health(grafana):
    ok, message = await grafana.health()
    assert not ok
    return message


async def _query(grafana, kind="q", **fields):
    with pytest.raises(QueryFailed) as caught:
        await grafana.query({"queryType": kind, **fields})
    assert caught.value.source == "downstream"
    assert caught.value.status == (502 if "away" in str(caught.value) else 400)
    return str(caught.value)


async def _resource(grafana, path):
    found = await grafana.resource(path)
    assert found.status in (502, 400)
    return found.body.decode()


async def _fails(awaitable):
    with pytest.raises(Exception) as caught:
        await awaitable
    return str(caught.value)


CALLS = {
    "lifespan": _health,
    "health": _health,
    "query": _query,
    "history": lambda grafana: _query(grafana, "s", name="a"),
    "resource": lambda grafana: _resource(grafana, "r"),
    "parts": lambda grafana: _fails(grafana.resource("parts")),
    "first part": lambda grafana: _resource(grafana, "none"),
    "suggest": lambda grafana: _resource(grafana, "forms/suggest?stream=s&field=name&typed="),
    "subscribe": lambda grafana: _fails(grafana.follow("s/a")),
    "publish": lambda grafana: _fails(grafana.publish("s/a", 1)),
}


def raising(kind, error):
    if kind is BlockingClient:

        def act():
            raise error
    else:

        async def act():
            raise error

    return staticmethod(act)


@pytest.mark.parametrize("kind", [Client, BlockingClient])
@pytest.mark.parametrize("error", [OSError("it is away"), WrongPassword("the password is wrong")])
@pytest.mark.parametrize("where", CALLS)
async def test_an_entry_applies_wherever_a_method_raises(where, error, kind, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(kind, "act", raising(kind, error))
    monkeypatch.setattr(kind, "where", where)
    async with serve_in_memory(kind) as grafana:
        message = await CALLS[where](grafana)
    assert f"{kind.__name__}: {error}" in message
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("kind", [Client, BlockingClient])
@pytest.mark.parametrize("where", ["stream", "newest cursor"])
@pytest.mark.parametrize(
    "error, counted", [(OSError("away"), "transient"), (WrongPassword("no"), "permanent")]
)
async def test_a_stream_is_retried_or_refused_without_a_traceback(
    error, counted, where, kind, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(kind, "act", raising(kind, error))
    monkeypatch.setattr(kind, "where", where)
    async with serve_in_memory(kind) as grafana:
        await grafana.follow("s/a" if where == "stream" else "numbered")
        await anyio.sleep(30)
        assert set(grafana.plugin.counters.stream_errors) == {counted}
    assert any(f"{kind.__name__}: {error}" in record.getMessage() for record in caplog.records)
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_traceback_is_logged_at_debug_level(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(Client, "act", raising(Client, OSError("away")))
    monkeypatch.setattr(Client, "where", "query")
    async with serve_in_memory(Client) as grafana:
        await _query(grafana)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "in _at" in logging.Formatter().format(record)


class Polling(DataSource):
    declared_errors = DECLARED
    error = OSError("away")

    @asynccontextmanager
    async def lifespan(self):
        self.tasks.start_soon(self.poll)
        yield

    async def poll(self):
        raise self.error

    @stream
    async def ticks(self):
        yield {"n": 1}
        await anyio.sleep_forever()


@pytest.mark.parametrize("error, end", [(OSError("away"), "interrupted"), (Coded(1), "ended")])
async def test_a_background_task_runs_again_or_ends(error, end, monkeypatch, caplog):
    monkeypatch.setattr(Polling, "error", error)
    async with serve_in_memory(Polling) as grafana:
        await grafana.follow("ticks")
        await anyio.sleep(5)
        ok, message = await grafana.health()
    assert not ok and f"Polling: {error}" in message
    assert any(f"poll {end}" in record.getMessage() for record in caplog.records)
    assert not [record for record in caplog.records if record.exc_info]


class Opening(DataSource):
    declared_errors = DECLARED

    def __init__(self):
        raise WrongPassword("the password is wrong")


async def test_an_error_of_init_is_declared_too():
    async with serve_in_memory(Opening) as grafana:
        assert await grafana.health() == (False, "Opening: the password is wrong")


class Listening(DataSource):
    declared_errors = DECLARED
    rows = Broadcast(name="rows")

    @stream
    async def ticks(self):
        async for row in self.rows.subscribe():
            yield row


@pytest.mark.parametrize(
    ("error", "counted", "text"),
    [
        (OSError("away"), "transient", "Listening: away"),
        (WrongPassword("no"), "permanent", "Listening: no"),
        (ValueError("late"), "transient", "rows failed: late"),
    ],
)
async def test_an_error_that_a_callback_reports_is_declared(error, counted, text, caplog):
    async with serve_in_memory(Listening) as grafana:
        source = await grafana.data_source(Listening)
        await grafana.follow("ticks")
        await anyio.sleep(1)
        source.rows.fail(error)
        await anyio.sleep(1)
        assert grafana.plugin.counters.stream_errors == {counted: 1}
    assert any(text in record.getMessage() for record in caplog.records)


class Guarded(Settings):
    password: Secret = secret()


class Leaking(DataSource[Guarded]):
    declared_errors = DECLARED

    async def health(self):
        raise ClientError(f"cannot use {self.settings.password.reveal()}")


async def test_secrets_in_the_text_are_redacted():
    async with serve_in_memory(Leaking, secrets={"password": "swordfish"}) as grafana:
        assert await grafana.health() == (False, "Leaking: cannot use ***")


# Which entry applies


def found(error, declared=None):
    kind = type("Named", (DataSource,), {"declared_errors": declared or DECLARED})
    return table_of(kind).find(error)


@pytest.mark.parametrize(
    "error, expected, text",
    [
        (ClientError("x"), UpstreamError, "Named: x"),
        (WrongPassword("x"), ConfigError, "Named: x"),
        (Both("x"), ConfigError, "Named: x"),
        (ConnectionResetError(104, "reset"), UpstreamError, "Named: [Errno 104] reset"),
        (Coded(1), ConfigError, "Named: code 1"),
        (Coded(2), ConfigError, "the account is closed"),
        (Coded(3), UpstreamError, "Named: code 3"),
        (TimeoutError(), UpstreamError, "Named: TimeoutError"),
    ],
)
def test_the_most_specific_entry_applies(error, expected, text):
    error = found(error)
    assert (type(error), str(error)) == (expected, text)


def test_an_exception_without_an_entry_stays_as_it_is():
    error = ValueError("x")
    assert found(error) is error


def test_a_plugin_error_stays_as_it_is():
    error = UpstreamError("x")
    assert found(error, {Exception: ConfigError}) is error


def test_a_group_is_as_the_exceptions_in_it():
    group = ExceptionGroup("g", [OSError("a"), ExceptionGroup("h", [WrongPassword("b")])])
    assert str(found(group)) == "Named: b"  # of several, a permanent one
    mixed = ExceptionGroup("g", [OSError("a"), ValueError("b")])
    assert found(mixed) is mixed


def test_each_use_of_an_error_that_a_function_returns_is_another_object():
    shared = ConfigError("closed")
    first, second = (found(Coded(1), {Coded: lambda error: shared}) for _ in range(2))
    assert first is not second and str(first) == str(second) == "closed"


def test_an_error_of_a_function_is_a_bug():
    error = found(Coded(1), {Coded: lambda error: 1 / 0})
    assert isinstance(error, ZeroDivisionError)
    error = found(Coded(1), {Coded: lambda error: "no"})
    assert isinstance(error, TypeError) and "must return a PluginError" in str(error)
    assert "got 'no'" in str(error)


async def test_a_function_that_fails_is_logged_with_its_traceback(monkeypatch, caplog):
    class Failing(Faulty):
        declared_errors = {OSError: lambda error: error.nothing}
        act = raising(None, OSError("away"))
        where = "stream"

    async with serve_in_memory(Failing) as grafana:
        await grafana.follow("s/a")
        await anyio.sleep(1)
        assert grafana.plugin.counters.stream_errors["bug"]
    text = logging.Formatter().format(next(r for r in caplog.records if r.exc_info))
    assert "away" in text and "has no attribute 'nothing'" in text


def test_a_subclass_inherits_and_replaces_the_entries():
    class Base(DataSource):
        declared_errors = {OSError: ConfigError}

    class Same(Base):
        pass

    class Other(Base):
        declared_errors = {**Base.declared_errors, ClientError: UpstreamError}

    assert str(table_of(Same).find(OSError("x"))) == "Same: x"
    assert isinstance(table_of(Other).find(OSError("x")), ConfigError)
    assert isinstance(table_of(Other).find(ClientError("x")), UpstreamError)
    assert isinstance(table_of(Base).find(ClientError("x")), ClientError)


async def _classify(error):
    return ConfigError


@pytest.mark.parametrize("base", [DataSource, Upstream])
@pytest.mark.parametrize(
    "declared, text",
    [
        ([OSError], r"must be a dict of exception classes and PluginError classes, got \[<class"),
        ({"OSError": UpstreamError}, "expected an Exception class, or a tuple of them, got 'OSErr"),
        ({KeyboardInterrupt: UpstreamError}, "expected an Exception class.*got <class 'Keyboard"),
        ({(OSError, 3): UpstreamError}, "expected an Exception class, or a tuple of them, got 3"),
        ({ConfigError: UpstreamError}, "that is not a PluginError yet, got ConfigError"),
        ({ExceptionGroup: UpstreamError}, "that is not a group, got ExceptionGroup"),
        ({OSError: OSError}, "entry of OSError must be a PluginError class.*got OSError"),
        ({OSError: "transient"}, "entry of OSError must be a PluginError class.*got 'transient'"),
        ({OSError: ConfigError("x")}, "must be a PluginError class.*got ConfigError"),
        ({OSError: _classify}, r"or a function \(`def`\) that returns one, got <function _class"),
        (
            {OSError: UpstreamError, (ClientError, OSError): ConfigError},
            "expected one entry for OSError, got two",
        ),
    ],
)
def test_a_wrong_entry_is_an_error_when_the_class_is_created(declared, text, base):
    with pytest.raises(TypeError, match=f"Wrong.declared_errors:? .*{text}"):
        type("Wrong", (base,), {"declared_errors": declared})


async def test_an_instance_has_no_entries_of_its_own():
    class Own(DataSource):
        def __init__(self):
            self.declared_errors = {OSError: UpstreamError}

    async with serve_in_memory(Own) as grafana:
        ok, message = await grafana.health()
    assert not ok and "Own: expected declared_errors in the body of the class" in message
    upstream = UpstreamDouble()
    upstream.declared_errors = {OSError: UpstreamError}
    with pytest.raises(TypeError, match="UpstreamDouble: expected declared_errors in the body"):
        async with upstream:
            pass


def test_no_handler_has_the_name_of_the_attribute():
    with pytest.raises(TypeError, match="must not have the name of a DataSource attribute"):

        class Wrong(DataSource):
            @stream
            async def declared_errors(self):
                yield {"n": 1}


# An upstream


class Topics(UpstreamDouble):
    declared_errors = DECLARED


class House(DataSource):
    @asynccontextmanager
    async def lifespan(self):
        async with Topics(name="the broker") as self.topics:
            yield

    @stream
    async def topic(self, name: str):
        async with self.topics.follow(name) as messages:
            async for message in messages:
                yield {"text": message}


async def topics(grafana) -> Topics:
    return (await grafana.data_source(House)).topics


@pytest.mark.parametrize(
    "error, text", [(OSError("away"), "the broker: away"), (Coded(2), "the account is closed")]
)
async def test_an_error_of_connect_is_named_by_save_and_test(error, text, caplog):
    async with serve_in_memory(House) as grafana:
        (await topics(grafana)).refusal = error
        assert await grafana.health() == (False, text)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_permanent_error_of_connect_is_not_tried_again():
    async with serve_in_memory(House) as grafana:
        upstream = await topics(grafana)
        upstream.refusal = ExceptionGroup("g", [WrongPassword("no")])
        await grafana.follow("topic/a")
        await anyio.sleep(100)
        assert upstream.statistics().connects == 1
        assert set(grafana.plugin.counters.stream_errors) == {"permanent"}


async def test_a_transient_error_of_messages_is_retried_without_a_traceback(caplog):
    async with serve_in_memory(House) as grafana:
        upstream = await topics(grafana)
        viewer = await grafana.follow("topic/a")
        await anyio.sleep(1)
        upstream.disconnect(ClientError("the connection broke"))
        await anyio.sleep(30)
        upstream.send("a", "again")
        assert (await viewer.next())["text"] == "again"
    assert any("the broker: the connection broke" in r.getMessage() for r in caplog.records)
    assert not [record for record in caplog.records if record.exc_info]


async def test_an_error_of_subscribe_and_of_fail_is_declared():
    async with serve_in_memory(House) as grafana:
        upstream = await topics(grafana)
        upstream.refused["a"] = Coded(1)
        await grafana.follow("topic/a")
        await grafana.follow("topic/b")
        await anyio.sleep(1)
        assert grafana.plugin.counters.stream_errors == {"permanent": 1}
        upstream.fail("b", WrongPassword("no"))
        await anyio.sleep(1)
        assert grafana.plugin.counters.stream_errors == {"permanent": 2}


async def test_a_declared_error_of_a_subscribe_hook_refuses_with_its_status(monkeypatch):
    monkeypatch.setattr(Client, "act", raising(Client, LookupError("nobody")))
    monkeypatch.setattr(Client, "where", "subscribe")

    class Looking(Client):
        declared_errors = {LookupError: NotFound}

    async with serve_in_memory(Looking) as grafana:
        with pytest.raises(Refused, match="NOT_FOUND"):
            await grafana.follow("s/a")
