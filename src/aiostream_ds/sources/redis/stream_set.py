"""The streams of a panel with several: by their keys, or by patterns that find new ones."""

from collections.abc import Sequence

from aiostream_ds._redis.redis_connection import MissingRight
from aiostream_ds._redis.servers import Servers
from aiostream_ds.errors import BadQuery
from aiostream_ds.sources.redis.entry_reader import PAGE_ENTRIES
from aiostream_ds.sources.redis.positions import BEGINNING, Position, StreamInfo, read_info
from aiostream_ds.sources.redis.redis_names import stream_names

__all__ = ["STREAMS", "StreamSet", "split_names"]

STREAMS = 100
"""Maximum number of streams in one panel."""


def split_names(text: str) -> list[str]:
    """The names and patterns of a query, which has commas between them.

    Raises:
        BadQuery: there is none, or there are too many.
    """
    names = list(dict.fromkeys(name for each in text.split(",") if (name := each.strip())))
    if not 1 <= len(names) <= STREAMS:
        raise BadQuery(
            f"streams must be 1 to {STREAMS} names with commas between them, got {text!r}"
        )
    return names


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern of Redis."""
    return any(char in name for char in "*?[")


class StreamSet:
    """Finds the streams of a panel, and remembers where each is read.

    Attributes:
        positions: the position in each stream by its key; readers move them.
        refused: why streams cannot be read, by their names.
        is_cut: whether more than `STREAMS` match.
    """

    def __init__(self, servers: Servers, names: Sequence[str]) -> None:
        self._servers = servers
        self._names = names
        self._has_started = False
        self.positions: dict[bytes, Position] = {}
        self.refused: dict[str, str] = {}
        self.is_cut = False

    @property
    def has_patterns(self) -> bool:
        """Whether new streams may match later."""
        return any(map(is_pattern, self._names))

    async def keys(self) -> list[str]:
        """The keys that the names and patterns select now. Raises PluginError."""
        found: dict[str, None] = {}
        for name in self._names:
            if is_pattern(name):
                found.update(dict.fromkeys(await stream_names(self._servers, name, STREAMS + 1)))
            else:
                found[name] = None
        self.is_cut = len(found) > STREAMS
        return list(found)[:STREAMS]

    async def update(self) -> bool:
        """Find new streams. Returns whether there are some; after the first call, only patterns and
        streams that were refused are looked at.

        Raises:
            PluginError: the servers cannot be read.
        """
        count = len(self.positions)
        self.refused.clear()
        for name in await self.keys():
            key = name.encode()
            if key in self.positions:
                continue
            try:
                info = await read_info(self._servers.caller(key), key)
            except (BadQuery, MissingRight) as error:
                self.refused[name] = error.message
            else:
                self.positions[key] = self._start(info)
        self._has_started = True
        return len(self.positions) > count

    def _start(self, info: StreamInfo | None) -> Position:
        """After the newest entry; a stream that has appeared since is read from its beginning."""
        if info is None:
            return Position(BEGINNING, 0)
        if self._has_started and info.length <= PAGE_ENTRIES:
            return Position(BEGINNING)
        return Position(info.last, info.added)
