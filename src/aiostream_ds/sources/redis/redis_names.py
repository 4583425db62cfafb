"""Names of streams and channels that exist, for suggestions."""

from collections.abc import Iterable

import anyio

from aiostream_ds._redis.servers import Servers

__all__ = ["NAMES", "channel_names", "escape_glob", "patterns_of", "stream_names"]

NAMES = 200
"""Maximum number of names that are found."""

SCAN_COUNT = 1_000
"""Keys that Redis looks at in one step of a scan."""

SCAN_SECONDS = 2.0
"""Seconds after which a scan of many keys ends with the names found so far."""


def escape_glob(text: str) -> str:
    """A pattern of Redis that matches exactly this text."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in text)


async def stream_names(servers: Servers, pattern: str, limit: int = NAMES) -> list[str]:
    """The keys of streams that match a pattern, sorted; at most `limit` of them.

    Raises:
        PluginError: the servers cannot be read.
    """
    found: set[str] = set()
    for address in await servers.primaries():
        cursor = b"0"
        with anyio.move_on_after(SCAN_SECONDS):
            while len(found) < limit:
                cursor, keys = await servers.command(
                    address, *("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT), *_STREAMS
                )
                found.update(_texts(keys))
                if cursor == b"0":
                    break
    return sorted(found)[:limit]


_STREAMS = ("TYPE", "stream")


async def channel_names(servers: Servers, pattern: str) -> list[str]:
    """The channels with subscribers that match a pattern, sorted.

    Raises:
        PluginError: the servers cannot be read.
    """
    found: set[str] = set()
    for address in await servers.primaries():
        found.update(_texts(await servers.command(address, "PUBSUB", "CHANNELS", pattern)))
    return sorted(name for name in found if not name.startswith("__"))[:NAMES]


def patterns_of(names: Iterable[str]) -> list[str]:
    """Patterns for names with the same beginning: `sensors:*` for `sensors:1`."""
    found: dict[str, None] = {}
    for name in names:
        end = max(name.rfind(char) for char in ":./")
        if end > 0:
            found[f"{escape_glob(name[: end + 1])}*"] = None
    return list(found)


def _texts(names: Iterable[bytes]) -> list[str]:
    """The names that are UTF-8; others cannot be typed."""
    found = []
    for name in names:
        try:
            found.append(name.decode())
        except UnicodeDecodeError:
            continue
    return found
