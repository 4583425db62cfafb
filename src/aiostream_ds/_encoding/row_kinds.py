"""Kinds of rows: which objects are rows, and the fields that their classes declare.

declared   Row and other msgspec Structs, dataclasses, attrs classes, pydantic models, NamedTuples:
           each field has an annotation, from which its column has its type
by key     dicts and other mappings, namedtuples without annotations, records of databases, a
           numpy.void: the types of the columns are inferred from the values

attrs, pydantic and numpy are never imported: their classes are recognized by their attributes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import methodcaller
from typing import Annotated, Any, NamedTuple

import msgspec

from aiostream_ds._annotations import class_annotations
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.common_columns import only_type
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.dataframes import hint, is_table
from aiostream_ds._frames.frame import Frame
from aiostream_ds._short_repr import short_repr
from aiostream_ds.rows import Columns, Cursor

__all__ = [
    "KINDS",
    "RowKind",
    "copy_struct",
    "declared_fields",
    "declared_names",
    "flatten",
    "is_typed_dict",
    "not_a_row",
    "opener",
    "row_kind",
    "rows_of_history",
]

KINDS = (
    "a dict, a Row, a dataclass, a named tuple, a Struct, an attrs or pydantic object, a mapping,"
    " Columns, a Frame, a table, a list of rows or a Status"
)
"""What may be yielded, as error messages list it."""


_HEAP_TYPE = 1 << 9
"""The flag of classes that are made at run time: of all that are written in Python."""

copy_struct: Callable[[Any], Any] = getattr(msgspec.Struct, "__copy__")  # noqa: B009
"""Copies a Struct of any class; raises TypeError for other objects."""


class RowKind(NamedTuple):
    """How the objects of a class are read as rows."""

    names: tuple[str, ...] | None
    """The declared fields, which are attributes; None: the rows are read by key."""
    to_dict: Callable[[Any], dict[Any, Any]] | None
    """Makes a dict of a row that is read by key; None: it is a dict."""
    copy: Callable[[Any], Any] | None
    """A row that the author can no longer change; None: nobody can."""


def _find_kind(kind: type) -> RowKind | None:
    if kind is dict:
        return RowKind(None, None, dict.copy)
    if issubclass(kind, Frame | Columns | Status | Cursor | type):
        return None
    if is_table(kind):
        return None
    names = declared_names(kind)
    if names is not None:
        _check_class(kind)
        return RowKind(names, None, _copy_of_fields(kind, names))
    to_dict = _to_dict(kind)
    return None if to_dict is None else RowKind(None, to_dict, to_dict)


row_kind: Callable[[Any], RowKind | None] = lru_cache(maxsize=1024)(_find_kind)
"""How objects of a class are read as rows; None: they are not rows."""


def _check_class(kind: type) -> None:
    """Raises TypeError for a class with declared fields that is a mapping or a list, too."""
    if not issubclass(kind, Mapping | list) or is_typed_dict(kind) or declared_names(kind) is None:
        return
    base, other = ("list", "rows") if issubclass(kind, list) else ("mapping", "columns")
    raise TypeError(
        f"a row must have either fields or the {other} of a {base}, got {kind.__qualname__}, which"
        f" has both; let it have a {base} as a field"
    )


def is_typed_dict(kind: type) -> bool:
    """Whether this is a TypedDict: its rows are dicts."""
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def declared_names(kind: Any) -> tuple[str, ...] | None:
    """The fields of a class that declares all of them, in order; None for other classes."""
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(field.name for field in kind.__attrs_attrs__)
    if _is_pydantic(kind):
        return tuple(name for name, field in kind.model_fields.items() if not field.exclude)
    if is_typed_dict(kind):
        return tuple(class_annotations(kind))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names: tuple[str, ...] = kind._fields
        return names if set(names) <= class_annotations(kind).keys() else None
    return None


def declared_fields(kind: Any) -> dict[str, Any]:
    """The annotations of the declared fields. A `FieldConfig` in the metadata of a dataclass's or
    an attrs field counts as one in its annotation.

    Raises:
        TypeError: an annotation cannot be resolved.
    """
    names = declared_names(kind) or ()
    if _is_pydantic(kind):  # pydantic has resolved them
        fields = {name: kind.model_fields[name] for name in names}
        return {name: _annotated(each.annotation, each.metadata) for name, each in fields.items()}
    hints = class_annotations(kind)
    metadata: dict[str, Iterable[Any]] = {}
    if dataclasses.is_dataclass(kind):
        metadata = {each.name: each.metadata.values() for each in dataclasses.fields(kind)}
    elif hasattr(kind, "__attrs_attrs__"):
        metadata = {each.name: each.metadata.values() for each in kind.__attrs_attrs__}
    return {name: _annotated(hints.get(name), metadata.get(name, ())) for name in names}


def _annotated(annotation: Any, metadata: Iterable[Any]) -> Any:
    for each in metadata:
        if isinstance(each, FieldConfig):
            return Annotated[annotation, each]
    return annotation


def _find_opener(kind: type) -> Callable[[Any], Sequence[Any]] | None:
    if issubclass(kind, list):
        _check_class(kind)
        return _same
    if kind is tuple:  # `yield one, two`; a named tuple is a single row
        return _rows_of_tuple
    return _structured_rows if _is_numpy(kind, "ndarray") else None


opener: Callable[[Any], Callable[[Any], Sequence[Any]] | None]
opener = lru_cache(maxsize=1024)(_find_opener)
"""A function that returns the rows of an object of a class: of a list, a tuple or a numpy
structured array. None: it is not made of rows."""


def flatten(items: Sequence[Any]) -> Sequence[Any]:
    """What was yielded, with the rows of lists and other objects that are made of rows one by one.

    Raises:
        TypeError: a tuple or an array does not consist of rows.
    """
    rows: list[Any] = []
    only = only_type(items)
    if only is list:
        for item in items:
            rows += item
        return rows
    if only is not None and opener(only) is None:
        return items
    kinds = set(map(type, items))
    openers = {kind: open for kind in kinds if (open := opener(kind)) is not None}
    if not openers:
        return items
    for item in items:
        rows += openers[type(item)](item) if type(item) in openers else (item,)
    return rows


def rows_of_history(rows: Any) -> "Frame | Columns[Any] | list[Any]":
    """What a history has returned, as a block or a list that the author does not change.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(rows, Frame | Columns):
        return rows
    if is_table(type(rows)):
        return [rows]
    open_rows = opener(type(rows))
    if open_rows is not None:
        return list(open_rows(rows))
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes) or row_kind(type(rows)):
        shown = short_repr(rows)
        raise TypeError(
            f"a history must be a Frame, Columns, a table or a list of rows, got {shown}"
            f"{hint(rows)}"
        )
    return list(rows)


