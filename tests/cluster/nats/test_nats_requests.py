"""How many requests the server gets when a process with many channels dies."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from aiostream_ds._cluster.engine import (
    LARGEST_NUMBER,
    START,
    Appended,
    EntryId,
    Reconnected,
)
from aiostream_ds._cluster.nats import nats_tails
from aiostream_ds._cluster.nats.nats_client import NatsClient
from tests.cluster.nats.engines import Writer, engine, next_event

pytestmark = pytest.mark.slow  # real servers

NAMES = [f"c{number}" for number in range(50)]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts requests by the last word of an operation, or the kind of what is stored."""
    found: Counter[str] = Counter()
    exchange = NatsClient._exchange

    async def count(self: NatsClient, subject: str, *arguments: Any, **named: Any) -> Any:
        words = subject.split(".")
        found[".".join(words[2:-1] if words[0] == "$JS" else words[1:2])] += 1
        return await exchange(self, subject, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(NatsClient, "_exchange", count)
        yield found


async def written(engine: Any, node: str, schema: bytes | None = None) -> Sequence[Writer]:
    writers = [Writer(engine, name, node) for name in NAMES]
    for writer in writers:
        await writer.take()
        await writer.write(1, schema)
        await writer.write(2)
    return writers


async def heard(engine: Any, count: int) -> None:
    events = engine.events()
    for _ in range(count):
        await next_event(events, Appended)


async def test_channels_that_were_watched_are_taken_without_a_question_for_their_ends(
    nats, monkeypatch
):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        await asyncio.gather(*(b.watch(name) for name in NAMES))
        writers = await written(a, "a", b"schema")
        await heard(b, 4 * len(NAMES))
        await a.release("a")
        with counted(monkeypatch) as requests:
            taken = await asyncio.gather(*(b.take(name, "b", b"x") for name in NAMES))
        assert all(each.taken for each in taken)
        assert [each.last for each in taken] == [each.last for each in writers]
        assert requests["log"] == len(NAMES)
        assert requests["DIRECT.GET"] <= 3  # the leases
        assert await b.schema(NAMES[0]) == b"schema"


async def test_a_node_joins_long_logs_with_few_requests(nats, monkeypatch):
    monkeypatch.setattr(nats_tails, "_FRESH", 60.0)  # however slow the machine is
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        writers = [Writer(a, name, "a") for name in NAMES]
        for writer in writers:
            await writer.take()
        for number in range(150):
            schema = None if number else b"schema"
            await asyncio.gather(*(writer.write(1, schema) for writer in writers))

        async def join(writer: Writer) -> None:
            await b.watch(writer.channel)
            taken = await b.take(writer.channel, "b", b"x")
            assert not taken.taken and taken.last == writer.last
            after = EntryId(taken.last.term, taken.last.number - 101)
            page = await b.read(writer.channel, after, 256)
            assert list(page.entries) == writer.written[-101:] and page.last == writer.last
            assert await b.schema(writer.channel) == b"schema"

        with counted(monkeypatch) as requests:
            await asyncio.gather(*map(join, writers))
        # of each: the last message, a page, the message with the schema; together: the leases
        assert requests["DIRECT.GET"] <= 3 * len(NAMES) + 10


async def test_a_young_term_is_joined_without_what_was_before(nats, monkeypatch):
    monkeypatch.setattr(nats_tails, "_FRESH", 60.0)
    async with engine(nats, "a") as a, engine(nats, "b") as b, engine(nats, "c") as c:
        for name in NAMES:
            old, young = Writer(a, name, "a"), Writer(b, name, "b")
            await old.take()
            await old.write(20)
            await a.resign(name, "a", old.last.term)
            await young.take()
            await young.write(1)

        async def join(name: str) -> None:
            await c.watch(name)
            last = (await c.take(name, "c", b"x")).last
            page = await c.read(name, EntryId(last.term - 1, LARGEST_NUMBER), 256)
            assert [each.id for each in page.entries] == [EntryId(last.term, 0), last]
            assert not page.truncated

        with counted(monkeypatch) as requests:
            await asyncio.gather(*map(join, NAMES))
        assert requests["DIRECT.GET"] <= 2 * len(NAMES) + 10


async def test_a_node_that_joins_does_not_miss_what_comes_after_its_first_question(nats):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write(3)
        assert (await b.take("c", "b", b"x")).last == writer.last
        await writer.write()
        assert (await b.read("c", START, 10)).last == writer.last  # nothing was watched
        await b.watch("c")
        assert (await b.take("c", "b", b"x")).last == writer.last
        await writer.write()
        await heard(b, 1)
        assert (await b.read("c", START, 10)).last == writer.last
        assert (await b.read("c", writer.written[-2].id, 10)).last == writer.last


@pytest.mark.parametrize("burst", [0, 40, 110])
async def test_a_place_in_a_log_that_was_written_in_bursts_is_found(nats, burst):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        others = [Writer(a, f"other-{number}", "a") for number in range(10)]
        writer = Writer(a, "c", "a")
        for each in (*others, writer):
            await each.take()
        await writer.write(burst)
        for _ in range(40):
            await writer.write()
            await asyncio.gather(*(each.write() for each in others))
        await writer.write(burst)
        for entry in writer.written[::7]:
            page = await b.read("c", entry.id, 9)
            start = entry.id.number
            assert list(page.entries) == writer.written[start : start + 9]
            b._logs.forget()


async def test_a_channel_is_not_taken_after_a_message_that_is_not_the_last_one(nats):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        await b.watch("c")
        writer = Writer(a, "c", "a")
        await writer.take()
        await heard(b, 1)
        seen = b._logs._ends.get("c", 1)
        await writer.write(2)
        await heard(b, 2)
        b._logs._ends.set("c", seen)  # as if the others were on their way still
        await a.release("a")
        taken = await b.take("c", "b", b"x")
        assert taken.taken
        assert taken.last == writer.last
        page = await b.read("c", START, 10)
        assert [each.previous for each in page.entries[1:]] == [
            each.id for each in page.entries[:-1]
        ]


async def test_a_schema_is_kept_after_a_take_that_did_not_read_it(nats):
    async with engine(nats, "a", entries=8) as a, engine(nats, "b", entries=8) as b:
        await b.watch("c")
        first = Writer(a, "c", "a")
        await first.take()
        await first.write(1, b"schema")
        await first.write(1)
        await heard(b, 3)
        await a.release("a")
        second = Writer(b, "c", "b")
        await second.take()
        await second.write(20)  # the message with the schema is removed meanwhile
        assert await b.schema("c") == b"schema"


async def test_nodes_that_watch_at_the_same_time_wait_for_one_answer(nats, monkeypatch):
    async with engine(nats, "a") as a:
        with counted(monkeypatch) as requests:
            await asyncio.gather(*(a.watch(name) for name in NAMES))
        assert requests["DIRECT.GET"] <= 2


async def test_many_leases_are_ended_with_one_question_for_all(nats, monkeypatch):
    dead = [f"dead-{number}" for number in range(20)]
    async with engine(nats, "a") as a:
        for node in dead:
            await a.renew(node, 60.0)
        await a.renew("a", 60.0)
        with counted(monkeypatch) as requests:
            await asyncio.gather(*(a.end_lease(node, 0.0) for node in dead))
        assert requests["DIRECT.GET"] <= 3
        assert requests["state"] == len(dead)
        assert set(await a.nodes()) == {"a"}


async def test_a_stream_that_begins_again_is_one_loss_and_not_one_for_each_message(nats):
    async with engine(nats, "a") as a:
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write(30)
        nats.delete_streams()
        await a.renew("a", 60.0)
        again = Writer(a, "d", "a")
        await again.take()
        await again.write(20)
        events = a.events()
        await a.watch("end")
        await a.send("end", b"")
        losses = 0
        async for event in events:
            if not isinstance(event, Reconnected):
                break
            losses += 1
        assert losses == 1


async def test_a_lease_that_was_ended_is_not_valid_however_late_the_answers_are(nats, monkeypatch):
    async with engine(nats, "a") as a, engine(nats, "b") as b:
        renewal = b._presence._renewal
        late = renewal._replace(answered=renewal.answered + 0.5)
        monkeypatch.setattr(b._presence, "_renewal", late)
        assert set(await b.nodes()) == {"a", "b"}
        await a.release("a")
        assert set(await b.nodes()) == {"b"}
        await a.renew("a", 60.0)
        await b.end_lease("a", -1.0)
        assert set(await b.nodes()) == {"b"}
