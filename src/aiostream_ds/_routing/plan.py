"""What a `DataSource` class can do, as a frozen `Plan`: the class body is the routing table.

`compiler.py` makes the plan when the class is created; the service asks it at each call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aiostream_ds._paths import Pattern
from aiostream_ds._routing.suggest_hooks import SuggestPlan
from aiostream_ds._stream_options import StreamOptions
from aiostream_ds.errors import BadQuery, NotFound, PermissionDenied
from aiostream_ds.models import Query, User
from aiostream_ds.rows import Row
from aiostream_ds.settings import FrozenMeta, Settings, convert

__all__ = [
    "RESERVED_PATH",
    "RESERVED_RESOURCES",
    "Plan",
    "PublishPlan",
    "QueryPlan",
    "ResourcePlan",
    "StreamPlan",
    "hook_begins",
    "principal_of",
    "query_class",
    "split_exact",
    "wants_user",
]

RESERVED_PATH = "x"
"""First segment of the exact view of a channel; no author's path may begin with it."""

RESERVED_RESOURCES = ("replay", "forms")
"""First segments of the resources that the frontend asks; no author's may begin with one."""


def split_exact(path: str) -> tuple[bool, str]:
    """Whether a channel path is the exact view of a stream, and the path that authors know."""
    first, _, rest = path.partition("/")
    return (True, rest) if first == RESERVED_PATH else (False, path)


def principal_of(pattern: Pattern) -> str | None:
    """The field that holds the login of the only user who may. Raises ValueError for several."""
    found = [field for field, kind in pattern.fields.items() if kind == "user"]
    if len(found) > 1:
        raise ValueError(
            f"the path {pattern.text!r} has the users {', '.join(found)}; allowed: one"
        )
    return found[0] if found else None


def hook_begins(kind: str, taken: Sequence[str], pattern: Pattern) -> list[str]:
    """What a hook of this kind is given before the path's fields."""
    if kind == "publish" and wants_user(taken, pattern):
        return ["data", "user"]
    return [{"history": "span", "subscribe": "user", "publish": "data"}[kind]]


def wants_user(taken: Sequence[str], pattern: Pattern) -> bool:
    """Whether a publish hook with these parameters is given who publishes."""
    return taken[1:2] == ["user"] and "user" not in pattern.fields


def _begins(path: str, reserved: str) -> bool:
    return path.partition("/")[0] == reserved


def _checked(path: str, values: dict[str, Any], path_type: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        return msgspec.structs.asdict(convert(values, path_type))
    except ValueError as error:
        raise NotFound(f"path {path!r}: {error}") from None


class PublishPlan(msgspec.Struct, frozen=True):
    """The publish hook's method name, the type its data is decoded as, and whether the user comes
    behind it."""

    method: str
    data: Any
    wants_user: bool


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: how its paths are read and written, and which methods belong to it."""

    name: str
    pattern: Pattern
    options: StreamOptions
    row: type[Row] | None
    path_type: type[msgspec.Struct]
    query_type: type[Query]
    history: str | None
    subscribe: str | None
    principal: str | None
    """The path's field that holds the login of the only user who may follow it."""
    publish: PublishPlan | None
    suggest: Mapping[str, SuggestPlan] = {}
    """The hooks that offer values for the path's fields, by field."""

    def arguments(self, path: str) -> dict[str, Any] | None:
        """The method's arguments for `path`; None when the path is not this stream's.

        Raises NotFound for a value that the annotations do not allow.
        """
        values = None if _begins(path, RESERVED_PATH) else self.pattern.match(path)
        return None if values is None else _checked(path, values, self.path_type)

    def path(self, query: Query, user: User | None = None) -> str:
        """The path that a query's fields ask for; a field that holds a login gets the user's.

        Raises BadQuery for what no path can hold, PermissionDenied when a user is needed.
        """
        values = {f: getattr(query, f) for f in self.pattern.fields if f != self.principal}
        if self.principal is not None:
            if user is None or not user.login:
                text = f"{self.pattern.text!r} is each user's own; nobody is signed in here"
                raise PermissionDenied(text)
            values[self.principal] = user.login
        path = self.pattern.format(**values)
        if _begins(path, RESERVED_PATH):
            raise BadQuery(f"the path {path!r} begins with {RESERVED_PATH!r}, which is reserved")
        return path


class QueryPlan(msgspec.Struct, frozen=True):
    """A `@query` method and the class its queries are decoded as."""

    method: str
    query_type: type[Query]


class ResourcePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A `@resource` method, its route, and whether it wants the request."""

    method: str
    http_method: str
    pattern: Pattern
    path_type: type[msgspec.Struct]
    wants_request: bool
    is_generator: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a DataSource class can do."""

    streams: Mapping[str, StreamPlan]
    queries: Mapping[str, QueryPlan]
    resources: tuple[ResourcePlan, ...]
    settings: type[Settings]

    def match(self, path: str) -> tuple[StreamPlan, dict[str, Any]]:
        """The stream of a channel path and its arguments. Raises NotFound when there is none."""
        for stream in self.streams.values():
            arguments = stream.arguments(path)
            if arguments is not None:
                return stream, arguments
        patterns = ", ".join(repr(s.pattern.text) for s in self.streams.values()) or "none"
        raise NotFound(f"no stream at {path!r}; the paths are: {patterns}")

    def query(self, query_type: str) -> StreamPlan | QueryPlan:
        """What answers this `queryType`; "" means the only one there is. Raises BadQuery."""
        found: dict[str, StreamPlan | QueryPlan] = {**self.queries, **self.streams}
        if query_type in found:
            return found[query_type]
        if not query_type and len(found) == 1:
            return next(iter(found.values()))
        names = ", ".join(repr(name) for name in found) or "none"
        raise BadQuery(f"the query type {query_type!r} is none of: {names}")

    def resource(self, method: str, path: str) -> tuple[ResourcePlan, dict[str, Any]] | None:
        """The resource that answers, and its path's values; None when there is none.

        Raises NotFound for a value that the annotations do not allow.
        """
        if any(_begins(path, reserved) for reserved in RESERVED_RESOURCES):
            return None
        for plan in self.resources:
            if plan.http_method == method:
                values = plan.pattern.match(path)
                if values is not None:
                    return plan, _checked(path, values, plan.path_type)
        return None


def query_class(name: str, fields: Sequence[tuple[Any, ...]]) -> type[Query]:
    """A Query with the path's fields: what a panel's query of this stream is decoded as."""
    namespace: dict[str, Any] = {"__annotations__": {f[0]: f[1] for f in fields}}
    namespace |= {f[0]: f[2] for f in fields if len(f) == 3}
    made: type[Query] = FrozenMeta(f"{name}_query", (Query,), namespace, rename="camel")
    return made
