"""What is kept in Redis: bounds of the log, terms after a wrong clock, and what is deleted."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from aiostream_ds._cluster.engine import START, EntryId, EntryTooLarge, LogLost
from aiostream_ds._cluster.redis.log_cleanup import clean
from aiostream_ds._cluster.redis.redis_engine import RedisEngine
from tests.servers import Redis
from tests.waiting import until

from .engines import EngineRedis, Writer, engine, opened, payloads

pytestmark = pytest.mark.slow

PREFIX = "test:{0}:"


@pytest.fixture(scope="module")
def running() -> Iterator[Redis]:
    with EngineRedis() as found:
        yield found


@pytest.fixture
def server(running: Redis) -> Redis:
    running.call("FLUSHALL")
    return running


def keys(server: Redis) -> set[str]:
    found = server.call("KEYS", "*").decode().split("\r\n")
    return {each.removeprefix(PREFIX) for each in found if each.startswith("test:")}


def ttl(server: Redis, key: str) -> int:
    return int(server.call("PTTL", PREFIX + key)[1:])


# -- bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1_000, 30_000, 99_999, 100_000])
async def test_a_log_has_at_most_its_bytes_and_keeps_the_newest_entry(server, size):
    async with opened(engine(server, log_bytes=100_000, entries=100_000)) as found:
        writer = Writer(found)
        await writer.take()
        for number in range(min(300, 2_000_000 // size)):
            await writer.append(b"%d" % (number % 10) * size)
            if number % 10 == 0:
                kept = await payloads(found)
                assert sum(map(len, kept)) <= 100_000
                assert kept == [entry.payload for entry in writer.written[-len(kept) :]]
        assert sum(map(len, kept)) > 100_000 * 0.4 or size == 1


async def test_bytes_are_counted_across_terms_and_entries_that_the_other_bound_removed(server):
    async with opened(engine(server, log_bytes=100_000, entries=100)) as found:
        writer = Writer(found)
        for _ in range(5):
            await writer.take()
            for _ in range(300):  # more than the other bound
                await writer.append(b"x" * 10)
            for _ in range(30):
                await writer.append(b"x" * 10_000)
            kept = await payloads(found)
            assert sum(map(len, kept)) <= 100_000 and len(kept) >= 7
            page = await found.read("c", START, 1)
            assert page.truncated and page.last == writer.last


async def test_an_entry_above_the_bound_is_refused_and_one_at_the_bound_is_taken(server):
    async with opened(engine(server, log_bytes=1_000)) as found:
        writer = Writer(found)
        await writer.take()
        await writer.append(b"x" * 1_000)
        with pytest.raises(EntryTooLarge, match="at most 1000 bytes, got 1001"):
            await writer.append(b"x" * 1_001)
        with pytest.raises(EntryTooLarge):
            await found.take("d", "a", b"x" * 1_001)
        await writer.append(b"y")
        assert (await payloads(found))[-1] == b"y"


async def test_a_large_entry_reaches_watchers(server):
    async with opened(engine(server, log_bytes=64 << 20)) as found:
        await found.watch("c")
        writer = Writer(found)
        await writer.take()
        with pytest.raises(EntryTooLarge):
            await writer.append(b"x" * ((16 << 20) + 1))
        await writer.append(b"x" * (16 << 20))
        async with asyncio.timeout(10):
            async for event in found.events():
                if len(event.entry.payload) == 16 << 20:
                    break


# -- terms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["nothing", "state", "log"])
async def test_a_term_is_above_all_others_also_if_the_clock_was_set_back(server, lost):
    future = int((time.time() + 86_400) * 1e6)
    async with opened(engine(server)) as found:
        await Writer(found).take()
        server.call("XADD", PREFIX + "log:c", f"{future}-7", "before", "0-0", "total", 1,
                    "payload", "x")  # fmt: skip
        server.call("HSET", PREFIX + "state:c", "term", future, "last", f"{future}-7")
        if lost != "nothing":
            server.call("DEL", f"{PREFIX}{lost}:c")
        writer = Writer(found)
        taken = await writer.take()
        assert taken.term == future + 1
        assert taken.last == (START if lost == "log" else (future, 7))
        await writer.append()
        assert (await payloads(found))[-1] == b"0"
        old = Writer(found)
        old.last = EntryId(future, 7)
        with pytest.raises(Exception, match="is over"):
            await old.append()


async def test_leases_of_dead_nodes_end_when_the_clock_is_set_back(server):
    async with opened(engine(server)) as found:
        await Writer(found).take("a")
        hour = int(time.time() * 1000) + 3_600_000
        server.call("HSET", PREFIX + "leases", "a", f"{hour} 60000")  # as before the change
        assert (await found.take("c", "b", b"")).taken
        await found.enter("c", "a")
        assert await found.members("c") == frozenset()
        await found.renew("a", 60)
        assert await found.members("c") == {"a"}


async def test_an_older_owner_that_the_server_has_forgotten_has_lost_its_log(server):
    async with opened(engine(server)) as found:
        writer = Writer(found)
        await writer.take()
        writer.last = EntryId(writer.last.term + 1000, 0)  # a term of before a failover
        with pytest.raises(LogLost):
            await writer.append()


# -- what is deleted ----------------------------------------------------------------------------


async def test_keys_in_use_have_no_time_to_live_and_others_have_one(server):
    async with opened(engine(server)) as found:
        writer = Writer(found)
        await found.enter("c", "a")
        taken = await writer.take()
        await writer.append()
        used = {"state:c", "log:c", "nodes:c", "leases", "channels"}
        assert keys(server) == used
        assert {ttl(server, key) for key in used} == {-1}
        await found.leave("c", "a")
        assert ttl(server, "log:c") == -1  # the owner is there
        await found.resign("c", "a", taken.term)
        assert 0 < ttl(server, "log:c") <= 600_000 and 0 < ttl(server, "state:c") <= 600_000
        await found.enter("c", "b")
        assert {ttl(server, key) for key in ("log:c", "state:c", "nodes:c")} == {-1}
        await found.leave("c", "b")
        await found.release("a")
        await found.release("b")
        assert keys(server) == {"state:c", "log:c", "kept"}  # the rest is gone, and these go
        assert 0 < ttl(server, "kept") <= 600_000


async def test_the_list_of_kept_logs_has_those_that_expire(server):
    async with opened(engine(server)) as found:
        for number in range(30):
            channel = f"c{number}"
            term = (await Writer(found, channel).take()).term
            await found.resign(channel, "a", term)
        await found.enter("empty", "a")
        await found.leave("empty", "a")
        await found.enter("c0", "a")
        channels = (await found.overview()).channels
        assert {each.channel for each in channels} == {f"c{number}" for number in range(30)}
        assert {each.channel for each in channels if each.left is None} == {"c0"}
        assert all(590 < each.left <= 600 for each in channels if each.left is not None)
        for number in range(1, 26):
            server.call("ZADD", PREFIX + "kept", 1, f"c{number}")
        assert len((await found.overview()).channels) == 5
        for _ in range(3):  # each removes some of the old ones
            await found.leave("c0", "a")
            await found.enter("c0", "a")
        assert server.call("ZCARD", PREFIX + "kept") == b":4\r\n"


async def test_a_log_that_begins_to_expire_is_kept_when_it_is_taken_again(server):
    async with opened(engine(server)) as found:
        first, second = Writer(found), Writer(found)
        term = (await first.take()).term
        await found.resign("c", "a", term)
        assert ttl(server, "log:c") > 0
        await second.take()
        assert {ttl(server, key) for key in ("log:c", "state:c")} == {-1}


@pytest.mark.parametrize("by", ["leave", "sweep"])
async def test_the_log_of_an_owner_that_was_without_a_lease_for_a_moment_is_kept(server, by):
    async with opened(engine(server)) as found:
        writer = Writer(found)
        await found.enter("c", "a")
        await found.enter("c", "b")
        await writer.take()
        await found.renew("a", 0.001)
        await asyncio.sleep(0.06)
        await found.leave("c", "b")
        if by == "sweep":
            await found.leave("c", "a")
            server.call("ZADD", PREFIX + "channels", 1, "c")
            assert await cleaned(found, 60) == 0
        assert {ttl(server, key) for key in ("log:c", "state:c")} == {-1}
        await found.renew("a", 60)
        await writer.append()
        assert await payloads(found) == [b"0"]
        await found.renew("a", 0.001)
        await asyncio.sleep(0.06)
        await cleaned(found, 0.05)  # it is dead
        await asyncio.sleep(0.06)
        await cleaned(found, 0.05)
        assert keys(server) == {"leases"}


async def cleaned(found: RedisEngine, kept: float) -> int:
    return await clean(found._calls, found._keys, found._scripts, kept)


async def test_what_dead_nodes_have_left_is_deleted_and_the_rest_stays(server):
    async with opened(engine(server)) as found:
        for number in range(250):  # several pages
            await found.renew("dead", 0.001)
            await found.take(f"dead{number}", "dead", b"")
            await found.enter(f"dead{number}", "dead")
        await Writer(found, "owned").take("a")
        await found.enter("entered", "a")
        await found.enter("entered", "dead")
        assert await cleaned(found, 60) == 0  # too early
        await asyncio.sleep(0.06)
        assert await cleaned(found, 0.05) == 250 * 3
        expected = {"state:owned", "log:owned", "nodes:entered"}
        assert keys(server) == expected | {"leases", "channels"}
        await asyncio.sleep(0.06)
        await cleaned(found, 0.05)
        assert b"dead" not in server.call("ZRANGE", PREFIX + "nodes:entered", 0, -1)
        assert await found.members("entered") == {"a"}
        assert b"dead" not in server.call("HKEYS", PREFIX + "leases")


async def test_a_member_that_was_without_a_lease_for_a_moment_stays_one(server):
    async with opened(engine(server)) as found:
        await found.enter("c", "a")
        await found.enter("c", "b")
        await found.release("b")
        await asyncio.sleep(0.02)
        await cleaned(found, 0.01)
        await found.renew("b", 60)
        await asyncio.sleep(0.02)
        await cleaned(found, 0.01)
        await found.release("b")
        await asyncio.sleep(0.02)
        await cleaned(found, 0.01)
        await found.renew("b", 60)
        assert await found.members("c") == {"a", "b"}


async def test_namespaces_do_not_know_each_other():
    with EngineRedis() as server:
        server.call("ACL", "SETUSER", server.reader, "~other:*", "&other:*")
        async with (
            opened(engine(server)) as one,
            opened(engine(server, namespace="other")) as two,
        ):
            first, second = Writer(one), Writer(two)
            await two.watch("c")
            await first.take("a")
            await first.append(b"one")
            await second.take("a")
            await second.append(b"two")
            assert await payloads(two) == [b"two"] and await payloads(one) == [b"one"]
            await until(lambda: len(two._events) == 2)
            assert [event.entry.payload for event in two._events][1:] == [b"two"]
