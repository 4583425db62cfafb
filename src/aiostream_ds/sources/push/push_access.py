"""Who may push to a path: by role, by login, and by patterns of paths."""

from collections.abc import Mapping, Sequence

from aiostream_ds._paths import Pattern
from aiostream_ds.errors import ConfigError
from aiostream_ds.models import User
from aiostream_ds.sources.push.push_errors import PushRefused
from aiostream_ds.sources.push.push_settings import PushSettings

__all__ = ["PushAccess"]

_RANKS: Mapping[str, int] = {"Viewer": 1, "Editor": 2, "Admin": 3}

_ROLES = frozenset({*_RANKS, "None"})


class PushAccess:
    """The rules of one data source.

    Raises:
        ConfigError: a pattern of `push_paths` is not one, or has no logins and roles.
    """

    def __init__(self, settings: PushSettings) -> None:
        self._role = settings.push_role
        self._logins = frozenset(settings.push_logins)
        self._paths: list[tuple[Pattern, Sequence[str]]] = []
        for text, members in settings.push_paths.items():
            try:
                self._paths.append((Pattern(text), members))
            except ValueError as error:
                raise ConfigError(f"pushPaths: {error}") from None

    def check(self, user: User | None, path: str) -> None:
        """Raises PushRefused: the user may not push to this path."""
        if user is None or not (user.login or user.role):
            raise PushRefused(403, "expected a user or a service account, got a call without one")
        if user.login not in self._logins and not self._has_role(user):
            allowed = [] if self._role == "none" else [f"the role {self._role} or a higher one"]
            if self._logins:
                allowed.append(f"one of the {len(self._logins)} logins of pushLogins")
            raise PushRefused(
                403,
                f"{_who(user)} may not push: the settings allow"
                f" {' and '.join(allowed) or 'nobody'}",
            )
        for pattern, members in self._paths:
            if pattern.match(path) is not None and not _is_member(user, members):
                raise PushRefused(
                    403,
                    f"{_who(user)} may not push to {path!r}: pushPaths allows others the paths"
                    f" {pattern.text}",
                )

    def _has_role(self, user: User) -> bool:
        return self._role != "none" and _RANKS.get(user.role, 0) >= _RANKS[self._role]


def _is_member(user: User, members: Sequence[str]) -> bool:
    """Whether a user is one of these logins and roles. The name of a role is not a login: users may
    choose theirs."""
    names = {user.role} & _ROLES | {user.login} - _ROLES - {""}
    return not names.isdisjoint(members)


def _who(user: User) -> str:
    return f"{user.login!r} ({user.role or 'without a role'})"
