"""Values that an author offers for a path's field, as a user types in the query editor.

Imports: annotations, what is in a plan, msgspec and the ground.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from aiostream_ds._paths import Pattern
from aiostream_ds.settings import convert

__all__ = ["SUGGESTIONS", "SuggestPlan", "arguments", "suggest_plan", "texts"]

SUGGESTIONS = 500
"""Most values that an editor is given at once; those beyond are found by typing on."""

_TYPED, _USER = "typed", "user"
"""The hook's first parameter, and the one that asks for the signed-in user."""


class SuggestPlan(msgspec.Struct, frozen=True):
    """A suggest hook, and what it takes by name beside what was typed."""

    method: str
    takes: tuple[str, ...]


def arguments(
    plan: SuggestPlan, query_type: type[msgspec.Struct], values: Mapping[str, Any], user: Any
) -> dict[str, Any]:
    """What the hook is called with by name. `values` are the editor's, by their JSON names; a field
    whose value is missing or not yet allowed has its default, or None."""
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


def suggest_plan(method: str, field: str, taken: Sequence[str], pattern: Pattern) -> SuggestPlan:
    """The plan of a hook that takes these parameters, for this field of a path.

    Raises ValueError, with what is allowed instead.
    """
    if field not in pattern.fields or pattern.fields[field] == "user":
        names = ", ".join(map(repr, pattern.fields)) or "none"
        raise ValueError(f"suggests values for {field!r}; the path's fields are: {names}")
    allowed = [name for name in pattern.fields if name != field]
    if _USER not in pattern.fields:
        allowed.append(_USER)
    if list(taken[:1]) != [_TYPED] or not set(taken[1:]) <= set(allowed):
        raise ValueError(
            f"takes ({', '.join(taken)}); a suggest hook takes {_TYPED!r} first, "
            f"and by name what it wants of: {', '.join(allowed) or 'nothing'}"
        )
    return SuggestPlan(method, tuple(taken[1:]))


def texts(method: str, found: Any) -> list[str]:
    """What a hook returned, as the editor shows it. Raises TypeError for what is no list of it."""
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        raise TypeError(f"{method} returned {found!r}; allowed is a list of texts or numbers")
    values = list(islice(found, SUGGESTIONS))
    for value in values:
        if not isinstance(value, str | int | float):
            raise TypeError(f"{method} returned {value!r} in its list; allowed: texts, numbers")
    return list(map(str, values))
