"""The values that a `Literal` or an `Enum` allows, for the message about another one."""

from collections.abc import Iterator
from typing import Any

from msgspec import inspect

__all__ = ["allowed_values"]

_FIELDS = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
)
_ITEMS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.CollectionType,
)
_CLOSED = (inspect.LiteralType, inspect.EnumType, inspect.NoneType)


def allowed_values(kind: Any, keys: list[str]) -> list[Any]:
    """The values of the Literals and Enums at a place in values of `kind`, each once; empty if
    something else is allowed there, too.

    Args:
        keys: the keys and indices on the way to it.
    """
    found = list(_members(inspect.type_info(kind)))
    for key in keys:
        found = [m for each in found for child in _children(each, key) for m in _members(child)]
    if not all(isinstance(each, _CLOSED) for each in found):
        return []
    return list(dict.fromkeys(value for each in found for value in _values(each)))


def _members(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The type without its metadata, or the members of a union."""
    if isinstance(kind, inspect.Metadata):
        yield from _members(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _members(each)
    else:
        yield kind


def _children(kind: inspect.Type, key: str) -> Iterator[inspect.Type]:
    if isinstance(kind, _FIELDS):
        yield from (field.type for field in kind.fields if field.encode_name == key)
    elif isinstance(kind, _ITEMS):
        yield kind.item_type
    elif isinstance(kind, inspect.TupleType):
        yield kind.item_types[int(key)]
    elif isinstance(kind, inspect.DictType):
        yield kind.value_type


def _values(kind: inspect.Type) -> Iterator[Any]:
    if isinstance(kind, inspect.LiteralType):
        yield from kind.values
    elif isinstance(kind, inspect.EnumType):
        yield from (member.value for member in kind.cls)
