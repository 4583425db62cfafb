"""Rows as blocks: how many rows become one value in a database, and how they are read again.

    block    flag, CRC-32, segments (deflated if that is shorter)
    segment  [names, columns]: rows with the same keys, as MessagePack

Blocks of a thousand rows are written eight times as fast as single rows, and take a quarter of
their bytes. Rows of an append that have the same columns are one piece; a block is one piece, or
several small ones.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._frames.common_columns import only_type
from aiostream_ds._frames.scalars import to_builtin
from aiostream_ds._frames.times import DAY, EPOCH, MILLISECOND
from aiostream_ds._short_repr import short_repr
from aiostream_ds.stores.store import CURSOR_COLUMN

__all__ = [
    "DamagedBlock",
    "Piece",
    "RowSegment",
    "join_pieces",
    "read_block",
    "read_piece",
    "split_rows",
]

TIME = "time"

PIECE_ROWS = 1_000
PIECE_BYTES = 256 << 10

_DEFLATE_FROM = 256  # bytes; shorter blocks hardly become smaller
_MAX_TIME = (1 << 63) - 1
_NATIVE = frozenset({bool, int, float, str, type(None)})
_CHECKED = frozenset({dict, list})
_PLAIN, _DEFLATED = b"\x00", b"\x01"

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


class DamagedBlock(Exception):
    """The bytes of a block are not those that were written."""


class Piece(NamedTuple):
    """Consecutive rows with the same columns: an encoded segment.

    `is_far`: their times are more than a day in the future. They do not share a block with other
    rows, whose range of times they would widen.
    """

    rows: int
    low: int
    high: int
    is_far: bool
    data: bytes


class RowSegment(NamedTuple):
    """Rows of a block with the same columns."""

    names: list[str]
    columns: list[Sequence[Any]]

    @property
    def rows(self) -> int:
        return len(self.columns[0])

    def times(self) -> list[int]:
        """The times of the rows in milliseconds."""
        index = _time_index(self.names, self.columns)
        if index is None:
            raise DamagedBlock
        return _milliseconds(self.columns[index])

    def to_dicts(self, first: int) -> list[dict[str, Any]]:
        """The rows, with their cursors, of which `first` is that of the first row."""
        names = [*self.names, CURSOR_COLUMN]
        columns = (*self.columns, range(first, first + self.rows))
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def split_rows(rows: Sequence[Mapping[str, Any]], now: int) -> list[Piece]:
    """The pieces of rows; `now` in milliseconds.

    Raises:
        TypeError, ValueError: a row cannot be stored; the message names its index.
    """
    try:
        return list(_pieces(rows, now))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = error
    for index, row in enumerate(rows):
        try:
            for name in _names(row):
                _column(name, [row[name]], must_check=True)
            list(_pieces([row], now))
        except (TypeError, RecursionError) as error:
            raise TypeError(f"row {index}: {error}") from None
        except (ValueError, OverflowError) as error:
            raise ValueError(f"row {index}: {error}") from None
    raise problem


def _pieces(rows: Sequence[Mapping[str, Any]], now: int) -> Iterator[Piece]:
    for names, group in groupby(rows, key=_names):
        if CURSOR_COLUMN in names:
            raise ValueError(
                f"the column {CURSOR_COLUMN!r} is the store's own, got it in a row; rename it"
            )
        values = [tuple(row.values()) for row in group]
        for start in range(0, len(values), PIECE_ROWS):
            part = values[start : start + PIECE_ROWS]
            columns = [_column(n, c) for n, c in zip(names, zip(*part, strict=True), strict=True)]
            index = _time_index(names, columns)
            if index is None and len(part) > 1:  # of the rows each has a time in another column
                for single in part:
                    yield from _pieces([dict(zip(names, single, strict=True))], now)
                continue
            if index is None:
                shown = ", ".join(names)
                raise ValueError(f"a row must have the column {TIME!r}, or a datetime, got {shown}")
            times = _milliseconds(columns[index])
            limit = now + DAY
            if max(times) <= limit or min(times) > limit:
                yield from _encoded(names, columns, times, times[0] > limit)
                continue
            row = 0
            for is_far, run in groupby(times, key=limit.__lt__):
                own = list(run)
                cut = [column[row : row + len(own)] for column in columns]
                yield from _encoded(names, cut, own, is_far)
                row += len(own)


def _encoded(
    names: tuple[str, ...], columns: Sequence[Sequence[Any]], times: list[int], is_far: bool
) -> Iterator[Piece]:
    data = _encode((names, columns))
    half = len(times) // 2
    if len(data) > PIECE_BYTES and half:
        yield from _encoded(names, [column[:half] for column in columns], times[:half], is_far)
        yield from _encoded(names, [column[half:] for column in columns], times[half:], is_far)
    else:
        yield Piece(len(times), min(times), max(times), is_far, data)


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    if not isinstance(row, Mapping):
        raise TypeError(f"expected a dict, got {short_repr(row)}")
    names = tuple(row)
    for name in names:
        if name.__class__ is not str:
            raise TypeError(f"the names of columns must be str, got {short_repr(name)}")
    return names


def _column(name: str, values: Sequence[Any], must_check: bool = False) -> Sequence[Any]:
    """The values as those of builtin types. Integers of more than 64 bits are only found by
    `must_check`, and when they are encoded."""
    kinds = set(map(type, values))
    if kinds <= _NATIVE and not must_check:
        return values
    try:
        if not kinds <= _NATIVE | _CHECKED:
            values = [to_builtin(value) for value in values]
            naive = next((v for v in values if type(v) is datetime and v.tzinfo is None), None)
            if naive is not None:
                raise ValueError(f"a datetime must have a time zone, got {naive!r}")
        _encode(values)
        return values
    except (TypeError, RecursionError) as error:
        raise TypeError(f"column {name!r}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"column {name!r}: {error}") from None


def _time_index(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> int | None:
    """The column of the rows' times: `time`, else the first one of datetimes."""
    if TIME in names:
        return names.index(TIME)
    return next((n for n, values in enumerate(columns) if only_type(values) is datetime), None)


