"""Whatever an author's code raises, wherever it runs, fails that call only and is logged once."""

import asyncio
import logging
import threading
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.to_thread
import pytest
from grpclib import GRPCError

from aiostream_ds import DataSource, Frame, Health, HistoryRange, Query, query, resource, stream
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory
from tests.grafana.calls import run_stream

pytestmark = pytest.mark.virtual


class PanicException(BaseException):
    """As pyo3's: a panic of an extension in Rust."""


class Unprintable(Exception):
    def __str__(self):
        raise SystemExit("not even its message")


async def await_a_cancelled_future():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancel_itself():
    asyncio.current_task().cancel()
    await anyio.sleep(1)


async def raise_in_a_group(error):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 10)
        raise error


def raising(error):
    async def act():
        raise error()

    return act


def grouped(*kinds):
    async def act():
        raise BaseExceptionGroup("several", [kind() for kind in kinds])

    return act


async def exit_in_a_thread():
    await anyio.to_thread.run_sync(lambda: exec("raise SystemExit(4)"))


async def panic_in_a_thread():
    def panic():
        raise PanicException("in a thread")

    await asyncio.to_thread(panic)


ACTS = {
    "an error": raising(ValueError),
    "an unprintable error": raising(Unprintable),
    "sys.exit": raising(SystemExit),
    "Ctrl-C": raising(KeyboardInterrupt),
    "a panic": raising(PanicException),
    "a group with a panic": grouped(ValueError, PanicException),
    "a group with a cancellation": grouped(ValueError, asyncio.CancelledError),
    "a group of cancellations": grouped(asyncio.CancelledError),
    "a task group with an exit": lambda: raise_in_a_group(SystemExit(3)),
    "the end of a generator": raising(GeneratorExit),
    "a cancelled future": await_a_cancelled_future,
    "a raised cancellation": raising(asyncio.CancelledError),
    "a cancellation of itself": cancel_itself,
    "an exit in a thread": exit_in_a_thread,
    "a panic in a thread": panic_in_a_thread,
}


def in_a_thread(error):
    def act():
        raise error()

    return act


def raise_in_a_group_in_a_thread():
    raise BaseExceptionGroup("several", [ValueError(), PanicException()])


IN_THREADS = {
    "an error": in_a_thread(ValueError),
    "an unprintable error": in_a_thread(Unprintable),
    "sys.exit": in_a_thread(SystemExit),
    "Ctrl-C": in_a_thread(KeyboardInterrupt),
    "a panic": in_a_thread(PanicException),
    "a group with a panic": raise_in_a_group_in_a_thread,
    "the end of a generator": in_a_thread(GeneratorExit),
    "the end of an iterator": in_a_thread(StopIteration),
    "a raised cancellation": in_a_thread(asyncio.CancelledError),
}
"""What a `def` can raise."""


class Faulty(DataSource):
    """Every entry point calls `act`, where it is `where`."""

    where = ""
    act = staticmethod(raising(ValueError))

    async def _at(self, place):
        if self.where == place:
            await self.act()

    @asynccontextmanager
    async def lifespan(self):
        await self._at("lifespan")
        yield

    async def health(self):
        await self._at("health")
        return Health()

    @query("q")
    async def answer(self, q: Query) -> Frame:
        await self._at("query")
        return Frame()

    @resource("r")
    async def document(self):
        await self._at("resource")
        return {}

    @resource("parts")
    async def parts(self):
        yield b"first"
        await self._at("parts")
        yield b"second"

    @resource("none")
    async def none(self):
        await self._at("first part")
        yield b"first"

    @stream("s/{name}")
    async def s(self, name: str):
        yield {"n": 1}
        await self._at("stream")
        await anyio.sleep_forever()

    @s.history
    async def past(self, history_range: HistoryRange, name: str) -> list[dict]:
        await self._at("history")
        return []

    @s.subscribe
    async def may(self, user, name: str):
        await self._at("subscribe")

    @s.publish
    async def take(self, value: int, name: str):
        await self._at("publish")

    @s.suggest("name")
    async def names(self, typed: str) -> list[str]:
        await self._at("suggest")
        return ["a"]

    @stream("numbered", cursor="n")
    async def numbered(self, after):
        yield {"n": 1}
        await anyio.sleep_forever()

    @numbered.history
    async def numbers(self, history_range: HistoryRange) -> list[dict]:
        await self._at("newest cursor")
        return []

    @stream("ticks")
    async def ticks(self):
        while True:
            yield {"n": 1}
            await anyio.sleep(1)


