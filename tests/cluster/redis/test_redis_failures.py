"""One server that fails: restarts, lost writes, cut and silent connections, pauses."""

import asyncio
import os
import time
from collections.abc import Iterator

import pytest
import uvloop

from aiostream_ds._cluster.engine import START, EngineError, EntryId, LogLost
from tests.servers import Redis, certificates
from tests.servers.proxy import Proxy
from tests.waiting import until

from .engines import EngineRedis, Events, Writer, engine, evict, opened, payloads

pytestmark = pytest.mark.slow

BOUND = 6.0  # seconds within which a call ends, whatever the server does


@pytest.fixture(scope="module")
def running() -> Iterator[Redis]:
    with EngineRedis() as found:
        found.extra = {"enable-debug-command": "local"}
        found.restart()
        yield found


@pytest.fixture
def server(running: Redis) -> Redis:
    running.call("FLUSHALL")
    return running


async def test_a_server_that_was_killed_goes_on_with_its_log(server):
    async with opened(engine(server)) as found, Events(found) as events:
        writer = Writer(found)
        await found.watch("c")
        await writer.take()
        await writer.append()
        await asyncio.to_thread(server.restart)
        await until(lambda: events.reconnected)
        await writer.append()
        await until(lambda: events.payloads()[-1:] == [b"1"])
        assert await payloads(found) == [b"0", b"1"]


@pytest.mark.parametrize("how", ["empty restart", "flush", "evicted log", "evicted state"])
async def test_lost_entries_are_noticed_by_the_owner_which_goes_on_in_a_higher_term(how):
    with EngineRedis() as server:
        server.extra = {"appendonly": "no"}
        server.restart()
        async with opened(engine(server)) as found:
            writer = Writer(found)
            term = (await writer.take()).term
            await writer.append()
            if how == "empty restart":
                await asyncio.to_thread(server.restart)
            elif how == "flush":
                server.call("FLUSHALL")
            elif how == "evicted log":
                evict([server], "c")
            else:
                server.call("DEL", "test:{0}:state:c")
            with pytest.raises(LogLost):
                await writer.append()
            taken = await writer.take()
            assert taken.term > term
            assert taken.last == ((term, 1) if how == "evicted state" else START)
            await writer.append()
            assert (await payloads(found))[-1] == b"1"


async def test_while_the_server_is_away_calls_fail_within_seconds_and_then_work_again(server):
    async with opened(engine(server)) as found:
        writer = Writer(found)
        await writer.take()
        await asyncio.to_thread(server.kill)
        try:
            started = time.monotonic()
            calls = found.renew("a", 1), found.watch("d"), writer.append()
            errors = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started < BOUND
            for error in errors:
                assert isinstance(error, EngineError) and "refuses the connection" in str(error)
        finally:
            await asyncio.to_thread(server.start)
        await writer.append()
        assert await payloads(found) == [b"0"]


async def test_a_silent_connection_is_replaced_and_calls_through_it_are_repeated(server):
    with Proxy(server.port) as proxy:
        async with opened(engine(server, proxy.port)) as found, Events(found) as events:
            writer = Writer(found)
            await found.watch("c")
            await writer.take()
            await writer.append()
            proxy.hold()
            started = time.monotonic()
            with pytest.raises(EngineError, match="does not answer in time"):
                await writer.append()
            assert time.monotonic() - started < BOUND
            proxy.cut()
            proxy.restore()
            await until(lambda: events.reconnected)
            await writer.append()
            await until(lambda: events.payloads()[-1:] == [b"1"])
            assert await payloads(found) == [b"0", b"1"]


async def test_a_silent_connection_without_calls_is_noticed(server):
    with Proxy(server.port) as proxy:
        async with opened(engine(server, proxy.port)) as found, Events(found) as events:
            await found.watch("c")
            proxy.hold()
            await asyncio.sleep(0)
            accepted = proxy.accepted
            await until(lambda: proxy.accepted > accepted)  # after a PING without an answer
            proxy.cut()
            proxy.restore()
            await until(lambda: events.reconnected)


async def test_entries_are_in_the_log_once_however_often_the_connection_is_cut(server):
    with Proxy(server.port) as proxy:
        async with opened(engine(server, proxy.port)) as found:
            writers = [Writer(found, f"c{number}") for number in range(20)]
            await asyncio.gather(*(writer.take() for writer in writers))
            is_done = asyncio.Event()

            async def cut() -> None:
                while not is_done.is_set():
                    await asyncio.sleep(0.02)
                    await asyncio.to_thread(proxy.cut)

            async def write(writer: Writer) -> None:
                for _ in range(100):
                    await writer.append()

            cutting = asyncio.create_task(cut())
            await asyncio.gather(*map(write, writers))
            is_done.set()
            await cutting
            assert proxy.accepted > 4
            expected = [b"%d" % number for number in range(100)]
            for writer in writers:
                assert await payloads(found, writer.channel) == expected


@pytest.mark.parametrize("seconds", [1, 6])
async def test_a_server_that_sleeps_delays_calls_or_fails_them(server, seconds):
    async with opened(engine(server)) as found, Events(found) as events:
        writer = Writer(found)
        await found.watch("c")
        await writer.take()
        sleep = asyncio.create_task(asyncio.to_thread(_sleep, server, seconds))
        await until(lambda: found_asleep(server))
        if seconds > 3:
            with pytest.raises(EngineError, match="in time"):
                await writer.append()
        else:
            await writer.append()
            assert not events.reconnected
        await sleep
        if seconds > 3:
            await until(lambda: events.reconnected)
            await writer.append()  # what had an unknown effect, again
        assert await payloads(found) == [b"0"]
        await until(lambda: b"0" in events.payloads() or events.reconnected)


