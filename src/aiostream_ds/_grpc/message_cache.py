"""Keeps decoded messages that come again in call after call, as plugin contexts do.

A host written in Go encodes the entries of a map in a random order, so that a context has hundreds
of encodings. A message is found by its bytes or, if these are new, by a key without that order.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import betterproto2

from aiostream_ds._grpc.decode import Decoder, position_after, read_varint

__all__ = ["CachingMessageDecoder"]

T = TypeVar("T", bound=betterproto2.Message)

_ITEMS, _ITEM_BYTES, _BYTES = 256, 64 * 1024, 4 * 1024 * 1024
"""How many messages of a class are kept, how large each may be, and how large all together."""

_Key = tuple[Any, ...]


class CachingMessageDecoder(Generic[T]):
    """A function that decodes `kind` and returns the same object for the same message, in whatever
    order its map entries are. Do not change that object."""

    def __init__(self, kind: type[T]) -> None:
        self._parse = Decoder(kind).parse
        self._unordered = _Unordered(kind)
        self._by_bytes = _Kept(self._find)
        self._by_key = _Kept(self._find)

    def __call__(self, data: bytes) -> T:
        message: T = self._by_bytes[data]
        return message

    def forget(self, is_unused: Callable[[T], bool]) -> None:
        """Drop the messages, and their bytes, for which this is true."""
        self._unordered.clear()
        for kept in (self._by_bytes, self._by_key):
            for key in [key for key, message in kept.items() if is_unused(message)]:
                del kept[key]

    def _find(self, data: bytes) -> T:
        """The message of bytes that are not kept."""
        if not self._unordered.has_maps:
            return self._parse(data)
        try:
            key = self._unordered.key(data)
        except (IndexError, ValueError):
            return self._parse(data)  # raises an error that names the fault
        message: T | None = self._by_key.get(key)
        if message is None:
            message = self._parse(data)
            # of entries with the same map key the last one counts: their order matters
            if _entries(key) == self._unordered.items(message):
                self._by_key.keep(key, message, len(data))
        return message


class _Kept(dict[Any, Any]):
    """What was made of messages. All is dropped when it is too much. `kept[data]` makes what is not
    in it."""

    def __init__(self, make: Callable[[bytes], Any]) -> None:
        self._make = make
        self._bytes = 0  # with those that `forget` has dropped: then it is too much earlier

    def __missing__(self, data: bytes) -> Any:
        made = self._make(data)
        self.keep(data, made, len(data))
        return made

    def keep(self, key: Any, made: Any, size: int) -> None:
        if size > _ITEM_BYTES:
            return
        if len(self) >= _ITEMS or self._bytes + size > _BYTES:
            self.clear()
        self[key] = made
        self._bytes += size

    def clear(self) -> None:
        super().clear()
        self._bytes = 0


class _Unordered:
    """Makes keys of encoded messages of a class. The keys of two encodings are equal if these
    differ in the order of map entries only."""

    def __init__(self, kind: Any) -> None:
        self._maps: list[str] = []
        self._nested: dict[str, _Unordered] = {}  # messages with maps
        self._fields: dict[int, _Unordered | None] = {}  # these and, as None, maps; by tag
        self.has_maps = False
        self._keys = _Kept(self.key)
        meta = kind._betterproto
        for name, field in meta.meta_by_field_name.items():
            if field.proto_type == betterproto2.TYPE_MAP:
                self._maps.append(name)
                self._fields[field.number << 3 | 2] = None
            elif field.proto_type == betterproto2.TYPE_MESSAGE and not field.repeated:
                nested = _Unordered(meta.cls_by_field[name])
                if nested.has_maps:
                    self._nested[name] = self._fields[field.number << 3 | 2] = nested
        self.has_maps = bool(self._fields)

    def key(self, data: bytes) -> _Key:
        """The set of map entries, then all other bytes in their order, with the keys of messages
        that have maps in place of these. Raises IndexError or ValueError for malformed ones."""
        entries: list[bytes] = []
        others: list[Any] = []
        fields = self._fields
        position = start = 0  # start: of what is not in the key yet
        end = len(data)
        while position < end:
            tag = data[position]
            value = position + 1
            if tag > 127:
                tag, value = read_varint(data, position)
            size = data[value]
            if tag not in fields:
                if tag & 7 == 2 and size < 128:  # most fields
                    position = value + 1 + size
                else:
                    position = position_after(data, tag, value)
                continue
            content = value + 1
            if size > 127:
                size, content = read_varint(data, value)
            after = content + size
            nested = fields[tag]
            if nested is not None:
                # some secrets have few orders, so most of these keys are known
                others += data[start:value], nested._keys[data[content:after]]
            else:
                if start < position:
                    others.append(data[start:position])
                entries.append(data[position:after])
            position = start = after
        if position != end:
            raise IndexError
        return (frozenset(entries), *others, data[start:])

    def items(self, message: Any) -> int:
        """How many items the maps of a message have."""
        count = sum(len(getattr(message, name)) for name in self._maps)
        for name, nested in self._nested.items():
            inner = getattr(message, name)
            count += 0 if inner is None else nested.items(inner)
        return count

    def clear(self) -> None:
        """Forget the bytes of nested messages: they have secrets."""
        for nested in self._nested.values():
            nested._keys.clear()
            nested.clear()


def _entries(key: _Key) -> int:
    """How many map entries a key has."""
    return len(key[0]) + sum(_entries(part) for part in key[1:] if isinstance(part, tuple))
