"""Where a reader is in a Redis stream, and how many entries it could not read.

An id is a pair of numbers: `1700000000000-3` is (1700000000000, 3), the fourth entry of its
millisecond. Redis counts the entries that were ever added (since version 7), so that those that
were trimmed or deleted before they were read are counted too.
"""

from typing import Any, NamedTuple

from aiostream_ds._redis.redis_connection import MissingRight, NoSuchKey
from aiostream_ds.errors import PluginError

__all__ = [
    "BEGINNING",
    "LARGEST",
    "Change",
    "Id",
    "Position",
    "StreamInfo",
    "before",
    "format_id",
    "next_id",
    "parse_id",
    "read_info",
]

Id = tuple[int, int]

BEGINNING: Id = (-1, -1)
"""Before the first entry of a stream."""

LARGEST = (1 << 53) - 1
"""The largest number of a cursor."""


def parse_id(text: bytes) -> Id:
    """The pair of numbers of an id."""
    ms, _, seq = text.partition(b"-")
    return int(ms), int(seq)


def format_id(id: Id) -> str:
    """The id as Redis spells it; `0-0` for the beginning."""
    ms, seq = max(id, (0, 0))
    return f"{ms}-{seq}"


def before(id: Id) -> Id:
    """The largest id that is smaller."""
    ms, seq = id
    if seq > 0:
        return ms, seq - 1
    return (ms - 1, LARGEST) if ms > 0 else BEGINNING


def next_id(id: Id) -> Id:
    """The smallest id that is larger."""
    return (0, 0) if id == BEGINNING else (id[0], id[1] + 1)


class StreamInfo(NamedTuple):
    """What Redis reports of a stream. `first` is None if it is empty; `added` is the number of
    entries that were ever added, None before Redis 7."""

    length: int
    first: Id | None
    last: Id
    added: int | None


async def read_info(call: Any, key: bytes) -> StreamInfo | None:
    """The state of a stream; None if there is no such key.

    Without the right to XINFO the ids come from two other commands, and nothing is counted.

    Args:
        call: sends a command and returns its answer.
        key: the stream's key.

    Raises:
        PluginError: the key is not a stream, or may not be read.
    """
    try:
        found = await call("XINFO", "STREAM", key)
    except NoSuchKey:
        return None
    except MissingRight as error:
        return await _ids_only(call, key, error)
    fields = dict(zip(found[::2], found[1::2], strict=True))
    first = fields[b"first-entry"]
    return StreamInfo(
        length=fields[b"length"],
        first=None if first is None else parse_id(first[0]),
        last=parse_id(fields[b"last-generated-id"]),
        added=fields.get(b"entries-added"),
    )


async def _ids_only(call: Any, key: bytes, error: PluginError) -> StreamInfo | None:
    newest = await call("XREVRANGE", key, "+", "-", "COUNT", 1)
    oldest = await call("XRANGE", key, "-", "+", "COUNT", 1)
    if not newest or not oldest:
        return None
    return StreamInfo(len(newest), parse_id(oldest[0][0]), parse_id(newest[0][0]), None)


class Change(NamedTuple):
    """What a comparison with the stream has found.

    `lost` entries were removed before they were read; None if it is not known how many. They were
    before `upto`, if that is not None. `is_reset`: the ids restarted, or the last entries are gone.
    """

    lost: int | None = 0
    upto: Id | None = None
    is_reset: bool = False


class Position:
    """Where a reader is in one stream.

    Attributes:
        id: the id of the last entry that was read, or before which reading started.
        added: the number of entries that were added up to there; None if it is not known.
    """

    __slots__ = ("added", "id")

    def __init__(self, id: Id, added: int | None = None) -> None:
        self.id = id
        self.added = added

    def advance(self, last: Id, count: int) -> None:
        """So many entries were read, up to an id."""
        self.id = last
        if self.added is not None:
            self.added += count

    def compare(self, info: StreamInfo) -> Change | None:
        """What has changed in a way that reading does not show; None if nothing has. The position
        moves after it."""
        if info.last < self.id:
            self.id, self.added = info.last, info.added
            return Change(lost=None, is_reset=True)
        passed = self._passed(info)
        if passed is None:
            return None
        known, (upto, self.added) = self.added, passed
        has_moved = upto is not None and BEGINNING < self.id < upto
        if has_moved and upto is not None:
            self.id = upto
        if known is None or self.added is None:
            return Change(None, upto) if has_moved else None
        if self.added == known:
            return None
        return Change(self.added - known if self.added > known else None, upto)

    def _passed(self, info: StreamInfo) -> tuple[Id | None, int | None] | None:
        """Up to where there is no entry to read any more, and the number of entries that were added
        up to there; None if the next entry to read may follow directly."""
        if info.last == self.id:
            return None, info.added
        if info.first is None:
            return info.last, info.added
        if info.first > self.id:
            return before(info.first), None if info.added is None else info.added - info.length
        return None
