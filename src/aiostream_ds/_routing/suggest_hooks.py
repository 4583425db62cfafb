"""Suggest hooks: the values that an author offers for a path field in the query editor."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from aiostream_ds._paths import Pattern
from aiostream_ds._short_repr import short_repr
from aiostream_ds.settings import convert

__all__ = ["SUGGESTIONS", "SuggestPlan", "arguments", "suggest_plan", "to_strings"]

SUGGESTIONS = 500
"""Most values that an editor receives at once; the user finds others by typing more."""

_TYPED, _USER = "typed", "user"
"""The hook's first parameter, and the parameter for the signed-in user."""


class SuggestPlan(msgspec.Struct, frozen=True):
    """A suggest hook."""

    method: str
    takes: tuple[str, ...]
    """The parameters after `typed`, which are passed by name."""


def arguments(
    plan: SuggestPlan, query_type: type[msgspec.Struct], values: Mapping[str, Any], user: Any
) -> dict[str, Any]:
    """The keyword arguments of the hook.

    `values` are the editor's, by their JSON names. A field whose value is missing or invalid gets
    its default, or None.
    """
    found: dict[str, Any] = {_USER: user} if _USER in plan.takes else {}
    for field in msgspec.structs.fields(query_type):
        if field.name in plan.takes:
            default = None if field.default is msgspec.NODEFAULT else field.default
            try:
                value = values[field.encode_name]
                found[field.name] = convert(value, field.type, strict=False)
            except (KeyError, ValueError):
                found[field.name] = default
    return found


def suggest_plan(
    method: str, field: str, parameters: Sequence[str], pattern: Pattern
) -> SuggestPlan:
    """The plan of a hook with these parameters, for one field of a path.

    Raises:
        ValueError: the path has no such field, or the hook takes something else.
    """
    fields = [name for name, kind in pattern.fields.items() if kind.name != "user"]
    if field not in fields:
        names = ", ".join(map(repr, fields)) or "none"
        raise ValueError(f"expected a field of {pattern.text!r} ({names}), got {field!r}")
    available = [name for name in pattern.fields if name != field]
    if _USER not in pattern.fields:
        available.append(_USER)
    if list(parameters[:1]) != [_TYPED] or not set(parameters[1:]) <= set(available):
        raise ValueError(
            f"a suggest hook must take {_TYPED!r}, and by name any of"
            f" {', '.join(available) or 'nothing'}, got ({', '.join(parameters)})"
        )
    return SuggestPlan(method, tuple(parameters[1:]))


def to_strings(method: str, returned: Any) -> list[str]:
    """The values that a hook returned, as the editor shows them.

    Raises:
        TypeError: the hook returned anything but a list of strings or numbers.
    """
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes):
        raise TypeError(
            f"{method} must return a list of strings or numbers, got {short_repr(returned)}"
        )
    values = list(islice(returned, SUGGESTIONS))
    for value in values:
        if not isinstance(value, str | int | float):
            raise TypeError(
                f"{method} must return a list of strings or numbers, got {short_repr(value)} in it"
            )
    return list(map(str, values))