def not_a_row(value: Any) -> str:
    """The message for a value that a stream has yielded or a history has returned."""
    shown = short_repr(value)
    if isinstance(value, Cursor):
        return f"only a stream with the option cursor may yield a Cursor, got {shown}"
    text = f"a row must be {KINDS}, got {shown}{hint(value)}"
    return f"{text}; use a list of rows, or a dict" if isinstance(value, tuple) else text


def _same(rows: Any) -> Any:
    return rows


def _rows_of_tuple(rows: tuple[Any, ...]) -> tuple[Any, ...]:
    for row in rows:
        kind = type(row)
        if issubclass(kind, Columns | Frame | Status | Cursor) or is_table(kind):
            continue
        if row_kind(kind) is None:
            raise TypeError(not_a_row(rows))
    return rows


def _structured_rows(array: Any) -> list[dict[str, Any]]:
    """The rows of a numpy structured array, or the one row of an array without dimensions.

    Raises:
        TypeError: the array has no named fields, or several dimensions.
    """
    names = array.dtype.names
    if names is None or len(array.shape) > 1:
        raise TypeError(
            "an array of rows must be a one-dimensional structured array, got one of shape"
            f" {array.shape} and type {array.dtype}; use Columns or a Frame for arrays of values"
        )
    rows = array.reshape(-1)  # of one row if the array has no dimensions
    columns = [_scalars(rows[name]) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _scalars(column: Any) -> Any:
    """The values of an array as Python objects. Times keep their class, which has the unit."""
    return list(column) if column.dtype.kind in "mM" else column.tolist()


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "model_fields") and hasattr(kind, "__pydantic_validator__")


def _to_dict(kind: type) -> Callable[[Any], dict[Any, Any]] | None:
    """A function that makes a new dict of an object that has values by key; None if it has not."""
    if issubclass(kind, Mapping):
        return dict
    if hasattr(kind, "_fields") and hasattr(kind, "_asdict"):  # collections.namedtuple, SQLAlchemy
        return lambda row: dict(row._asdict())
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):  # asyncpg.Record, sqlite3.Row
        return dict
    return _void_to_dict if _is_numpy(kind, "void") else None


def _is_numpy(kind: type, name: str) -> bool:
    return any(each.__name__ == name and each.__module__ == "numpy" for each in kind.__mro__)


def _void_to_dict(row: Any) -> dict[str, Any]:
    """A row of a structured array, with the same values as in `_structured_rows`."""
    if row.dtype.names is None:
        raise TypeError(f"a numpy.void that is a row must have named fields, got {short_repr(row)}")
    return _structured_rows(row)[0]


def _copy_of_fields(kind: Any, names: tuple[str, ...]) -> Callable[[Any], Any] | None:
    """A function that copies the declared fields of an object; None if they cannot change."""
    if issubclass(kind, tuple):
        return None
    if issubclass(kind, msgspec.Struct):
        return None if kind.__struct_config__.frozen else copy_struct
    if dataclasses.is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen:  # noqa: B009
        return None
    if _is_pydantic(kind):
        return methodcaller("model_copy")
    # not object.__new__, which refuses what derives from a class in C, such as an exception
    new = partial(
        next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE).__new__, kind
    )
    if any("__slots__" in vars(each) for each in kind.__mro__[:-1]):
        return partial(_copy_slots, new, names)
    return partial(_copy_attributes, new)


def _copy_attributes(new: Callable[[], Any], row: Any) -> Any:
    copy = new()
    copy.__dict__.update(row.__dict__)
    return copy


def _copy_slots(new: Callable[[], Any], names: tuple[str, ...], row: Any) -> Any:
    copy = new()
    for name in names:
        object.__setattr__(copy, name, getattr(row, name))
    return copy
