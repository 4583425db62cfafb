"""Blocks, many rows that are yielded at once by column: `Columns` or a `Frame`."""

from collections.abc import Sequence
from typing import Any

from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.frame_rows import take_rows, take_values, to_list
from aiostream_ds.rows import Columns

__all__ = ["Block", "take_block", "to_list"]

Block = Columns[Any] | Frame


def take_block(block: Block, rows: Sequence[int]) -> Block:
    """A block with these rows."""
    if isinstance(block, Frame):
        return take_rows(block, rows)
    values = [take_values(column, rows) for column in block.values]
    return Columns(block.kind, values, len(rows))
