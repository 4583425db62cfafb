"""Reads the tables that an author returns, in a thread if that may take long."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from aiostream_ds._frames.dataframes import known_rows

__all__ = ["INLINE_ROWS", "read_table"]

INLINE_ROWS = 10_000
"""Up to so many rows are read or encoded in the event loop; more in a thread."""

T = TypeVar("T")


async def read_table(read: Callable[[Any], T], table: Any, threads: anyio.CapacityLimiter) -> T:
    """The result of `read(table)`. `threads` limits the threads of the data source: a table may be
    a query that runs only now, such as a relation of DuckDB.
    """
    rows = known_rows(table)
    # the import of pyarrow blocks the event loop for long
    if rows is not None and rows <= INLINE_ROWS and "pyarrow" in sys.modules:
        return read(table)
    return await anyio.to_thread.run_sync(read, table, limiter=threads)
