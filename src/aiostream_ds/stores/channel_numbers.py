"""The numbers of one channel of a store, as its writer knows them."""

from collections.abc import Sequence
from typing import NamedTuple

from aiostream_ds.stores.row_blocks import Piece, join_pieces

__all__ = [
    "BLOCK_OVERHEAD",
    "KEY_BYTES",
    "Block",
    "ChannelNumbers",
    "Contents",
    "Keys",
    "BlockTail",
    "epoch_of",
]

BLOCK_OVERHEAD = 64
"""Bytes that a block takes besides its data: its numbers, and its two entries in indexes."""

KEY_BYTES = 80
"""Bytes that an idempotency key takes, with its entries in indexes."""


class BlockTail(NamedTuple):
    """The newest block, to which rows can be added."""

    id: int
    pieces: list[Piece]
    stored: int  # time of its first row, in ms
    size: int


class Contents(NamedTuple):
    """What a block has."""

    rows: int
    low: int
    high: int
    size: int
    data: bytes

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> "Contents":
        data = join_pieces([piece.data for piece in pieces])
        return cls(
            sum(piece.rows for piece in pieces),
            min(piece.low for piece in pieces),
            max(piece.high for piece in pieces),
            len(data) + BLOCK_OVERHEAD,
            data,
        )


class Keys(NamedTuple):
    """The numbers of a channel's oldest and newest key; the newest is the lower one without keys.
    The few numbers between them of keys that were stored again count, too."""

    oldest: int = 1
    newest: int = 0

    @property
    def size(self) -> int:
        return (self.newest - self.oldest + 1) * KEY_BYTES


class Block(NamedTuple):
    """What retention needs of a block."""

    id: int
    first: int
    rows: int
    size: int
    stored: int


class ChannelNumbers:
    """One channel: its numbers as they are in the tables, and its newest block."""

    __slots__ = (
        "bytes",
        "epoch",
        "first",
        "has_newest_only",
        "id",
        "keys",
        "last",
        "name",
        "rows",
        "tail",
        "unwritten",
        "written",
    )

    def __init__(
        self, id: int, name: str, epoch: str, first: int, last: int, rows: int, size: int
    ) -> None:
        self.id = id
        self.name = name
        self.epoch = epoch
        self.first = first
        self.last = last
        self.rows = rows
        self.bytes = size
        self.keys = Keys()
        self.has_newest_only = False  # as far as it is known: bytes are not to be removed
        self.tail: BlockTail | None = None
        self.unwritten: list[Piece] = []
        self.written = last

    @property
    def size(self) -> int:
        """The bytes of its rows and keys."""
        return self.bytes + self.keys.size


def epoch_of(epoch: str, deletions: int) -> str:
    """The epoch of a channel that is made after some deletions, perhaps of one with its name."""
    return f"{epoch}.{deletions}" if deletions else epoch
