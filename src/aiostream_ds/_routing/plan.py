"""`Plan`: the handlers of a DataSource class, as its frozen routing table.

`compiler.py` creates the plan with the class; the services look handlers up in it at each call.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._paths import Pattern
from aiostream_ds._routing.suggest_hooks import SuggestPlan
from aiostream_ds.decorators import StreamOptions
from aiostream_ds.decorators.stream_options import LOGS
from aiostream_ds.errors import BadQuery, NotFound, PermissionDenied
from aiostream_ds.models import Query, User
from aiostream_ds.rows import LogLine
from aiostream_ds.settings import Settings, convert

__all__ = [
    "RESERVED_PATH",
    "RESERVED_RESOURCES",
    "Plan",
    "PublishPlan",
    "QueryPlan",
    "ResourcePlan",
    "StreamPlan",
    "leading_parameters",
    "principal_of",
    "split_exact",
    "wants_user",
]

RESERVED_PATH = "x"
"""First segment of the path of an exact channel; no path of an author may start with it."""

RESERVED_RESOURCES = ("replay", "forms")
"""First segments of the resources for the frontend; no resource of an author may start with one."""

_MATCHES = 4_096
"""Paths that a plan remembers; each has at most 160 characters."""


def split_exact(path: str) -> tuple[bool, str]:
    """Whether this is the path of an exact channel, and the path without its first segment."""
    first, _, rest = path.partition("/")
    return (True, rest) if first == RESERVED_PATH else (False, path)


def principal_of(pattern: Pattern) -> str | None:
    """The field with the login of the only user who may follow the path.

    Raises:
        ValueError: there are several.
    """
    found = [field for field, kind in pattern.fields.items() if kind.name == "user"]
    if len(found) > 1:
        raise ValueError(
            f"the path must have at most one user field, got {', '.join(found)} in {pattern.text!r}"
        )
    return found[0] if found else None


def leading_parameters(kind: str, parameters: Sequence[str], pattern: Pattern) -> list[str]:
    """What a hook of this kind receives before the path's fields."""
    if kind == "last":
        return []
    if kind == "publish" and wants_user(parameters, pattern):
        return ["data", "user"]
    return [{"history": "history_range", "subscribe": "user", "publish": "data"}[kind]]


def wants_user(parameters: Sequence[str], pattern: Pattern) -> bool:
    """Whether a publish hook with these parameters receives the user who publishes."""
    return parameters[1:2] == ["user"] and "user" not in pattern.fields


def _starts_with(path: str, reserved: str) -> bool:
    return path.partition("/")[0] == reserved


