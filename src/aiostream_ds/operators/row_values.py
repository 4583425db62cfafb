"""The values of a row, which is a mapping or an object with attributes."""

from collections.abc import Mapping
from typing import Any, cast

from aiostream_ds._short_repr import short_repr

__all__ = ["optional_value", "value_of"]


def value_of(row: Any, name: str) -> Any:
    try:
        return row[name] if isinstance(row, Mapping) else getattr(row, name)
    except (KeyError, AttributeError) as error:
        kind = KeyError if isinstance(error, KeyError) else AttributeError
        raise kind(f"a row has no column {name!r}: {short_repr(row)}") from None


def optional_value(row: Any, name: str) -> Any:
    if isinstance(row, Mapping):
        return cast("Mapping[str, Any]", row).get(name)
    return getattr(row, name, None)
