"""The servers of a cluster engine, as a URL describes them.

    redis://[user:password@]host[:port][/database]
    redis+sentinel://[user:password@]host[:port],…/<name of the primary>[/database]
    redis+cluster://[user:password@]host[:port],…

With `rediss` instead of `redis` connections are encrypted, also those to sentinels.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from aiostream_ds._redis.redis_connection import RedisLogin
from aiostream_ds._redis.servers import (
    ClusterServers,
    OneServer,
    SentinelServers,
    Servers,
    read_addresses,
)
from aiostream_ds._tls import TlsSettings, ssl_context
from aiostream_ds.errors import ConfigError

__all__ = ["RedisAccess", "servers_at"]

_SCHEMES = (
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_PORT = 6379
_SENTINEL_PORT = 26379
_URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<login>[^/]*)@)?(?P<hosts>[^/@?#]*)(?P<path>/[^?#]*)?"
)


class RedisAccess(NamedTuple):
    """How the servers may be used. A user and password of the URL are overridden.

    Attributes:
        user: the ACL user; empty for the default one.
        password: of the user.
        sentinel_user: the ACL user of the sentinels, if they have users of their own.
        sentinel_password: of that user.
        tls: certificates, for `rediss`.
    """

    user: str = ""
    password: str = ""
    sentinel_user: str = ""
    sentinel_password: str = ""
    tls: TlsSettings | None = None


def servers_at(url: str, access: RedisAccess) -> Servers:
    """The servers of a URL. Blocks for some milliseconds with TLS.

    Raises:
        ConfigError: the URL or a certificate is invalid. The message does not have the password.
    """
    found = _URL.fullmatch(url.strip())
    if found is None or found["scheme"] not in _SCHEMES:
        raise ConfigError(
            f"the URL of the cluster must begin with {', '.join(f'{each}://' for each in _SCHEMES)}"
            f" and be as redis://host:6379, got {_without_login(url)!r}"
        )
    encrypted, _, mode = found["scheme"].partition("+")
    user, _, password = (found["login"] or "").rpartition("@")[2].partition(":")
    path = [unquote(part) for part in (found["path"] or "").split("/") if part]
    context = ssl_context(access.tls or TlsSettings()) if encrypted == "rediss" else None
    primary = path.pop(0) if mode == "sentinel" and path else ""
    login = RedisLogin(
        access.user or unquote(user), access.password or unquote(password), _database(path), context
    )
    addresses = read_addresses(found["hosts"], _SENTINEL_PORT if mode == "sentinel" else _PORT)
    if mode == "cluster":
        if login.database:
            raise ConfigError(f"Redis Cluster has only the database 0, got {login.database}")
        return ClusterServers(login, addresses)
    if mode == "sentinel":
        if not primary:
            raise ConfigError(
                "the URL of Sentinel must end with the name of the primary, as"
                f" redis+sentinel://host:26379/mymaster, got {_without_login(url)!r}"
            )
        sentinel = RedisLogin(access.sentinel_user, access.sentinel_password, 0, context)
        return SentinelServers(login, addresses, sentinel, primary)
    if len(addresses) > 1:
        raise ConfigError(
            f"several hosts need redis+sentinel:// or redis+cluster://, got {_without_login(url)!r}"
        )
    return OneServer(login, addresses[0])


def _database(path: list[str]) -> int:
    text = "/".join(path)
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(
            f"the database in the URL must be a number, as redis://host/0, got {text!r}"
        )
    return int(text)


def _without_login(url: str) -> str:
    return re.sub(r"//.*@", "//…@", url)
