"""The values of a row, which is a mapping or an object with attributes."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from aiostream_ds._short_repr import short_repr
from aiostream_ds.rows import Columns

__all__ = ["optional_value", "value_of"]

_SHOWN = 20
"""Most columns that an error names."""


def value_of(row: Any, name: str) -> Any:
    """The value of a column.

    Raises:
        LookupError: the row does not have it.
        TypeError: it is not a row, but a list or `Columns`.
    """
    try:
        return row[name] if isinstance(row, Mapping) else getattr(row, name)
    except (KeyError, AttributeError):
        pass
    _refuse_list(row)
    raise LookupError(f"a row has no column {name!r}; its columns are {_shown(_columns(row), row)}")


def optional_value(row: Any, name: str) -> Any:
    """The value of a column; None where the row does not have it.

    Raises:
        TypeError: it is not a row, but a list or `Columns`.
    """
    if isinstance(row, Mapping):
        return cast("Mapping[str, Any]", row).get(name)
    found = getattr(row, name, None)
    if found is None:
        _refuse_list(row)
    return found


def _refuse_list(row: Any) -> None:
    if isinstance(row, list | Columns):
        what = "Columns" if isinstance(row, Columns) else "a list"
        count = row.rows if isinstance(row, Columns) else len(row)
        raise TypeError(
            f"the source of a window must yield rows, got {what} of {count}; yield them one by"
            f" one: {short_repr(row)}"
        )


def _columns(row: Any) -> list[Any]:
    kind = type(row)
    declared: Iterable[Any] = ()
    if isinstance(row, Mapping):
        declared = row
    else:
        for attribute in ("__struct_fields__", "__dataclass_fields__", "_fields"):
            declared = declared or getattr(kind, attribute, ())
        declared = declared or (name for name in getattr(row, "__dict__", ()) if name[0] != "_")
    return list(declared)


def _shown(columns: list[Any], row: Any) -> str:
    if not columns:
        return f"none: {short_repr(row)}"
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return ", ".join(map(short_repr, columns[:_SHOWN])) + more
