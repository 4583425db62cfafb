"""What an author's code does besides raising errors ends its own call, and nothing else."""

import asyncio
import gc
import json
import logging
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from grpclib import GRPCError, Status

from aiostream_ds import (
    DataSource,
    Frame,
    Health,
    Query,
    Secret,
    Settings,
    query,
    secret,
    stream,
)
from aiostream_ds._grafana.instances import OPEN_TIMEOUT
from aiostream_ds._grafana.services.stream_service import REFUSED_WAIT
from aiostream_ds._grpc.call import Call
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import ANN, a_query, query_data, run_stream, subscribe, unary

pytestmark = pytest.mark.virtual


async def await_what_was_cancelled():
    task = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    task.cancel()
    await task


class Mode(Settings):
    mode: str = ""
    password: Secret = secret()


class Odd(DataSource[Mode]):
    opened = 0
    living: set[str] = set()

    @asynccontextmanager
    async def lifespan(self):
        type(self).opened += 1
        mode = self.settings.mode
        if mode == "cancelled":
            await await_what_was_cancelled()
        if mode == "exit":
            raise SystemExit(3)
        if mode == "hang":
            await anyio.sleep_forever()
        if mode == "slow failure":
            await anyio.sleep(0.15)
            raise OSError("refused")
        self.living.add(mode)
        try:
            with anyio.move_on_after(5 if mode == "short" else None):
                yield
        finally:
            self.living.discard(mode)

    @query("cancelled")
    async def cancelled(self, q: Query) -> Frame:
        await await_what_was_cancelled()
        return Frame()

    @query("exits")
    async def exits(self, q: Query) -> Frame:
        raise SystemExit(3)

    @query("fine")
    async def fine(self, q: Query) -> Frame:
        await anyio.sleep(1)
        return Frame()

    @stream("ends")
    async def ends(self):
        yield {"n": 1}
        await anyio.sleep(1)
        yield {"n": 2}

    @stream("ticks")
    async def ticks(self):
        while True:
            yield {"n": 1}
            await anyio.sleep(1)

    @stream("surrogates")
    async def surrogates(self):
        yield {"n": 1}
        raise OSError("no file \udcff")

    @stream("closed")
    async def closed(self):
        yield {"n": 1}

    @closed.subscribe
    async def admins(self, user) -> Any:
        return user.role == "Admin"

    async def health(self):
        return Health(message="fine", details={"url": f"me:{self.settings.password.reveal()}"})


@pytest.fixture(autouse=True)
def fresh():
    Odd.opened = 0
    Odd.living = set()


@pytest.mark.parametrize("mode", ["cancelled", "exit"])
async def test_a_lifespan_that_is_cancelled_or_exits_fails_alone(mode):
    async with serve_in_memory(Odd, settings={"mode": mode}) as grafana:
        ok, message = await grafana.health()
        assert not ok
        assert "author's code" in message
        await grafana.change_settings({"mode": ""})
        assert (await grafana.health())[0]


@pytest.mark.parametrize("kind", ["cancelled", "exits"])
async def test_a_query_that_is_cancelled_or_exits_leaves_its_neighbours_alone(kind):
    async with serve_in_memory(Odd) as grafana:
        found = await query_data(grafana, a_query("A", kind), a_query("B", "fine"))
    assert found["A"].status == 500
    assert "author's code" in found["A"].error
    assert found["B"].status == 200


@pytest.mark.parametrize("kind", ["cancelled", "exits"])
async def test_a_query_that_is_alone_and_is_cancelled_or_exits_is_a_bug_of_its_author(kind):
    async with serve_in_memory(Odd) as grafana:
        (found,) = (await query_data(grafana, a_query("A", kind))).values()
        (fine,) = (await query_data(grafana, a_query("A", "fine"))).values()
    assert found.status == 500
    assert "author's code" in found.error
    assert fine.status == 200


async def test_a_run_whose_last_rows_and_end_come_in_one_turn_ends_with_them():
    async with serve_in_memory(Odd) as grafana, run_stream(grafana, "ends") as call:
        packets = [packet.data async for packet in call]
    assert [json.loads(p)["data"]["values"][1] for p in packets] == [[1], [2]]


