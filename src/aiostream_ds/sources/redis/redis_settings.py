"""The settings of the source `redis`, and the servers that they describe."""

from typing import Annotated, Literal

from msgspec import Meta

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
from aiostream_ds.settings import Secret, secret, section
from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.form_sections import MESSAGES
from aiostream_ds.sources.sharing_settings import SharingSettings

__all__ = ["RedisSettings", "servers_of"]

_SENTINEL = section("Sentinel")


class RedisSettings(DecodingSettings, TlsSettings, SharingSettings):
    """Which server is read, and how its entries and messages become rows."""

    host: Annotated[str, Meta(examples=["redis.example.com"])]
    """The server's name or address. With Sentinel or a cluster several ones, with commas between
    them, each with or without a port: those of some sentinels, or of some servers of the
    cluster."""
    port: Annotated[int, Meta(ge=1, le=65_535)] = 6379
    """The port of servers that are named without one. Sentinels usually listen on 26379."""
    mode: Literal["server", "sentinel", "cluster"] = "server"
    """Whether the hosts are one server, sentinels that name the primary, or a cluster."""
    database: Annotated[int, Meta(ge=0)] = 0
    """The number of the database. A cluster has only 0."""
    tls: bool = False
    """Whether connections are encrypted, also those to sentinels."""
    user: str = ""
    """The ACL user. Without one it is the default user."""
    password: Secret = secret()
    payload_field: Annotated[str, Meta(examples=["payload"]), MESSAGES] = ""
    """The field of a stream's entries that holds a whole message, as JSON. The other fields become
    columns next to it. Without one each field is a column."""
    sentinel_primary: Annotated[str, Meta(examples=["mymaster"]), _SENTINEL] = ""
    """The name of the primary in the sentinels' configuration."""
    sentinel_user: Annotated[str, _SENTINEL] = ""
    """The ACL user of the sentinels, if they have users of their own."""
    sentinel_password: Annotated[Secret, _SENTINEL] = secret()


def servers_of(settings: RedisSettings) -> Servers:
    """The servers that the settings describe. Blocks for some milliseconds with TLS.

    Raises:
        ConfigError: settings do not fit together, or one is invalid.
    """
    context = ssl_context(settings) if settings.tls else None
    login = RedisLogin(settings.user, settings.password.reveal(), settings.database, context)
    addresses = read_addresses(settings.host, settings.port)
    if settings.mode == "cluster":
        if settings.database:
            raise ConfigError(f"a cluster has only the database 0, got {settings.database}")
        return ClusterServers(login, addresses)
    if settings.mode == "sentinel":
        if not settings.sentinel_primary:
            raise ConfigError("sentinelPrimary must be the name of the primary, as mymaster")
        sentinel = login._replace(
            user=settings.sentinel_user, password=settings.sentinel_password.reveal(), database=0
        )
        return SentinelServers(login, addresses, sentinel, settings.sentinel_primary)
    if len(addresses) > 1:
        raise ConfigError(
            f"host must be one server unless mode is sentinel or cluster, got {settings.host!r}"
        )
    return OneServer(login, addresses[0])