def _sleep(server: Redis, seconds: int) -> None:
    with server.connect() as connection:
        connection.settimeout(seconds + 5)
        connection.sendall(b"AUTH %s\r\nDEBUG SLEEP %d\r\n" % (server.password.encode(), seconds))
        answers = b""
        while len(answers) < len(b"+OK\r\n+OK\r\n"):  # the first one may come with the second
            answers += connection.recv(16)


def found_asleep(server: Redis) -> bool:
    try:
        with server.connect() as connection:
            connection.settimeout(0.5)  # a server that is only slow answers
            connection.sendall(b"AUTH %s\r\n" % server.password.encode())
            return not connection.recv(1)
    except TimeoutError:
        return True


async def test_a_server_that_forgot_the_scripts_gets_them_again(server):
    async with opened(engine(server)) as found:
        writer = Writer(found)
        await writer.take()
        server.call("SCRIPT", "FLUSH")
        await writer.append()
        assert await payloads(found) == [b"0"]


async def test_a_script_is_sent_once_however_many_calls_need_it(server):
    server.call("SCRIPT", "FLUSH")
    async with opened(engine(server)) as found:
        server.call("CONFIG", "RESETSTAT")
        writers = [Writer(found, f"c{number}") for number in range(200)]
        await asyncio.gather(*(writer.take() for writer in writers))
        await asyncio.gather(*(writer.append() for writer in writers))
        assert b"cmdstat_eval:calls=2," in server.call("INFO", "commandstats")


async def test_a_server_without_memory_is_named_and_loses_nothing(server):
    async with opened(engine(server)) as found:
        writer = Writer(found)
        await writer.take()
        await writer.append()
        server.call("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(EngineError, match="maxmemory"):
                await writer.append()
        finally:
            server.call("CONFIG", "SET", "maxmemory", "0")
        await writer.append()
        assert await payloads(found) == [b"0", b"1"]


async def test_a_lost_connection_is_reported_when_all_channels_are_watched_again(server):
    count = int(os.environ.get("AIOSTREAM_DS_CLUSTER_CHANNELS", "2000"))
    with Proxy(server.port) as proxy:
        async with opened(engine(server, proxy.port)) as found, Events(found) as events:
            names = [f"c{number}" for number in range(count)]
            await asyncio.gather(*map(found.watch, names))
            await asyncio.to_thread(proxy.cut)
            await until(lambda: events.reconnected)
            writers = [Writer(found, name) for name in names]
            await asyncio.gather(*(writer.take() for writer in writers))
            await asyncio.gather(*(writer.append() for writer in writers))
            await until(lambda: len(events.payloads()) == count)


async def test_events_that_are_not_read_are_dropped_and_reported(server, caplog):
    async with opened(engine(server)) as found:
        await found.watch("c")
        writer = Writer(found)
        await writer.take()
        found.event_limit = 10
        for _ in range(20):
            await writer.append()
        await until(lambda: "10 events of the cluster were not read in time" in caplog.text)
        async with Events(found) as events:
            await writer.append(b"end")
            await until(lambda: events.payloads()[-1:] == [b"end"])
            assert events.reconnected == 1 and len(events.payloads()) < 21


async def test_events_that_wait_are_bounded_in_bytes(server):
    async with opened(engine(server)) as found:
        found.byte_limit = 1_000_000
        await found.watch("c")
        writer = Writer(found)
        await writer.take()
        for _ in range(8):
            await writer.append(b"x" * 300_000)
        await writer.append(b"end")
        async with Events(found) as events:
            await until(lambda: events.payloads()[-1:] == [b"end"])
            assert events.reconnected == 1 and len(events.payloads()) < 4


async def test_calls_that_wait_for_a_connection_fail_when_the_engine_is_closed(server):
    with Proxy(server.port) as proxy:
        proxy.hold()
        found = engine(server, proxy.port)
        calls = [asyncio.create_task(found.read("c", START, 1)) for _ in range(3)]
        await until(lambda: proxy.accepted)
        await found.aclose()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [EngineError] * 3


async def test_after_aclose_nothing_is_left_and_events_end(server):
    found = engine(server)
    async with Events(found) as events:
        async with opened(found):
            await found.watch("c")
        await until(lambda: events.has_ended)
    with pytest.raises(EngineError):
        await found.read("c", EntryId(0, 0), 1)


def test_a_plugin_process_which_has_uvloop_uses_the_engine_over_a_cut_connection():
    async def use(server: Redis, proxy: Proxy) -> list[bytes]:
        async with opened(engine(server, proxy.port)) as found, Events(found) as events:
            writer = Writer(found)
            await found.watch("c")
            await writer.take()
            await writer.append(b"x" * 1_000_000)
            await asyncio.to_thread(proxy.cut)
            await until(lambda: events.reconnected)
            await writer.append()
            await until(lambda: events.payloads()[-1:] == [b"1"])
            return await payloads(found)

    with (
        EngineRedis(tls=certificates().server, client_ca=certificates().ca) as server,
        Proxy(server.port) as proxy,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        assert runner.run(use(server, proxy)) == [b"x" * 1_000_000, b"1"]


async def test_a_lease_that_is_renewed_again_is_counted_from_the_later_request(server):
    with Proxy(server.port) as proxy:
        async with opened(engine(server, proxy.port)) as found:
            proxy.hold()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await found.renew("a", 1)
            again = asyncio.create_task(found.renew("a", 60))
            await asyncio.sleep(0)
            proxy.restore()
            await again
            await found.renew("b", 60)
            assert b" 60000" in server.call("HGET", "test:{0}:leases", "a")
