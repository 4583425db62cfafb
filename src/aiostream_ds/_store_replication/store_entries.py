"""The entries of the log that the stores of several servers share, as bytes.

    format (1 byte)    1: MessagePack    2: deflated    +16: nonce (12 bytes), encrypted by AES-GCM

Each entry has a tag of its own, and names the one after which it was written. Of several entries
that name the same one, the first in the log counts; the others are void, and their servers write
them again. So the entries that count are a chain, which no loss of writes can change unnoticed.

A decision has no rows, and is not of the chain: it names entries that are void since no server
could read them.
"""

import secrets
import zlib
from collections.abc import Sequence

import msgspec

from aiostream_ds._cluster.engine import EntryId
from aiostream_ds._cluster.message_cipher import Cipher, UnreadableMessage
from aiostream_ds.stores.row_blocks import Piece
from aiostream_ds.stores.sqlite_writer import ReplicaBatch

__all__ = ["NO_TAG", "StoreEntry", "StoreEntryCodec", "decision", "new_tag"]

NO_TAG = b""
"""Of a store without an entry."""

_NO_PLACE = b"void"  # after which no entry of the chain is: tags are longer

_PLAIN, _DEFLATED, _ENCRYPTED = 1, 2, 16
_DEFLATE_FROM = 200  # bytes
_MAX_BYTES = 64 << 20


class _Batch(msgspec.Struct, array_like=True, frozen=True):
    channel: str
    first: int
    key: bytes | None
    stored: int
    pieces: list[Piece]
    id: bytes = b""


class StoreEntry(msgspec.Struct, array_like=True, frozen=True):
    """Batches of rows, with the cursors that they have on every server. Those without a key have an
    id: of several entries with the same rows, of which all but one were void when they were
    written, another one may count later.

    Attributes:
        tag: its own.
        after: the tag of the entry before it.
        epoch: of all channels from here on.
        batches: in the order of their cursors.
        void: of a decision: the entries that do not count, wherever they are in the log.
    """

    tag: bytes
    after: bytes
    epoch: str
    batches: list[_Batch]
    void: list[EntryId] = []

    @classmethod
    def of(
        cls,
        tag: bytes,
        after: bytes,
        epoch: str,
        batches: Sequence[ReplicaBatch],
        ids: Sequence[bytes] = (),
    ) -> "StoreEntry":
        """The entry with these batches, and the ids of those without a key."""
        found = [
            _Batch(each.channel, each.first, each.key, each.stored, each.pieces, id)
            for each, id in zip(batches, ids or [b""] * len(batches), strict=True)
        ]
        return cls(tag, after, epoch, found)

    def first_cursors(self) -> dict[str, int]:
        """The first cursor that the entry gives to each channel."""
        first: dict[str, int] = {}
        for batch in self.batches:
            first.setdefault(batch.channel, batch.first)
        return first

    def ids(self) -> dict[str, list[tuple[int, bytes]]]:
        """The first cursors and the ids of the batches without a key, by channel."""
        found: dict[str, list[tuple[int, bytes]]] = {}
        for batch in self.batches:
            if batch.id and batch.key is None:
                found.setdefault(batch.channel, []).append((batch.first, batch.id))
        return found

    def replica_batches(self) -> list[ReplicaBatch]:
        """The batches as a store takes them."""
        return [
            ReplicaBatch(each.channel, each.first, each.pieces, each.key, each.stored)
            for each in self.batches
        ]


def new_tag() -> bytes:
    """The tag of no other entry."""
    return secrets.token_bytes(8)


def decision(void: Sequence[EntryId]) -> StoreEntry:
    """The entry with which a server declares others void."""
    return StoreEntry(new_tag(), _NO_PLACE, "", [], list(void))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoreEntry).decode


class StoreEntryCodec:
    """Encodes and decodes the entries of one log."""

    def __init__(self, channel: str, cipher: Cipher | None) -> None:
        self._channel, self._cipher = channel, cipher

    def encode(self, entry: StoreEntry) -> bytes:
        """The payload of an entry."""
        return self.seal(_encode(entry))

    def decode(self, payload: bytes) -> StoreEntry:
        """Raises UnreadableMessage."""
        try:
            return _decode(self.open(payload))
        except ValueError as error:
            raise UnreadableMessage(f"an entry of the shared store: {error}") from None

    def seal(self, data: bytes) -> bytes:
        """Deflate data if that makes it shorter, and encrypt it if the cluster has a key."""
        form = _PLAIN
        if len(data) >= _DEFLATE_FROM:
            short = zlib.compress(data, 1)
            if len(short) < len(data):
                form, data = _DEFLATED, short
        if self._cipher is None:
            return bytes([form]) + data
        return bytes([form + _ENCRYPTED]) + self._cipher.encrypt(data, self._channel)

    def open(self, payload: bytes) -> bytes:
        """What `seal` was given. Raises UnreadableMessage."""
        form, data = payload[0] if payload else 0, payload[1:]
        is_encrypted = bool(form & _ENCRYPTED)
        if is_encrypted != (self._cipher is not None):
            raise UnreadableMessage("it has another encryption than this server")
        if self._cipher is not None:
            data = self._cipher.decrypt(data, self._channel)
        if form & ~_ENCRYPTED == _PLAIN:
            return data
        if form & ~_ENCRYPTED != _DEFLATED:
            raise UnreadableMessage(f"expected the format 1 or 2, got {form}")
        try:
            return zlib.decompressobj().decompress(data, _MAX_BYTES)
        except zlib.error as error:
            raise UnreadableMessage(str(error)) from None
