"""A NATS server that is killed, restarted, silent, or has lost what it had acknowledged."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from aiostream_ds._cluster.engine import (
    START,
    Appended,
    EngineError,
    Entry,
    EntryId,
    Fenced,
    LogLost,
    Reconnected,
)
from aiostream_ds._cluster.nats.nats_engine import NatsEngine
from tests.cluster.nats.engines import PATIENCE, Writer, engine, next_event, settings
from tests.servers import Nats, Proxy, certificates

pytestmark = pytest.mark.slow  # real servers


@pytest.fixture
def server() -> Iterator[Nats]:
    with Nats(tls=certificates().server) as running:
        yield running


def through(proxy: Proxy, server: Nats) -> str:
    return server.url.replace(str(server.port), str(proxy.port))


async def test_a_killed_server_with_files_keeps_logs_and_the_engine_connects_again(server):
    async with engine(server, "a") as a, engine(server, "b") as b:
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write(10, schema=b"schema")
        await b.watch("c")
        events = b.events()
        server.restart()
        await next_event(events, Reconnected)
        await a.renew("a", 60.0)
        await writer.write(10)
        received = [(await next_event(events, Appended)).entry for _ in range(10)]
        assert received == writer.written[10:]
        assert list((await b.read("c", START, 100)).entries)[1:] == writer.written
        assert await b.schema("c") == b"schema"
        await b.renew("b", 60.0)
        assert not (await b.take("c", "b", b"x")).taken


async def test_a_killed_server_with_a_log_in_memory_has_lost_it_and_the_owner_gets_an_error(server):
    async with engine(server, "a", storage="memory") as a:
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write(5)
        events = a.events()
        server.restart()
        await next_event(events, Reconnected)
        assert await a.read("c", START, 10) == ([], START, False)
        with pytest.raises(LogLost, match="the log is gone"):
            await writer.write()
        before = writer.last.term
        await a.renew("a", 60.0)
        await writer.take()
        assert writer.last.term > before
        await writer.write(3)


@pytest.mark.parametrize("taken_by_another", [False, True])
async def test_acknowledged_entries_that_a_server_has_lost_are_noticed(server, taken_by_another):
    """As after a power cut: the server acknowledges before it syncs."""
    kept = server.folder / "kept"
    async with engine(server, "a") as a, engine(server, "b") as b:
        writer, other = Writer(a, "c", "a"), Writer(a, "other", "a")
        await writer.take()
        await other.take()
        await writer.write(3)
        server.kill()
        shutil.copytree(server.folder / "jetstream", kept)
        server.start()
        events = a.events()
        await next_event(events, Reconnected)
        await writer.write(4)
        await other.write(7)
        server.kill()
        shutil.rmtree(server.folder / "jetstream")
        kept.rename(server.folder / "jetstream")
        server.start()
        await next_event(events, Reconnected)
        assert (await a.read("c", START, 10)).last.number == 3 < writer.last.number
        if taken_by_another:
            await a.release("a")
            await b.renew("b", 60.0)
            second = Writer(b, "c", "b")
            await second.take()
            await second.write(20)  # uses the sequences of the lost entries again
            with pytest.raises(Fenced):
                await writer.write()
        else:
            with pytest.raises(LogLost):
                await writer.write()
            await a.renew("a", 60.0)
            await writer.take()
            await writer.write()


async def test_a_connection_that_is_cut_is_opened_again_with_its_watches(server):
    with Proxy(server.port) as proxy:
        async with engine(server, "a") as a, engine(server, url=through(proxy, server)) as b:
            writer = Writer(a, "c", "a")
            await writer.take()
            await b.watch("c")
            events = b.events()
            for number in range(3):
                proxy.cut()
                await next_event(events, Reconnected)
                await writer.write()
                assert (await next_event(events, Appended)).entry == writer.written[number]


async def test_calls_fail_in_time_while_the_server_is_away_and_work_afterwards(server):
    with Proxy(server.port) as proxy:
        async with engine(server, "a", url=through(proxy, server), timeout=0.5) as a:
            writer = Writer(a, "c", "a")
            await writer.take()
            proxy.refuse()
            started = asyncio.get_running_loop().time()
            with pytest.raises(EngineError):
                await writer.write()
            with pytest.raises(EngineError, match="not connected"):
                await a.read("c", START, 10)
            assert asyncio.get_running_loop().time() - started < 3
            events = a.events()
            proxy.restore()
            await next_event(events, Reconnected)
            await writer.write(2)
            assert len((await a.read("c", START, 10)).entries) == 3


async def test_a_silent_server_is_given_up_and_connected_to_again(server):
    with Proxy(server.port) as proxy:
        async with engine(server, "a", url=through(proxy, server), timeout=0.5) as a:
            events = a.events()
            proxy.hold()
            with pytest.raises(EngineError, match="does not answer"):
                await a.renew("a", 1.0)
            accepted = proxy.accepted
            async with asyncio.timeout(PATIENCE):
                while proxy.accepted == accepted:
                    await asyncio.sleep(0.05)
            proxy.restore()
            await next_event(events, Reconnected)
            await a.renew("a", 1.0)


async def test_an_answer_that_got_lost_does_not_append_twice(server):
    with Proxy(server.port) as proxy:
        async with (
            engine(server, "a", url=through(proxy, server)) as a,
            engine(server) as witness,
        ):
            await witness.watch("c")
            seen = witness.events()
            writer = Writer(a, "c", "a")
            await writer.take()
            await next_event(seen, Appended)
            events = a.events()
            for number in range(1, 6):
                entry = Entry(EntryId(writer.last.term, number), writer.last, b"%d" % number)
                appending = asyncio.create_task(a.append("c", entry, b"schema"))
                await next_event(seen, Appended)  # it is stored
                proxy.cut()
                await asyncio.gather(appending, return_exceptions=True)
                await next_event(events, Reconnected)
                await a.append("c", entry, b"schema")
                writer.last = entry.id
            page = await a.read("c", START, 100)
            assert [each.id.number for each in page.entries] == list(range(6))


async def test_a_take_whose_answer_got_lost_returns_the_term_that_it_has_made(server):
    with Proxy(server.port) as proxy:
        async with (
            engine(server, "a", url=through(proxy, server)) as a,
            engine(server) as witness,
        ):
            await witness.watch("c")
            seen, events = witness.events(), a.events()
            taking = asyncio.create_task(a.take("c", "a", b"nonce"))
            stored = (await next_event(seen, Appended)).entry
            proxy.cut()
            await asyncio.gather(taking, return_exceptions=True)
            await next_event(events, Reconnected)
            taken = await a.take("c", "a", b"nonce")
            assert (taken.taken, taken.term) == (True, stored.id.term)
            assert len((await a.read("c", START, 10)).entries) == 1


async def waiting_write(writer: Writer) -> asyncio.Task[None]:
    """An append that waits for the connection. One that was sent before it was lost fails."""
    while True:
        task = asyncio.create_task(writer.write())
        await asyncio.wait([task], timeout=0.2)
        if not task.done():
            return task
        with pytest.raises(EngineError):
            await task


async def test_a_call_that_waited_for_the_connection_does_not_append_blindly(server):
    """The server may have lost entries with the connection, and used their sequences again."""
    with Proxy(server.port) as proxy:
        async with engine(server, "a", url=through(proxy, server)) as a, engine(server) as b:
            writer = Writer(a, "c", "a")
            await writer.take()
            await writer.write()
            proxy.refuse()
            appending = await waiting_write(writer)
            await b.release("a")
            await b.renew("b", 60.0)
            taken = await b.take("c", "b", b"x")
            assert taken.taken
            proxy.restore()
            with pytest.raises(Fenced):
                await appending
            assert (await b.read("c", START, 10)).last == (taken.term, 0)


async def test_a_purged_log_is_noticed_and_a_deleted_stream_is_made_again(server):
    async with engine(server, "a") as a:
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write(2)
        server.purge("aiostream-ds.log.c")
        with pytest.raises(LogLost):
            await writer.write()
        await writer.take()
        server.delete_streams()
        with pytest.raises(LogLost):
            await writer.write()
        await a.renew("a", 60.0)
        await writer.take()
        await writer.write()


async def test_an_engine_that_is_closed_while_the_server_is_away_leaves_nothing(server):
    opened = NatsEngine(settings(server))
    await opened.open()
    waiting = asyncio.create_task(opened.members("c"))
    server.kill()
    await asyncio.sleep(0.1)
    await opened.aclose()
    await opened.aclose()
    with pytest.raises(EngineError):
        await opened.renew("a", 1.0)
    await asyncio.gather(waiting, return_exceptions=True)
    names = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
    assert names == set()
    assert [event async for event in opened.events()] == []


async def test_an_engine_that_could_not_be_opened_is_opened_later(server):
    server.kill()
    opened = NatsEngine(settings(server))
    for _ in range(2):
        with pytest.raises(EngineError, match="Connection refused"):
            await opened.open()
    server.start()
    opening = asyncio.create_task(opened.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await opened.open()
    writer = Writer(opened, "c", "a")
    await writer.take()
    await writer.write()
    await opened.aclose()


async def test_a_watcher_that_is_too_slow_for_the_server_gets_an_event_and_reads_the_log(server):
    server.extra = {"max_pending": 8 << 20}
    server.restart()
    with Proxy(server.port) as proxy:
        async with engine(server, "a") as a, engine(server, url=through(proxy, server)) as b:
            await b.watch("c")
            events = b.events()
            writer = Writer(a, "c", "a")
            await writer.take()
            await next_event(events, Appended)
            proxy.hold()
            for number in range(1, 101):
                entry = Entry(EntryId(writer.last.term, number), writer.last, b"x" * 300_000)
                await a.append("c", entry)
                writer.last = entry.id
            async with asyncio.timeout(PATIENCE):
                while "Slow Consumer" not in server.log:
                    await asyncio.sleep(0.05)
            proxy.restore()
            await next_event(events, Reconnected)
            last, read = START, 0
            while page := (await b.read("c", last, 100)).entries:
                last, read = page[-1].id, read + len(page)
            assert (last, read) == (writer.last, 101)
