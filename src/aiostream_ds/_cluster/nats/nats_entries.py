"""What a message of a channel's log has in its headers.

A schema is stored in front of the payload of the entry that sets it, so that both are there or
neither. Later entries point to that message; before the server removes it, because a log has so
many messages only, the schema is stored again.
"""

from collections.abc import Mapping
from typing import NamedTuple

from aiostream_ds._cluster.engine import START, Entry, EntryId
from aiostream_ds._cluster.nats.nats_subjects import from_token, to_token
from aiostream_ds._nats.nats_protocol import NatsMessage

__all__ = [
    "HEADER_BYTES",
    "SENT_HEADERS",
    "LogMessage",
    "SchemaPlace",
    "foreign_message",
    "is_sent",
    "live_message",
    "log_message",
]

HEADER_BYTES = 1024
"""Most bytes of an entry's headers, also after the server has added its own."""

SENT_HEADERS: Mapping[str, str] = {"Aiostream-Sent": "1"}
"""Of messages that are in no log."""

_HEADER = "Aiostream-Entry"
_NOBODY = "."  # not a token


class SchemaPlace(NamedTuple):
    """Where the schema is: the sequence of the message, which is `age` messages old."""

    sequence: int
    age: int


class LogMessage(NamedTuple):
    """A message of a log: an entry, or that the owner of the last entry has resigned.

    Attributes:
        sequence: of the stream.
        node: the owner; empty: it has resigned, and `id` is that of the entry before.
        first: the sequence of the first entry of the term; 0: it is this one.
        schema: None: this message does not have it.
        place: None: the channel has no schema, or this message has it.
    """

    sequence: int
    id: EntryId
    previous: EntryId
    node: str
    first: int
    schema: bytes | None
    place: SchemaPlace | None
    payload: bytes

    @property
    def entry(self) -> Entry:
        return Entry(self.id, self.previous, self.payload)

    def headers(self) -> Mapping[str, str]:
        """The headers, without what the server adds."""
        length = -1 if self.schema is None else len(self.schema)
        place = self.place or SchemaPlace(0, 0)
        node = to_token(self.node) or _NOBODY
        words = (*self.id, *self.previous, node, self.first, length, *place)
        return {_HEADER: " ".join(map(str, words))}

    def stored_payload(self) -> bytes:
        """The bytes that are stored."""
        return self.payload if self.schema is None else self.schema + self.payload

    def next_place(self) -> SchemaPlace | None:
        """Where the schema is for the message after this one."""
        if self.schema is not None:
            return SchemaPlace(self.sequence, 1)
        return None if self.place is None else self.place._replace(age=self.place.age + 1)


def log_message(sequence: int, headers: Mapping[str, str], data: bytes) -> LogMessage | None:
    """The message that was stored; None if it was not stored by an engine."""
    try:
        words = headers[_HEADER].split(" ")
        term, number, before, before_number, first, length, place, age = (
            int(word) for word in (*words[:4], *words[5:])
        )
    except (KeyError, ValueError):
        return None
    node = "" if words[4] == _NOBODY else from_token(words[4])
    return LogMessage(
        sequence,
        EntryId(term, number),
        EntryId(before, before_number),
        node,
        first,
        None if length < 0 else data[:length],
        SchemaPlace(place, age) if place else None,
        data if length < 0 else data[length:],
    )


def foreign_message(sequence: int) -> LogMessage:
    """A message that was stored by another program: as of an owner who has resigned."""
    return LogMessage(sequence, START, START, "", 0, None, None, b"")


def is_sent(message: NatsMessage) -> bool:
    """Whether a message was sent to the nodes that watch a channel, and is in no log."""
    return SENT_HEADERS.items() <= message.headers.items()


def live_message(message: NatsMessage) -> LogMessage | None:
    """The same for a message that the server has published again."""
    sequence = message.headers.get("Nats-Sequence", "")
    return (
        log_message(int(sequence), message.headers, message.payload) if sequence.isdigit() else None
    )
