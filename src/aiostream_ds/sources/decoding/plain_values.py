"""Values of MessagePack, CBOR and clients as values of JSON, and nested objects as columns."""

from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.own_names import own_name

__all__ = ["DEPTH_LIMIT", "VALUES_LIMIT", "columns_of", "plain"]

DEPTH_LIMIT = 32
"""Maximum depth of objects and arrays in a message of MessagePack or CBOR, and of objects that
become columns; deeper ones are one column of JSON."""

VALUES_LIMIT = 100_000
"""Maximum number of values, objects and arrays in a message of MessagePack or CBOR."""

_SCALARS = frozenset({bool, int, float, type(None)})


def plain(value: Any) -> Any:
    """The value as one of JSON. Raises BadRecord."""
    return _plain(value, DEPTH_LIMIT, [VALUES_LIMIT])


def _plain(value: Any, depth: int, free: list[int]) -> Any:
    """`free` has the number of values that there may still be."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, str):
        return _valid(value)
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return _scalar(value)
    if depth == 0:
        raise BadRecord(f"expected at most {DEPTH_LIMIT} levels of objects and arrays, got more")
    free[0] -= len(value) + 1
    if free[0] < 0:
        raise BadRecord(f"expected at most {VALUES_LIMIT:,} values in a message, got more")
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth - 1, free) for key, item in value.items()}
    return [_plain(item, depth - 1, free) for item in value]


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return _text(bytes(value))
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, int | float):  # of a subclass
        return int(value) if isinstance(value, int) else float(value)
    kind = type(value).__name__
    if kind in ("Decimal", "Fraction"):
        return _float(value)
    if kind == "Ext":  # of MessagePack
        return _text(value.data)
    if kind in ("undefined_type", "undefined", "CBORSimpleValue"):
        return None
    if kind.startswith(("UUID", "IPv")):
        return str(value)
    raise BadRecord(f"expected a value that JSON has, got one of the type {kind}")


def _float(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        raise BadRecord("a number is too large for a float") from None


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _valid(key)
    if isinstance(key, bytes):
        return _text(key)
    if isinstance(key, bool | int | float):
        try:
            return str(key)
        except ValueError:  # thousands of digits
            raise BadRecord("a key is too large a number") from None
    raise BadRecord(f"expected keys that are texts or numbers, got a {type(key).__name__}")


def _valid(text: str) -> str:
    """The text with `?` for what UTF-8 cannot encode."""
    return str(text) if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(value: bytes) -> str:
    """The text of bytes; hexadecimal digits if they are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def columns_of(record: Mapping[str, Any], whole: Collection[str], longest: int) -> dict[str, Any]:
    """The values of nested objects as columns `a.b`. Raises BadRecord: too many have one name.

    Args:
        whole: keys whose objects stay values.
        longest: characters of a name; an object with a longer one stays a value.
    """
    found: dict[str, Any] = {}
    for key, value in record.items():
        if type(value) is not dict or key in whole:
            found[key] = value
            continue
        for name, leaf in _leaves(key, value, longest, DEPTH_LIMIT):
            if name in found or (name in record and name != key):
                name = own_name(name, found, record)
            found[name] = leaf
    return found


def _leaves(name: str, value: Any, longest: int, depth: int) -> Iterator[tuple[str, Any]]:
    if type(value) is dict and value and depth and len(name) <= longest:
        for key, each in value.items():
            yield from _leaves(f"{name}.{key}", each, longest, depth - 1)
    else:
        yield name, value
