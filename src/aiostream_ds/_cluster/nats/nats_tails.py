"""What the engine remembers of logs, so that most appends and reads need no search."""

from collections import OrderedDict
from typing import NamedTuple

from aiostream_ds._cluster.engine import START, EntryId
from aiostream_ds._cluster.nats.nats_entries import LogMessage, SchemaPlace

__all__ = ["KnownSequences", "LastMessages", "Tail", "Tails", "tail_after"]

_SEQUENCES = 50_000
_FRESH = 2.0
"""Seconds for which the last message of a log needs not be asked for again."""


class Tail(NamedTuple):
    """The end of a log, after which the next message is stored.

    Attributes:
        sequence: of the last message; 0: the log is empty.
        first: the sequence of the first entry of the term.
        place: where the schema is, for the next message.
        schema: of the channel.
        connection: the number of the connection on which this was read or written. A server that
            has lost messages uses their sequences again; but then it has lost its connections too.
    """

    id: EntryId
    sequence: int
    node: str
    first: int
    place: SchemaPlace | None
    schema: bytes | None
    connection: int


def tail_after(message: LogMessage | None, schema: bytes | None, connection: int) -> Tail:
    """The end of a log whose last message is this one; None: it is empty."""
    if message is None:
        return Tail(START, 0, "", 0, None, None, connection)
    place = message.next_place()
    first = message.first or message.sequence
    return Tail(message.id, message.sequence, message.node, first, place, schema, connection)


class Tails:
    """The ends of logs, for the current connection."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}

    def get(self, channel: str, connection: int) -> Tail | None:
        """The tail, if it is of this connection."""
        tail = self._tails.get(channel)
        return tail if tail is not None and tail.connection == connection else None

    def set(self, channel: str, tail: Tail) -> None:
        self._tails[channel] = tail

    def remove(self, channel: str) -> None:
        self._tails.pop(channel, None)

    def clear(self) -> None:
        self._tails.clear()


class KnownSequences:
    """The sequences of entries that were seen lately."""

    def __init__(self) -> None:
        self._sequences: OrderedDict[tuple[str, EntryId], int] = OrderedDict()

    def get(self, channel: str, id: EntryId) -> int | None:
        return self._sequences.get((channel, id))

    def add(self, channel: str, id: EntryId, sequence: int) -> None:
        self._sequences[channel, id] = sequence
        if len(self._sequences) > _SEQUENCES:
            self._sequences.popitem(last=False)

    def clear(self) -> None:
        self._sequences.clear()


class LastMessages:
    """The last messages of logs, as `take` has just read them: who joins a channel reads its log
    and its schema next. Only of channels that are watched, so that later messages are seen."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, tuple[LogMessage, int, float]] = OrderedDict()

    def get(self, channel: str, connection: int, now: float) -> LogMessage | None:
        """The last message, if it was read lately on this connection."""
        found, known, since = self._found.get(channel, (None, 0, 0.0))
        return found if known == connection and now - since < _FRESH else None

    def set(self, channel: str, message: LogMessage, connection: int, now: float) -> None:
        self._found[channel] = message, connection, now
        self._found.move_to_end(channel)
        while now - next(iter(self._found.values()))[2] >= _FRESH:
            self._found.popitem(last=False)

    def remove(self, channel: str) -> None:
        """There is a later one, or the channel is not watched."""
        self._found.pop(channel, None)

    def clear(self) -> None:
        self._found.clear()
