"""The payloads of entries: the first one of a term, and messages of the upstream.

A message has an identity of its own, apart from the id of its entry: an owner appends it again in a
later term if the engine has lost it. It names the message before it, so that a reader of the log
knows whether it has all.
"""

import hashlib
from typing import NamedTuple

import msgspec

from aiostream_ds._cluster.wire_cursors import WireCursors, from_wire, to_wire
from aiostream_ds._frames.packet import CursorRange

__all__ = [
    "PROTOCOL",
    "EntryCodec",
    "ChannelMessage",
    "MessageId",
    "TermStart",
    "schema_hash",
]

PROTOCOL = 1
"""Grows when older versions cannot read the entries. Belongs in the names of channels."""


class MessageId(NamedTuple):
    """`run`: a random number for each term of an owner. `number`: of its messages, from 1."""

    run: int
    number: int


NO_MESSAGE = MessageId(0, 0)


class TermStart(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """The first entry of a term. `run` distinguishes two terms with one number, of which the engine
    has lost the first one."""

    run: int
    node: str


class ChannelMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of the upstream. Without a payload: the source has ended.

    Attributes:
        id: its identity.
        before: the message before it; NO_MESSAGE at the start of a log.
        time: of the owner's clock, in milliseconds since the epoch.
        schema: its hash; 0: it has none.
        schema_body: the schema, if it is another one than that of the message before.
    """

    id: MessageId
    before: MessageId
    time: int
    schema: int
    schema_body: bytes | None
    cursors: CursorRange | None
    payload: bytes


class _WireMessage(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A `ChannelMessage` in an entry."""

    id: MessageId
    before: MessageId
    time: int
    schema: int
    schema_body: bytes | None
    cursors: WireCursors | None
    payload: bytes


def schema_hash(schema: bytes | None) -> int:
    """A number for a schema; 0: there is none."""
    if schema is None:
        return 0
    return int.from_bytes(hashlib.blake2b(schema, digest_size=7).digest(), "big") + 1


class EntryCodec:
    """Encodes and decodes the payloads of entries."""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(TermStart | _WireMessage).decode

    def encode(self, content: TermStart | ChannelMessage) -> bytes:
        if isinstance(content, TermStart):
            return self._encode(content)
        fields = (content.id, content.before, content.time, content.schema, content.schema_body)
        return self._encode(_WireMessage(*fields, to_wire(content.cursors), content.payload))

    def decode(self, payload: bytes) -> TermStart | ChannelMessage | None:
        """What is in an entry; None: this version cannot read it."""
        try:
            found: TermStart | _WireMessage = self._decode(payload)
            if isinstance(found, TermStart):
                return found
            fields = (found.id, found.before, found.time, found.schema, found.schema_body)
            return ChannelMessage(*fields, from_wire(found.cursors), found.payload)
        except ValueError:  # also msgspec's
            return None
