"""Columns of pandas as lists, numpy arrays or pyarrow arrays.

pandas is not imported: its objects are recognized by the module that the author has imported. The
memory of a column is copied, because pandas can change it in place.
"""

import sys
from typing import Any

from aiostream_ds._frames.columns import FrameError, is_arrow, is_numpy

__all__ = ["is_pandas_column", "is_pandas_table", "pandas_columns", "unpack"]

_CURES = {
    "period": "convert it by .dt.to_timestamp()",
    "interval": "convert it by .astype(str)",
    "complex": "take .real, .imag or .abs()",
}

_TIME = "time"


def is_pandas_table(kind: type) -> bool:
    """Whether a class is that of a DataFrame or a Series, or a subclass."""
    return issubclass(kind, _classes("DataFrame", "Series"))


def is_pandas_column(kind: type) -> bool:
    """Whether a class is that of a Series, an Index or an extension array, or a subclass."""
    if issubclass(kind, _classes("Series", "Index")):
        return True
    api = getattr(sys.modules.get("pandas"), "api", None)
    base = getattr(getattr(api, "extensions", None), "ExtensionArray", None)
    return base is not None and issubclass(kind, base)


def _classes(*names: str) -> tuple[type, ...]:
    """Classes of pandas; none if nobody has imported it."""
    pandas = sys.modules.get("pandas")
    return tuple(found for name in names if (found := getattr(pandas, name, None)) is not None)


def pandas_columns(table: Any) -> list[tuple[str, Any]]:
    """The columns of a DataFrame or a Series by name: those of its index, and then its own.

    An index without a name is the column `time` if it is a DatetimeIndex, and is left out if it has
    integers, such as row numbers; any other is `index`, and the levels of a MultiIndex `level_0` …
    """
    found: list[tuple[str, Any]] = []
    frame = table
    if issubclass(type(table), _classes("Series")):
        frame = table.to_frame("value" if table.name is None else table.name)
    index = frame.index
    for level in range(index.nlevels):
        values = index.get_level_values(level) if index.nlevels > 1 else index
        name = index.names[level]
        if name is None and values.dtype.kind == "M":
            name = _TIME
        elif name is None and index.nlevels > 1:
            name = f"level_{level}"
        elif name is None and values.dtype.kind not in "iu":
            name = "index"
        if name is not None:
            found.append((_column_name(name), values))
    for position, name in enumerate(frame.columns):
        found.append((_column_name(name), frame.iloc[:, position]))
    return found


def _column_name(name: Any) -> str:
    """A name as a str; the parts of a name of several levels are joined by `_`."""
    if isinstance(name, tuple):
        return "_".join(str(part) for part in name if part != "")
    return str(name)


def unpack(name: str, values: Any) -> Any:
    """A copy of the values of a Series, an Index or an extension array, without those of pandas:
    NaN, NaT and NA are None or null.

    Raises:
        FrameError: a column cannot have this dtype; the message names it.
    """
    dtype = values.dtype
    kind = type(dtype)
    if issubclass(kind, _classes("CategoricalDtype")):
        return _unpack_categorical(name, values)
    if issubclass(kind, _classes("SparseDtype")):
        return unpack(name, getattr(values, "sparse", values).to_dense())
    if issubclass(kind, _classes("DatetimeTZDtype")):
        return values.to_numpy(dtype=f"datetime64[{dtype.unit}]", copy=True)
    if kind.__module__.partition(".")[0] == "numpy":
        return _unpack_numpy(name, values)
    cure = _CURES.get(str(dtype).partition("[")[0])
    if cure is not None:
        raise _refused(name, dtype, cure)
    import pyarrow as pa

    array = getattr(values, "array", values)
    try:
        found = pa.array(array)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _refused(name, dtype, f"pyarrow must be able to read it: {error}") from None
    if not is_arrow(found):
        raise _refused(name, dtype, "convert it to numbers, strings or timestamps")
    return found


def _unpack_numpy(name: str, values: Any) -> Any:
    kind = values.dtype.kind
    if kind == "O":
        return _unpack_objects(values)
    if kind == "c":
        raise _refused(name, values.dtype, _CURES["complex"])
    found = values.to_numpy(copy=True)
    if kind == "f" and (found != found).any():  # NaN
        import pyarrow as pa

        return pa.array(found, from_pandas=True)
    return found


def _unpack_objects(values: Any) -> list[Any]:
    # the cells of lists are often numpy arrays
    found = [each.tolist() if is_numpy(each) and each.shape else each for each in values.tolist()]
    missing = values.isna()
    if missing.any():
        pairs = zip(found, missing.tolist(), strict=True)
        found = [None if gap else value for value, gap in pairs]
    return found


def _unpack_categorical(name: str, values: Any) -> Any:
    array = getattr(values, "array", values)  # of a series or an index
    categories, codes = array.categories, array.codes
    found = unpack(name, categories)
    if categories.dtype.kind == "M":
        times = found.take(codes)
        times[codes < 0] = times.dtype.type("NaT")
        return times
    texts = found if isinstance(found, list) else found.tolist()
    return [None if code < 0 else texts[code] for code in codes.tolist()]


def _refused(name: str, dtype: Any, cure: str) -> FrameError:
    return FrameError(
        f"field {name!r}: expected a dtype that a column can have, got {dtype}; {cure}"
    )
