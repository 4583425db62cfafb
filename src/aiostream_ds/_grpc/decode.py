"""Decodes requests ten times as fast as the message classes.

A decoder is a table made from a betterproto2 message class: tag to field. It creates objects of
that class, equal to those of `parse`, and rejects truncated messages. Short headers, the same in
call after call, are cached; `message_cache` caches whole messages.
"""

from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

import betterproto2

__all__ = ["Decoder", "ShortParts", "position_after", "read_varint"]

T = TypeVar("T", bound=betterproto2.Message)

_CACHED_MAP = "headers"
"""The map whose entries are cached. Other maps, which may have secrets, are in messages that are
cached as a whole."""

_PARTS, _PART_BYTES = 256, 64
"""How many short parts of messages are cached, and how large each may be: tokens are longer."""

_NUMBER, _SET, _APPEND, _PUT, _SKIP = range(5)

_Convert = Callable[[Any], Any]
_Entry = tuple[int, str, _Convert]

_UINT64, _SIGN = (1 << 64) - 1, 1 << 63
_SHIFTS = range(0, 70, 7)  # of the bytes of a varint


class Decoder(Generic[T]):
    """Decodes one message class. `decoders` replaces the decoders of fields of these classes. With
    `fields`, only these are decoded, and others have their defaults.

    Raises TypeError for a class with a kind of field that Grafana's requests do not have.
    """

    def __init__(
        self,
        kind: type[T],
        decoders: dict[type, _Convert] | None = None,
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
            wire_type, action, convert = self._field(name, field, meta.cls_by_field.get(name))
            if self._fields is not None and name not in self._fields:
                if wire_type != 2:
                    continue
                action = _SKIP
            elif action in (_APPEND, _PUT):
                self._containers.append((name, type(default)))
            self._table[field.number << 3 | wire_type] = (action, name, convert)
        self._template["_unknown_fields"] = b""

    def _field(self, name: str, field: Any, kind: Any) -> tuple[int, int, _Convert]:
        """The wire type of a field, what to do with its value, and what converts that."""
        if field.proto_type == betterproto2.TYPE_MAP:
            decode = Decoder(kind, self._decoders)._decode_pair
            is_cached = name == _CACHED_MAP
            return 2, _PUT, ShortParts(decode).__getitem__ if is_cached else decode
        wire_type, convert = _conversion(field, kind, self._decoders)
        if wire_type == 2:
            return 2, _APPEND if field.repeated else _SET, convert
        if field.repeated:
            raise TypeError(
                f"{self.__name__}.{name}: expected a supported field, got a repeated number"
            )
        return 0, _NUMBER, convert

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
                try:
                    action, name, convert = table[data[position]]
                except KeyError:  # not known, or its tag has more bytes
                    entry, position = self._rare_field(data, position)
                    if entry is None:
                        continue
                    action, name, convert = entry
                number = data[position + 1]  # the value, or the size of what follows
                position += 2
                if number > 127:
                    second = data[position]
                    if second < 128:  # most sizes
                        number += (second << 7) - 128
                        position += 1
                    else:
                        number, position = read_varint(data, position - 1)
                if action == _NUMBER:
                    values[name] = convert(number if number < _SIGN else number - (1 << 64))
                    continue
                start = position
                position += number
                if position > end:
                    raise IndexError
                value = data[start:position]
                if action == _SET:
                    values[name] = convert(value)
                elif action == _PUT:
                    key, item = convert(value)
                    values[name][key] = item
                elif action == _APPEND:
                    values[name].append(convert(value))
        except IndexError:
            raise self._truncated(end) from None
        if position != end:
            raise self._truncated(end)
        return values

    def _rare_field(self, data: bytes, position: int) -> tuple[_Entry | None, int]:
        """The entry of a field whose tag has more than one byte, and the position of the tag's last
        byte. None for a newer host's field, and the position after it."""
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = read_varint(data, position - 1)
        entry = self._table.get(tag)
        return entry, position_after(data, tag, position) if entry is None else position - 1

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


class ShortParts(dict[bytes, Any]):
    """Decoded map entries or messages by their bytes. `parts[data]` decodes what is not in it. Do
    not change the objects."""

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode

    def __missing__(self, data: bytes) -> Any:
        part = self._decode(data)
        if len(data) <= _PART_BYTES:
            if len(self) >= _PARTS:
                self.clear()
            self[data] = part
        return part


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint of more than one byte at `position`, and the position after it."""
    number = 0
    for shift, byte in zip(_SHIFTS, data[position : position + len(_SHIFTS)], strict=False):
        number |= (byte & 127) << shift
        if byte < 128:
            return number & _UINT64, position + shift // 7 + 1
    position += len(_SHIFTS)
    if position > len(data):
        raise IndexError
    raise ValueError(f"a varint must have at most 64 bits, got more at byte {position}")


def position_after(data: bytes, tag: int, position: int) -> int:
    """The position after the value of a field that begins at `position`."""
    wire_type = tag & 7
    if wire_type in (1, 5):
        return position + (8 if wire_type == 1 else 4)
    if wire_type not in (0, 2):
        raise ValueError(f"wire type must be 0, 1, 2 or 5, got {wire_type} at byte {position}")
    number = data[position]
    position += 1
    if number > 127:
        number, position = read_varint(data, position - 1)
    return position + number if wire_type == 2 else position


def _conversion(field: Any, kind: Any, decoders: dict[type, _Convert]) -> tuple[int, _Convert]:
    """The field's wire type, and what converts a value of that type."""
    proto = field.proto_type
    if proto == betterproto2.TYPE_STRING:
        return 2, bytes.decode  # without a frame of Python
    if proto == betterproto2.TYPE_BYTES:
        return 2, bytes
    if proto == betterproto2.TYPE_MESSAGE:
        return 2, decoders.get(kind) or Decoder(kind, decoders).parse
    if proto in (betterproto2.TYPE_INT64, betterproto2.TYPE_INT32):
        return 0, int
    if proto == betterproto2.TYPE_BOOL:
        return 0, bool
    if proto == betterproto2.TYPE_ENUM:
        return 0, kind
    raise TypeError(f"field {field.number}: expected a supported field, got {proto}")