class Blocking(DataSource):
    """As `Faulty`, of methods that are a `def`."""

    where = ""
    act = staticmethod(in_a_thread(ValueError))

    def _at(self, place):
        if self.where == place:
            self.act()

    @contextmanager
    def lifespan(self):
        self._at("lifespan")
        yield

    def health(self):
        self._at("health")
        return Health()

    @query("q")
    def answer(self, q: Query) -> Frame:
        self._at("query")
        return Frame()

    @resource("r")
    def document(self):
        self._at("resource")
        return {}

    @resource("parts")
    def parts(self):
        yield b"first"
        self._at("parts")
        yield b"second"

    @resource("none")
    def none(self):
        return self._chunks()

    def _chunks(self):
        self._at("first part")
        yield b"first"

    @stream("s/{name}")
    def s(self, name: str):
        yield {"n": 1}
        self._at("stream")

    @s.history
    def past(self, history_range: HistoryRange, name: str) -> list[dict]:
        self._at("history")
        return []

    @s.subscribe
    def may(self, user, name: str):
        self._at("subscribe")

    @s.publish
    def take(self, value: int, name: str):
        self._at("publish")

    @s.suggest("name")
    def names(self, typed: str) -> list[str]:
        self._at("suggest")
        return ["a"]

    @stream("numbered", cursor="n")
    def numbered(self, after):
        yield {"n": 1}

    @numbered.history
    def numbers(self, history_range: HistoryRange) -> list[dict]:
        self._at("newest cursor")
        return []

    @stream("ticks")
    async def ticks(self):
        while True:
            yield {"n": 1}
            await anyio.sleep(1)


async def _health(grafana):
    ok, message = await grafana.health()
    assert not ok
    return message


async def _run(grafana, path="s/a"):
    with pytest.raises(GRPCError) as caught:
        async with run_stream(grafana, path) as call:
            async for _ in call:
                pass
    return caught.value.message


async def _query(grafana, kind="q", **fields):
    with pytest.raises(QueryFailed) as caught:
        await grafana.query({"queryType": kind, **fields})
    assert caught.value.status == 500 and caught.value.source == "plugin"
    return str(caught.value)


async def _resource(grafana, path):
    found = await grafana.resource(path)
    assert found.status == 500
    return found.body.decode()


async def _broken_resource(grafana):
    with pytest.raises(GRPCError) as caught:
        await grafana.resource("parts")
    return caught.value.message


async def _fails(awaitable):
    with pytest.raises((GRPCError, Refused)) as caught:
        await awaitable
    return str(caught.value)


CALLS = {
    "lifespan": _health,
    "health": _health,
    "query": _query,
    "history": lambda grafana: _query(grafana, "s", name="a"),
    "resource": lambda grafana: _resource(grafana, "r"),
    "parts": _broken_resource,
    "first part": lambda grafana: _resource(grafana, "none"),
    "suggest": lambda grafana: _resource(grafana, "forms/suggest?stream=s&field=name&typed="),
    "subscribe": lambda grafana: _fails(grafana.follow("s/a")),
    "publish": lambda grafana: _fails(grafana.publish("s/a", 1)),
    "stream": _run,
    "newest cursor": lambda grafana: _run(grafana, "numbered"),
}


FAULTS = [(Faulty, what, act) for what, act in ACTS.items()]
FAULTS += [(Blocking, what, act) for what, act in IN_THREADS.items()]
IDS = [f"{what}{' in a def' if kind is Blocking else ''}" for kind, what, _ in FAULTS]


@pytest.mark.diagonal
@pytest.mark.parametrize("kind, what, act", FAULTS, ids=IDS)
@pytest.mark.parametrize("where", CALLS)
async def test_a_fault_fails_its_own_call_and_is_logged_once_with_file_and_line(
    where, kind, what, act, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(kind, "act", staticmethod(act))
    async with serve_in_memory(kind) as grafana:
        other = None
        if where != "lifespan":
            other = await grafana.follow("ticks")
            await other.next()
        kind.where = where
        try:
            with anyio.fail_after(40):
                message = await CALLS[where](grafana)
        finally:
            kind.where = ""
        assert message
        tracebacks = [record for record in caplog.records if record.exc_info]
        assert len(tracebacks) == 1, tracebacks
        text = logging.Formatter().format(tracebacks[0])
        assert "test_every_entry_point.py" in text and "in _at" in text
        assert tracebacks[0].levelname == "ERROR"
        ok, message = await grafana.health()
        assert ok, message
        if other is not None:
            before = len(other.rows)
            await anyio.sleep(3.5)
            assert len(other.rows) >= before + 3
        assert not asyncio.current_task().cancelling()
        assert threading.active_count() < 50


@pytest.mark.slow
@pytest.mark.parametrize("kind, what, act", FAULTS, ids=IDS)
async def test_a_stream_that_fails_at_once_is_restarted_with_growing_delays(
    kind, what, act, monkeypatch
):
    monkeypatch.setattr(kind, "act", staticmethod(act))
    monkeypatch.setattr(kind, "where", "stream")
    async with serve_in_memory(kind) as grafana:
        await grafana.follow("s/a")
        await anyio.sleep(60)
        errors = grafana.plugin.counters.stream_errors
        assert set(errors) == {"bug"} and 4 <= errors["bug"] <= 10


@pytest.mark.parametrize("where", ["health", "query", "resource", "subscribe", "publish"])
async def test_a_requested_cancellation_passes_at_once(where, monkeypatch, caplog):
    ended = []

    async def wait():
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(anyio.current_time())

    monkeypatch.setattr(Faulty, "act", staticmethod(wait))
    monkeypatch.setattr(Faulty, "where", where)
    async with serve_in_memory(Faulty) as grafana:
        began = anyio.current_time()
        with anyio.move_on_after(1):
            await CALLS[where](grafana)
        await anyio.sleep(1)
        assert ended == [began + 1]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
