"""RunStream: many subscribers, one run."""

import asyncio
import contextvars
from contextlib import AsyncExitStack, suppress

import anyio
import pytest
from grpclib import GRPCError, Status

from aiostream_ds import DataSource, NotFound, UpstreamError, User, stream
from aiostream_ds._channels.log import MemoryLog
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.grafana import open_grafana
from tests.grafana.calls import ANN, BEN, run_stream

pytestmark = pytest.mark.virtual


class Ticker(DataSource):
    """A row each second; `begun` and `ended` count the runs."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.over = asyncio.Event()
        Ticker.last = self

    @stream("ticks/{id}")
    async def ticks(self, id: str):
        self.begun += 1
        run = self.begun
        try:
            for n in range(1_000_000):
                yield {"run": run, "n": n}
                await anyio.sleep(1)
        finally:
            await anyio.sleep(0.01)
            self.ended += 1
            self.over.set()


async def ended(call) -> GRPCError:
    """The status with which the call ends."""
    try:
        while await call.recv_message() is not None:
            pass
        await call.recv_trailing_metadata()
    except GRPCError as error:
        return error
    return GRPCError(Status.OK)


async def test_fifty_calls_on_one_path_share_one_run():
    async with serve_in_memory(Ticker) as grafana, AsyncExitStack() as calls:
        opened = [
            await calls.enter_async_context(run_stream(grafana, "ticks/a")) for _ in range(50)
        ]
        first = [(await call.recv_message()).data for call in opened]
        metrics = await grafana.metrics()
        assert Ticker.last.begun == 1
        assert metrics["aiostream_ds_streams_running"] == 1
        assert metrics["aiostream_ds_subscriptions"] == 50
        assert b'"schema"' in first[0]
        second = {(await call.recv_message()).data for call in opened[:10]}
        assert len(second) == 1


async def test_the_last_leave_ends_the_run_once_and_waits_for_its_cleanup():
    async with serve_in_memory(Ticker) as grafana:
        async with run_stream(grafana, "ticks/a") as one:
            await one.recv_message()
            async with run_stream(grafana, "ticks/a") as two:
                await two.recv_message()
            await anyio.sleep(3)
            assert (Ticker.last.begun, Ticker.last.ended) == (1, 0)
        await Ticker.last.over.wait()
        await anyio.sleep(60)
        assert (Ticker.last.begun, Ticker.last.ended) == (1, 1)
        assert (await grafana.metrics())["aiostream_ds_streams_running"] == 0


async def test_a_returning_subscriber_gets_a_new_run_with_its_schema():
    async with serve_in_memory(Ticker) as grafana:
        for run in (1, 2, 3):
            async with run_stream(grafana, "ticks/a") as call:
                packet = (await call.recv_message()).data
            assert b'"schema"' in packet and f"[{run}]".encode() in packet
        await Ticker.last.over.wait()
        await anyio.sleep(1)
        assert (Ticker.last.begun, Ticker.last.ended) == (3, 3)


@pytest.mark.parametrize("packets", range(6))
async def test_a_reset_after_any_packet_ends_the_run_and_the_subscription(packets):
    async with serve_in_memory(Ticker) as grafana:
        async with run_stream(grafana, "ticks/a") as call:
            for _ in range(packets):
                await call.recv_message()
        await anyio.sleep(1)
        assert grafana.plugin.registry.running == 0
        assert grafana.plugin.registry.subscriptions == 0
        last = getattr(Ticker, "last", None)
        assert packets == 0 or (last.begun, last.ended) == (1, 1)


async def test_different_paths_have_different_runs():
    async with serve_in_memory(Ticker) as grafana:
        async with run_stream(grafana, "ticks/a") as a, run_stream(grafana, "ticks/b") as b:
            await a.recv_message()
            await b.recv_message()
            assert Ticker.last.begun == 2


async def test_context_variables_of_the_first_viewer_do_not_leak_into_the_shared_run():
    who = contextvars.ContextVar("who", default="nobody")

    class ShowsContext(DataSource):
        @stream("who")
        async def who(self):
            yield {"who": who.get()}
            await anyio.sleep_forever()

        @who.subscribe
        async def may(self, user: User | None) -> None:
            who.set(user.login)

    async with serve_in_memory(ShowsContext) as grafana:
        who.set("the test")
        ann, ben = await grafana.follow("who", ANN), await grafana.follow("who", BEN)
        assert (await ann.next())["who"] == "nobody"
        assert ben.packets == [] or b"ann" not in b"".join(ben.packets)


async def test_an_unknown_path_fails_the_call():
    async with serve_in_memory(Ticker) as grafana:
        async with run_stream(grafana, "nowhere") as call:
            error = await ended(call)
    assert error.status == Status.NOT_FOUND and "'ticks/{id}'" in error.message


async def test_a_normal_return_ends_the_call_with_status_ok_after_its_rows():
    class Short(DataSource):
        @stream("short")
        async def short(self):
            yield {"n": 1}
            yield {"n": 2}

    async with serve_in_memory(Short) as grafana:
        async with run_stream(grafana, "short") as call:
            packet = (await call.recv_message()).data
            assert (await ended(call)).status == Status.OK
    assert b"[1,2]" in packet


async def test_rows_before_a_bug_are_sent_and_the_call_fails():
    class Faulty(DataSource):
        @stream("faulty")
        async def faulty(self):
            yield {"n": 1}
            raise KeyError("oops")

    async with serve_in_memory(Faulty) as grafana:
        async with run_stream(grafana, "faulty") as call:
            packet = (await call.recv_message()).data
            error = await ended(call)
    assert b"[1]" in packet
    assert error.status == Status.INTERNAL and "KeyError" in error.message


async def test_a_stream_stays_open_during_transient_errors_and_recovers():
    class Flaky(DataSource):
        runs = 0

        @stream("flaky")
        async def flaky(self):
            type(self).runs += 1
            if self.runs < 4:
                raise UpstreamError("not reachable")
            yield {"run": self.runs}
            await anyio.sleep_forever()

    async with serve_in_memory(Flaky) as grafana:
        async with run_stream(grafana, "flaky") as call:
            assert b"[4]" in (await call.recv_message()).data
        metrics = await grafana.metrics()
    assert metrics['aiostream_ds_stream_errors_total{kind="transient"}'] == 3
    assert metrics["aiostream_ds_stream_retries_total"] == 3


async def test_a_permanent_error_leaves_the_call_open_and_silent():
    class Deleted(DataSource):
        runs = 0

        @stream("lost")
        async def lost(self):
            type(self).runs += 1
            raise NotFound("the topic was deleted")
            yield

    async with serve_in_memory(Deleted) as grafana:
        async with run_stream(grafana, "lost") as call:
            with suppress(TimeoutError), anyio.fail_after(3600):
                await ended(call)
                pytest.fail("the call has ended")
        assert Deleted.runs == 1
        metrics = await grafana.metrics()
    assert metrics['aiostream_ds_stream_errors_total{kind="permanent"}'] == 1


async def test_a_stopping_plugin_ends_calls_with_an_error_that_grafana_retries():
    async with serve_in_memory(Ticker) as grafana:
        async with run_stream(grafana, "ticks/a") as call:
            await call.recv_message()
            assert await grafana.plugin.close()
            error = await ended(call)
        async with run_stream(grafana, "ticks/a") as call:
            again = await ended(call)
    assert error.status == Status.UNAVAILABLE
    assert again.status == Status.UNAVAILABLE
    assert (Ticker.last.begun, Ticker.last.ended) == (1, 1)


async def test_an_application_may_keep_rows_and_run_streams_elsewhere():
    runs, logs = [], []

    def wrap(key, run):
        runs.append(key.path)
        return run

    def make_log(key, replay, generation):
        logs.append(key.path)
        return MemoryLog(replay, "elsewhere", generation)

    class Numbers(DataSource):
        @stream("numbers")
        async def numbers(self):
            yield {"n": 1}
            await anyio.sleep_forever()

    catalog = Catalog(Numbers)
    async with (
        open_application(catalog, make_log=make_log, wrap_runner=wrap) as application,
        open_grafana(application) as grafana,
    ):
        await grafana.follow("x/numbers")
        await anyio.sleep(1)
    assert runs == logs == ["numbers"]
