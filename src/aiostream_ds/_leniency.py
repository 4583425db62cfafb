"""Reads parsed JSON as people and Grafana write it, where a strict reader would refuse it.

    a number, true    where the type has a text: as text. Grafana's provisioning makes numbers of
                      the variables in its files
    null              where the type has no null: as if the key were absent
    "{a,b}", "a"      where the type has a list: Grafana writes the values of a variable so

Only values that do not fit are changed, so that a value keeps its meaning where it has one.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["mend", "rename_keys"]

_SEVERAL = re.compile(r"\{([^{}]*,[^{}]*)\}")
_ANY_ITEM = inspect.AnyType()
_LISTS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.CollectionType,
)
_STRUCTS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
_DICTS = (inspect.DictType, *_STRUCTS)


def mend(value: Any, kind: Any) -> Any:
    """`value`, which does not fit `kind`, with what can be meant in place of what does not fit."""
    return _mend(value, inspect.type_info(kind))


def rename_keys(values: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The values with a field's name in Python replaced by its name on the wire.

    The name on the wire wins where both are given.
    """
    names = _wire_names(kind)
    if names.keys().isdisjoint(values):  # as Grafana's frontend writes them
        return dict(values)
    return {names.get(key, key): values[key] for key in values if names.get(key) not in values}


@lru_cache(maxsize=1024)
def _wire_names(kind: type[msgspec.Struct]) -> Mapping[str, str]:
    """The wire name of each field that has another name in Python."""
    fields = msgspec.structs.fields(kind)
    taken = {field.encode_name for field in fields}
    found = {f.name: f.encode_name for f in fields if f.name not in taken}
    return MappingProxyType(found)


def _mend(value: Any, kind: inspect.Type) -> Any:
    kind = _unwrapped(kind)
    if isinstance(kind, inspect.UnionType):
        return _mend_union(value, kind)
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode() if _has_text(kind) else value
    if isinstance(kind, _LISTS):
        return _mend_list(value, kind)
    if isinstance(value, dict):
        return _mend_dict(value, kind)
    return value


def _unwrapped(kind: inspect.Type) -> inspect.Type:
    return _unwrapped(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _mend_union(value: Any, kind: inspect.UnionType) -> Any:
    """The value as the member that it fits, or else as the first one for which it can be mended."""
    members = [_unwrapped(member) for member in kind.types]
    fitting = next((member for member in members if _fits(value, member)), None)
    if fitting is not None:
        return _mend(value, fitting)
    mended = (_mend(value, member) for member in members)
    return next((each for each in mended if each is not value), value)


def _fits(value: Any, kind: inspect.Type) -> bool:
    """Whether a value is of this kind, except for what is inside of it."""
    if isinstance(kind, inspect.AnyType):
        return True
    if value is None:
        return isinstance(kind, inspect.NoneType)
    if isinstance(value, bool):
        return isinstance(kind, inspect.BoolType)
    if isinstance(value, int | float):
        return isinstance(kind, inspect.IntType | inspect.FloatType)
    if isinstance(value, str):
        number = isinstance(kind, inspect.IntType | inspect.FloatType) and _is_number(value)
        return number or _has_text(kind)
    return isinstance(kind, _LISTS if isinstance(value, list) else _DICTS)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_text(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.LiteralType):
        return all(isinstance(value, str) for value in kind.values)
    if isinstance(kind, inspect.EnumType):
        return all(isinstance(member.value, str) for member in kind.cls)
    return isinstance(kind, inspect.StrType)


def _mend_list(value: Any, kind: Any) -> Any:
    if isinstance(value, str):
        several = _SEVERAL.fullmatch(value)
        value = several[1].split(",") if several else [value] if value else []
    if not isinstance(value, list):
        return value
    return [_mend(each, kind.item_type) for each in value]


def _mend_dict(value: dict[str, Any], kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.DictType):
        return {key: _mend(each, kind.value_type) for key, each in value.items()}
    if not isinstance(kind, _STRUCTS):
        return value
    types = {field.encode_name: field.type for field in kind.fields}
    return {
        key: _mend(each, types.get(key, _ANY_ITEM))
        for key, each in value.items()
        if each is not None or _has_null(types.get(key, _ANY_ITEM))
    }


def _has_null(kind: inspect.Type) -> bool:
    kind = _unwrapped(kind)
    if isinstance(kind, inspect.UnionType):
        return any(map(_has_null, kind.types))
    if isinstance(kind, inspect.LiteralType):
        return None in kind.values
    return isinstance(kind, inspect.NoneType | inspect.AnyType)
