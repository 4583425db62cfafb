"""Author's code that cancels itself, exits or hangs affects only its own call."""

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


async def await_cancelled_task():
    task = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    task.cancel()
    await task


class Mode(Settings):
    mode: str = ""
    password: Secret = secret()


class Misbehaving(DataSource[Mode]):
    opened = 0
    alive: set[str] = set()

    @asynccontextmanager
    async def lifespan(self):
        type(self).opened += 1
        mode = self.settings.mode
        if mode == "cancelled":
            await await_cancelled_task()
        if mode == "exit":
            raise SystemExit(3)
        if mode == "hang":
            await anyio.sleep_forever()
        if mode == "slow failure":
            await anyio.sleep(0.15)
            raise OSError("refused")
        self.alive.add(mode)
        try:
            with anyio.move_on_after(5 if mode == "short" else None):
                yield
        finally:
            self.alive.discard(mode)

    @query("cancelled")
    async def cancelled(self, q: Query) -> Frame:
        await await_cancelled_task()
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
    Misbehaving.opened = 0
    Misbehaving.alive = set()


@pytest.mark.parametrize("mode", ["cancelled", "exit"])
async def test_a_lifespan_that_is_cancelled_or_exits_fails_only_its_instance(mode):
    async with serve_in_memory(Misbehaving, settings={"mode": mode}) as grafana:
        ok, message = await grafana.health()
        assert not ok
        assert "author's code" in message
        await grafana.change_settings({"mode": ""})
        assert (await grafana.health())[0]


@pytest.mark.parametrize("kind", ["cancelled", "exits"])
async def test_a_query_that_is_cancelled_or_exits_does_not_affect_the_others(kind):
    async with serve_in_memory(Misbehaving) as grafana:
        found = await query_data(grafana, a_query("A", kind), a_query("B", "fine"))
    assert found["A"].status == 500
    assert "author's code" in found["A"].error
    assert found["B"].status == 200


@pytest.mark.parametrize("kind", ["cancelled", "exits"])
async def test_a_single_query_that_is_cancelled_or_exits_is_an_authors_bug(kind):
    async with serve_in_memory(Misbehaving) as grafana:
        (found,) = (await query_data(grafana, a_query("A", kind))).values()
        (fine,) = (await query_data(grafana, a_query("A", "fine"))).values()
    assert found.status == 500
    assert "author's code" in found.error
    assert fine.status == 200


async def test_a_run_that_ends_right_after_its_last_row_delivers_it():
    async with serve_in_memory(Misbehaving) as grafana, run_stream(grafana, "ends") as call:
        packets = [packet.data async for packet in call]
    assert [json.loads(p)["data"]["values"][1] for p in packets] == [[1], [2]]


async def test_an_error_message_that_is_invalid_in_utf8_still_ends_the_call(monkeypatch):
    # pytest cannot write such a log line
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    async with serve_in_memory(Misbehaving) as grafana:
        with pytest.raises(GRPCError) as caught:
            async with run_stream(grafana, "surrogates") as call:
                async for _ in call:
                    pass
    assert caught.value.status is Status.INTERNAL
    assert "\\udcff" in caught.value.message


async def test_a_subscribe_hook_that_returns_a_value_refuses_everybody():
    async with serve_in_memory(Misbehaving) as grafana:
        with pytest.raises(GRPCError) as caught:
            await subscribe(grafana, "closed")
    assert "must return None, got False" in caught.value.message


async def test_health_details_do_not_contain_secrets():
    async with serve_in_memory(Misbehaving, secrets={"password": "hunter22"}) as grafana:
        request = pb.CheckHealthRequest(plugin_context=grafana.context(ANN))
        reply = await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
    assert json.loads(reply.json_details) == {"url": "me:***"}


async def test_a_run_whose_data_source_does_not_open_fails_after_a_delay():
    async with serve_in_memory(Misbehaving, settings={"mode": "slow failure"}) as grafana:
        before = anyio.current_time()
        with pytest.raises(GRPCError):
            async with run_stream(grafana, "ticks") as call:
                await call.recv_message()
        assert anyio.current_time() - before >= REFUSED_WAIT
    assert Misbehaving.opened == 1


async def test_a_lifespan_that_does_not_open_in_time_is_cancelled():
    async with serve_in_memory(Misbehaving, settings={"mode": "hang"}) as grafana:
        before = anyio.current_time()
        ok, message = await grafana.health()
        assert not ok
        assert f"within {OPEN_TIMEOUT:g} s" in message
        assert anyio.current_time() - before == pytest.approx(OPEN_TIMEOUT, abs=1)


async def test_newer_settings_end_all_older_instances_even_if_one_hangs():
    async with serve_in_memory(Misbehaving, settings={"mode": "first"}) as grafana:
        await grafana.health()
        assert Misbehaving.alive == {"first"}
        await grafana.change_settings({"mode": "hang"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(grafana.health)
            await anyio.sleep(1)
            await grafana.change_settings({"mode": "third"})
            assert (await grafana.health())[0]
        await anyio.sleep(6)
        assert Misbehaving.alive == {"third"}


async def test_a_lifespan_that_ends_by_itself_ends_its_streams():
    async with serve_in_memory(Misbehaving, settings={"mode": "short"}) as grafana:
        with pytest.raises(GRPCError) as caught:
            async with run_stream(grafana, "ticks") as call:
                async for _ in call:
                    pass
        assert caught.value.status is Status.UNAVAILABLE
        assert (await grafana.health())[0]
        assert Misbehaving.opened == 2


async def test_older_settings_are_not_used_again_if_the_newest_fail_to_open():
    async with serve_in_memory(Misbehaving, settings={"mode": "old"}) as grafana:
        old = grafana.context(ANN)
        await grafana.health()
        await grafana.change_settings({"mode": "exit"})
        assert not (await grafana.health())[0]
        request = pb.CheckHealthRequest(plugin_context=old)
        reply = await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        assert "author's code" in reply.message
        await anyio.sleep(6)
        assert Misbehaving.alive == set()


@pytest.mark.slow
async def test_a_reset_run_does_not_leave_a_reference_cycle():
    async with serve_in_memory(Misbehaving) as grafana:
        async with run_stream(grafana, "ticks") as call:
            await call.recv_message()
        await anyio.sleep(1)
        gc.collect()
        before = [each for each in gc.get_objects() if isinstance(each, Call)]
        gc.disable()
        try:
            for _ in range(20):
                async with run_stream(grafana, "ticks") as call:
                    await call.recv_message()
            del call
            await anyio.sleep(1)
            calls = [each for each in gc.get_objects() if isinstance(each, Call)]
            assert len([each for each in calls if each not in before]) <= 1
        finally:
            gc.enable()


async def test_an_open_data_source_gets_a_changed_grafana_config():
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