async def test_an_error_text_that_no_utf8_can_hold_still_ends_the_call(monkeypatch):
    # what the test runner itself captures of the log has to be text that UTF-8 can hold
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    async with serve_in_memory(Odd) as grafana:
        with pytest.raises(GRPCError) as caught:
            async with run_stream(grafana, "surrogates") as call:
                async for _ in call:
                    pass
    assert caught.value.status is Status.INTERNAL
    assert "\\udcff" in caught.value.message


async def test_a_hook_that_returns_a_verdict_lets_nobody_in():
    async with serve_in_memory(Odd) as grafana:
        with pytest.raises(GRPCError) as caught:
            await subscribe(grafana, "closed")
    assert "it refuses by raising" in caught.value.message


async def test_health_details_show_no_secret():
    async with serve_in_memory(Odd, secrets={"password": "hunter22"}) as grafana:
        request = pb.CheckHealthRequest(plugin_context=grafana.context(ANN))
        reply = await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
    assert json.loads(reply.json_details) == {"url": "me:***"}


async def test_a_run_that_cannot_open_its_data_source_says_so_late():
    async with serve_in_memory(Odd, settings={"mode": "slow failure"}) as grafana:
        before = anyio.current_time()
        with pytest.raises(GRPCError):
            async with run_stream(grafana, "ticks") as call:
                await call.recv_message()
        assert anyio.current_time() - before >= REFUSED_WAIT
    assert Odd.opened == 1


async def test_a_lifespan_that_does_not_open_is_given_up():
    async with serve_in_memory(Odd, settings={"mode": "hang"}) as grafana:
        before = anyio.current_time()
        ok, message = await grafana.health()
        assert not ok
        assert f"within {OPEN_TIMEOUT:g} s" in message
        assert anyio.current_time() - before == pytest.approx(OPEN_TIMEOUT, abs=1)


async def test_newer_settings_end_every_older_instance_also_behind_one_that_hangs():
    async with serve_in_memory(Odd, settings={"mode": "first"}) as grafana:
        await grafana.health()
        assert Odd.living == {"first"}
        await grafana.change_settings({"mode": "hang"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(grafana.health)
            await anyio.sleep(1)
            await grafana.change_settings({"mode": "third"})
            assert (await grafana.health())[0]
        await anyio.sleep(6)
        assert Odd.living == {"third"}


async def test_a_lifespan_that_ends_by_itself_takes_its_streams_along():
    async with serve_in_memory(Odd, settings={"mode": "short"}) as grafana:
        with pytest.raises(GRPCError) as caught:
            async with run_stream(grafana, "ticks") as call:
                async for _ in call:
                    pass
        assert caught.value.status is Status.UNAVAILABLE
        assert (await grafana.health())[0]
        assert Odd.opened == 2


async def test_older_settings_stay_out_when_the_newest_cannot_be_opened():
    async with serve_in_memory(Odd, settings={"mode": "old"}) as grafana:
        old = grafana.context(ANN)
        await grafana.health()
        await grafana.change_settings({"mode": "exit"})
        assert not (await grafana.health())[0]
        request = pb.CheckHealthRequest(plugin_context=old)
        reply = await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        assert "author's code" in reply.message
        await anyio.sleep(6)
        assert Odd.living == set()


async def test_a_reset_run_leaves_no_cycle_that_keeps_its_call():
    async with serve_in_memory(Odd) as grafana:
        async with run_stream(grafana, "ticks") as call:
            await call.recv_message()
        await anyio.sleep(1)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                async with run_stream(grafana, "ticks") as call:
                    await call.recv_message()
            del call
            await anyio.sleep(1)
            kept = [each for each in gc.get_objects() if isinstance(each, Call)]
            assert len(kept) <= 1
        finally:
            gc.enable()


async def test_the_living_data_source_sees_a_changed_grafana_config():
    seen = []

    class Curious(DataSource):
        async def health(self):
            seen.append(dict(self.grafana_config))
            return Health()

    async with serve_in_memory(Curious) as grafana:
        for url in ("http://one", "http://two"):
            context = grafana.context(ANN)
            context.grafana_config = {"GF_APP_URL": url}
            request = pb.CheckHealthRequest(plugin_context=context)
            await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
    assert seen == [{"GF_APP_URL": "http://one"}, {"GF_APP_URL": "http://two"}]
