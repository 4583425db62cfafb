"""Engines of Redis against a server, as the user with the rights that docs/cluster.md asks for."""

from collections.abc import Sequence
from typing import Any

from aiostream_ds._cluster.redis.channel_keys import PARTITIONS, KeyNames
from aiostream_ds._cluster.redis.redis_engine import RedisEngine
from aiostream_ds._cluster.redis.redis_fitness import CLUSTER_RIGHTS, RIGHTS
from aiostream_ds._cluster.redis.redis_url import RedisAccess
from aiostream_ds._tls import TlsSettings
from aiostream_ds.settings import Secret
from tests.servers import Redis, certificates
from tests.servers.redis import RedisClusterNode

NAMESPACE = "test"
RULES = f"resetkeys ~aiostream:{NAMESPACE}:* resetchannels &aiostream:{NAMESPACE}:* -@all {RIGHTS}"


class EngineRedis(Redis):
    """A server whose user `grafana` has the rights of an engine."""

    rights = RULES


class EngineClusterNode(RedisClusterNode):
    """A server of a Redis Cluster with the same user."""

    rights = f"{RULES} {CLUSTER_RIGHTS}"


def access(server: Redis, **changes: Any) -> RedisAccess:
    tls = None
    if server.tls:
        tls = TlsSettings(ca_certificate=certificates().ca)
        if server.client_ca:
            own = certificates().client
            tls = TlsSettings(
                ca_certificate=certificates().ca,
                client_certificate=own.certificate,
                client_key=Secret(own.key),
            )
    return RedisAccess(server.reader, server.reader_password, tls=tls)._replace(**changes)


def engine(server: Redis, port: int = 0, **options: Any) -> RedisEngine:
    """An engine of one server, through a proxy on `port` if given. It is not open."""
    scheme = "rediss" if server.tls else "redis"
    options = {"namespace": NAMESPACE, "access": access(server)} | options
    return RedisEngine(f"{scheme}://127.0.0.1:{port or server.port}", **options)


def cluster_engine(nodes: Sequence[Redis], **options: Any) -> RedisEngine:
    """An engine of a Redis Cluster. It is not open."""
    options = {"namespace": NAMESPACE, "access": access(nodes[0])} | options
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return RedisEngine(f"redis+cluster://{hosts}", **options)


def evict(servers: Sequence[Redis], channel: str) -> None:
    """Remove the log of a channel, as a server does that is out of memory."""
    log = KeyNames(NAMESPACE, PARTITIONS if len(servers) > 1 else 1).of(channel).log
    for server in servers:
        server.call("DEL", log)  # of a cluster one server has it; the others refuse
