"""What a server and its user must be like: every mistake is named when the engine is opened."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.redis.channel_keys import KeyNames
from aiostream_ds._cluster.redis.pipelined_connection import ServerKind
from aiostream_ds._cluster.redis.redis_engine import RedisEngine
from aiostream_ds._cluster.redis.redis_fitness import CLUSTER_RIGHTS, RIGHTS, check_kind
from aiostream_ds._cluster.redis.redis_url import RedisAccess, servers_at
from aiostream_ds._redis.servers import ClusterServers, OneServer, SentinelServers
from aiostream_ds._tls import TlsSettings
from aiostream_ds.errors import ConfigError
from tests.servers import Redis, certificates
from tests.servers.redis import RedisSentinel, redis_cluster
from tests.waiting import until

from .engines import (
    RULES,
    EngineClusterNode,
    EngineRedis,
    EngineReplica,
    access,
    cluster_engine,
    engine,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with EngineRedis() as running:
        yield running


async def refusal(made: RedisEngine, kind: type[Exception] = ConfigError) -> str:
    """The error of `open`."""
    try:
        with pytest.raises(kind) as caught:
            await made.open()
        return str(caught.value)
    finally:
        await made.aclose()


def set_rights(server: Redis, *rules: str) -> None:
    answer = server.call("ACL", "SETUSER", server.reader, "reset", "on",
                         f">{server.reader_password}", *rules)  # fmt: skip
    assert answer == b"+OK\r\n", answer


def test_the_documentation_has_the_rights_that_the_tests_use():
    text = (Path(__file__).parents[3] / "docs/cluster.md").read_text("utf-8")
    block = text.partition("ACL SETUSER grafana")[2].partition("```")[0]
    scope, commands = block.split(" -@all\n")
    assert scope.split(" ", 3)[3].replace("aiostream-ds:", "test:") == RULES.partition(" -@all")[0]
    assert commands.split() == RIGHTS.split()
    assert f"Redis Cluster needs `{CLUSTER_RIGHTS}`" in text


# PING and SELECT are of the connection, and INFO may be missing
@pytest.mark.parametrize(
    "right", [each for each in RIGHTS.split() if each not in ("+ping", "+select", "+info")]
)
async def test_a_missing_right_is_named_with_all_that_are_needed(server, right):
    set_rights(server, *[each for each in RULES.split() if each != right])
    text = await refusal(engine(server))
    command = right[1:].split("|")[0]
    assert re.search(rf"run the '{command}\b|{command.upper()}: ", text), text
    assert f"the user needs the rights ~test:* &test:* {RIGHTS}" in text


@pytest.mark.parametrize("missing", ["keys", "channels"])
async def test_missing_keys_or_channels_are_named(server, missing):
    rules = RULES.split()
    rules.remove("~test:*" if missing == "keys" else "&test:*")
    set_rights(server, *rules)
    text = await refusal(engine(server))
    assert "the user needs the rights ~test:*" in text
    assert ("key" if missing == "keys" else "channel") in text


async def test_without_the_right_to_info_the_policy_is_not_checked(server, caplog):
    set_rights(server, *RULES.replace("+info", "").split())
    found = engine(server)
    await found.open()
    await found.aclose()
    assert caplog.text.count("its eviction policy is not known") == 1


@pytest.mark.parametrize(
    ("policy", "memory", "fits"),
    [
        ("allkeys-lru", "100mb", False),
        ("allkeys-random", "100mb", False),
        ("allkeys-lru", "0", True),
        ("volatile-ttl", "100mb", True),
        ("noeviction", "100mb", True),
    ],
)
async def test_a_server_that_may_evict_any_key_is_refused(server, policy, memory, fits):
    set_rights(server, *RULES.split())
    server.call("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", memory)
    try:
        found = engine(server)
        if fits:
            await found.open()
            await found.aclose()
        else:
            text = await refusal(found)
            assert f"must be noeviction or volatile-*, got {policy}" in text
    finally:
        server.call("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0")


async def test_a_wrong_password_and_namespace_are_named(server):
    set_rights(server, *RULES.split())
    text = await refusal(engine(server, access=access(server, password="wrong")))
    assert "refuses the user 'grafana'" in text and "wrong" not in text
    text = await refusal(engine(server, namespace="other"))
    assert "~other:*" in text
    for namespace in ("", "a:b", "a{b}", "a b", "ä", "x" * 65, "a*"):
        with pytest.raises(ConfigError, match=re.escape(f"got {namespace!r}")):
            engine(server, namespace=namespace)


async def test_the_other_kind_of_server_is_named(server):
    set_rights(server, *RULES.split())
    text = await refusal(cluster_engine([server]))
    assert "cluster|slots" in text and CLUSTER_RIGHTS in text
    set_rights(server, *f"{RULES} {CLUSTER_RIGHTS}".split())
    assert "cluster support disabled" in await refusal(cluster_engine([server]))
    with RedisSentinel(server) as sentinel:
        made = engine(sentinel, access=RedisAccess(password=sentinel.password))
        assert "is a sentinel; use redis+sentinel://" in await refusal(made)
    with redis_cluster(1, EngineClusterNode) as nodes:
        assert "use a URL with redis+cluster://" in await refusal(engine(nodes[0]))


async def test_the_rights_of_a_cluster_are_named():
    with redis_cluster(1, EngineClusterNode) as nodes:
        set_rights(nodes[0], *f"{RULES} {CLUSTER_RIGHTS}".replace("+spublish", "").split())
        text = await refusal(cluster_engine(nodes))
        assert "SPUBLISH" in text and CLUSTER_RIGHTS in text


async def test_a_replica_is_named(server):
    with EngineReplica(server) as replica:
        await until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"))
        assert "is a replica" in await refusal(engine(replica), EngineError)


async def test_what_is_wrong_with_tls_is_named():
    with EngineRedis(tls=certificates().server, client_ca=certificates().ca) as encrypted:
        own = access(encrypted)
        plain = RedisEngine(f"redis://127.0.0.1:{encrypted.port}", namespace="test", access=own)
        assert "it may expect TLS: use rediss:// instead of redis://" in await refusal(
            plain, EngineError
        )
        for changed, expected in (
            (TlsSettings(), "cluster_ca_file"),
            (
                TlsSettings(ca_certificate=certificates().ca),
                "set cluster_certificate_file and cluster_key_file",
            ),
            (TlsSettings(ca_certificate=certificates().other_ca), "cluster_ca_file must be"),
        ):
            text = await refusal(engine(encrypted, access=own._replace(tls=changed)), Exception)
            assert re.search(expected, text), text
    with EngineRedis() as unencrypted:
        url = f"rediss://127.0.0.1:{unencrypted.port}"
        text = await refusal(RedisEngine(url, namespace="test"), EngineError)
        assert "the port has no TLS: then use redis:// instead of rediss://" in text


@pytest.mark.parametrize(
    ("name", "version", "sharded", "fits"),
    [
        ("redis", "6.0.16", False, False),
        ("redis", "6.2.0", False, True),
        ("redis", "6.2.0", True, False),
        ("redis", "7.0.15", True, True),
        ("valkey", "8.1.4", True, True),
        ("redis", "10.0", False, True),
        ("redis", "", False, False),
    ],
)
def test_a_version_that_is_too_old_is_refused(name, version, sharded, fits):
    mode = b"cluster" if sharded else b"standalone"
    kind = ServerKind({b"server": name.encode(), b"version": version.encode(), b"mode": mode})
    if fits:
        check_kind(kind, "Redis x:1", sharded=sharded)
    else:
        with pytest.raises(ConfigError, match=f"newer, got {version!r}"):
            check_kind(kind, "Redis x:1", sharded=sharded)


@pytest.mark.parametrize(
    ("url", "kind", "expected"),
    [
        ("redis://h", OneServer, ("", "", 0)),
        ("redis://h:1/5", OneServer, ("", "", 5)),
        ("redis://:secret@h", OneServer, ("", "secret", 0)),
        ("redis://u:p%40%2F@[::1]:7", OneServer, ("u", "p@/", 0)),
        ("redis+sentinel://u:p@a:1,b/main", SentinelServers, ("u", "p", 0)),
        ("redis+sentinel://a/main/3", SentinelServers, ("", "", 3)),
        ("redis+cluster://a:1,b:2,c", ClusterServers, ("", "", 0)),
        (" redis+cluster://a/ ", ClusterServers, ("", "", 0)),
    ],
)
def test_a_url_names_servers_user_and_database(url, kind, expected):
    found = servers_at(url, RedisAccess())
    assert type(found) is kind and found.login[:3] == expected and found.login.tls is None


def test_given_users_and_passwords_replace_those_of_the_url():
    found = servers_at("rediss://u:p@h", RedisAccess(user="me", password="mine"))
    assert found.login[:2] == ("me", "mine") and found.login.tls is not None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "must begin with redis://, rediss://"),
        ("http://h", "got 'http://h'"),
        ("nats://u:secret@h", "got 'nats://…@h'"),
        ("redis://", "got ''"),
        ("redis://a,b", "several hosts need redis\\+sentinel:// or redis\\+cluster://"),
        ("redis://h:x", "from 1 to 65535, got 'h:x'"),
        ("redis://h:99999", "from 1 to 65535"),
        ("redis://h/db", "must be a number, .* got 'db'"),
        ("redis://h/-1", "must be a number, .* got '-1'"),
        ("redis://h/1/2", "must be a number, .* got '1/2'"),
        ("redis://h/²", "must be a number"),
        ("redis://h?db=1", "got 'redis://h\\?db=1'"),
        ("redis://u:secret@h?db=1", "got 'redis://…@h\\?db=1'"),
        ("redis://u:se@cr/et@h?", "got 'redis://…@h\\?'"),
        ("redis+sentinel://a", "must end with the name of the primary"),
        ("redis+cluster://a/1", "only the database 0, got 1"),
        ("redis+tls://a", "must begin with"),
    ],
)
def test_a_bad_url_is_named_without_its_password(url, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        servers_at(url, RedisAccess())
    assert "secret" not in str(caught.value)


def test_partitions_share_the_slots_evenly_and_the_keys_of_a_channel_have_one():
    from redis.crc import key_slot

    names = KeyNames("n", 128)
    for nodes in (3, 6, 16):
        slots = [key_slot(each.leases) * nodes // 16_384 for each in names.partitions]
        counts = [slots.count(node) for node in range(nodes)]
        assert max(counts) - min(counts) <= 1
    for channel in ("a", "x.y", "b" * 200):
        assert len({key_slot(key) for key in names.of(channel)}) == 1
    used = {names.partition(f"c{number}") for number in range(5_000)}
    assert len(used) == 128


@pytest.mark.parametrize("channel", ["", "a b", "a:b", "{a}", "ä", "a\n", "a/b"])
def test_a_channel_with_other_characters_is_a_value_error(channel):
    with pytest.raises(ValueError, match="a channel must be letters, digits and -_."):
        KeyNames("n", 1).of(channel)
