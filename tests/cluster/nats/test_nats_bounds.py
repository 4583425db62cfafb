"""Bounds: of logs, of entries, of events that are not read, and of channels that nobody uses."""

import asyncio
import os

import pytest

from aiostream_ds._cluster.engine import (
    START,
    Appended,
    Entry,
    EntryId,
    EntryTooLarge,
    Fenced,
    Reconnected,
)
from aiostream_ds._cluster.nats import nats_events
from aiostream_ds._cluster.nats.nats_events import EventQueue
from aiostream_ds._cluster.nats.nats_subjects import Subjects
from tests.cluster.nats.engines import Writer, engine, next_event

CHANNELS = int(os.environ.get("AIOSTREAM_DS_NATS_CHANNELS", "1000"))
"""10,000 take some 20 seconds."""

slow = pytest.mark.slow


@slow
@pytest.mark.parametrize("with_schema", [1, 3, 12])
async def test_a_schema_outlives_the_entry_that_has_set_it(nats, with_schema):
    async with engine(nats, "a", entries=10) as a, engine(nats, "b", entries=10) as b:
        writer = Writer(a, "c", "a")
        await writer.take()
        expected = None
        for number in range(50):
            schema = b"schema %d" % number if number % 13 < with_schema and number < 14 else None
            await writer.write(1, schema)
            expected = schema or expected
            assert await b.schema("c") == expected
        await a.resign("c", "a", writer.last.term)
        assert await b.schema("c") == expected
        other = Writer(b, "c", "b")
        for _ in range(3):
            await other.take()
        await other.write(30)
        assert await a.schema("c") == expected
        payloads = [entry.payload for entry in (await a.read("c", START, 100)).entries]
        assert payloads == [b"%d" % number for number in range(20, 30)]


@slow
async def test_an_entry_and_its_schema_have_one_bound(nats):
    async with engine(nats, "a") as a:
        writer = Writer(a, "c", "a")
        await writer.take()
        half = b"x" * 600_000
        entry = Entry(EntryId(writer.last.term, 1), writer.last, half)
        with pytest.raises(EntryTooLarge, match="expected an entry of at most 1047552 bytes"):
            await a.append("c", entry, half)
        await a.append("c", entry, b"schema")
        assert await a.schema("c") == b"schema"


@slow
async def test_a_resignation_is_not_an_entry_wherever_it_is_in_the_log(nats):
    async with engine(nats, "a", entries=4) as a:
        writer = Writer(a, "c", "a")
        for _ in range(6):
            await writer.take()
            await writer.write()
            await a.resign("c", "a", writer.last.term)
            page = await a.read("c", START, 10)
            assert page.last == writer.last == page.entries[-1].id
            assert (await a.read("c", writer.last, 10)).entries == []
        assert page.truncated


@slow
async def test_a_read_after_an_id_that_was_not_seen_lately_finds_its_place(nats):
    async with engine(nats, "a") as a:
        writers = [Writer(a, f"c-{number}", "a") for number in range(5)]
        for writer in writers:
            await writer.take()
        for _ in range(20):
            await asyncio.gather(*(writer.write() for writer in writers))
        async with engine(nats) as other:  # has seen nothing
            for entry in writers[2].written:
                page = await other.read("c-2", entry.id, 3)
                start = entry.id.number
                assert list(page.entries) == writers[2].written[start : start + 3]


@slow
async def test_logs_of_channels_that_nobody_uses_are_removed(nats):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        a._sweep._idle = 0.0
        for channel in ("owned", "used", "resigned", "dead"):
            writer = Writer(a, channel, "dead" if channel == "dead" else "a")
            if channel == "dead":
                await a.renew("dead", 30.0)
                await a.enter("dead", "dead")
            await writer.take()
            await writer.write()
            if channel != "owned" and channel != "dead":
                await a.resign(channel, "a", writer.last.term)
        await b.enter("used", "b")
        await a.release("dead")
        await a.leave("dead", "dead")
        assert await a._sweep.sweep() == 1
        kept = {name for name in ("owned", "used", "resigned", "dead") if await rows(b, name)}
        assert kept == {"owned", "used", "dead"}
        await b.renew("dead", 30.0)
        await writer.write()  # it was only paused
        assert await rows(b, "dead") == 3
        await b.enter("dead", "dead")
        nats.purge("aiostream-ds.state.node.dead")
        assert await a._sweep.sweep() == 1
        assert not await rows(b, "dead")
        await b.renew("dead", 30.0)
        assert await b.members("dead") == frozenset()
        assert (await b.take("resigned", "b", b"x")).last == START


