"""Values of a field as an author gives them: lists, and columns of numpy and other libraries.

What reads pyarrow is imported with its first column: importing it takes long.
"""

from typing import Any

from aiostream_ds._frames import columns
from aiostream_ds._frames.columns import Column, FieldType, FrameError, is_arrow
from aiostream_ds._frames.pandas_columns import is_pandas_column, unpack

__all__ = ["read_column", "to_native"]


def to_native(name: str, values: Any) -> Any:
    """The column of another library as a numpy array, a pyarrow array or a list; other values
    unchanged.

    Columns of pandas are copied, because pandas can change them in place.

    Raises:
        FrameError: a column cannot have its type.
    """
    kind = type(values)
    if kind is list or kind.__module__ == "numpy" or is_arrow(values):
        return values
    if hasattr(kind, "columns") or hasattr(kind, "levels"):
        raise FrameError(
            f"field {name!r}: expected a column, got several in a {kind.__name__}; use"
            " Frame.from_table"
        )
    if is_pandas_column(kind):
        return unpack(name, values)
    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__"):
        from aiostream_ds._frames.arrow_columns import import_array

        return import_array(name, values)
    return values


def read_column(name: str, values: Any, wanted: FieldType | None, nanos: Any = None) -> Column:
    """Convert values to a Column; `wanted` is the declared type, None infers it from the values.

    Raises:
        FrameError: see `columns.read`, and `to_native`.
    """
    values = to_native(name, values)
    if not is_arrow(values):
        return columns.read(name, values, wanted, nanos)
    from aiostream_ds._frames.arrow_columns import read_arrow

    column = read_arrow(name, values)
    if wanted is None or wanted is column.type:
        return columns.with_nanos(name, column, nanos)
    plain = column.values.to_pylist() if is_arrow(column.values) else column.values
    return columns.read(name, plain, wanted, nanos)
