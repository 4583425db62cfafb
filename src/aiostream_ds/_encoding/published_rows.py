"""A row copied when it is published: its publisher may change it afterwards.

Unlike what a stream yields, tables stay tables: the subscribers get the object itself or its copy.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import methodcaller
from typing import Any, TypeVar, cast

from aiostream_ds._encoding.row_kinds import opener, row_kind
from aiostream_ds._frames.pandas_columns import is_pandas_table

__all__ = ["copy_published"]

RowT = TypeVar("RowT")


def copy_published(row: RowT) -> RowT:
    """The row as it is now.

    Raises:
        TypeError: the class of the row has fields and is a mapping or a list.
    """
    copy = _copier(type(row))
    return row if copy is None else cast("RowT", copy(row))


def _find_copier(kind: type) -> Callable[[Any], Any] | None:
    if kind is dict:
        return dict.copy
    if issubclass(kind, list):
        opener(kind)  # raises TypeError for a list with fields
        return lambda rows: [copy_published(each) for each in rows]
    if is_pandas_table(kind):  # tables of other libraries do not change
        return methodcaller("copy")
    found = row_kind(kind)
    if issubclass(kind, dict):
        return methodcaller("copy")
    return None if found is None or found.names is None else found.copy


_copier: Callable[[Any], Callable[[Any], Any] | None] = lru_cache(maxsize=1024)(_find_copier)
"""The function that copies the objects of a class; None: they are passed on as they are."""
