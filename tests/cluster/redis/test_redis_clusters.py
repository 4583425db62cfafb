"""Sentinel and Redis Cluster: failovers that lose writes, and slots that move."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence

import pytest
from redis.crc import key_slot

from aiostream_ds._cluster.engine import EngineError, LogLost
from aiostream_ds._cluster.redis.channel_keys import PARTITIONS, KeyNames
from aiostream_ds._cluster.redis.redis_engine import RedisEngine
from aiostream_ds.errors import ConfigError
from tests.servers import Redis
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisClusterNode, RedisSentinel, redis_cluster
from tests.waiting import until

from .engines import (
    NAMESPACE,
    EngineClusterNode,
    EngineRedis,
    EngineReplica,
    Events,
    Writer,
    access,
    cluster_engine,
    opened,
    payloads,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

NAMES = KeyNames(NAMESPACE, PARTITIONS)


def sentinel_engine(server: Redis, sentinel: RedisSentinel, name: str = "mymaster") -> RedisEngine:
    return RedisEngine(
        f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/{name}",  # one is down
        namespace=NAMESPACE,
        access=access(server, sentinel_password=sentinel.password),
    )


class _ProxiedReplica(EngineReplica):
    """A replica that reads its primary through a proxy."""

    def __init__(self, primary: Redis, proxy: Proxy) -> None:
        self._proxy = proxy
        super().__init__(primary)

    def options(self) -> dict[str, str]:
        return super().options() | {"replicaof": f"127.0.0.1 {self._proxy.port}"}


async def append_until_lost(writer: Writer) -> None:
    """Repeat an append until the promoted server answers that it lacks entries."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(EngineError):
                await writer.append()
                raise AssertionError("the server has taken an entry after one that it lacks")


async def append_or_repair(writer: Writer) -> None:
    try:
        await writer.append()
    except LogLost:
        await writer.repair()


async def test_a_promoted_replica_that_lacks_entries_is_noticed_and_repaired_in_a_new_term():
    with (
        EngineRedis() as primary,
        Proxy(primary.port) as proxy,
        _ProxiedReplica(primary, proxy) as replica,
        RedisSentinel(primary) as sentinel,
    ):
        made = sentinel_engine(primary, sentinel)
        async with opened(made) as found, Events(found) as events:
            writer = Writer(found)
            await found.watch("c")
            first = await writer.take()
            await writer.append()
            await until(lambda: b":1" in replica.call("EXISTS", "test:{0}:log:c"))
            await until(lambda: _replica_is_known(sentinel))
            proxy.hold()  # writes do not reach the replica any more
            for _ in range(3):
                await writer.append()
            await asyncio.to_thread(primary.kill)
            proxy.cut()
            with pytest.raises(LogLost):
                await append_until_lost(writer)
            await until(lambda: events.reconnected)
            await writer.repair()
            assert writer.last.term > first.term
            assert await payloads(found) == [b"0", b"1", b"2", b"3"]
            await until(lambda: events.payloads()[-3:] == [b"1", b"2", b"3"])


def _replica_is_known(sentinel: RedisSentinel) -> bool:
    return b"num-slaves\r\n$1\r\n1" in sentinel.call("SENTINEL", "MASTER", sentinel.primary_name)


async def test_a_primary_that_becomes_a_replica_is_left_for_the_new_one():
    """What it has acknowledged after the promotion is lost, which the new one notices."""
    with (
        EngineRedis() as primary,
        EngineReplica(primary) as replica,
        RedisSentinel(primary) as sentinel,
    ):
        async with opened(sentinel_engine(primary, sentinel)) as found, Events(found) as events:
            writer = Writer(found)
            await found.watch("c")
            await writer.take()
            await writer.append()
            await until(lambda: _replica_is_known(sentinel))
            await until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"))
            await until(lambda: sentinel.call("SENTINEL", "FAILOVER", "mymaster") == b"+OK\r\n")
            async with asyncio.timeout(20):
                while not events.reconnected:
                    with contextlib.suppress(EngineError):
                        await append_or_repair(writer)
                    await asyncio.sleep(0.02)
            await append_or_repair(writer)
            await writer.append(b"end")
            await until(lambda: events.payloads()[-1:] == [b"end"])
            assert b"role:master" in replica.call("INFO", "replication")
            expected = [entry.payload for entry in writer.written]
            assert await payloads(found) == expected


async def test_a_name_that_sentinel_does_not_know_is_named():
    with EngineRedis() as primary, RedisSentinel(primary) as sentinel:
        found = sentinel_engine(primary, sentinel, "other")
        # the other sentinel is down: it could know the name
        with pytest.raises(EngineError, match="no sentinel names the primary 'other'"):
            await found.open()
        await found.aclose()
        only = RedisEngine(
            f"redis+sentinel://127.0.0.1:{sentinel.port}/other",
            namespace=NAMESPACE,
            access=access(primary, sentinel_password=sentinel.password),
        )
        with pytest.raises(ConfigError, match="does not know a primary named 'other'"):
            await only.open()
        await only.aclose()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Sequence[RedisClusterNode]]:
    with redis_cluster(kind=EngineClusterNode) as running:
        yield running


def _place(nodes: Sequence[RedisClusterNode], slot: int) -> int:
    """The index of the server that has a slot."""
    line = next(
        line
        for line in nodes[0].call("CLUSTER", "NODES").decode().splitlines()
        for part in line.split()[8:]
        if not part.startswith("[")
        and int(part.split("-")[0]) <= slot <= int(part.rpartition("-")[2])
    )
    port = int(line.split()[1].split("@")[0].rpartition(":")[2])
    return next(n for n, node in enumerate(nodes) if node.port == port)


