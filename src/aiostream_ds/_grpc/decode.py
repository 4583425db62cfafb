"""Decodes requests ten times as fast as the message classes.

A decoder is a table made from a betterproto2 message class: tag to field. It creates objects of
that class, equal to those of `parse`, and rejects truncated messages. Plugin contexts, which are
the same bytes in call after call, are cached: do not change a decoded message.
"""

from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

import betterproto2

__all__ = ["CachingMessageDecoder", "Decoder"]

T = TypeVar("T", bound=betterproto2.Message)

_CACHE_SIZE, _CACHE_ITEM_BYTES = 256, 64 * 1024
"""How many messages of a class are cached, and how large each may be."""

_SET, _APPEND, _PUT = range(3)

_Entry = tuple[int, str, Callable[[Any], Any]]


class Decoder(Generic[T]):
    """Decodes one message class. `decoders` replaces the decoders of fields of these classes. With
    `fields`, only these are decoded, and others have their defaults.

    Raises TypeError for a class with a kind of field that Grafana's requests do not have.
    """

    def __init__(
        self,
        kind: type[T],
        decoders: "dict[type, Callable[[bytes], Any]] | None" = None,
        fields: Collection[str] | None = None,
    ) -> None:
        self.__name__ = kind.__name__
        self._kind = kind
        self._decoders = decoders or {}
        self._fields = fields
        self._ready = False
        self._table: dict[int, _Entry] = {}
        self._template: dict[str, Any] = {}
        self._containers: list[tuple[str, type]] = []

    def _prepare(self) -> None:
        # at the first message: preparing all classes would take a tenth of a plugin's start
        self._ready = True
        described: Any = self._kind
        meta = described._betterproto
        for name, field in meta.meta_by_field_name.items():
            default = meta.default_gen[name]()
            self._template[name] = default
            if self._fields is not None and name not in self._fields:
                continue
            if isinstance(default, list | dict):
                self._containers.append((name, type(default)))
            self._add(name, field, meta)
        self._template["_unknown_fields"] = b""

    def _add(self, name: str, field: Any, meta: Any) -> None:
        if field.proto_type == betterproto2.TYPE_MAP:
            entry = Decoder(meta.cls_by_field[name], self._decoders)
            self._table[field.number << 3 | 2] = (_PUT, name, entry._decode_pair)
            return
        wire_type, convert = _conversion(field, meta.cls_by_field.get(name), self._decoders)
        action = _APPEND if field.repeated else _SET
        if field.repeated and wire_type == 0:
            raise TypeError(
                f"{self.__name__}.{name}: expected a supported field, got a repeated number"
            )
        self._table[field.number << 3 | wire_type] = (action, name, convert)

    def parse(self, data: bytes) -> T:
        """The message in `data`. Raises ValueError when it is truncated or malformed."""
        message = self._kind.__new__(self._kind)
        message.__dict__ = self._values(data)
        return message

    def _values(self, data: bytes) -> dict[str, Any]:
        if not self._ready:
            self._prepare()
        values = self._template.copy()
        for name, make in self._containers:
            values[name] = make()
        table = self._table
        position, end = 0, len(data)
        try:
            while position < end:
                tag = data[position]
                position += 1
                if tag > 127:
                    tag, position = _read_varint(data, position - 1)
                wire_type = tag & 7
                value: Any
                if wire_type == 2:
                    size = data[position]
                    position += 1
                    if size > 127:
                        high = data[position]
                        if high < 128:
                            size = size & 127 | high << 7
                            position += 1
                        else:
                            size, position = _read_varint(data, position - 1)
                    value = data[position : position + size]
                    position += size
                    if position > end:
                        raise IndexError
                elif wire_type == 0:
                    value = data[position]
                    position += 1
                    if value > 127:
                        value, position = _read_varint(data, position - 1)
                elif wire_type in (1, 5):
                    position += 8 if wire_type == 1 else 4
                    continue
                else:
                    raise ValueError(
                        f"wire type must be 0, 1, 2 or 5, got {wire_type} at byte {position}"
                    )
                entry = table.get(tag)
                if entry is None:
                    continue  # a newer host's field
                action, name, convert = entry
                if action == _SET:
                    values[name] = convert(value)
                elif action == _APPEND:
                    values[name].append(convert(value))
                else:
                    key, item = convert(value)
                    values[name][key] = item
        except IndexError:
            raise self._truncated(end) from None
        if position != end:
            raise self._truncated(end)
        return values

    def _truncated(self, size: int) -> ValueError:
        return ValueError(f"expected a whole {self.__name__}, got {size} bytes of a truncated one")

    def _decode_pair(self, data: bytes) -> tuple[Any, Any]:
        """The key and the value of a map entry. Fast for short ones with the key first."""
        if not self._ready:
            self._prepare()
        if len(data) > 3 and data[0] == 0x0A and data[1] < 128:
            middle = 2 + data[1]
            if len(data) > middle + 1 and data[middle] == 0x12:
                if data[middle + 1] < 128 and middle + 2 + data[middle + 1] == len(data):
                    convert_key, convert_value = self._table[0x0A][2], self._table[0x12][2]
                    return convert_key(data[2:middle]), convert_value(data[middle + 2 :])
        pair: Any = self.parse(data)
        return pair.key, pair.value


class CachingMessageDecoder(Generic[T]):
    """A function that decodes `kind` and returns the same object for the same bytes."""

    def __init__(self, kind: type[T]) -> None:
        self._parse = Decoder(kind).parse
        self._cache: dict[bytes, T] = {}

    def __call__(self, data: bytes) -> T:
        message = self._cache.get(data)
        if message is None:
            message = self._parse(data)
            if len(data) <= _CACHE_ITEM_BYTES:
                if len(self._cache) >= _CACHE_SIZE:
                    self._cache.clear()
                self._cache[data] = message
        return message

    def forget(self, is_unused: Callable[[T], bool]) -> None:
        """Drop the messages, and their bytes, for which this is true."""
        for data in [data for data, message in self._cache.items() if is_unused(message)]:
            del self._cache[data]


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at `position`, and the position after it."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a varint must have at most 64 bits, got more at byte {position}")


def _to_signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _conversion(
    field: Any, kind: Any, decoders: dict[type, Any]
) -> tuple[int, Callable[[Any], Any]]:
    """The field's wire type, and what converts a value of that type."""
    proto = field.proto_type
    if proto == betterproto2.TYPE_STRING:
        return 2, bytes.decode  # without a frame of Python
    if proto == betterproto2.TYPE_BYTES:
        return 2, bytes
    if proto == betterproto2.TYPE_MESSAGE:
        return 2, decoders.get(kind) or Decoder(kind, decoders).parse
    if proto in (betterproto2.TYPE_INT64, betterproto2.TYPE_INT32):
        return 0, _to_signed
    if proto == betterproto2.TYPE_BOOL:
        return 0, bool
    if proto == betterproto2.TYPE_ENUM:
        return 0, kind
    raise TypeError(f"field {field.number}: expected a supported field, got {proto}")
