"""How the cursors of a stream are read from its rows, and written for its author and the browser.

    the author's value     in the runtime     on the wire
    7                      7                  7                      one column
    (1700000000000, 3)     ms · 2⁵³ + seq     "0001700000000000-0000000000000003"     two columns
    "1700000000000-3"      ms · 2⁵³ + seq     "0001700000000000-0000000000000003"     a text
    -1, (-1, -1), ""       -1                 -1, "-1", "-1"

In the runtime each cursor is one integer, so that all code compares and counts cursors in the same
way. On the wire, numbers up to 2⁵³ are exact; two of them are a text that sorts as the pair does.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aiostream_ds._short_repr import short_repr
from aiostream_ds.rows import CURSOR_LIMIT, Columns, Cursor, HistoryPage, HistoryRange

if TYPE_CHECKING:
    from aiostream_ds._encoding.blocks import Block

__all__ = ["BEGINNING", "CursorKind", "cursor_kind"]

BEGINNING = -1
"""The cursor before the first row, in the runtime."""

_DIGITS = len(str(CURSOR_LIMIT - 1))

_ID = re.compile(r"(0|[1-9]\d{0,15})-(0|[1-9]\d{0,15})", re.ASCII)
"""An id of two numbers. Of one with leading zeros the author's code would get another text back."""

_AN_ID = f"a text of two numbers from 0 to {CURSOR_LIMIT - 1}, as '1700000000000-3'"


class CursorKind:
    """Cursors in one column of integers."""

    limit = CURSOR_LIMIT
    """All cursors in the runtime are below it."""

    value_type: Any = int
    """The type of the author's values."""

    column_type: type = int
    """The type of the values of each column."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns

    @property
    def label(self) -> str:
        """The columns as a message names them."""
        return repr(self.columns[0])

    def of_value(self, value: Any) -> int:
        """The cursor of a row with this value, or these two values, in the columns.

        Raises:
            TypeError: a value is not an integer.
        """
        if type(value) is int:
            return value
        return _to_int(self.columns[0], value)

    def of_block(self, block: "Block") -> list[int]:
        """The cursors of the rows of a block.

        Raises:
            TypeError: the block does not have a column, or a value is not an integer.
        """
        cursors = _column(block, self.columns[0])
        if set(map(type, cursors)) <= {int}:
            return cursors
        return [_to_int(self.columns[0], value) for value in cursors]

    def of_last(self, names: Sequence[str], values: Sequence[Sequence[Any]]) -> int:
        """The cursor of the last row of a packet with these columns."""
        return self.of_value(values[names.index(self.columns[0])][-1])

    def check_range(self, first: int, last: int) -> None:
        """Checks the first and last one of cursors that increase.

        Raises:
            TypeError: one is not from 0 to `CURSOR_LIMIT` - 1.
        """
        if first < 0 or last >= CURSOR_LIMIT:
            _raise_range(self.columns[0], first if first < 0 else last)

    # The author's values

    def to_author(self, value: int) -> Any:
        """The value as the author's code gets it."""
        return value

    def from_author(self, value: Any, name: str) -> int:
        """The value that the author's code has given as `name`.

        Raises:
            TypeError: it is not a cursor of this kind.
        """
        if type(value) is not int or not BEGINNING <= value < CURSOR_LIMIT:
            raise TypeError(
                f"{name} must be from -1 to {CURSOR_LIMIT - 1}, got {short_repr(value)}"
            )
        return value

    def cursor_to_author(self, cursor: Cursor) -> Any:
        """The `Cursor` that the stream method gets."""
        return Cursor(cursor.epoch, self.to_author(cursor.value))

    def cursor_from_author(self, cursor: Any) -> Cursor:
        """A `Cursor` that the author's code has yielded or returned. Raises TypeError."""
        return Cursor(cursor.epoch, self.from_author(cursor.value, f"the value of {cursor!r}"))

    def range_to_author(self, wanted: HistoryRange) -> Any:
        """The range that the history hook gets."""
        return wanted

    def page_from_author(self, page: HistoryPage[Any]) -> HistoryPage:
        """The page that the history hook has returned. Raises TypeError."""
        return page

    # The wire

    def to_wire(self, value: int) -> int | str:
        """The value as JSON has it."""
        return value

    def from_wire(self, text: str) -> int:
        """The value of a URL's parameter.

        Raises:
            ValueError: the text is not a cursor; the message has what was expected.
        """
        if not text.removeprefix("-").isdecimal() or len(text) > 20:
            raise ValueError("must be an integer")
        if not BEGINNING <= int(text) < CURSOR_LIMIT:
            raise ValueError(f"must be -1 to {CURSOR_LIMIT - 1}")
        return int(text)

    def indexes(self, names: Sequence[str]) -> int | list[int] | None:
        """The index of the column with the cursors, or those of both columns. None: they are the
        numbers of rows in a log, which no column has."""
        return names.index(self.columns[0]) if self.columns[0] else None


