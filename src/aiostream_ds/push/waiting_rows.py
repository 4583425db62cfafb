"""The rows of a client that wait to be sent, in order, within bounds."""

from collections import deque
from typing import Any, NamedTuple

import msgspec

__all__ = ["ARROW", "NDJSON", "PushBatch", "RowBlock", "WaitingRows"]

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


class RowBlock(NamedTuple):
    """What waits as one: a row as a line of JSON, or some rows of a table."""

    data: bytes
    rows: int = 1
    content_type: str = NDJSON
    since: float = 0.0
    number: int = 0


class PushBatch(NamedTuple):
    """What is sent in one request, always with the same key."""

    blocks: tuple[RowBlock, ...]
    key: str

    @property
    def rows(self) -> int:
        """How many rows there are in it."""
        return sum(block.rows for block in self.blocks)

    @property
    def content_type(self) -> str:
        """The content type of its body."""
        return self.blocks[0].content_type

    def halves(self) -> "tuple[PushBatch, ...]":
        """The same rows in two batches, in order; () for a single row."""
        if self.rows < 2:
            return ()
        middle = len(self.blocks) // 2
        parts = [self.blocks[:middle], self.blocks[middle:]]
        if middle == 0:
            parts = [(half,) for half in _halves_of_table(self.blocks[0])]
        return tuple(PushBatch(part, f"{self.key}.{n}") for n, part in enumerate(parts, 1))

    def row(self, number: int) -> Any:
        """One of its rows as JSON has it, or its number in a table."""
        if self.content_type == NDJSON and 0 <= number < len(self.blocks):
            return msgspec.json.decode(self.blocks[number].data)
        return number

    def body(self) -> bytes:
        """Its bytes."""
        if self.content_type == NDJSON:
            return b"\n".join(block.data for block in self.blocks) + b"\n"
        return self.blocks[0].data


class WaitingRows:
    """A queue of blocks with the number of their rows and bytes. Not thread-safe."""

    __slots__ = ("_blocks", "bytes", "rows")

    def __init__(self) -> None:
        self._blocks: deque[RowBlock] = deque()
        self.rows = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._blocks)

    @property
    def first(self) -> RowBlock:
        """The oldest block. Raises IndexError if there is none."""
        return self._blocks[0]

    def add(self, block: RowBlock) -> None:
        """Append a block."""
        self._blocks.append(block)
        self.rows += block.rows
        self.bytes += len(block.data)

    def drop_oldest(self) -> RowBlock:
        """Remove the oldest block. Raises IndexError if there is none."""
        block = self._blocks.popleft()
        self.rows -= block.rows
        self.bytes -= len(block.data)
        return block

    def take(self, rows: int, size: int) -> tuple[RowBlock, ...]:
        """Remove the next batch: blocks of one content type within the bounds, at least one. A
        block of a table is a batch by itself."""
        first = self.drop_oldest()
        taken, count, length = [first], first.rows, len(first.data)
        if first.content_type == NDJSON:
            while self._blocks and (block := self._blocks[0]).content_type == NDJSON:
                count += block.rows
                length += len(block.data) + 1
                if count > rows or length > size:
                    break
                taken.append(self.drop_oldest())
        return tuple(taken)


def _halves_of_table(block: RowBlock) -> list[RowBlock]:
    from aiostream_ds.push.row_tables import halves  # needs pyarrow

    return [block._replace(data=data, rows=rows) for data, rows in halves(block.data)]
