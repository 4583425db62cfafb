"""Save & test: what the server is, what its user may do, and what the source can do with it."""

from collections.abc import Sequence
from typing import Any

from aiostream_ds._redis.redis_connection import Connection, MissingRight, NoSuchKey
from aiostream_ds._redis.servers import Servers
from aiostream_ds.errors import ConfigError, PluginError

__all__ = ["ServerCheck", "check_server", "keyspace_warning"]

_KEY = "aiostream_ds:check"

_STREAM_COMMANDS: Sequence[tuple[str, tuple[str | int, ...]]] = (
    ("XREAD", ("XREAD", "COUNT", 1, "STREAMS", _KEY, "0-0")),
    ("XRANGE", ("XRANGE", _KEY, "-", "+", "COUNT", 1)),
    ("XREVRANGE", ("XREVRANGE", _KEY, "+", "-", "COUNT", 1)),
    ("XINFO STREAM", ("XINFO", "STREAM", _KEY)),
    ("SCAN", ("SCAN", 0, "COUNT", 1)),
)
_CHANNEL_COMMANDS: Sequence[tuple[str, tuple[str | int, ...]]] = (
    ("PUBSUB CHANNELS", ("PUBSUB", "CHANNELS", _KEY)),
    ("CONFIG GET", ("CONFIG", "GET", "notify-keyspace-events")),
    # these come last: they change what the connection can do
    ("PING", ("PING",)),
    ("SUBSCRIBE", ("SUBSCRIBE", _KEY)),
    ("PSUBSCRIBE", ("PSUBSCRIBE", _KEY)),
)

_WITHOUT = {
    "XREAD": "no live entries of streams",
    "XRANGE": "no history of streams",
    "XREVRANGE": "no history of streams",
    "XINFO STREAM": "trimmed entries are noticed, but not counted",
    "SCAN": "no suggestions of streams, and no patterns of them",
    "PUBSUB CHANNELS": "no suggestions of channels",
    "CONFIG GET": "whether keyspace events are on is not known",
    "PING": "no channels",
    "SUBSCRIBE": "no channels",
    "PSUBSCRIBE": "no patterns and no keyspace events",
}
"""What each command is needed for."""


class ServerCheck:
    """What one server answers.

    Attributes:
        text: the server and its version in words.
        missing: the commands that the user may not call, with what does not work without them.
        events: the server's setting `notify-keyspace-events`; None if it may not be read.
    """

    def __init__(self, text: str, missing: dict[str, str], events: str | None) -> None:
        self.text = text
        self.missing = missing
        self.events = events


async def check_server(servers: Servers) -> ServerCheck:
    """Dial a primary with a connection of its own, log in, and try each command.

    Raises:
        PluginError: the server cannot be used.
    """
    await servers.refresh()
    address = await servers.address()
    async with servers.dial(address) as connection:
        about = await _hello(connection)
        events: str | None = None
        missing = {}
        for name, words in (*_STREAM_COMMANDS, *_CHANNEL_COMMANDS):
            answer, may_call = await _try(connection, words)
            if not may_call:
                missing[name] = _WITHOUT[name]
            elif name == "CONFIG GET":
                events = answer[1].decode() if answer else None
        return ServerCheck(f"connected to {about} at {address}", missing, events)


async def _hello(connection: Connection) -> str:
    """The name and version of the server, which every user may ask for."""
    try:
        found: list[Any] = await connection.call("HELLO", 2)
    except ConfigError:
        if not connection.is_open:
            raise
        return "Redis (before version 6)"  # the command is unknown
    fields = dict(zip(found[::2], found[1::2], strict=True))
    name = fields.get(b"server", b"redis").decode().capitalize()
    parts = [fields[part].decode() for part in (b"mode", b"role") if part in fields]
    return f"{name} {fields[b'version'].decode()} ({', '.join(parts)})"


async def _try(connection: Connection, words: tuple[str | int, ...]) -> tuple[Any, bool]:
    """The answer to a command, and whether the user may call it. A right that is limited to some
    keys or channels is one."""
    try:
        return await connection.call(*words), True
    except MissingRight as error:
        return None, "to run the" not in error.message
    except NoSuchKey:
        return None, True
    except PluginError:
        if not connection.is_open:
            raise
        return None, True  # as MOVED: the command itself is allowed


async def keyspace_warning(servers: Servers) -> str:
    """Why keyspace events do not arrive; empty if they do, or if that is not known.

    Raises:
        PluginError: the server cannot be asked.
    """
    try:
        for address in await servers.primaries():
            found = await servers.command(address, "CONFIG", "GET", "notify-keyspace-events")
            if found and (text := events_warning(found[1].decode())):
                return f"Redis {address}: {text}"
    except ConfigError:  # without the right, or where a provider has removed the command
        return ""
    return ""


def events_warning(flags: str) -> str | None:
    """What is wrong with a value of `notify-keyspace-events`; None if nothing is."""
    if "K" in flags and set(flags) - set("KE"):
        return None
    return (
        f"no keyspace events are published: notify-keyspace-events is {flags!r}; it must have K"
        " and the classes of events, as in KA (CONFIG SET notify-keyspace-events KA)"
    )
