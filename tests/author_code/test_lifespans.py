"""A lifespan that hangs or swallows its cancellation is reported with file and line, and left."""

import asyncio
import gc
from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import (
    DataSource,
    Health,
    Quota,
    Secret,
    Settings,
    UpstreamError,
    User,
    resource,
    secret,
    stream,
)
from aiostream_ds._grafana.application import IDLE_SWEEP
from aiostream_ds._grafana.instances import CLOSE_GRACE, CLOSE_TIMEOUT, IDLE_TIMEOUT, OPEN_TIMEOUT
from aiostream_ds._grafana.lifespan_task import CANCEL_AGAIN
from aiostream_ds.testing import Refused, serve_in_memory
from tests.grafana.calls import ANN, resource_call, run_stream, subscribe

pytestmark = pytest.mark.virtual

BEN = User(login="ben", role="Viewer")


class Mode(Settings):
    mode: str = ""
    password: Secret = secret()


class Slow(DataSource[Mode]):
    alive: set[str] = set()
    release = None
    turns = 0

    @asynccontextmanager
    async def lifespan(self):
        mode = self.settings.mode
        self.alive.add(mode)
        try:
            if mode.startswith("swallows"):
                await self._swallow()
            yield
            if mode.startswith("hangs"):
                await anyio.sleep_forever()
            if mode.startswith("closes and swallows"):
                await self._swallow()
        finally:
            self.alive.discard(mode)

    async def _swallow(self):
        while not type(self).release.is_set():
            type(self).turns += 1
            try:
                await anyio.sleep(10)
            except BaseException:
                pass

    async def health(self):
        return Health(message=self.settings.password.reveal())

    @stream("ticks")
    async def ticks(self):
        while True:
            yield {"n": 1}
            await anyio.sleep(1)

    @resource("parts")
    async def parts(self):
        yield b"first"
        await anyio.sleep(3 * IDLE_TIMEOUT)
        yield b"second"


@pytest.fixture(autouse=True)
def fresh():
    Slow.alive, Slow.turns = set(), 0
    Slow.release = asyncio.Event()


def stacks(caplog):
    """The messages of reports with the line at which the lifespan waits."""
    return [
        record.getMessage()
        for record in caplog.records
        if "test_lifespans.py" in record.getMessage()
    ]


async def test_a_lifespan_that_swallows_its_cancellation_is_answered_at_the_limit(caplog):
    async with serve_in_memory(Slow, settings={"mode": "swallows"}) as grafana:
        began = anyio.current_time()
        text = f"the data source did not open within {OPEN_TIMEOUT:g} s"
        assert await grafana.health() == (False, text)
        assert anyio.current_time() == began + OPEN_TIMEOUT
        assert "in _swallow" in stacks(caplog)[0] and text in stacks(caplog)[0]
        # It is not opened a second time, and it is left alone: no cancellation at each await.
        assert await grafana.health() == (False, text)
        await anyio.sleep(600)
        assert Slow.turns < 600 / 10 + 20
        assert "has not ended" in stacks(caplog)[1] and len(stacks(caplog)) == 2
        assert grafana.plugin.counters.lifespans_stuck == 2
        await grafana.change_settings({"mode": "good"})
        assert (await grafana.health())[0]
        Slow.release.set()
        await anyio.sleep(20)
        assert Slow.alive == {"good"}


async def test_a_lifespan_that_opens_after_it_was_given_up_is_left_and_the_next_call_retries():
    async with serve_in_memory(Slow, settings={"mode": "swallows"}) as grafana:
        assert not (await grafana.health())[0]
        Slow.release.set()
        await anyio.sleep(20)
        assert Slow.alive == set()
        assert (await grafana.health())[0]


@pytest.mark.parametrize("mode", ["hangs", "closes and swallows"])
async def test_a_lifespan_that_hangs_while_it_closes_is_reported_and_cancelled(mode, caplog):
    async with serve_in_memory(Slow, settings={"mode": mode}) as grafana:
        for save in range(5):
            assert (await grafana.health())[0]
            await grafana.change_settings({"mode": f"{mode} {save}"})
        await grafana.change_settings({"mode": "good"})
        assert (await grafana.health())[0]
        await anyio.sleep(CLOSE_GRACE + CLOSE_TIMEOUT + 1)
        found = stacks(caplog)
        assert len(found) == 5 and all("did not close" in each for each in found)
        assert all("in lifespan" in each for each in found)
        if mode == "hangs":
            assert Slow.alive == {"good"}
        await anyio.sleep(CANCEL_AGAIN)
        assert len(stacks(caplog)) == (5 if mode == "hangs" else 10)
        Slow.release.set()
        await anyio.sleep(20)
        assert Slow.alive == {"good"}


async def test_a_plugin_stops_although_a_lifespan_hangs(caplog):
    began = asyncio.get_running_loop().time()
    async with serve_in_memory(Slow, settings={"mode": "hangs"}) as grafana:
        assert (await grafana.health())[0]
    assert asyncio.get_running_loop().time() - began < 10


