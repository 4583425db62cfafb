"""What every cluster engine has to do: run against the model and against real servers.

A test module subclasses `EngineContract` and has a fixture `server` that returns a `Server`:

    class TestRedis(EngineContract):
        @pytest_asyncio.fixture
        async def server(self): …
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import pytest
import pytest_asyncio

from aiostream_ds._cluster.engine import (
    LARGEST_NUMBER,
    START,
    Appended,
    Engine,
    Entry,
    EntryId,
    EntryTooLarge,
    Event,
    Fenced,
    LogLost,
    Resigned,
    Sent,
)

LEASE = 30.0  # seconds: does not end during a test
SHORT = 1.0  # seconds: the shortest lease that every engine has
PATIENCE = 8.0  # seconds until something has to happen
EVERYTHING = bytes(range(256))


class Server(Protocol):
    """A server for one test.

    Attributes:
        too_large: bytes of an entry that it refuses; None: there is no such size.
        entries: how many entries of a log are kept at least.
        removes_after: with so many entries, the oldest ones are removed.
    """

    too_large: int | None
    entries: int
    removes_after: int

    async def connect(self) -> Engine:
        """A new connection, opened. The fixture closes it."""

    async def evict(self, channel: str) -> None:
        """Remove the log of a channel, as a server does that is out of memory."""


class Watcher:
    """The events of an engine, as a task collects them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    async def collect(self) -> None:
        async for event in self.engine.events():
            self.events.append(event)
            self._changed.set()

    async def wait_for(self, count: int) -> list[Event]:
        """Wait until there were so many events."""
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.events


