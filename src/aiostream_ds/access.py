"""Who may follow, query and publish, said by rules; and how much of it.

Rules stand beside the `subscribe` hook: both have to agree. Imports channels, its own room, errors.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct

from aiostream_ds._paths import Pattern
from aiostream_ds.models import User

__all__ = ["Action", "Allow", "Quota", "check_rules", "is_allowed"]

Action = Literal["read", "publish"]
"""What somebody wants: to see rows, live or of the past, or to publish."""

_ACTIONS: tuple[Action, ...] = get_args(Action)


class Allow(Struct, frozen=True, kw_only=True):
    """One rule of who may. All that it names has to fit; of several rules one suffices.

        @stream("machines/{id}", allow=[Allow(roles=("Editor", "Admin"))])

    What is left out fits everybody, also background work such as alert rules, which has no user.

    Raises:
        TypeError: something else than a tuple of texts.
        ValueError: an action that is none, or a path that is no pattern.
    """

    roles: Annotated[
        tuple[str, ...],
        Meta(description="Roles in the organisation: Viewer, Editor, Admin. No order among them."),
    ] = ()
    logins: Annotated[tuple[str, ...], Meta(description="Logins, letter for letter.")] = ()
    namespaces: Annotated[
        tuple[str, ...],
        Meta(description="Tenants: Grafana's namespace, or the organisation's number without one."),
    ] = ()
    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="Patterns of channel paths, as of a stream; {me:user} is the user's own"
            " login. A query or resource of the author's own has no path, and fits none."
        ),
    ] = ()
    actions: Annotated[tuple[Action, ...], Meta(description="What is allowed.")] = _ACTIONS

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(v, str) and v for v in value):
                raise TypeError(f"Allow.{name} is {value!r}; allowed is a tuple of texts")
        if not self.actions or not set(self.actions) <= set(_ACTIONS):
            allowed = ", ".join(_ACTIONS)
            raise ValueError(f"Allow.actions is {self.actions!r}; allowed are {allowed}")
        for path in self.paths:
            _pattern(path)

    def fits(self, user: User | None, tenant: str, path: str | None, action: Action) -> bool:
        """Whether this rule lets them. `path` is that of a channel, None where there is none."""
        if action not in self.actions:
            return False
        if self.namespaces and tenant not in self.namespaces:
            return False
        if self.roles and (user is None or user.role not in self.roles):
            return False
        if self.logins and (user is None or user.login not in self.logins):
            return False
        return not self.paths or (path is not None and self._has(path, user))

    def _has(self, path: str, user: User | None) -> bool:
        for text in self.paths:
            pattern = _pattern(text)
            values = pattern.match(path)
            if values is not None and all(
                kind != "user" or (user is not None and values[name] == user.login)
                for name, kind in pattern.fields.items()
            ):
                return True
        return False


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Pattern:
    try:
        return Pattern(text)
    except ValueError as error:
        raise ValueError(f"Allow.paths: {error}") from None


class Quota(Struct, frozen=True, kw_only=True):
    """How much of one data source may be followed at a time. What runs is never ended for it: the
    next one is refused.

    Raises:
        ValueError: a number below 1.
    """

    channels: Annotated[
        int | None, Meta(description="Most channels of the data source that run.")
    ] = None
    user_channels: Annotated[
        int | None, Meta(description="Most running channels that one user has subscribed to.")
    ] = None
    subscriptions: Annotated[
        int | None,
        Meta(description="Most pairs of a user and a running channel that they follow."),
    ] = None
    bytes_per_second: Annotated[
        int | None,
        Meta(
            description="Encoded bytes in a second, on average over some, from which on no further"
            " channel is started."
        ),
    ] = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"Quota.{name} is {value!r}; allowed is a whole number from 1 on")


def check_rules(rules: Any) -> tuple[Allow, ...]:
    """Rules that an author gave. Raises TypeError for anything else."""
    found = tuple(rules) if isinstance(rules, Iterable) and not isinstance(rules, str) else (rules,)
    for rule in found:
        if not isinstance(rule, Allow):
            raise TypeError(f"allow has {rule!r}; allowed are Allow rules")
    return found


def is_allowed(
    rules: Sequence[Allow], user: User | None, tenant: str, path: str | None, action: Action
) -> bool:
    """Whether one of the rules fits. No rules let everybody."""
    return not rules or any(rule.fits(user, tenant, path, action) for rule in rules)