def _milliseconds(values: Sequence[Any]) -> list[int]:
    if set(map(type, values)) == {int}:
        times = list(values)
    else:
        times = [_millisecond(value) for value in values]
    if times and not (-_MAX_TIME <= min(times) and max(times) <= _MAX_TIME):
        value = next(time for time in times if abs(time) > _MAX_TIME)
        raise ValueError(f"column {TIME!r} must be 64-bit Unix milliseconds, got {value}")
    return times


def _millisecond(value: Any) -> int:
    if isinstance(value, datetime):
        return (value - EPOCH) // MILLISECOND
    if type(value) is float and value == value and abs(value) < float(_MAX_TIME):
        return int(value // 1)
    if type(value) is not int:
        raise ValueError(
            f"column {TIME!r} must be Unix milliseconds or an aware datetime, got"
            f" {short_repr(value)}"
        )
    return value


def join_pieces(pieces: Sequence[bytes]) -> bytes:
    """The block of some segments."""
    data = _encode([msgspec.Raw(piece) for piece in pieces])
    flag = _PLAIN
    if len(data) >= _DEFLATE_FROM:
        short = zlib.compress(data, 1)
        if len(short) < len(data):
            flag, data = _DEFLATED, short
    return flag + zlib.crc32(data).to_bytes(4, "little") + data


def read_piece(piece: Piece, first: int) -> list[dict[str, Any]]:
    """The rows of a piece, with their cursors. Raises DamagedBlock."""
    try:
        names, columns = _decode(piece.data)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedBlock from error
    return RowSegment(names, columns).to_dicts(first)


def read_block(block: bytes) -> list[RowSegment]:
    """The segments of a block. Raises DamagedBlock."""
    data = block[5:]
    if zlib.crc32(data) != int.from_bytes(block[1:5], "little"):
        raise DamagedBlock
    try:
        if block[:1] == _DEFLATED:
            data = zlib.decompress(data)
        return [RowSegment(names, columns) for names, columns in _decode(data)]
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise DamagedBlock from error
