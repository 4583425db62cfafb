"""The type of a stream's cursor: its columns and the annotations must agree.

cursor="offset"           Cursor[int], also Cursor
cursor="id"               Cursor[str]               texts of two numbers, as "1700000000000-3"
cursor=("ms", "seq")      Cursor[tuple[int, int]]
"""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from aiostream_ds._annotations import base_type
from aiostream_ds._encoding.cursor_kinds import CursorKind, cursor_kind
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange

__all__ = ["check_history_types", "check_last_type", "stream_cursor"]

_PAIR = tuple[int, int]


def stream_cursor(columns: str | tuple[str, str], name: str, after: Any, rows: Any) -> CursorKind:
    """The kind of a stream's cursor. The annotation of its parameter decides whether one column has
    integers or texts.

    Args:
        columns: the option `cursor`.
        name: the method's first parameter.
        after: the annotation of this parameter; None if there is none.
        rows: the annotation of what the method returns.

    Raises:
        TypeError: an annotation is of a cursor with another type.
    """
    for kind in _members(after):
        if kind is not Cursor and get_origin(kind) is not Cursor and not _is_open(kind):
            raise TypeError(f"the annotation of {name!r} must be a Cursor, got {_shown(kind)}")
    expected = (int, str) if isinstance(columns, str) else (_PAIR,)
    found = list(_arguments(after, Cursor))
    for each in found:
        if each not in expected:
            wanted = " or ".join(f"Cursor[{_shown(kind)}]" for kind in expected)
            raise TypeError(
                f"the annotation of {name!r} must be {wanted} for cursor={columns!r}, got"
                f" Cursor[{_shown(each)}]"
            )
    kind = cursor_kind(columns, is_text=str in found)
    for yielded in get_args(base_type(rows))[:1]:
        _check("the rows", yielded, Cursor, kind)
    return kind


def check_history_types(kind: CursorKind, history_range: Any, page: Any) -> None:
    """Check the annotations of a history hook: its first parameter, and what it returns.

    Raises:
        TypeError: one is of a cursor with another type.
    """
    _check("the range", history_range, HistoryRange, kind)
    _check("the page", page, HistoryPage, kind)


def check_last_type(kind: CursorKind, cursor: Any) -> None:
    """Check the annotation of what a last hook returns.

    Raises:
        TypeError: it is of a cursor with another type.
    """
    _check("the cursor", cursor, Cursor, kind)
    for each in _members(cursor):
        value = _value_type(each)
        if value in (int, str, _PAIR) and value != kind.value_type:
            raise TypeError(
                f"the annotation of the cursor must be {_shown(kind.value_type)}, as that of the"
                f" stream, got {_shown(value)}"
            )


def _check(what: str, annotation: Any, generic: Any, kind: CursorKind) -> None:
    for found in _arguments(annotation, generic):
        if found != kind.value_type:
            name = generic.__name__
            raise TypeError(
                f"the annotation of {what} must have {name}[{_shown(kind.value_type)}], as that of"
                f" the stream's cursor, got {name}[{_shown(found)}]"
            )


def _arguments(annotation: Any, generic: Any) -> Iterator[Any]:
    """`X` of `generic[X]`, which may be a member of a union."""
    for member in _members(annotation):
        if get_origin(member) is generic:
            value = _value_type(get_args(member)[0])
            if not _is_open(value):
                yield value


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, without None; of another annotation itself."""
    kind = base_type(annotation)
    if get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _members(each)
    elif kind not in (None, NoneType):
        yield kind


def _value_type(annotation: Any) -> Any:
    kind = base_type(annotation)
    if get_origin(kind) is tuple and [base_type(each) for each in get_args(kind)] == [int, int]:
        return _PAIR  # also that of `typing.Tuple`
    return kind


def _is_open(kind: Any) -> bool:
    """Whether any cursor fits the annotation."""
    return kind in (Any, object) or isinstance(kind, TypeVar)


def _shown(kind: Any) -> str:
    return kind.__name__ if type(kind) is type else repr(kind)
