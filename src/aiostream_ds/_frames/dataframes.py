"""Tables of other libraries: pandas, and whatever has Arrow's PyCapsule interface."""

from collections import Counter
from functools import lru_cache
from typing import Any, Protocol

from aiostream_ds._frames.columns import FrameError
from aiostream_ds._frames.pandas_columns import is_pandas_table, pandas_columns
from aiostream_ds._short_repr import short_repr

__all__ = [
    "ArrowArray",
    "ArrowStream",
    "Table",
    "hint",
    "is_query",
    "is_table",
    "known_rows",
    "table_columns",
]


class ArrowStream(Protocol):
    """A table with Arrow's PyCapsule interface, in batches."""

    def __arrow_c_stream__(self, requested_schema: object | None = None, /) -> object:
        """A capsule of the type `ArrowArrayStream`."""


class ArrowArray(Protocol):
    """A table with Arrow's PyCapsule interface, in one batch."""

    def __arrow_c_array__(self, requested_schema: object | None = None, /) -> tuple[object, object]:
        """Capsules of the types `ArrowSchema` and `ArrowArray`."""


_ROW_COUNTS = ("num_rows", "height")  # of pyarrow, of polars

Table = ArrowStream | ArrowArray
"""A table of another library: a DataFrame of pandas or polars, a table or a record batch of
pyarrow, a relation of DuckDB."""


def is_table(kind: type) -> bool:
    """Whether the objects of a class are tables of another library."""
    return (
        hasattr(kind, "__arrow_c_stream__")
        or hasattr(kind, "__arrow_c_array__")
        or is_pandas_table(kind)
    )


def hint(value: Any) -> str:
    """What to do with an object that is not a table, but can make one; else ""."""
    is_lazy = hasattr(type(value), "collect") and hasattr(type(value), "columns")
    return "; use its collect()" if is_lazy else ""


def known_rows(table: Any) -> int | None:
    """The number of rows; None if it is known only after the table was read."""
    kind = type(table)
    if is_pandas_table(kind):
        return len(table)
    for name in _ROW_COUNTS:
        if hasattr(kind, name):
            return int(getattr(table, name))
    return None


@lru_cache(maxsize=1024)
def is_query(kind: type) -> bool:
    """Whether a table of a class may be a query that runs when it is read, as a relation of DuckDB:
    its number of rows is not known before."""
    if not is_table(kind) or is_pandas_table(kind):
        return False
    return not any(hasattr(kind, name) for name in _ROW_COUNTS)


def table_columns(table: Any) -> list[tuple[str, Any]]:
    """The columns of a table by name, each as `Field` takes it.

    Raises:
        FrameError: it is not a table, or two columns have one name.
    """
    if not is_table(type(table)):
        raise FrameError(
            "expected a table of pandas, polars, pyarrow or DuckDB, or an object with"
            f" __arrow_c_stream__ or __arrow_c_array__, got {short_repr(table)}"
            f"{hint(table) or '; Frame.from_rows and Frame.from_columns take lists and dicts'}"
        )
    is_pandas = is_pandas_table(type(table))
    if is_pandas:
        columns = pandas_columns(table)
    else:
        from aiostream_ds._frames.arrow_columns import import_table  # with pyarrow, when needed

        columns = import_table(table)
    counts = Counter(name for name, _ in columns)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        cure = "; the index is a column, too: .reset_index(drop=True) drops it" if is_pandas else ""
        raise FrameError(
            f"the columns of a table must have different names, got {repeated[0]!r} more than once"
            f"{cure}"
        )
    return columns
