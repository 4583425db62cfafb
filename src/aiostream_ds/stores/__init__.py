"""Stores of rows: durable logs, of one channel each, with rising cursors and a time index.

`Store` is the interface; `SqliteStore` keeps the rows in a file of a directory, or in memory.
"""

from aiostream_ds.stores.retention import Retention
from aiostream_ds.stores.sqlite_store import SqliteStore
from aiostream_ds.stores.store import (
    CURSOR_COLUMN,
    AppendResult,
    Store,
    StoredChannel,
    StoredRows,
    StoreError,
)

__all__ = [
    "CURSOR_COLUMN",
    "AppendResult",
    "Retention",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoredChannel",
    "StoredRows",
]
