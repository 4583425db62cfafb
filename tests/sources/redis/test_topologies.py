"""Sentinel and Cluster: real servers, a failover, and keys on all servers of a cluster."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio
from redis.asyncio import RedisCluster

from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.servers import Redis
from tests.servers.redis import (
    RedisClusterNode,
    RedisReplica,
    RedisSentinel,
    redis_cluster,
)

from .connecting import admin, columns, encoded, first_row, serving, statuses, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

STOCK = f"entries/{encoded('orders')}"
QUERY = {"queryType": "entries", "stream": "orders", "exact": True}


def with_sentinel(sentinel: RedisSentinel, **changes):
    settings = {
        "host": f"127.0.0.1:1, 127.0.0.1:{sentinel.port}",  # one sentinel is down
        "mode": "sentinel",
        "sentinelPrimary": sentinel.primary_name,
        "user": Redis.reader,
    }
    secrets = {"password": Redis.reader_password, "sentinelPassword": sentinel.password}
    return serve_in_memory(Source, settings=settings | changes, secrets=secrets)


async def test_panels_follow_a_failover():
    with Redis() as primary, RedisReplica(primary) as replica, RedisSentinel(primary) as sentinel:
        async with admin(primary) as client:
            for number in range(100):
                await client.xadd("orders", {"n": number})
            await client.wait(1, 3_000)
            await until(lambda: _knows_replica(sentinel))
            async with with_sentinel(sentinel) as grafana:
                ok, message = await grafana.health()
                assert ok and f"127.0.0.1:{primary.port}" in message
                (frame,) = await grafana.query(QUERY)
                assert columns(frame)["n"] == list(range(100))
                viewer, exact = await grafana.follow(STOCK), await grafana.follow(f"x/{STOCK}")
                channel = await grafana.follow(f"channel/{encoded('news')}")
                await first_row(viewer, lambda n: client.xadd("orders", {"n": 100 + n}))
                await first_row(channel, lambda n: client.publish("news", '{"n": 1}'))
                await client.wait(1, 3_000)
                await asyncio.to_thread(primary.kill)
                await until(lambda: replica.call("ROLE").startswith(b"*3\r\n$6\r\nmaster"), 20)
                async with admin(replica) as promoted:
                    await promoted.xadd("orders", {"n": 1_000})
                    await until(lambda: viewer.rows[-1]["n"] == 1_000, 20)
                    numbers = [row["n"] for row in viewer.rows]
                    assert numbers == [*range(int(numbers[0]), int(numbers[-2]) + 1), 1_000]

                    async def is_published() -> bool:
                        await promoted.publish("news", '{"n": 2}')
                        return channel.rows[-1]["n"] == 2

                    await until(is_published, 20)
                assert any(statuses(exact)), "the outage was shown"
                ok, message = await grafana.health()
                assert ok and f"127.0.0.1:{replica.port}" in message


def _knows_replica(sentinel: RedisSentinel) -> bool:
    return b"num-slaves\r\n$1\r\n1" in sentinel.call("SENTINEL", "MASTER", sentinel.primary_name)


async def test_what_is_wrong_with_sentinel_is_named():
    with Redis() as primary, RedisSentinel(primary) as sentinel:
        only = {"host": f"127.0.0.1:{sentinel.port}"}
        async with with_sentinel(sentinel, sentinelPrimary="other", **only) as grafana:
            ok, message = await grafana.health()
            assert not ok and "does not know a primary named 'other'" in message
            with pytest.raises(QueryFailed, match="does not know a primary named 'other'"):
                await grafana.query(QUERY)
        async with with_sentinel(sentinel, sentinelUser="nobody", **only) as grafana:
            ok, message = await grafana.health()
            assert not ok and "refuses the user 'nobody'" in message
        async with with_sentinel(sentinel, host="127.0.0.1:1") as grafana:
            ok, message = await grafana.health()
            assert not ok and "refuses the connection" in message


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sequence[RedisClusterNode]]:
    with redis_cluster() as nodes:
        yield nodes


@pytest_asyncio.fixture
async def client(cluster: Sequence[RedisClusterNode]) -> AsyncIterator[RedisCluster]:
    async with RedisCluster(
        host="127.0.0.1", port=cluster[0].port, password=Redis.password
    ) as found:
        for node in cluster:
            node.call("FLUSHALL")
        yield found


def in_cluster(cluster: Sequence[RedisClusterNode], **changes):
    settings = {
        "host": ",".join(f"127.0.0.1:{node.port}" for node in cluster),
        "mode": "cluster",
        "user": Redis.reader,
    }
    secrets = {"password": Redis.reader_password}
    return serve_in_memory(Source, settings=settings | changes, secrets=secrets)


NAMES = ["orders", "trades", "sensors:1", "sensors:2", "a", "b"]


async def test_streams_of_all_servers_are_read(cluster, client: RedisCluster):
    assert len({client.keyslot(name) * 3 // 16_384 for name in NAMES}) == 3
    for name in NAMES:
        await client.xadd(name, {"n": 1})
    async with in_cluster(cluster) as grafana:
        ok, message = await grafana.health()
        assert ok and "(cluster, master)" in message and "lacks" not in message
        for name in NAMES:
            (frame,) = await grafana.query(QUERY | {"stream": name})
            assert columns(frame)["n"] == [1]
            viewer = await grafana.follow(f"entries/{encoded(name)}")
            await first_row(viewer, lambda n, name=name: client.xadd(name, {"n": n}))
        answer = await grafana.resource("forms/suggest?stream=entries&field=stream&typed=")
        assert sorted(NAMES) == json.loads(answer.body)


async def test_several_streams_of_a_cluster_are_one_panel(cluster, client: RedisCluster):
    for name in NAMES:
        await client.xadd(name, {"n": 1})
    async with in_cluster(cluster) as grafana:
        (frame,) = await grafana.query({"queryType": "streams", "streams": ",".join(NAMES)})
        assert {field.labels.get("stream") for field in frame.fields[1:]} == set(NAMES)
        viewer = await grafana.follow(f"streams/{encoded('*')}")

        def shown() -> set[str]:
            return {field.labels["stream"] for field in viewer.fields[1:]}

        async def write() -> bool:
            for name in NAMES:
                await client.xadd(name, {"n": 2})
            return shown() == set(NAMES)

        await until(write)


async def test_a_stream_that_moves_to_another_server_loses_no_entry(cluster, client: RedisCluster):
    async with in_cluster(cluster) as grafana:
        viewer = await grafana.follow(STOCK)
        first = await first_row(viewer, lambda n: client.xadd("orders", {"n": n}))
        number = await client.xlen("orders")  # the next one: all of them begin with 0
        slot = client.keyslot("orders")
        source = next(node for node in cluster if str(slot) and _has(node, slot))
        target = next(node for node in cluster if node is not source)
        await asyncio.to_thread(_move, cluster, source, target, slot)
        try:
            for n in range(number, number + 20):
                await client.xadd("orders", {"n": n})
            await until(lambda: viewer.rows[-1]["n"] == number + 19, 20)
            numbers = [row["n"] for row in viewer.rows]
            assert numbers == list(range(int(first["n"]), number + 20))
        finally:
            await asyncio.to_thread(_move, cluster, target, source, slot)


def _has(node: RedisClusterNode, slot: int) -> bool:
    return not node.call("CLUSTER", "COUNTKEYSINSLOT", slot).startswith(b":0")


def _id(node: RedisClusterNode) -> str:
    return node.call("CLUSTER", "MYID").split(b"\r\n")[1].decode()


def _move(cluster, source: RedisClusterNode, target: RedisClusterNode, slot: int) -> None:
    """Move a slot with its key `orders`, as `redis-cli --cluster reshard` does."""
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
    answer = source.call(
        *("MIGRATE", "127.0.0.1", target.port, "orders", 0, 5_000, "AUTH", Redis.password)
    )
    assert answer == b"+OK\r\n", answer
    for node in (target, source, *cluster):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", _id(target))


async def test_channels_and_keyspace_events_of_all_servers_arrive_once(
    cluster, client: RedisCluster
):
    for node in cluster:
        node.call("CONFIG", "SET", "notify-keyspace-events", "KA")
    async with in_cluster(cluster) as grafana:
        channel = await grafana.follow(f"channel/{encoded('news')}")
        keys = await grafana.follow(f"keys/{encoded('*')}")
        async with admin(cluster[1]) as other:
            await first_row(channel, lambda n: other.publish("news", f'{{"n": {n}}}'))
            numbers = [row["n"] for row in channel.rows]
            assert len(numbers) == len(set(numbers))

            async def write(number: int) -> None:
                for name in NAMES:
                    await client.set(name, number)

            await first_row(keys, write)
            for name in NAMES:
                await client.delete(name)
            await until(lambda: {r["key"] for r in keys.rows if r["event"] == "del"} == set(NAMES))
            events = [(row["key"], row["event"]) for row in keys.rows]
            assert {event for _, event in events} == {"set", "del"}
            assert [event for _, event in events].count("del") == len(NAMES), "each arrives once"


async def test_a_server_that_is_down_stops_its_own_streams_only(cluster, client: RedisCluster):
    by_node = {n: name for name in NAMES for n in [client.keyslot(name) * 3 // 16_384]}
    assert len(by_node) == 3
    async with in_cluster(cluster) as grafana:
        lost, kept = by_node[0], by_node[1]
        await asyncio.to_thread(cluster[0].kill)
        try:
            down = await grafana.follow(f"x/entries/{encoded(lost)}")
            exact = await grafana.follow(f"x/keys/{encoded('*')}")
            viewer = await grafana.follow(f"entries/{encoded(kept)}")
            channel = await grafana.follow(f"channel/{encoded('news')}")
            async with admin(cluster[1]) as other:
                await first_row(viewer, lambda n: other.xadd(kept, {"n": n}))
                await first_row(channel, lambda n: other.publish("news", f'{{"n": {n}}}'))
            for each in (down, exact):
                await until(lambda each=each: statuses(each))
                assert "refuses the connection" in statuses(each)[-1]["text"]
        finally:
            await asyncio.to_thread(cluster[0].start)
        await until(lambda: (statuses(down)[-1] or {}).get("text", "").startswith("no stream"), 20)


async def test_a_replica_that_has_lost_its_primary_is_explained():
    with Redis() as primary, RedisReplica(primary) as replica:
        replica.call("CONFIG", "SET", "replica-serve-stale-data", "no")
        await asyncio.to_thread(primary.kill)
        await until(lambda: b"connected" not in replica.call("ROLE"))
        async with serving(replica) as grafana:
            viewer = await grafana.follow(f"x/{STOCK}")
            await until(lambda: statuses(viewer))
            assert "MASTERDOWN" in statuses(viewer)[-1]["text"]
            with pytest.raises(QueryFailed, match="MASTERDOWN"):
                await grafana.query(QUERY)
            replica.call("REPLICAOF", "NO", "ONE")
            stock = await grafana.follow(STOCK)
            async with admin(replica) as client:
                await first_row(stock, lambda n: client.xadd("orders", {"n": n}))


async def test_a_server_without_a_cluster_is_named():
    server = Redis()
    server.rights = RedisClusterNode.RIGHTS
    with server:
        async with in_cluster([server]) as grafana:
            ok, message = await grafana.health()
            assert not ok and "cluster support disabled" in message, message


async def test_panels_follow_a_replica_of_a_cluster_that_is_promoted():
    with redis_cluster(replicas=1) as nodes:
        primary, replica = nodes[0], nodes[-1]
        address = {"host": "127.0.0.1", "port": nodes[1].port, "password": Redis.password}
        async with RedisCluster(**address) as client, in_cluster(nodes[:3]) as grafana:
            names = (f"orders:{number}" for number in range(100))
            name = next(each for each in names if client.keyslot(each) * 3 < 16_384)
            path = f"entries/{encoded(name)}"
            viewer, exact = await grafana.follow(path), await grafana.follow(f"x/{path}")
            channel = await grafana.follow(f"channel/{encoded('news')}")
            await first_row(viewer, lambda n: client.xadd(name, {"n": n}))
            async with admin(nodes[1]) as other:
                await first_row(channel, lambda n: other.publish("news", f'{{"n": {n}}}'))
            written = await client.xlen(name)
            await until(lambda: _length(replica, name) == written)
            await asyncio.to_thread(primary.kill)
            await until(lambda: replica.call("ROLE").startswith(b"*3\r\n$6\r\nmaster"), 20)
            async with admin(replica) as promoted:
                for number in range(1_000, 1_010):
                    await promoted.xadd(name, {"n": number})
                await until(lambda: viewer.rows[-1]["n"] == 1_009, 20)
                numbers = [row["n"] for row in viewer.rows]
                assert numbers[-11:] == [written - 1, *range(1_000, 1_010)]
                assert len(numbers) == len(set(numbers))

                async def is_published() -> bool:
                    await promoted.publish("news", '{"n": -1}')
                    return channel.rows[-1]["n"] == -1

                await until(is_published, 20)
            assert any(statuses(exact)), "the outage was shown"
            (frame,) = await grafana.query(QUERY | {"stream": name})
            assert columns(frame)["n"][-10:] == list(range(1_000, 1_010))


def _length(node: Redis, name: str) -> int:
    """The entries of a stream of a replica."""
    with node.connect() as connection:
        connection.sendall(b"AUTH %s\r\nREADONLY\r\nXLEN %s\r\n"
                           % (Redis.password.encode(), name.encode()))  # fmt: skip
        answers = b""
        while answers.count(b"\r\n") < 3:
            answers += connection.recv(100)
        return int(answers.split(b"\r\n")[2][1:])
