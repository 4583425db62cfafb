"""Tables of pandas, polars, pyarrow and DuckDB as Arrow IPC streams. Imports pyarrow."""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from aiostream_ds._short_repr import short_repr
from aiostream_ds.push.row_json import time_key

__all__ = ["halves", "table_parts"]


PART_ROWS = 10_000
"""Rows of a part: the source takes twice as many in a body."""


def table_parts(table: Any, time: str, size: int) -> Iterator[tuple[bytes, int]]:
    """The rows of a table in order as Arrow IPC streams of about `size` bytes, each with the number
    of its rows.

    Raises:
        TypeError: pyarrow cannot read the table.
        ValueError: it has no column `time`.
    """
    found = _arrow(table, time)
    if time_key(found.column_names, time) not in found.column_names:
        names = ", ".join(map(repr, found.column_names)) or "none"
        raise ValueError(f"a table must have a column {time!r} with the times, got {names}")
    if not found.num_rows:
        return
    each = min(PART_ROWS, max(1, found.num_rows * size // max(found.nbytes, 1)))
    for start in range(0, found.num_rows, each):
        part = found.slice(start, each)
        yield _stream(part), part.num_rows


def halves(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The two halves of an Arrow IPC stream, each with the number of its rows."""
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    middle = table.num_rows // 2
    for part in (table.slice(0, middle), table.slice(middle)):
        yield _stream(part), part.num_rows


def _arrow(table: Any, time: str) -> Any:
    try:
        if type(table).__module__.partition(".")[0] == "pandas":
            return _of_pandas(table, time)
        if isinstance(table, pa.RecordBatch):
            return pa.Table.from_batches([table])
        if hasattr(table, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(table).read_all()
        return pa.Table.from_batches([pa.record_batch(table)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TypeError(f"the table cannot be read, got {short_repr(table)}: {error}") from None


def _of_pandas(table: Any, time: str) -> Any:
    """A DataFrame, whose index is a column if it has a name or is of times."""
    if hasattr(table, "to_frame"):  # a Series
        table = table.to_frame(table.name or "value")
    index = table.index
    if (
        time_key(table.columns, time) not in table.columns
        and getattr(index.dtype, "kind", "") == "M"
    ):
        table = table.rename_axis(time).reset_index()
    elif any(name is not None for name in index.names):
        table = table.reset_index()
    return pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)


def _stream(table: Any) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return out.getvalue()
