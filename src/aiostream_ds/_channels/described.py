"""The names, defaults and descriptions of a module's policies, for the documentation."""

from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

from msgspec import Struct

__all__ = ["Described", "described"]


class Described(NamedTuple):
    """One constant or field."""

    name: str
    default: Any
    description: str


def described(module: ModuleType) -> Iterator[Described]:
    """Every annotated constant of a module, then every field of its structs, in source order."""
    for name, hint in get_type_hints(module, include_extras=True).items():
        if get_origin(hint) is Annotated:
            yield Described(name, getattr(module, name), hint.__metadata__[0].description)
    for owner in vars(module).values():
        if not isinstance(owner, type) or not issubclass(owner, Struct):
            continue
        if owner.__module__ != module.__name__:
            continue
        hints = get_type_hints(owner, include_extras=True)
        for name, value in zip(owner.__struct_fields__, owner.__struct_defaults__, strict=True):
            description = hints[name].__metadata__[0].description
            yield Described(f"{owner.__name__}.{name}", value, description)
