"""Rules for who may follow, query and publish, and quotas of how much may be followed."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, structs

from aiostream_ds._paths import Pattern
from aiostream_ds.models import User

__all__ = ["Action", "Allow", "Quota", "check_rules", "is_allowed"]

Action = Literal["read", "publish"]
"""What a user requests: to see rows, live or from the history, or to publish."""

_ACTIONS: tuple[Action, ...] = get_args(Action)


class Allow(Struct, frozen=True, kw_only=True):
    """One rule. It matches if all its conditions match; one matching rule is enough.

        @stream("machines/{id}", allow=[Allow(roles=("Editor", "Admin"))])

    A condition that is left out matches everybody, also background work such as alert rules, which
    has no user. A `subscribe` hook must admit the user as well.

    Raises:
        TypeError: a condition is not a tuple of strings.
        ValueError: an unknown action, or a path that is not a pattern.
    """

    roles: Annotated[
        tuple[str, ...],
        Meta(description="Roles in the organisation: Viewer, Editor, Admin. They have no order."),
    ] = ()
    logins: Annotated[tuple[str, ...], Meta(description="Logins; case-sensitive.")] = ()
    namespaces: Annotated[
        tuple[str, ...],
        Meta(
            description="Tenants: Grafana's namespace, or the organisation's id if there is none."
        ),
    ] = ()
    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="Patterns of channel paths, as of a stream; {me:user} is the user's own"
            " login. A query or resource of the author's own has no path and never matches."
        ),
    ] = ()
    actions: Annotated[tuple[Action, ...], Meta(description="What the rule allows.")] = _ACTIONS

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(v, str) and v for v in value):
                raise TypeError(f"Allow.{name} must be a tuple of strings, got {value!r}")
        if not self.actions or not set(self.actions) <= set(_ACTIONS):
            actions = ", ".join(_ACTIONS)
            raise ValueError(f"Allow.actions must be of {actions}, got {self.actions!r}")
        for path in self.paths:
            _pattern(path)

    def matches(self, user: User | None, tenant: str, path: str | None, action: Action) -> bool:
        """Whether this rule allows the action. `path` is that of a channel; None: there is none."""
        if action not in self.actions:
            return False
        if self.namespaces and tenant not in self.namespaces:
            return False
        if self.roles and (user is None or user.role not in self.roles):
            return False
        if self.logins and (user is None or user.login not in self.logins):
            return False
        return not self.paths or (path is not None and self._matches_path(path, user))

    def may_match(self, user: User | None, tenant: str, action: Action) -> bool:
        """Whether this rule may allow the action on some path."""
        return structs.replace(self, paths=()).matches(user, tenant, None, action)

    def _matches_path(self, path: str, user: User | None) -> bool:
        for text in self.paths:
            pattern = _pattern(text)
            values = pattern.match(path)
            if values is not None and all(
                kind.name != "user" or (user is not None and values[name] == user.login)
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
    """How much of one data source may be followed at a time.

    A channel or subscription beyond a limit is refused; those that exist continue.

    Raises:
        ValueError: a limit is not an integer of at least 1.
    """

    channels: Annotated[int | None, Meta(description="Most channels that run.")] = None
    user_channels: Annotated[
        int | None, Meta(description="Most running channels that one user has subscribed to.")
    ] = None
    subscriptions: Annotated[
        int | None,
        Meta(description="Most pairs of a user and a running channel that the user follows."),
    ] = None
    bytes_per_second: Annotated[
        int | None,
        Meta(
            description="Encoded bytes per second, averaged over several seconds; above it no"
            " further channel is started."
        ),
    ] = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"Quota.{name} must be an integer of at least 1, got {value!r}")


def check_rules(rules: Any) -> tuple[Allow, ...]:
    """The rules that an author passed as `allow`.

    Raises:
        TypeError: anything but a sequence of Allow.
    """
    found = tuple(rules) if isinstance(rules, Iterable) and not isinstance(rules, str) else (rules,)
    for rule in found:
        if not isinstance(rule, Allow):
            raise TypeError(f"allow must be a sequence of Allow rules, got {rule!r} in it")
    return found


def is_allowed(
    rules: Sequence[Allow], user: User | None, tenant: str, path: str | None, action: Action
) -> bool:
    """Whether one of the rules matches. No rules allow everybody."""
    return not rules or any(rule.matches(user, tenant, path, action) for rule in rules)


def may_be_allowed(rules: Sequence[Allow], user: User | None, tenant: str, action: Action) -> bool:
    """Whether one of the rules may match on some path. No rules allow everybody."""
    return not rules or any(rule.may_match(user, tenant, action) for rule in rules)