async def eventually(ask: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes: for what ends by the server's clock."""
    async with asyncio.timeout(PATIENCE):
        while not await ask():
            await asyncio.sleep(0.05)


async def write(engine: Engine, channel: str, term: int, previous: EntryId, payload: bytes) -> Any:
    """Append the next entry of a term; returns it."""
    number = previous.number + 1 if previous.term == term else 1
    entry = Entry(EntryId(term, number), previous, payload)
    await engine.append(channel, entry)
    return entry


async def write_many(engine: Engine, channel: str, term: int, count: int) -> list[Entry]:
    previous = EntryId(term, 0)
    entries: list[Entry] = []
    for number in range(count):
        entries.append(await write(engine, channel, term, previous, b"%d" % number))
        previous = entries[-1].id
    return entries


async def read_all(engine: Engine, channel: str, limit: int = 100) -> list[Entry]:
    entries: list[Entry] = []
    after = START
    while page := (await engine.read(channel, after, limit)).entries:
        entries += page
        after = page[-1].id
    return entries


class EngineContract:
    """The tests. `a` and `b` are nodes with leases, each with a connection of its own."""

    @pytest_asyncio.fixture
    async def a(self, server: Server) -> Engine:
        engine = await server.connect()
        await engine.renew("a", LEASE)
        return engine

    @pytest_asyncio.fixture
    async def b(self, server: Server) -> Engine:
        engine = await server.connect()
        await engine.renew("b", LEASE)
        return engine

    @pytest_asyncio.fixture
    async def watcher(self, b: Engine) -> AsyncIterator[Watcher]:
        """Collects the events of `b`."""
        watcher = Watcher(b)
        task = asyncio.create_task(watcher.collect())
        yield watcher
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    # -- ownership -------------------------------------------------------------------------------

    async def test_a_channel_without_an_owner_is_taken(self, a):
        taken = await a.take("c", "a", EVERYTHING)
        assert taken == ("a", taken.term, True, START) and taken.term > 0
        page = await a.read("c", START, 10)
        first = EntryId(taken.term, 0)
        assert list(page.entries) == [Entry(first, START, EVERYTHING)]
        assert (page.last, page.truncated) == (first, False)

    async def test_an_owned_channel_is_not_taken_and_the_end_of_its_log_is_returned(self, a, b):
        term = (await a.take("c", "a", b"1")).term
        assert await b.take("c", "b", b"2") == ("a", term, False, EntryId(term, 0))
        entry = await write(a, "c", term, EntryId(term, 0), b"x")
        assert await b.take("c", "b", b"2") == ("a", term, False, entry.id)
        assert [each.payload for each in await read_all(b, "c")] == [b"1", b"x"]

    async def test_of_many_calls_at_once_one_takes_the_channel(self, server):
        engines = [await server.connect() for _ in range(5)]
        for number, engine in enumerate(engines):
            await engine.renew(f"n{number}", LEASE)
        answers = await asyncio.gather(
            *(e.take("c", f"n{number}", b"%d" % number) for number, e in enumerate(engines))
        )
        owners = [answer.node for answer in answers if answer.taken]
        assert len(owners) == 1 and {answer.node for answer in answers} == set(owners)
        assert len({answer.term for answer in answers}) == 1
        assert len(await read_all(engines[0], "c")) == 1

    async def test_a_node_takes_its_own_channel_again_in_a_new_term(self, a):
        first = await a.take("c", "a", b"1")
        entry = await write(a, "c", first.term, EntryId(first.term, 0), b"x")
        second = await a.take("c", "a", b"2")
        assert second == ("a", second.term, True, entry.id) and second.term > first.term

    async def test_a_repeated_take_returns_the_term_that_it_has_made(self, a):
        await a.take("c", "a", b"1")
        second = await a.take("c", "a", b"2")
        assert await a.take("c", "a", b"2") == second
        assert [each.payload for each in await read_all(a, "c")] == [b"1", b"2"]

    async def test_the_channels_of_a_node_without_a_lease_can_be_taken(self, a, b):
        await a.renew("dead", SHORT)
        term = (await a.take("c", "dead", b"1")).term
        last = await write(a, "c", term, EntryId(term, 0), b"x")
        assert not (await b.take("c", "b", b"2")).taken

        async def is_taken() -> bool:
            taken = await b.take("c", "b", b"2")
            assert taken.last == last.id
            return taken.taken

        await eventually(is_taken)
        assert (await b.take("c", "b", b"2")).term > term

    async def test_a_released_lease_has_ended(self, a, b):
        await a.take("c", "a", b"1")
        await a.release("a")
        assert (await b.take("c", "b", b"2")).taken

    async def test_a_lease_that_is_renewed_too_late_keeps_what_nobody_has_taken(self, a, b):
        term = (await a.take("c", "a", b"1")).term
        await a.release("a")
        await a.renew("a", LEASE)
        assert not (await b.take("c", "b", b"2")).taken
        await write(a, "c", term, EntryId(term, 0), b"x")

    async def test_renewals_keep_a_lease_valid(self, a, b):
        await a.renew("x", SHORT)
        await a.take("c", "x", b"1")
        for _ in range(6):
            await asyncio.sleep(SHORT / 3)
            await a.renew("x", SHORT)
        assert not (await b.take("c", "b", b"2")).taken

    async def test_a_channel_that_was_given_up_can_be_taken(self, a, b):
        first = await a.take("c", "a", b"1")
        await a.resign("c", "a", first.term)
        second = await b.take("c", "b", b"2")
        assert second == ("b", second.term, True, EntryId(first.term, 0))
        assert second.term > first.term

    @pytest.mark.parametrize(("node", "older"), [("b", 0), ("a", 1)])
    async def test_only_the_owner_of_this_term_gives_a_channel_up(self, a, b, node, older):
        term = (await a.take("c", "a", b"1")).term
        await a.resign("c", node, term - older)
        assert not (await b.take("c", "b", b"2")).taken

    async def test_a_resignation_of_what_never_was_has_no_effect(self, a):
        await a.resign("never", "a", 1)
        assert (await a.take("never", "a", b"1")).last == START

    async def test_nodes_that_take_under_one_name_without_a_lease_write_one_log(self, a, b):
        first = await a.take("c", "all", b"1")
        second = await b.take("c", "all", b"2")
        third = await a.take("c", "all", b"3")
        assert [each.taken for each in (first, second, third)] == [True] * 3
        assert (second.last, third.last) == ((first.term, 0), (second.term, 0))
        assert [entry.payload for entry in await read_all(a, "c")] == [b"1", b"2", b"3"]

    async def test_takes_of_several_nodes_at_once_are_all_in_the_log(self, a, b, watcher):
        await b.watch("c")
        payloads = [b"%d" % number for number in range(20)]
        await asyncio.gather(
            *(
                engine.take("c", "all", payload)
                for engine, payload in zip([a, b] * 10, payloads, strict=True)
            )
        )
        entries = await read_all(a, "c")
        assert sorted(entry.payload for entry in entries) == sorted(payloads)
        assert [event.entry for event in await watcher.wait_for(20)] == entries

    # -- the log ---------------------------------------------------------------------------------

    async def test_an_empty_log_has_an_empty_page(self, a):
        assert await a.read("never", START, 10) == ([], START, False)

    async def test_entries_name_the_ones_before_also_of_another_term(self, a, b):
        first = await a.take("c", "a", b"1")
        written = await write_many(a, "c", first.term, 3)
        await a.resign("c", "a", first.term)
        second = await b.take("c", "b", b"2")
        written.append(await write(b, "c", second.term, EntryId(second.term, 0), b"y"))
        entries = await read_all(a, "c", limit=2)
        assert [e.payload for e in entries] == [b"1", b"0", b"1", b"2", b"2", b"y"]
        assert [e.previous for e in entries] == [START, *(e.id for e in entries[:-1])]
        assert entries[1:4] == written[:3] and entries[-1] == written[-1]

    async def test_a_page_has_the_oldest_entries_after_an_id(self, a):
        term = (await a.take("c", "a", b"1")).term
        written = await write_many(a, "c", term, 5)
        page = await a.read("c", written[1].id, 2)
        assert list(page.entries) == written[2:4]
        assert (page.last, page.truncated) == (written[-1].id, False)
        assert list((await a.read("c", written[-1].id, 2)).entries) == []

    async def test_a_page_may_begin_at_any_entry_also_if_none_was_seen(self, a, b):
        written = []
        for count in (0, 1, 14, 3):
            term = (await a.take("c", "a", b"t%d" % count)).term
            written.append(Entry(EntryId(term, 0), written[-1].id if written else START, b"t"))
            written += await write_many(a, "c", term, count)
            await write_many(a, "d", (await a.take("d", "a", b"d%d" % count)).term, count)
        ids = [each.id for each in written]
        for number, after in enumerate(ids):
            page = await b.read("c", after, 2)
            assert [each.id for each in page.entries] == ids[number + 1 : number + 3]
            assert not page.truncated
        for term in {each.term for each in ids}:
            found = (await b.read("c", EntryId(term - 1, LARGEST_NUMBER), 100)).entries
            assert [each.id for each in found] == [each for each in ids if each.term >= term]

    async def test_the_last_page_is_known_as_the_end(self, a):
        term = (await a.take("c", "a", b"1")).term
        await write_many(a, "c", term, 4)
        ends = [(await a.read("c", EntryId(term, n), 2)).is_end for n in range(5)]
        assert ends == [False, False, True, True, True]
        assert (await a.read("never", START, 2)).is_end

    async def test_a_page_after_an_id_above_the_end_is_empty_and_has_the_end(self, a):
        term = (await a.take("c", "a", b"1")).term
        page = await a.read("c", EntryId(term + 5, 7), 10)
        assert list(page.entries) == [] and page.last == (term, 0)

    @pytest.mark.parametrize("payload", [EVERYTHING, b"\0", b"x" * 100_000])
    async def test_a_payload_is_returned_as_it_was_given(self, a, payload):
        term = (await a.take("c", "a", b"1")).term
        entry = await write(a, "c", term, EntryId(term, 0), payload)
        assert list((await a.read("c", EntryId(term, 0), 1)).entries) == [entry]

    async def test_a_repeated_append_has_one_effect(self, a):
        term = (await a.take("c", "a", b"1")).term
        entry = await write(a, "c", term, EntryId(term, 0), b"x")
        await a.append("c", entry)
        assert len(await read_all(a, "c")) == 2
        await write(a, "c", term, entry.id, b"y")

    async def test_another_entry_with_the_same_id_is_refused(self, a):
        term = (await a.take("c", "a", b"1")).term
        entry = await write(a, "c", term, EntryId(term, 0), b"x")
        with pytest.raises(Fenced):
            await a.append("c", entry._replace(payload=b"y"))
        assert [each.payload for each in await read_all(a, "c")] == [b"1", b"x"]

    async def test_the_writer_of_another_term_with_the_same_number_is_refused(self, a, b):
        # a server that has lost the first one, and whose clock was set back, gives it out again
        term = (await a.take("c", "a", b"hello a")).term
        entry = Entry(EntryId(term, 1), EntryId(term, 0), b"x")
        with pytest.raises(Fenced):
            await b.append("c", entry, None, b"hello b")
        await a.append("c", entry, None, b"hello a")
        assert [each.payload for each in await read_all(b, "c")] == [b"hello a", b"x"]

    async def test_the_owner_of_an_older_term_is_refused(self, a, b):
        term = (await a.take("c", "a", b"1")).term
        last = await write(a, "c", term, EntryId(term, 0), b"x")
        await a.release("a")
        await b.take("c", "b", b"2")
        with pytest.raises(Fenced):
            await write(a, "c", term, last.id, b"y")
        await a.renew("a", LEASE)
        with pytest.raises(Fenced):
            await write(a, "c", term, last.id, b"y")
        assert [each.payload for each in await read_all(a, "c")] == [b"1", b"x", b"2"]

    async def test_an_entry_after_one_that_the_server_does_not_have_is_refused(self, a):
        term = (await a.take("c", "a", b"1")).term
        await write(a, "c", term, EntryId(term, 0), b"x")
        with pytest.raises(LogLost):
            await write(a, "c", term, EntryId(term, 5), b"y")
        assert [each.payload for each in await read_all(a, "c")] == [b"1", b"x"]

    async def test_an_entry_for_a_log_that_is_gone_is_refused(self, a, server):
        term = (await a.take("c", "a", b"1")).term
        await write(a, "c", term, EntryId(term, 0), b"x")
        await server.evict("c")
        with pytest.raises(LogLost):
            await write(a, "c", term, EntryId(term, 1), b"y")
        assert await read_all(a, "c") == []
        taken = await a.take("c", "a", b"2")
        assert taken.taken and taken.last == START
        await write(a, "c", taken.term, EntryId(taken.term, 0), b"y")
        assert [each.payload for each in await read_all(a, "c")] == [b"2", b"y"]

    async def test_an_entry_that_is_too_large_is_refused(self, a, server):
        if server.too_large is None:
            pytest.skip("this server has no bound")
        term = (await a.take("c", "a", b"1")).term
        with pytest.raises(EntryTooLarge):
            await write(a, "c", term, EntryId(term, 0), b"x" * server.too_large)
        await write(a, "c", term, EntryId(term, 0), b"x")

    async def test_the_oldest_entries_of_a_long_log_are_removed(self, a, server):
        term = (await a.take("c", "a", b"1")).term
        written = await write_many(a, "c", term, server.removes_after)
        page = await a.read("c", START, 10)
        assert page.truncated and page.entries[0].id > (term, 0)
        assert page.last == written[-1].id
        left = await read_all(a, "c")
        assert server.entries <= len(left) < len(written)
        assert left == written[-len(left) :]
        assert not (await a.read("c", left[0].id, 10)).truncated
        assert (await a.read("c", EntryId(term, 0), 10)).truncated

    async def test_the_schema_is_that_of_the_last_append_that_had_one(self, a, b):
        term = (await a.take("c", "a", b"1")).term
        assert await b.schema("c") is None
        first = Entry(EntryId(term, 1), EntryId(term, 0), b"x")
        await a.append("c", first, EVERYTHING)
        assert await b.schema("c") == EVERYTHING
        second = Entry(EntryId(term, 2), first.id, b"y")
        await a.append("c", second)
        assert await b.schema("c") == EVERYTHING
        await a.append("c", Entry(EntryId(term, 3), second.id, b"z"), b"new")
        assert await b.schema("c") == b"new"

    async def test_a_refused_append_does_not_change_the_schema(self, a, b):
        term = (await a.take("c", "a", b"1")).term
        await a.resign("c", "a", term)
        await b.take("c", "b", b"2")
        with pytest.raises(Fenced):
            await a.append("c", Entry(EntryId(term, 1), EntryId(term, 0), b"x"), b"schema")
        assert await b.schema("c") is None

    async def test_channels_are_independent(self, a, b):
        one, two = await a.take("one", "a", b"1"), await b.take("two", "b", b"2")
        assert one.taken and two.taken
        await write(a, "one", one.term, EntryId(one.term, 0), b"x")
        assert [each.payload for each in await read_all(a, "two")] == [b"2"]

    async def test_calls_for_many_channels_run_at_the_same_time(self, a):
        names = [f"c-{number}" for number in range(100)]
        taken = await asyncio.gather(*(a.take(name, "a", b"1") for name in names))
        await asyncio.gather(
            *(write_many(a, name, each.term, 3) for name, each in zip(names, taken, strict=True))
        )
        logs = await asyncio.gather(*(read_all(a, name) for name in names))
        assert {tuple(e.payload for e in log) for log in logs} == {(b"1", b"0", b"1", b"2")}

    @pytest.mark.parametrize("name", ["c", "A.b_c-d", "x" * 200, "a..b", ".", "-", "a.b", "a_b"])
    async def test_a_channel_has_any_name_of_letters_digits_and_some_signs(self, a, name):
        await a.watch(name)
        await a.enter(name, "a")
        term = (await a.take(name, "a", b"1")).term
        await write(a, name, term, EntryId(term, 0), b"x")
        assert len(await read_all(a, name)) == 2
        assert await a.members(name) == {"a"}

    async def test_a_cancelled_call_leaves_the_connection_usable(self, a):
        term = (await a.take("c", "a", b"1")).term
        for _ in range(20):
            task = asyncio.create_task(a.read("c", START, 10))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await write(a, "c", term, EntryId(term, 0), b"x")
        assert [each.payload for each in await read_all(a, "c")] == [b"1", b"x"]

    # -- presence --------------------------------------------------------------------------------

    async def test_members_are_the_nodes_that_have_entered(self, a, b):
        assert await a.members("c") == frozenset()
        await a.enter("c", "a")
        await a.enter("c", "a")
        await b.enter("c", "b")
        assert await a.members("c") == {"a", "b"}
        assert await a.members("d") == frozenset()
        await b.leave("c", "b")
        await b.leave("c", "b")
        assert await a.members("c") == {"a"}

    async def test_a_node_without_a_lease_is_not_a_member(self, a):
        await a.enter("c", "never")
        await a.renew("x", LEASE)
        await a.enter("c", "x")
        assert await a.members("c") == {"x"}
        await a.release("x")
        assert await a.members("c") == frozenset()
        await a.renew("x", LEASE)
        assert await a.members("c") == {"x"}

    async def test_the_lease_of_a_member_ends_by_itself(self, a):
        await a.renew("x", SHORT)
        await a.enter("c", "x")
        assert await a.members("c") == {"x"}

        async def is_gone() -> bool:
            return not await a.members("c") and "x" not in await a.nodes()

        await eventually(is_gone)

    async def test_nodes_are_those_with_a_lease_and_how_old_it_is(self, a, b):
        assert (await a.nodes()).keys() == {"a", "b"}
        await asyncio.sleep(0.05)
        await b.renew("b", LEASE)
        ages = await a.nodes()
        assert ages["a"] < PATIENCE and ages["b"] < ages["a"] - 0.03
        await b.release("b")

        async def is_gone() -> bool:
            return (await a.nodes()).keys() == {"a"}

        await eventually(is_gone)

    async def test_the_lease_of_another_node_is_ended_if_it_was_not_renewed_lately(self, a, b):
        term = (await b.take("c", "b", b"1")).term
        await a.end_lease("b", LEASE)
        await a.end_lease("unknown", 0)
        assert (await a.nodes()).keys() == {"a", "b"}
        assert not (await a.take("c", "a", b"2")).taken

        async def has_ended() -> bool:
            await a.end_lease("b", 0.02)
            return (await a.nodes()).keys() == {"a"}

        await eventually(has_ended)
        assert (await a.take("c", "a", b"2")).taken
        with pytest.raises(Fenced):
            await write(b, "c", term, EntryId(term, 0), b"x")
        await b.renew("b", LEASE)
        assert (await a.nodes()).keys() == {"a", "b"}
        assert (await b.take("c", "b", b"3")).node == "a"

    async def test_a_channel_is_watched_until_the_connection_of_the_watcher_is_closed(self, a, b):
        assert not (await a.watched("c")).is_watched
        await b.watch("c")
        found = await a.watched("c")
        assert found.is_watched
        assert not (await a.watched("d")).is_watched
        await b.aclose()

        async def is_left() -> bool:
            return await a.watched("c") == (found.connection, False)

        await eventually(is_left)

    # -- notifications ---------------------------------------------------------------------------

    async def test_a_sent_message_reaches_all_that_watch_and_is_in_no_log(self, a, b, watcher):
        other = Watcher(a)
        task = asyncio.create_task(other.collect())
        await a.watch("c")
        await b.watch("c")
        await a.send("c", EVERYTHING)
        for found in (watcher, other):
            assert await found.wait_for(1) == [Sent("c", EVERYTHING)]
        assert await read_all(a, "c") == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_a_message_that_is_too_large_cannot_be_sent(self, a, server):
        if server.too_large is None:
            pytest.skip("this server takes every size")
        with pytest.raises(EntryTooLarge):
            await a.send("c", b"x" * server.too_large)

    async def test_watchers_get_the_entries_of_a_channel_in_their_order(self, a, b, watcher):
        await b.watch("c")
        term = (await a.take("c", "a", b"1")).term
        await write_many(a, "c", term, 20)
        events = await watcher.wait_for(21)
        assert events == [Appended("c", entry) for entry in await read_all(a, "c")]

    async def test_watchers_get_their_own_entries_and_no_repeated_ones(self, b, watcher):
        await b.watch("c")
        term = (await b.take("c", "b", b"1")).term
        entry = await write(b, "c", term, EntryId(term, 0), b"x")
        await b.append("c", entry)
        await b.take("c", "b", b"1")
        await write(b, "c", term, entry.id, b"y")
        events = await watcher.wait_for(3)
        assert [event.entry.payload for event in events] == [b"1", b"x", b"y"]

    async def test_watchers_do_not_get_refused_entries(self, a, b, watcher):
        await b.watch("c")
        term = (await a.take("c", "a", b"1")).term
        await a.resign("c", "a", term)
        await b.take("c", "b", b"2")
        with pytest.raises(Fenced):
            await write(a, "c", term, EntryId(term, 0), b"x")
        await a.take("c", "a", b"3")
        last = await b.take("c", "b", b"4")
        events = await watcher.wait_for(4)
        assert [getattr(event, "entry", (0, 0, b"resigned"))[2] for event in events] == [
            b"1", b"resigned", b"2", b"4",
        ]  # fmt: skip
        assert events[-1].entry.id == (last.term, 0)

    async def test_watchers_get_a_resignation(self, a, b, watcher):
        await b.watch("c")
        term = (await a.take("c", "a", b"1")).term
        await a.resign("c", "a", term)
        assert (await watcher.wait_for(2))[1] == Resigned("c", term)

    async def test_what_is_not_watched_any_more_has_no_events(self, a, b, watcher):
        await b.watch("one")
        await b.watch("two")
        await b.unwatch("one")
        one, two = await a.take("one", "a", b"1"), await a.take("two", "a", b"2")
        await write(a, "one", one.term, EntryId(one.term, 0), b"x")
        await write(a, "two", two.term, EntryId(two.term, 0), b"y")
        await b.watch("one")
        await write(a, "one", one.term, EntryId(one.term, 1), b"z")
        events = await watcher.wait_for(3)
        assert [event.entry.payload for event in events] == [b"2", b"y", b"z"]

    async def test_after_watch_no_entry_is_missed(self, a, b, watcher):
        term = (await a.take("c", "a", b"1")).term
        previous, expected = EntryId(term, 0), []
        for number in range(20):
            await b.watch("c")
            previous = (await write(a, "c", term, previous, b"%d" % number)).id
            expected.append(b"%d" % number)
            await watcher.wait_for(len(expected))
            await b.unwatch("c")
        assert [event.entry.payload for event in watcher.events] == expected
