"""Whether a server is fit for the engine: its version, the user's rights, and what it evicts."""

import re
from typing import Any

from redis.exceptions import RedisError

from aiostream_ds._cluster.redis.channel_keys import KeyNames
from aiostream_ds._cluster.redis.pipelined_connection import (
    ConnectionLost,
    PipelinedConnection,
    ServerKind,
)
from aiostream_ds._cluster.redis.redis_scripts import Scripts
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import ConfigError

__all__ = ["CLUSTER_RIGHTS", "RIGHTS", "check_kind", "check_server", "needed_rights"]

log = get_logger(__name__)

RIGHTS = (
    "+ping +select +info +eval +evalsha +time"
    " +hset +hget +hmget +hgetall +hdel +exists +persist +pexpire +del"
    " +xadd +xrange +xtrim +xinfo|stream"
    " +zadd +zrem +zrange +zrangebyscore +zscore"
    " +publish +subscribe +unsubscribe"
)
"""The commands that the ACL user needs, on the keys and channels `<namespace>:*`."""

CLUSTER_RIGHTS = "+spublish +ssubscribe +sunsubscribe +cluster|slots +asking"
"""Further ones with Redis Cluster."""

_OLDEST = (6, 2)
_OLDEST_CLUSTER = (7, 0)  # pub/sub by slot


async def check_server(
    connection: PipelinedConnection,
    keys: KeyNames,
    probe: bytes,
    scripts: Scripts,
    *,
    sharded: bool,
) -> None:
    """Check a server, by a dry run of each command on the key `probe`.

    Raises:
        ConfigError: what has to change.
        UpstreamError: the server does not answer.
    """
    server = connection.server
    check_kind(connection.kind, f"Redis {server}", sharded=sharded)
    subscribe, unsubscribe = "SUBSCRIBE", "UNSUBSCRIBE"
    if sharded:
        subscribe, unsubscribe = "SSUBSCRIBE", "SUNSUBSCRIBE"
    tried = [probe + suffix for suffix in (b"hash", b"stream", b"set")]
    rest: tuple[bytes | int, ...] = (len(tried), *tried)
    try:
        refused = await connection.call(("EVAL", scripts.check.text, *rest))
        await connection.call(("EVALSHA", scripts.check.hash, *rest))
        await connection.subscribe(subscribe, (probe,))
        await connection.subscribe(unsubscribe, (probe,))
    except (RedisError, ConnectionLost) as error:
        found = connection.describe(error)
        if isinstance(found, ConfigError):
            raise ConfigError(f"{found.message}; {needed_rights(keys, sharded=sharded)}") from error
        raise found from error
    if refused:
        raise ConfigError(
            f"Redis {server} refuses commands: {'; '.join(each.decode() for each in refused)};"
            f" {needed_rights(keys, sharded=sharded)}"
        )
    await _check_eviction(connection)


def needed_rights(keys: KeyNames, *, sharded: bool) -> str:
    """What the administrator of the server has to give the user."""
    rights = f"{RIGHTS} {CLUSTER_RIGHTS}" if sharded else RIGHTS
    return f"the user needs the rights ~{keys.prefix}* &{keys.prefix}* {rights}"


def check_kind(kind: ServerKind, server: str, *, sharded: bool) -> None:
    if kind.mode == "sentinel":
        raise ConfigError(f"{server} is a sentinel; use redis+sentinel://host:26379/<primary>")
    if (kind.mode == "cluster") != sharded:
        right, wrong = ("redis+cluster://", "a node of a cluster")
        if sharded:
            right, wrong = ("redis://", "not a node of a cluster")
        raise ConfigError(f"{server} is {wrong}; use a URL with {right}")
    oldest = _OLDEST_CLUSTER if sharded else _OLDEST
    found = tuple(int(part) for part in re.findall(r"\d+", kind.version)[:2])
    if found < oldest:
        raise ConfigError(
            f"{server} must be version {oldest[0]}.{oldest[1]} or newer, got {kind.version!r}"
        )


async def _check_eviction(connection: PipelinedConnection) -> None:
    """Raises ConfigError if the server may evict logs."""
    server = f"Redis {connection.server}"
    try:
        text: Any = await connection.call(("INFO", "memory"))
    except ConnectionLost as error:
        raise connection.describe(error) from error
    except RedisError as error:
        log.warning("%s: its eviction policy is not known (%s)", server, error)
        return
    shown = text.decode() if isinstance(text, bytes) else str(text)
    fields = dict(re.findall(r"(?m)^(\w+):(.*?)\r?$", shown))
    policy, limit = fields.get("maxmemory_policy", "noeviction"), fields.get("maxmemory", "0")
    if policy.startswith("allkeys-") and limit != "0":
        raise ConfigError(
            f"{server} may evict any key: maxmemory-policy must be noeviction or volatile-*, got"
            f" {policy} with maxmemory {limit}; or use another server"
        )