class CursorPair(CursorKind):
    """Cursors in two columns of integers: rows are ordered by the first, then by the second."""

    limit = CURSOR_LIMIT * CURSOR_LIMIT
    value_type: Any = tuple[int, int]

    @property
    def label(self) -> str:
        return repr(self.columns)

    def of_value(self, value: Any) -> int:
        return self._pack(*value)

    def of_block(self, block: "Block") -> list[int]:
        first, second = (_column(block, name) for name in self.columns)
        return [self._pack(*pair) for pair in zip(first, second, strict=True)]

    def of_last(self, names: Sequence[str], values: Sequence[Sequence[Any]]) -> int:
        first, second = (values[names.index(name)][-1] for name in self.columns)
        return self._pack(first, second)

    def check_range(self, first: int, last: int) -> None:
        """Nothing: each number was checked when it was read."""

    def _pack(self, first: Any, second: Any) -> int:
        numbers = _to_int(self.columns[0], first), _to_int(self.columns[1], second)
        for name, number in zip(self.columns, numbers, strict=True):
            if not 0 <= number < CURSOR_LIMIT:
                _raise_range(name, number)
        return numbers[0] * CURSOR_LIMIT + numbers[1]

    def to_author(self, value: int) -> tuple[int, int]:
        return (-1, -1) if value == BEGINNING else divmod(value, CURSOR_LIMIT)

    def from_author(self, value: Any, name: str) -> int:
        if value == (-1, -1):
            return BEGINNING
        if not (isinstance(value, tuple) and [*map(type, value)] == [int, int]):
            raise TypeError(f"{name} must be a tuple of two integers, got {short_repr(value)}")
        if not all(0 <= number < CURSOR_LIMIT for number in value):
            raise TypeError(
                f"{name} must be (-1, -1), or have numbers from 0 to {CURSOR_LIMIT - 1},"
                f" got {short_repr(value)}"
            )
        return self._pack(*value)

    def range_to_author(self, wanted: HistoryRange) -> Any:
        after, upto = (
            None if value is None else self.to_author(value)
            for value in (wanted.after, wanted.upto)
        )
        return replace(wanted, after=after, upto=upto)

    def page_from_author(self, page: HistoryPage[Any]) -> HistoryPage:
        last, first = (
            None if value is None else self.from_author(value, f"HistoryPage.{name}")
            for name, value in (("last", page.last), ("first", page.first))
        )
        return replace(page, last=last, first=first)

    def to_wire(self, value: int) -> int | str:
        if value == BEGINNING:
            return "-1"
        first, second = divmod(value, CURSOR_LIMIT)
        return f"{first:0{_DIGITS}}-{second:0{_DIGITS}}"

    def from_wire(self, text: str) -> int:
        if text == "-1":
            return BEGINNING
        first, _, second = text.partition("-")
        if not (_is_number(first) and _is_number(second)):
            raise ValueError(f"must be two numbers of {_DIGITS} digits with a hyphen between them")
        return int(first) * CURSOR_LIMIT + int(second)

    def indexes(self, names: Sequence[str]) -> int | list[int]:
        return [names.index(name) for name in self.columns]


class CursorText(CursorPair):
    """Cursors in one column of texts, each of two numbers with a hyphen between them."""

    value_type: Any = str
    column_type = str

    @property
    def label(self) -> str:
        return repr(self.columns[0])

    def of_value(self, value: Any) -> int:
        found = _ID.fullmatch(value) if isinstance(value, str) else None
        numbers = (CURSOR_LIMIT, 0) if found is None else (int(found[1]), int(found[2]))
        if max(numbers) >= CURSOR_LIMIT:
            raise TypeError(f"cursor {self.label} must be {_AN_ID}, got {short_repr(value)}")
        return numbers[0] * CURSOR_LIMIT + numbers[1]

    def of_block(self, block: "Block") -> list[int]:
        return list(map(self.of_value, _column(block, self.columns[0])))

    def of_last(self, names: Sequence[str], values: Sequence[Sequence[Any]]) -> int:
        return self.of_value(values[names.index(self.columns[0])][-1])

    def to_author(self, value: int) -> Any:
        return "" if value == BEGINNING else "{}-{}".format(*divmod(value, CURSOR_LIMIT))

    def from_author(self, value: Any, name: str) -> int:
        if value == "":
            return BEGINNING
        try:
            return self.of_value(value)
        except TypeError:
            raise TypeError(f"{name} must be {_AN_ID}, or '', got {short_repr(value)}") from None

    def indexes(self, names: Sequence[str]) -> int | list[int]:
        return names.index(self.columns[0])


@lru_cache(maxsize=1024)
def cursor_kind(columns: str | tuple[str, str], *, is_text: bool = False) -> CursorKind:
    """The kind of the option `cursor` of a stream.

    Args:
        columns: the option.
        is_text: whether its one column has texts.
    """
    if not isinstance(columns, str):
        return CursorPair(*columns)
    return CursorText(columns) if is_text else CursorKind(columns)


def _column(block: "Block", name: str) -> list[Any]:
    if isinstance(block, Columns):
        names = block.kind.__struct_fields__
        values = block.values[names.index(name)] if name in names else None
    else:
        values = next((field.values for field in block.fields if field.name == name), None)
    if values is None:
        raise TypeError(f"rows must have a column {name!r}, the cursor, got {block!r}")
    from aiostream_ds._encoding.blocks import to_list  # a block has it imported

    return to_list(values)


def _to_int(column: str, value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        advice = "; for ids as '1-3' annotate `after` with Cursor[str]"
        raise TypeError(
            f"cursor {column!r} must be an int, got {short_repr(value)}"
            f"{advice if isinstance(value, str) and _ID.fullmatch(value) else ''}"
        )
    return index(value)


def _raise_range(column: str, value: int) -> None:
    raise TypeError(f"cursor {column!r} must be from 0 to {CURSOR_LIMIT - 1}, got {value}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) == _DIGITS and int(text) < CURSOR_LIMIT