async def rows(engine, channel: str) -> int:
    return len((await engine.read(channel, START, 10)).entries)


@slow
async def test_logs_that_are_not_idle_long_enough_are_kept(nats):
    async with engine(nats, "a") as a:
        writer = Writer(a, "c", "a")
        await writer.take()
        await a.resign("c", "a", writer.last.term)
        assert await a._sweep.sweep() == 0


@slow
async def test_one_node_looks_for_unused_channels_at_a_time(nats):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        due = await asyncio.gather(*(each._sweep._is_due() for each in (a, b, a, b)))
        assert sum(due) == 1
        assert not await a._sweep._is_due()


@slow
@pytest.mark.timeout(120)
async def test_many_channels_are_taken_watched_and_appended_to(nats):
    names = [f"channel-{number}" for number in range(CHANNELS)]
    async with engine(nats, "a", timeout=30.0) as a, engine(nats, "b", timeout=30.0) as b:
        await asyncio.gather(*(b.watch(name) for name in names))
        await asyncio.gather(*(b.enter(name, "b") for name in names))
        writers = [Writer(a, name, "a") for name in names]
        await asyncio.gather(*(writer.take() for writer in writers))
        await asyncio.gather(*(writer.write(3) for writer in writers))
        found: dict[str, list[Entry]] = {name: [] for name in names}
        events = b.events()
        for _ in range(4 * CHANNELS):
            event = await anext(events)
            assert isinstance(event, Appended)
            found[event.channel].append(event.entry)
        assert all(found[each.channel][1:] == each.written for each in writers)
        nats.restart()
        await next_event(events, Reconnected)
        await asyncio.gather(*(writer.write() for writer in writers))
        again = {(await next_event(events, Appended)).channel for _ in names}
        assert again == set(names)


async def test_events_that_are_not_read_are_replaced_by_one_that_asks_for_a_check(monkeypatch):
    monkeypatch.setattr(nats_events, "MOST_EVENTS", 10)
    monkeypatch.setattr(nats_events, "MOST_BYTES", 1000)
    for count, size in ((11, 1), (4, 300)):
        queue = EventQueue()
        events = [
            Appended("c", Entry(EntryId(1, number), START, b"x" * size))
            for number in range(count + 2)
        ]
        for event in events:
            queue.put(event)
        queue.close()
        assert [each async for each in queue.read()] == [Reconnected(), *events[count:]]
        assert queue.drops == 1


async def test_subjects_of_two_names_do_not_meet():
    one, two = Subjects("one"), Subjects("two")
    assert one.log_of("c") != two.log_of("c") and one.log_stream != two.log_stream


@slow
async def test_messages_of_another_program_in_a_log_end_the_ownership_and_are_not_entries(nats):
    async with engine(nats, "a") as a:
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write()
        for payload in (b"", b"not an entry"):
            assert nats.call("aiostream-ds.log.c", payload)["seq"]
            with pytest.raises(Fenced):
                await writer.write()
            await writer.take()
            await writer.write()
        page = await a.read("c", START, 100)
        assert [entry.payload for entry in page.entries[1::2]] == [b"0", b"1", b"2"]
        assert nats.call("aiostream-ds.log.d", b"x")["seq"]
        assert await a.read("d", START, 10) == ([], START, False)
        assert (await a.take("d", "a", b"x")).taken


@slow
async def test_large_logs_are_read_at_the_same_time(nats):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        writers = [Writer(a, f"c-{number}", "a") for number in range(18)]
        for writer in writers:
            await writer.take()
            for _ in range(5):
                id = EntryId(writer.last.term, writer.last.number + 1)
                await a.append(writer.channel, Entry(id, writer.last, b"x" * 1_000_000))
                writer.last = id
        pages = await asyncio.gather(*(b.read(each.channel, START, 100) for each in writers))
        assert {len(page.entries) for page in pages} == {6}
        assert b._client.connection_number == 1  # the server has not closed it


@slow
async def test_nodes_have_any_names(nats):
    names = {"a.b c", "*", ">", "ä\n", "=", "-"}
    async with engine(nats) as a:
        for name in names:
            await a.renew(name, 30.0)
            await a.enter("c", name)
            channel = f"c-{name.encode().hex()}"
            assert (await a.take(channel, name, b"x")).taken
            assert (await a.take(channel, "other", b"x"))[:3:2] == (name, False)
        assert await a.members("c") == names
        await a.leave("c", "*")
        assert await a.members("c") == names - {"*"}