def _convert(path: str, values: dict[str, Any], path_type: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        return msgspec.structs.asdict(convert(values, path_type))
    except ValueError as error:
        raise NotFound(f"path {path!r}: {error}") from None


class PublishPlan(msgspec.Struct, frozen=True):
    """A publish hook."""

    method: str
    data: Any
    """The type as which the published data is decoded."""
    wants_user: bool
    """Whether its second argument is the user who publishes."""


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: its paths, options and row type, and the names of its hooks."""

    name: str
    pattern: Pattern
    options: StreamOptions
    cursor: CursorKind | None
    row: type | None
    path_type: type[msgspec.Struct]
    query_type: type[Query]
    history: str | None
    last: str | None
    subscribe: str | None
    principal: str | None
    """The path field with the login of the only user who may follow it."""
    publish: PublishPlan | None
    suggest: Mapping[str, SuggestPlan] = {}
    """The suggest hooks, by field of the path."""

    @property
    def panel(self) -> str:
        """The id of the panel that suits the rows, or an empty string."""
        if self.options.panel or self.row is None:
            return self.options.panel
        return LOGS if issubclass(self.row, LogLine) else ""

    def arguments(self, path: str) -> dict[str, Any] | None:
        """The arguments of the stream method for `path`; None if it is a path of another stream.

        Raises:
            NotFound: a value does not fit the annotation of its argument.
        """
        values = None if _starts_with(path, RESERVED_PATH) else self.pattern.match(path)
        return None if values is None else _convert(path, values, self.path_type)

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the path's fields that have one."""
        fields = msgspec.structs.fields(self.query_type)
        return {
            field.name: field.default
            for field in fields
            if field.name in self.pattern.fields and field.default is not msgspec.NODEFAULT
        }

    def path(self, query: Query, user: User | None = None) -> str:
        """The path for the fields of a query. A field for a login gets the user's.

        Raises:
            BadQuery: a value that no path can contain.
            PermissionDenied: the path needs a signed-in user.
        """
        values = {f: getattr(query, f) for f in self.pattern.fields if f != self.principal}
        if self.principal is not None:
            if user is None or not user.login:
                raise PermissionDenied(
                    f"the path {self.pattern.text!r} needs a signed-in user, got none"
                )
            values[self.principal] = user.login
        path = self.pattern.format(**values)
        if _starts_with(path, RESERVED_PATH):
            raise BadQuery(f"the path must not start with {RESERVED_PATH!r}, got {path!r}")
        return path


class QueryPlan(msgspec.Struct, frozen=True):
    """A `@query` method and the class as which its queries are decoded."""

    method: str
    query_type: type[Query]
    takes_query: bool = True
    """Whether its first argument is the query."""
    fields: tuple[str, ...] = ()
    """The fields of the query that are arguments of their own, by name."""

    def arguments(self, query: Query) -> tuple[tuple[Query, ...], dict[str, Any]]:
        """The arguments for a query, by position and by name."""
        return (query,) if self.takes_query else (), {f: getattr(query, f) for f in self.fields}


class ResourcePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A `@resource` method and its route."""

    method: str
    http_method: str
    pattern: Pattern
    path_type: type[msgspec.Struct]
    wants_request: bool
    is_generator: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All handlers of a DataSource class."""

    streams: Mapping[str, StreamPlan]
    queries: Mapping[str, QueryPlan]
    resources: tuple[ResourcePlan, ...]
    settings: type[Settings]

    def match(self, path: str) -> tuple[StreamPlan, dict[str, Any]]:
        """The stream of a channel path, and the arguments of its method.

        Raises:
            NotFound: the path belongs to no stream, or a value does not fit its annotation.
        """
        known = self._matches.get(path)
        if known is not None:
            return known[0], known[1].copy()
        first = path.partition("/")[0]
        for stream in self._by_first.get(first, self._by_first[""]):
            arguments = stream.arguments(path)
            if arguments is not None:
                if len(self._matches) >= _MATCHES:
                    self._matches.clear()
                self._matches[path] = stream, arguments
                return stream, arguments.copy()
        patterns = ", ".join(repr(s.pattern.text) for s in self.streams.values()) or "none"
        spelled = self.spell(path)
        hint = "" if spelled == path else f"; the path that may be meant is {spelled!r}"
        raise NotFound(f"expected a path of the streams {patterns}, got {path!r}{hint}")

    @cached_property
    def _matches(self) -> dict[str, tuple[StreamPlan, dict[str, Any]]]:
        """What `match` has found: Grafana subscribes to a path for each viewer and reconnect."""
        return {}

    @cached_property
    def _by_first(self) -> dict[str, list[StreamPlan]]:
        """The streams that a path with this first segment may name, in their order; by "" those
        that begin with a field."""
        streams = self.streams.values()
        return {
            first: [each for each in streams if each.pattern.first in ("", first)]
            for first in {"", *(each.pattern.first for each in streams)}
        }

    def default_path(self) -> str | None:
        """The path of the first stream whose fields all have defaults, if there is one."""
        for stream in self.streams.values():
            try:
                return stream.path(stream.query_type())
            except (TypeError, PermissionDenied):
                continue  # a field without a default, or a path of one user
        return None

    def query_of(self, path: str) -> dict[str, Any]:
        """The query, as JSON, whose channel has this path.

        Raises:
            NotFound: the path belongs to no stream, or a value does not fit its annotation.
        """
        stream, arguments = self.match(path)
        fields = msgspec.structs.fields(stream.query_type)
        found = {f.encode_name: arguments[f.name] for f in fields if f.name in arguments}
        query: dict[str, Any] = msgspec.to_builtins({"queryType": stream.name, **found})
        return query

    def spell(self, text: str) -> str:
        """The path for a text that a person wrote: with unencoded values, or without fields at its
        end that have defaults, of the first stream for which it is one. A path, and a text that
        cannot be one, is returned as it is."""
        streams = self.streams.values()
        if any(stream.pattern.match(text) is not None for stream in streams):
            return text
        found = [stream.pattern.spell(text) for stream in streams]
        found += [stream.pattern.complete(text, stream.defaults) for stream in streams]
        return next((path for path in found if path is not None), text)

    def query(self, query_type: str) -> StreamPlan | QueryPlan:
        """The handler of a `queryType`. "" is the only handler, if there is one.

        Raises:
            BadQuery: there is no such handler.
        """
        exact = self.streams.get(query_type) or self.queries.get(query_type)
        if exact is not None:
            return exact
        found: dict[str, StreamPlan | QueryPlan] = {**self.queries, **self.streams}
        if not query_type and len(found) == 1:
            return next(iter(found.values()))
        names = ", ".join(repr(name) for name in found) or "nothing"
        raise BadQuery(f"the query type must be one of {names}, got {query_type!r}")

    def resource(self, method: str, path: str) -> tuple[ResourcePlan, dict[str, Any]] | None:
        """The handler of an HTTP request and the values of its path; None if there is none.

        Raises:
            NotFound: a value does not fit the annotation of its argument.
        """
        if any(_starts_with(path, reserved) for reserved in RESERVED_RESOURCES):
            return None
        for plan in self.resources:
            if plan.http_method == method:
                values = plan.pattern.match(path)
                if values is not None:
                    return plan, _convert(path, values, plan.path_type)
        return None
