"""The messages of a shared channel: packets, the stream's cursor and its status, as bytes.

    format (1 byte)    1: MessagePack    2: nonce (12 bytes), MessagePack encrypted by AES-GCM

All packets of a message have one schema, which is not in it: the cluster keeps it apart.

Each packet has the range of its cursors. Rows of a stream without a cursor have their numbers in
the log instead, which are equal on all nodes.
"""

from collections.abc import Sequence

import msgspec

from aiostream_ds._channels.status import Severity, Status
from aiostream_ds._cluster.message_cipher import Cipher, UnreadableMessage
from aiostream_ds._cluster.wire_cursors import WireCursors, from_wire, to_wire
from aiostream_ds._frames.packet import CursorRange, Packet, Schema

__all__ = ["NO_SCHEMA", "PacketCodec", "SharedMessage"]

NO_SCHEMA = Schema(b"", "")
"""Of packets without rows, before the first row."""

_CLEAR, _ENCRYPTED = b"\x01", b"\x02"


class SharedMessage(msgspec.Struct, frozen=True):
    """Consecutive packets of a stream, all with the same schema.

    `cursors` is the newest range of the stream, also if the message has no packets; None until it
    is known. `status` is that of the stream from here on; None: it is healthy. `missing`: rows
    before this message may be lost: the stream cannot be read again, and another node has taken it
    over. `has_ended`: the stream has returned, this is its last message. `sent_ms` is the owner's
    clock, in Unix ms.
    """

    packets: Sequence[Packet] = ()
    cursors: CursorRange | None = None
    status: Status | None = None
    missing: bool = False
    has_ended: bool = False
    sent_ms: int = 0


class _Packet(msgspec.Struct, array_like=True, frozen=True):
    data: bytes
    rows: int
    cursors: WireCursors | None
    continues: bool


class _Status(msgspec.Struct, array_like=True, frozen=True):
    severity: Severity
    text: str


class _Schema(msgspec.Struct, array_like=True, frozen=True):
    fingerprint: str
    body: bytes


class _Message(msgspec.Struct, array_like=True, frozen=True):
    packets: list[_Packet]
    cursors: WireCursors | None
    status: _Status | None
    missing: bool
    has_ended: bool
    sent_ms: int


_encode = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(_Message).decode
_decode_schema = msgspec.msgpack.Decoder(_Schema).decode


class PacketCodec:
    """Encodes and decodes the messages and schemas of one channel."""

    __slots__ = ("_channel", "_cipher", "_last")

    def __init__(self, channel: str, cipher: Cipher | None = None) -> None:
        self._channel, self._cipher = channel, cipher
        self._last: tuple[bytes | None, Schema] = None, NO_SCHEMA

    def encode(self, message: SharedMessage) -> bytes:
        """The payload of a message, without the schema of its packets."""
        packets = [
            _Packet(packet.data, packet.rows, to_wire(packet.cursors), packet.continues)
            for packet in message.packets
        ]
        status = message.status
        found = _Message(
            packets,
            to_wire(message.cursors),
            None if status is None else _Status(status.severity, status.text),
            message.missing,
            message.has_ended,
            message.sent_ms,
        )
        return self._seal(_encode(found))

    def encode_schema(self, schema: Schema) -> bytes:
        """The bytes of a schema, equal on all nodes."""
        return self._seal(_encode(_Schema(schema.fingerprint, schema.body)), same=True)

    def decode(self, payload: bytes, schema: bytes | None) -> tuple[SharedMessage, Schema]:
        """A message whose packets have this schema, and the schema.

        Raises:
            UnreadableMessage: the bytes are not a message, or a schema, of this channel.
        """
        found_schema = self.decode_schema(schema)
        try:
            found = _decode_message(self._open(payload))
            message = _message_of(found, found_schema)
        except ValueError as error:  # of msgspec, too
            raise UnreadableMessage(str(error)) from None
        return message, found_schema

    def decode_schema(self, schema: bytes | None) -> Schema:
        """The schema; `NO_SCHEMA` for None. The same object for the same bytes.

        Raises:
            UnreadableMessage: the bytes are not a schema of this channel.
        """
        if schema is None:
            return NO_SCHEMA
        known, decoded = self._last
        if schema is known or schema == known:
            return decoded
        try:
            found = _decode_schema(self._open(schema))
        except ValueError as error:
            raise UnreadableMessage(str(error)) from None
        self._last = schema, Schema(found.body, found.fingerprint)
        return self._last[1]

    def _seal(self, data: bytes, *, same: bool = False) -> bytes:
        if self._cipher is None:
            return _CLEAR + data
        return _ENCRYPTED + self._cipher.encrypt(data, self._channel, same=same)

    def _open(self, payload: bytes) -> bytes:
        kind, body = payload[:1], payload[1:]
        if kind == _ENCRYPTED and self._cipher is not None:
            return self._cipher.decrypt(body, self._channel)
        if kind == _CLEAR and self._cipher is None:
            return body
        if kind == _ENCRYPTED:
            raise UnreadableMessage("it is encrypted, and this server has no key")
        if kind == _CLEAR:
            raise UnreadableMessage("it is not encrypted, and this server has a key")
        raise UnreadableMessage(f"expected the format 1 or 2, got {kind.hex() or 'no bytes'}")


def _message_of(found: _Message, schema: Schema) -> SharedMessage:
    packets = [
        Packet(schema, each.data, each.rows, from_wire(each.cursors), each.continues)
        for each in found.packets
    ]
    status = found.status
    return SharedMessage(
        packets,
        from_wire(found.cursors),
        None if status is None else Status(status.severity, status.text),
        found.missing,
        found.has_ended,
        found.sent_ms,
    )
