"""Batches of rows that wait until they are stored on all servers."""

import secrets

import anyio

from aiostream_ds.stores import AppendResult
from aiostream_ds.stores.row_blocks import Piece

__all__ = ["GROUP_BYTES", "WaitingBatch", "parts_of"]

GROUP_BYTES = 384 << 10
"""Bytes of rows, before they are deflated, that are one entry."""


class WaitingBatch:
    """A batch that waits until it is stored.

    Attributes:
        old_first: the first cursor of rows that this server had before the others.
        id: of rows without a key; see `StoreEntry`.
        stored: see `RecoveredBatch`.
        result: what it waits for.
    """

    def __init__(
        self, channel: str, pieces: list[Piece], key: bytes | None, old_first: int | None = None
    ) -> None:
        self.channel, self.pieces, self.key = channel, pieces, key
        self.old_first = old_first
        self.id = secrets.token_bytes(8) if key is None else b""
        self.stored = 0
        self.size = sum(len(piece.data) for piece in pieces)
        self.done = anyio.Event()
        self.result: AppendResult | Exception | None = None

    @property
    def rows(self) -> int:
        """How many they are."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def has_moved(self) -> bool:
        """Whether rows that viewers have seen have other cursors now."""
        result = self.result
        return isinstance(result, AppendResult) and self.old_first not in (None, result.first)

    def finish(self, result: AppendResult | Exception) -> None:
        """The first result counts."""
        self.result = self.result or result
        self.done.set()


def parts_of(pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces of one entry each."""
    parts: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if parts[-1] and size + len(piece.data) > GROUP_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(piece)
        size += len(piece.data)
    return parts
