"""JSON as some writers produce it: with NaN (as null), a BOM or invalid UTF-8."""

import json
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord

__all__ = ["decode_leniently"]


def decode_leniently(data: bytes) -> tuple[Any, bool]:
    """The value, and whether the data was invalid UTF-8. Raises BadRecord."""
    is_replaced = False
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text, is_replaced = data.decode("utf-8-sig", "replace"), True
    try:
        return msgspec.json.decode(msgspec.json.encode(json.loads(text))), is_replaced
    except (ValueError, RecursionError, OverflowError):
        raise BadRecord("invalid JSON") from None
