"""Blocks, many rows that are yielded at once by column: `Columns` or a `Frame`."""

from collections.abc import Sequence
from typing import Any

from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.frame_rows import take_rows, take_values
from aiostream_ds.rows import Columns

__all__ = ["Block", "take_block", "to_list"]

Block = Columns[Any] | Frame


def take_block(block: Block, rows: Sequence[int]) -> Block:
    """A block with these rows."""
    if isinstance(block, Frame):
        return take_rows(block, rows)
    names = block.kind.__struct_fields__
    values = [take_values(column, rows) for column in block.values]
    return Columns(block.kind, dict(zip(names, values, strict=True)))


def to_list(values: Any) -> list[Any]:
    """The values of a column as a list: of a list, a numpy array or a pyarrow array."""
    convert = getattr(values, "tolist", None)  # numpy and pyarrow
    found: list[Any] = convert() if convert is not None else list(values)
    return found
