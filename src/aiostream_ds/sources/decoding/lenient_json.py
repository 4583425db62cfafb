"""JSON as some writers produce it: with NaN (as null), a BOM or invalid UTF-8."""

import json
from math import isinf
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown

__all__ = ["decode_leniently"]

_EXPECTED = {
    "Expecting value": "a value",
    "Expecting ',' delimiter": "a comma or the end of the object or array",
    "Expecting ':' delimiter": "a colon",
    "Expecting property name": "a key in double quotes",
    "Extra data": "the end",
    "Unterminated string": "a text with an end",
    "Invalid control character": "a text without control characters",
    "Invalid \\": "an escape such as \\n or \\u00e9",
    "Illegal trailing comma": "a value after the comma",
}
"""The beginning of a message of Python's parser → what belongs at its position."""

_SHOWN = 20
"""Characters of the text that an error shows."""


def decode_leniently(data: bytes) -> tuple[Any, bool]:
    """The value, and whether the data was invalid UTF-8. Raises BadRecord."""
    is_replaced = False
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text, is_replaced = data.decode("utf-8-sig", "replace"), True
    try:
        value = json.loads(text, parse_float=_float)
        return msgspec.json.decode(msgspec.json.encode(value)), is_replaced
    except BadRecord:
        raise
    except json.JSONDecodeError as error:
        raise BadRecord(_reason(error)) from None
    except UnicodeEncodeError:
        raise BadRecord("invalid JSON: expected whole characters, got a lone surrogate") from None
    except RecursionError:
        raise BadRecord("invalid JSON: too many levels of objects and arrays") from None
    except (ValueError, OverflowError):
        raise BadRecord("invalid JSON: an integer has too many digits") from None


def _float(digits: str) -> float:
    """Not infinite: it would become null, and the value be lost without a word."""
    number = float(digits)
    if isinf(number):
        raise BadRecord(f"expected a float of 64 bits, got {shown(digits)}")
    return number


def _reason(error: json.JSONDecodeError) -> str:
    expected = next(
        (text for start, text in _EXPECTED.items() if error.msg.startswith(start)), "JSON"
    )
    rest = error.doc[error.pos : error.pos + _SHOWN]
    got = shown(rest) if rest else "the end"
    return f"invalid JSON at character {error.pos + 1}: expected {expected}, got {got}"