@pytest.mark.slow
async def test_a_data_source_with_a_viewer_is_in_use():
    async with serve_in_memory(Slow, settings={"mode": "watched"}) as grafana:
        async with run_stream(grafana, "ticks") as call:
            await call.recv_message()
            with anyio.move_on_after(IDLE_TIMEOUT + 500):
                while True:
                    await call.recv_message()
        await anyio.sleep(IDLE_TIMEOUT - IDLE_SWEEP - 60)
        assert Slow.alive == {"watched"}
        await anyio.sleep(2 * IDLE_SWEEP + 120)
        assert Slow.alive == set()


@pytest.mark.slow
async def test_a_data_source_whose_resource_streams_is_in_use():
    async with serve_in_memory(Slow, settings={"mode": "read"}) as grafana:
        async with resource_call(grafana, "parts") as call:
            assert (await call.recv_message()).body == b"first"
            assert (await call.recv_message()).body == b"second"
            assert Slow.alive == {"read"}


async def test_a_quota_counts_the_viewers_who_subscribed_before_the_settings_changed():
    class Limited(Slow):
        quota = Quota(channels=1)

        @stream("more")
        async def more(self):
            yield {"n": 1}
            await anyio.sleep_forever()

    async with serve_in_memory(Limited, settings={"mode": "a"}) as grafana:
        viewer = await grafana.follow("ticks", ANN)
        for mode in "bcd":
            await anyio.sleep(30)
            await grafana.change_settings({"mode": mode})
            with pytest.raises(Refused):
                await grafana.follow("more", BEN)
            await anyio.sleep(CLOSE_GRACE + 10)
            with pytest.raises(Refused):
                await grafana.follow("more", BEN)
        viewer.leave()
        await anyio.sleep(30)
        await grafana.follow("more", BEN)


async def test_another_secret_with_the_same_time_replaces_the_instance():
    async with serve_in_memory(Slow, secrets={"password": "first secret"}) as grafana:
        assert (await grafana.health())[0]
        instance = await grafana.plugin.instances.get(grafana.context(ANN))
        grafana._secrets = {"password": "second secret"}
        newer = await grafana.plugin.instances.get(grafana.context(ANN))
        assert newer.source.settings.password.reveal() == "second secret"
        assert newer is not instance
        assert await grafana.plugin.instances.get(grafana.context(BEN)) is newer


@pytest.mark.slow
async def test_a_replaced_secret_is_not_kept_in_memory():
    old = "rotated-secret-0815"
    async with serve_in_memory(Slow, secrets={"password": old}) as grafana:
        await grafana.health()
        await subscribe(grafana, "ticks", BEN)
        await grafana.change_settings({"mode": "new"}, {"password": "another-secret"})
        await grafana.health()
        await anyio.sleep(CLOSE_GRACE + 1)
        gc.collect()
        found = [
            each
            for each in gc.get_objects()
            if isinstance(each, dict)
            and any(
                (isinstance(key, bytes) and old.encode() in key)
                or (isinstance(value, str) and value == old)
                for key, value in tuple(each.items())
                if isinstance(key, bytes | str)
            )
            and each is not locals()
            and "grafana" not in each
        ]
        assert found == []


async def test_a_data_source_works_with_eager_tasks(monkeypatch):
    """An eager factory runs a task's first step in `create_task`, as that of Python 3.12."""
    loop = asyncio.get_running_loop()
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("asyncio has eager tasks since Python 3.12")
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        async with serve_in_memory(Slow, settings={"mode": "eager"}) as grafana:
            viewer = await grafana.follow("ticks")
            assert (await viewer.next())["n"] == 1
        assert Slow.alive == set()
    finally:
        loop.set_task_factory(None)


class Connection:
    """As a client library's: an async context manager."""

    def __init__(self, events, refuses=False):
        self.events, self.refuses = events, refuses

    async def __aenter__(self):
        if self.refuses:
            raise ConnectionRefusedError("nobody listens")
        self.events.append("opened")
        return self

    async def __aexit__(self, *_):
        self.events.append("closed")


async def test_a_lifespan_may_return_the_context_manager_of_a_client():
    events = []

    class Connected(DataSource):
        def lifespan(self):
            self.connection = Connection(events)
            return self.connection

        async def health(self):
            return Health(message=" ".join(self.connection.events))

    async with serve_in_memory(Connected) as grafana:
        assert await grafana.health() == (True, "opened")
    assert events == ["opened", "closed"]


async def test_the_error_of_a_returned_context_manager_is_shown():
    class Refused(DataSource):
        declared_errors = {OSError: UpstreamError}

        def lifespan(self):
            return Connection([], refuses=True)

    async with serve_in_memory(Refused) as grafana:
        assert await grafana.health() == (False, "Refused: nobody listens")
