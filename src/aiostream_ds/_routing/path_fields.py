"""The fields of a path: their kinds, which annotations name, and their types and defaults."""

import inspect
from collections.abc import Callable, Collection, Mapping
from datetime import date
from enum import EnumMeta
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from aiostream_ds._annotations import Unresolved, base_type, parameters, resolve
from aiostream_ds._paths import KINDS, NULL, Nullable, PathKind, Pattern
from aiostream_ds.errors import BadQuery
from aiostream_ds.settings import convert

__all__ = ["PathField", "check_resolved", "path_fields", "plain_field", "resolve_kinds"]

PathField = tuple[str, Any] | tuple[str, Any, Any]
"""A field for msgspec: name, type, and the default if there is one."""

_KINDS: Mapping[Any, str] = {
    str: "segment",
    int: "int",
    float: "float",
    bool: "bool",
    date: "date",
    UUID: "uuid",
}

_ALLOWED = (
    "str, int, float, bool, date, UUID, a Literal or an Enum with values of one of the types str,"
    " int and bool, or one of them | None"
)


def resolve_kinds(
    pattern: Pattern, function: Callable[..., Any], owner: type, leading: int = 0
) -> Pattern:
    """The pattern in which each field without a kind has the one that its annotation names.

    Args:
        leading: the number of parameters before the fields.

    Raises:
        TypeError: an annotation is of a type that no path can contain, or of another one than the
            kind in the pattern.
    """
    found = list(parameters(function))[leading:]
    hints = resolve(function, owner)
    kinds = {
        field: _kind(field, kind, hints[field])
        for field, kind in pattern.fields.items()
        if field in found and field in hints
    }
    return pattern.with_kinds(kinds)


def path_fields(
    pattern: Pattern,
    function: Callable[..., Any],
    owner: type,
    other: Collection[str] = (),
    leading: int = 0,
) -> list[PathField]:
    """The path's fields with their annotations and defaults.

    Args:
        other: allowed parameters that are not fields.
        leading: the number of parameters before the fields.

    Raises:
        TypeError: a field without a parameter, a parameter without a field, or a default that no
            path can contain.
    """
    found = dict(list(parameters(function).items())[leading:])
    hints = resolve(function, owner)
    for parameter in found.keys() - pattern.fields.keys() - set(other):
        raise TypeError(
            f"expected parameters for the fields of the path {pattern.text!r}, "
            f"got also {parameter!r}"
        )
    fields: list[PathField] = []
    for field, kind in pattern.fields.items():
        if field not in found:
            raise TypeError(
                f"expected a parameter {field!r} for the path {pattern.text!r}, got none"
            )
        annotation = hints.get(field, kind.type | None if kind.is_nullable else kind.type)
        default = found[field].default
        if default is inspect.Parameter.empty:
            fields.append((field, annotation))
        else:
            _check_default(field, kind, annotation, default)
            fields.append((field, annotation, default))
    return fields


def plain_field(name: str, annotation: Any, default: Any) -> PathField:
    """A field of a query that is not in a path, from a parameter with this annotation and default.

    Raises:
        TypeError: the annotation is of a type that no path can contain, or the default is not of
            this type.
    """
    if _annotated_kind(annotation)[0] is None:
        raise TypeError(
            f"the annotation of {name!r} must be {_ALLOWED}, got {_name(annotation)}; for fields of"
            " other types use a Query class"
        )
    if default is inspect.Parameter.empty:
        return name, annotation
    try:
        convert(default, annotation)
    except (ValueError, TypeError) as error:
        raise TypeError(f"the default {default!r} of {name!r}: {error}") from None
    return name, annotation, default


def check_resolved(what: str, annotation: Any) -> None:
    """Checks that an annotation could be evaluated.

    Raises:
        TypeError: it could not.
    """
    if isinstance(annotation, Unresolved):
        raise TypeError(
            f"the annotation of {what} must name something that exists at run time, "
            f"got {annotation}; import or define it outside of TYPE_CHECKING"
        )


def _kind(field: str, stated: PathKind, annotation: Any) -> PathKind:
    """The kind of a field with this annotation. `stated` is the one in the pattern."""
    check_resolved(repr(field), annotation)
    found, nullable = _annotated_kind(annotation)
    if found is None:
        raise TypeError(f"the annotation of {field!r} must be {_ALLOWED}, got {_name(annotation)}")
    is_stated = stated.name != "segment"
    if (is_stated and stated.type is not found.type) or stated.is_nullable > nullable:
        expected = f"{stated.type.__name__}{' | None' if stated.is_nullable else ''}"
        raise TypeError(
            f"the annotation of {stated.field(field)} must be {expected}, got {_name(annotation)}"
        )
    kind = KINDS[stated.name] if is_stated else found
    if nullable and kind.name in ("user", "rest"):
        raise TypeError(
            f"the annotation of {stated.field(field)} must be {kind.type.__name__}, "
            f"got {_name(annotation)}"
        )
    return Nullable(kind) if nullable else kind


def _annotated_kind(annotation: Any) -> tuple[PathKind | None, bool]:
    """The kind of an annotation, None if a path has none, and whether None is a value."""
    base, nullable = base_type(annotation), False
    if get_origin(base) in (Union, UnionType):
        members = [each for each in get_args(base) if each is not NoneType]
        nullable = len(members) < len(get_args(base))
        base = base_type(members[0]) if len(members) == 1 else None
    if get_origin(base) is Literal:
        values = get_args(base)
        choices = [value for value in values if value is not None]
        return _kind_of_choices(choices), nullable or len(choices) < len(values)
    if isinstance(base, EnumMeta):
        enum: Mapping[str, Any] = base.__members__
        return _kind_of_choices([member.value for member in enum.values()]), nullable
    name = _KINDS.get(base) if isinstance(base, type) else None
    return None if name is None else KINDS[name], nullable


def _kind_of_choices(values: Collection[Any]) -> PathKind | None:
    """The kind of a Literal or an Enum with these values: texts are encoded where they must be."""
    types = set(map(type, values))
    if len(types) != 1 or not types <= {str, int, bool}:
        return None
    kind = KINDS[_KINDS[types.pop()]]
    if kind.name == "segment" and (NULL in values or not all(map(kind.match, values))):
        return KINDS["any"] if all(values) else None
    return kind


def _name(annotation: Any) -> str:
    base = base_type(annotation)
    return base.__name__ if type(base) is type else repr(base)


def _check_default(field: str, kind: PathKind, annotation: Any, default: Any) -> None:
    try:
        Pattern(kind.field(field)).format(**{field: default})
        convert(default, annotation)
    except (BadQuery, ValueError, TypeError) as error:
        raise TypeError(f"the default {default!r} of {field!r}: {error}") from None
