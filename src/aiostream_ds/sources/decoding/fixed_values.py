"""Values of columns with a fixed type."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.row_settings import Kind
from aiostream_ds.sources.decoding.text_cells import point, text_number

__all__ = ["FIXED", "comma_number"]

_BOOLEANS = {"true": True, "false": False}


def _fixed_number(value: Any) -> float | None:
    if isinstance(value, str):
        return text_number(value)
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def comma_number(text: str) -> float | None:
    """A number, which may have a decimal comma."""
    return text_number(point(text))


def _fixed_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError):
        return None  # an int of more than 64 bits, or too deep


def _fixed_boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


# each reads a value of the type; None if it does not have it
FIXED: Mapping[Kind, Callable[[Any], Any]] = {
    "number": _fixed_number,
    "text": _fixed_text,
    "boolean": _fixed_boolean,
}