def _id(node: RedisClusterNode) -> str:
    return node.call("CLUSTER", "MYID").split(b"\r\n")[1].decode()


async def test_a_slot_that_moves_takes_its_channels_along(nodes):
    """Between each step entries are appended; watchers get each of these, or read the log."""
    slot = key_slot(NAMES.of("c").log)
    source = nodes[_place(nodes, slot)]
    target = next(node for node in nodes if node is not source)
    async with opened(cluster_engine(nodes)) as found, Events(found) as events:
        writer = Writer(found)
        await found.watch("c")
        await writer.take()
        await writer.append()
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
        await writer.append()
        count = int(source.call("CLUSTER", "COUNTKEYSINSLOT", slot)[1:])
        assert count >= 3
        names = source.call("CLUSTER", "GETKEYSINSLOT", slot, 100).split(b"\r\n")[2::2]
        answer = source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH",
                             target.password, "KEYS", *names)  # fmt: skip
        assert answer == b"+OK\r\n", answer
        await writer.append()  # ASK
        for node in (target, source, *nodes):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        await until(lambda: events.reconnected)  # the server ends the subscription
        await writer.append()
        expected = [b"0", b"1", b"2", b"3"]
        assert await payloads(found) == expected
        await until(lambda: events.payloads()[-1:] == [b"3"])


async def test_leases_and_members_count_in_all_partitions(nodes):
    async with opened(cluster_engine(nodes)) as found:
        names = [f"c{number}" for number in range(300)]
        assert {_place(nodes, key_slot(NAMES.of(name).log)) for name in names} == {0, 1, 2}
        await asyncio.gather(*(found.enter(name, "a") for name in names))
        assert set(await asyncio.gather(*map(found.members, names))) == {frozenset("a")}
        taken = await asyncio.gather(*(found.take(name, "a", b"") for name in names))
        assert all(each.taken for each in taken)
        taken = await asyncio.gather(*(found.take(name, "b", b"") for name in names))
        assert not any(each.taken for each in taken)
        await found.release("a")
        taken = await asyncio.gather(*(found.take(name, "b", b"") for name in names))
        assert all(each.taken for each in taken)


async def test_a_server_of_a_cluster_that_was_killed_comes_back(nodes):
    async with opened(cluster_engine(nodes)) as found, Events(found) as events:
        writers = [Writer(found, f"k{number}") for number in range(30)]
        for writer in writers:
            await found.watch(writer.channel)
            await writer.take()
            await writer.append()
        await asyncio.to_thread(nodes[1].restart)
        await until(lambda: events.reconnected)
        await asyncio.gather(*(writer.append() for writer in writers))
        for writer in writers:
            assert await payloads(found, writer.channel) == [b"0", b"1"]
        await until(lambda: events.payloads().count(b"1") == 30)


async def test_a_server_of_a_cluster_that_is_down_takes_only_its_own_channels_away(nodes):
    async with opened(cluster_engine(nodes)) as found:
        writers = [Writer(found, f"d{number}") for number in range(30)]
        for writer in writers:
            await writer.take()
        kept = [w for w in writers if _place(nodes, key_slot(NAMES.of(w.channel).log)) != 1]
        assert 10 < len(kept) < 30
        await asyncio.to_thread(nodes[1].kill)
        try:
            for _ in range(5):
                async with asyncio.timeout(2):  # a lease is renewed at once
                    await found.renew("a", 60)
                    await asyncio.gather(*(writer.append() for writer in kept))
            lost = next(writer for writer in writers if writer not in kept)
            with pytest.raises(EngineError, match="refuses the connection"):
                await lost.append()
            await asyncio.to_thread(nodes[2].kill)
            try:
                with pytest.raises(EngineError):
                    await found.renew("a", 60)
            finally:
                await asyncio.to_thread(nodes[2].start)
        finally:
            await asyncio.to_thread(nodes[1].start)
        await found.renew("a", 60)
        await asyncio.gather(*(writer.append() for writer in writers))
        await found.release("a")
        taken = await asyncio.gather(*(found.take(w.channel, "b", b"") for w in writers))
        assert all(each.taken for each in taken)


async def test_a_replica_of_a_cluster_that_is_promoted_is_found():
    with redis_cluster(kind=EngineClusterNode, replicas=1) as nodes:
        primary, replica = nodes[0], nodes[-1]
        async with opened(cluster_engine(nodes)) as found, Events(found) as events:
            writers = [Writer(found, f"k{number}") for number in range(30)]
            for writer in writers:
                await found.watch(writer.channel)
                await writer.take()
                await writer.append()
            started = time.monotonic()
            await asyncio.to_thread(primary.kill)
            written: set[str] = set()

            async def write(writer: Writer) -> None:
                while writer.channel not in written:
                    try:
                        await writer.append()
                        written.add(writer.channel)
                    except EngineError:
                        continue
                    except LogLost:
                        await writer.take()

            await asyncio.gather(*map(write, writers))
            await until(lambda: events.reconnected)
            assert b"role:master" in replica.call("INFO", "replication")
            assert time.monotonic() - started < 30
            await asyncio.gather(*(writer.append(b"end") for writer in writers))
            await until(lambda: events.payloads().count(b"end") == 30)
