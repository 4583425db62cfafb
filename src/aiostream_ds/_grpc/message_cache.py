"""Keeps decoded messages that come again in call after call, as plugin contexts do.

A host written in Go encodes the entries of a map in a random order, so that a context has hundreds
of thousands of encodings. All have the same length, and the same bytes at the same places but in
the runs of map entries, each of which has the same entries in another order.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import permutations
from math import factorial
from typing import Any, Generic, NamedTuple, TypeVar

import betterproto2

from aiostream_ds._grpc.decode import Decoder, position_after, read_varint

__all__ = ["CachingMessageDecoder"]

T = TypeVar("T", bound=betterproto2.Message)

_ITEMS, _ITEM_BYTES, _BYTES = 4096, 64 * 1024, 8 * 1024 * 1024
"""How many messages of a class are kept, how large each may be, and how large all together. Each
viewer of each data source has a context of its own, of some 2 KB."""

_ALIKE = 16
"""Kept messages of the same length and start: those in use are compared one after the other."""

_ORDERS_BYTES = 4096
"""Bytes of all orders of a run of map entries up to which all are kept: for some secrets."""

_Split = Callable[[bytes, int, int], list[bytes]]


class CachingMessageDecoder(Generic[T]):
    """A function that decodes `kind` and returns the same object for the same message, in whatever
    order its map entries are. Every byte is compared with those of the kept message. Do not change
    that object. The messages that were used last are kept."""

    def __init__(self, kind: type[T]) -> None:
        self._parse = Decoder(kind).parse
        self._maps = _Maps(kind)
        # by the length of a message: how long its start is, and by that start what is kept
        self._found: dict[int, dict[int, dict[bytes, list[_Kept]]]] = {}
        self._kept: OrderedDict[_Kept, None] = OrderedDict()  # the one used last is the last
        self._bytes = 0

    def __call__(self, data: bytes) -> T:
        by_size = self._found.get(len(data))
        if by_size is not None:
            for size, by_start in by_size.items():  # of contexts nearly always one
                for kept in by_start.get(data[:size], ()):
                    if kept.is_of(data):
                        self._kept.move_to_end(kept)
                        found: T = kept.message
                        return found
        message = self._parse(data)
        if len(data) <= _ITEM_BYTES:
            self._keep(_Kept(data, self._maps.runs(data, message), message))
        return message

    def forget(self, is_unused: Callable[[T], bool]) -> None:
        """Drop the messages, and their bytes, for which this is true."""
        for kept in [each for each in self._kept if is_unused(each.message)]:
            self._drop(kept)

    def kept(self) -> "Iterator[_Kept]":
        """What is kept of each message, in the order of their last use."""
        return iter(self._kept)

    def _keep(self, kept: "_Kept") -> None:
        if self._kept:
            kept.share(next(reversed(self._kept)))
        by_start = self._found.setdefault(kept.size, {}).setdefault(len(kept.start), {})
        alike = by_start.setdefault(kept.start, [])
        alike.append(kept)
        self._kept[kept] = None
        self._bytes += kept.size
        if len(alike) > _ALIKE:
            self._drop(alike[0])
        while len(self._kept) > _ITEMS or self._bytes > _BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, kept: "_Kept") -> None:
        del self._kept[kept]
        self._bytes -= kept.size
        by_size = self._found[kept.size]
        by_start = by_size[len(kept.start)]
        alike = by_start[kept.start]
        alike.remove(kept)
        if not alike:
            del by_start[kept.start]
        if not by_start:
            del by_size[len(kept.start)]
        if not by_size:
            del self._found[kept.size]


class _Run(NamedTuple):
    """Adjacent entries of a map, which may come in any order: their place, and their bytes."""

    begin: int
    end: int
    entries: list[bytes]


class _Kept:
    """A message, and what all its encodings have in common: their size and start, and at fixed
    places other texts and runs of map entries."""

    __slots__ = ("_long_runs", "_short_runs", "_texts", "message", "size", "start")

    def __init__(self, data: bytes, runs: list[_Run], message: Any) -> None:
        self.message = message
        self.size = len(data)
        ends = [0, *(run.end for run in runs)]
        begins = [*(run.begin for run in runs), len(data)]
        texts = [(end, data[end:begin]) for end, begin in zip(ends, begins, strict=True)]
        self.start = texts[0][1]
        self._texts = texts[1:]
        self._short_runs: list[_ShortRun] = []
        self._long_runs: list[_LongRun] = []
        for begin, end, entries in runs:
            if factorial(min(len(entries), 9)) * (end - begin) > _ORDERS_BYTES:
                self._long_runs.append(_LongRun(begin, end, entries))
            else:
                orders = frozenset(map(b"".join, permutations(entries)))
                self._short_runs.append(_ShortRun(begin, end, orders))

    def share(self, other: "_Kept") -> None:
        """Refer to what is equal in the other one: of two contexts mostly all but the user."""
        values = self.message.__dict__
        for name, value in other.message.__dict__.items():
            if values[name] == value:
                values[name] = value
        for index, (run, theirs) in enumerate(
            zip(self._short_runs, other._short_runs, strict=False)
        ):
            if run.orders == theirs.orders:
                self._short_runs[index] = run._replace(orders=theirs.orders)
        for long_run, long_theirs in zip(self._long_runs, other._long_runs, strict=False):
            if long_run.entries == long_theirs.entries:
                long_run.entries = long_theirs.entries

    def is_of(self, data: bytes) -> bool:
        """Whether data of the same size, with the same start, is an encoding of the message."""
        for position, text in self._texts:
            if not data.startswith(text, position):
                return False
        for begin, end, orders in self._short_runs:
            if data[begin:end] not in orders:
                return False
        for run in self._long_runs:
            if not run.is_of(data):
                return False
        return True


class _ShortRun(NamedTuple):
    """A run with all its orders."""

    begin: int
    end: int
    orders: frozenset[bytes]


class _LongRun:
    """A run with too many orders to keep them."""

    __slots__ = ("_begin", "_end", "_split", "entries")

    def __init__(self, begin: int, end: int, entries: list[bytes]) -> None:
        self._begin, self._end = begin, end
        self.entries = sorted(entries)
        self._split: _Split | None = None

    def is_of(self, data: bytes) -> bool:
        """Whether the bytes at the place of the run are its entries, in whatever order."""
        split = self._split
        if split is None:  # now: many messages come once
            split = self._split = _splitter(frozenset(map(_header_of, self.entries)))
        # equal lists have as many bytes as the run: then nothing was left out
        return sorted(split(data, self._begin, self._end)) == self.entries


class _Maps:
    """Finds the map entries of encoded messages of a class."""

    def __init__(self, kind: Any) -> None:
        self._names: list[str] = []
        self._nested: dict[str, _Maps] = {}  # messages with maps
        self._fields: dict[int, _Maps | None] = {}  # these and, as None, maps; by tag
        meta = kind._betterproto
        for name, field in meta.meta_by_field_name.items():
            if field.proto_type == betterproto2.TYPE_MAP:
                self._names.append(name)
                self._fields[field.number << 3 | 2] = None
            elif field.proto_type == betterproto2.TYPE_MESSAGE and not field.repeated:
                nested = _Maps(meta.cls_by_field[name])
                if nested._fields:
                    self._nested[name] = self._fields[field.number << 3 | 2] = nested

    def runs(self, data: bytes, message: Any) -> list[_Run]:
        """The runs of a decoded message whose entries mean the same in every order."""
        found: list[_Run] = []
        # of entries with the same map key the last one counts: their order matters
        if self._find(data, 0, len(data), found) == self._items(message):
            return found
        return []

    def _find(self, data: bytes, position: int, end: int, found: list[_Run]) -> int:
        """Append the runs of entries between two positions. Returns how many entries there are."""
        count = 0
        run_tag, begin, entries = -1, position, list[bytes]()
        while position < end:
            start = position
            tag, position = _varint(data, position)
            nested = self._fields.get(tag)
            if tag != run_tag and len(entries) > 1:
                found.append(_Run(begin, start, entries))
            if tag != run_tag:
                run_tag, begin, entries = tag, start, []
            if tag in self._fields and nested is None:
                position = position_after(data, tag, position)
                entries.append(data[start:position])
                count += 1
            elif nested is not None:
                size, position = _varint(data, position)
                count += nested._find(data, position, position + size, found)
                position += size
            else:
                position = position_after(data, tag, position)
        if len(entries) > 1:
            found.append(_Run(begin, end, entries))
        return count

    def _items(self, message: Any) -> int:
        """How many items the maps of a message have."""
        count = sum(len(getattr(message, name)) for name in self._names)
        for name, nested in self._nested.items():
            inner = getattr(message, name)
            count += 0 if inner is None else nested._items(inner)
        return count


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = data[position]
    return read_varint(data, position) if number > 127 else (number, position + 1)


def _header_of(entry: bytes) -> tuple[bytes, int]:
    """The tag and the size of a map entry, and the size of what follows."""
    size, after = _varint(entry, _varint(entry, 0)[1])
    return entry[:after], size


@lru_cache(maxsize=64)
def _splitter(headers: frozenset[tuple[bytes, int]]) -> _Split:
    """A function that finds entries with these headers. None of these is the start of another one,
    as each is two varints."""
    kinds = (re.escape(header) + b".{%d}" % size for header, size in sorted(headers))
    return re.compile(b"|".join(kinds), re.DOTALL).findall
