"""Compiles a `DataSource` class to its `Plan`, once, when the class is created.

Handlers are collected over the bases, oldest first, by name:

- An override without a decorator keeps what decorated the query, resource or hook, so that a
  subclass cannot lose a permission check by accident.
- A stream is overridden by a method with `@stream` again.
- `= None` removes a stream, query or resource, never a hook.

Every mistake is a TypeError when the class is created; it names the class and the member.
"""

import inspect
from collections.abc import Callable, Collection, Iterator
from types import MappingProxyType
from typing import Any

import msgspec

from aiostream_ds._annotations import parameters, resolve, signature
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._paths import Pattern
from aiostream_ds._routing.cursor_types import (
    check_history_types,
    check_last_type,
    stream_cursor,
)
from aiostream_ds._routing.path_fields import (
    PathField,
    check_resolved,
    path_fields,
    resolve_kinds,
)
from aiostream_ds._routing.plan import (
    RESERVED_PATH,
    RESERVED_RESOURCES,
    Plan,
    PublishPlan,
    QueryPlan,
    ResourcePlan,
    StreamPlan,
    leading_parameters,
    principal_of,
    wants_user,
)
from aiostream_ds._routing.query_classes import query_class, query_plan, takes_query
from aiostream_ds._routing.row_type import check_cursor, row_class
from aiostream_ds._routing.suggest_hooks import SuggestPlan, suggest_plan
from aiostream_ds.decorators import HandlerInfo, HookInfo, ResourceInfo, Stream, handler_info
from aiostream_ds.settings import (
    Settings,
    check_settings,
    check_type,
)

__all__ = ["compile_plan"]

_RESERVED_NAMES = (
    "_ds_plan",
    "allow",
    "declared_errors",
    "grafana_config",
    "health",
    "instance",
    "lifespan",
    "quota",
    "settings",
    "state",
    "stream_threads",
    "tasks",
    "threads",
)
"""Attributes of every data source; no handler may have such a name."""


def compile_plan(owner: type, settings: type[Settings]) -> Plan:
    """The plan of a DataSource class.

    Raises:
        TypeError: there is a mistake in the class.
    """
    return _Compiler(owner).compile(settings)


class _Compiler:
    """Compiles one class: its members, and what decorators stored on each, by name."""

    def __init__(self, owner: type) -> None:
        self._owner = owner
        self._members: dict[str, Any] = {}
        self._handlers: dict[str, HandlerInfo] = {}
        for base in reversed(owner.__mro__):
            for name, value in vars(base).items():
                self._collect(name, value)
        self._streams = {n: v for n, v in self._members.items() if isinstance(v, Stream)}
        self._suggest: dict[str, dict[str, SuggestPlan]] = {name: {} for name in self._streams}

    def compile(self, settings: type[Settings]) -> Plan:
        self._check_lifespan_and_health()
        for name, stream in self._streams.items():
            stream.pattern = self._resolved(
                name, stream.run, stream.pattern, stream.leading_arguments
            )
        hooks = self._hooks()
        streams = {name: self._stream(s, hooks[name]) for name, s in self._streams.items()}
        self._check_paths(streams)
        queries = dict(self._queries())
        for name in queries.keys() & streams.keys():
            raise self._error(
                queries[name].method,
                f"expected one handler of the query type {name!r}, got also the stream {name!r}",
            )
        resources = tuple(self._resources())
        try:
            check_settings(settings)
        except TypeError as error:
            raise self._error("settings", str(error)) from error
        return Plan(
            streams=MappingProxyType(streams),
            queries=MappingProxyType(queries),
            resources=resources,
            settings=settings,
        )

    def _error(self, name: str, text: str) -> TypeError:
        return TypeError(f"{self._owner.__module__}.{self._owner.__qualname__}.{name}: {text}")

    # Members

    def _collect(self, name: str, value: Any) -> None:
        """Adds a member of one base, which may override a member of an older base."""
        former, inherited = self._members.get(name), self._handlers.get(name, HandlerInfo())
        own = handler_info(value)
        if value is None:
            if inherited.hooks:
                raise self._error(
                    name, "expected a method, got None: a hook may check permissions; override it"
                )
            info = own
        elif isinstance(value, Stream):
            if value.name != name:
                raise self._error(
                    name,
                    f"expected the stream under its own name {value.name!r}, got {name!r}; "
                    "decorate a method of this name",
                )
            if inherited.hooks:
                raise self._error(name, "a stream must not override a hook; use another name")
            info = own
        elif isinstance(former, Stream):
            raise self._error(
                name,
                f"expected a stream, as in the base class, got {value!r}; decorate it with @stream,"
                " or assign None to remove the stream",
            )
        elif not inspect.isfunction(value):
            wrapped = handler_info(getattr(value, "__wrapped__", value))
            if inherited != HandlerInfo() or wrapped != HandlerInfo():
                raise self._error(name, f"a handler must be a method, got {value!r}")
            info = inherited
        else:
            hooks = tuple(dict.fromkeys(inherited.hooks + own.hooks))
            overrides = own.query is not None or own.resource is not None
            info = (own if overrides else inherited)._replace(hooks=hooks)
        self._check_handler(name, value, info)
        self._members[name] = value
        self._handlers[name] = info

    def _check_handler(self, name: str, value: Any, info: HandlerInfo) -> None:
        kinds = {
            "a hook": bool(info.hooks),
            "a query": info.query is not None,
            "a resource": info.resource is not None,
        }
        found = [kind for kind, is_one in kinds.items() if is_one]
        if len(found) > 1:
            raise self._error(
                name, f"expected a hook, a query or a resource, got {' and '.join(found)}"
            )
        if name in _RESERVED_NAMES and (isinstance(value, Stream) or info != HandlerInfo()):
            raise self._error(
                name, "a handler must not have the name of a DataSource attribute; use another name"
            )

    def _check_lifespan_and_health(self) -> None:
        health, lifespan = self._members["health"], self._members["lifespan"]
        if not inspect.isfunction(health) or _yields(health):
            raise self._error("health", f"must be a method without a yield, got {health!r}")
        required = [
            each
            for each in list(signature(health).parameters.values())[1:]
            if each.default is each.empty
            and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
        if required:
            raise self._error(
                "health", f"expected no arguments after self, got {', '.join(map(str, required))}"
            )
        if _yields(lifespan) or inspect.iscoroutinefunction(lifespan):
            is_sync = inspect.isgeneratorfunction(lifespan)
            raise self._error(
                "lifespan",
                f"must be a context manager, got {lifespan!r}; decorate it with "
                f"@{'' if is_sync else 'async'}contextmanager and `yield` in it",
            )

    def _check_parameters(self, name: str, function: Callable[..., Any], positional: int) -> None:
        """Checks that the first `positional` arguments after self can be passed by position, the
        others by name."""
        found = list(signature(function).parameters.values())
        for index, parameter in enumerate(found):
            by_name = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            by_position = parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            )
            if not (by_position if index <= positional else by_name):
                how = "position" if index <= positional else "name"
                raise self._error(
                    name, f"expected a parameter for one argument by {how}, got {str(parameter)!r}"
                )
        if not found:
            raise self._error(name, "expected `self` as its first parameter, got no parameters")

    # Streams and their hooks

    def _hooks(self) -> dict[str, dict[str, str]]:
        """For each stream, the method name of each hook by the hook's label."""
        found: dict[str, dict[str, str]] = {name: {} for name in self._streams}
        for name, info in self._handlers.items():
            for hook in info.hooks:
                if hook.stream not in self._streams:
                    if hook.stream in self._members and self._members[hook.stream] is None:
                        continue  # `= None` removed the stream, and its hooks with it
                    raise self._error(
                        name,
                        f"expected a {hook.label} hook of a stream of this class, "
                        f"got one of {hook.stream!r}",
                    )
                other = found[hook.stream].setdefault(hook.label, name)
                if other != name:
                    raise self._error(
                        name,
                        f"expected one {hook.label} hook of {hook.stream!r}, got also {other!r}",
                    )
                self._check_hook(name, hook, self._streams[hook.stream])
        return found

    def _check_hook(self, name: str, info: HookInfo, stream: Stream[Any, Any]) -> None:
        hook = self._members[name]
        if _yields(hook):
            raise self._error(
                name, f"a {info.kind} hook must be a method without a yield, got {hook!r}"
            )
        found = list(parameters(hook))
        if info.kind == "suggest":
            self._check_parameters(name, hook, 1)
            try:
                plan = suggest_plan(name, info.field, found, stream.pattern)
            except ValueError as error:
                raise self._error(name, str(error)) from None
            self._suggest[stream.name][info.field] = plan
            return
        leading = leading_parameters(info.kind, found, stream.pattern)
        self._check_parameters(name, hook, len(leading))
        expected = [*leading, *stream.pattern.fields]
        by_name = set(found[len(leading) :])
        if len(found) != len(expected) or by_name != set(stream.pattern.fields):
            wanted = f"({', '.join(expected)})"
            if info.kind == "publish" and "user" in found and leading == ["data"]:
                wanted += f" or ({', '.join(['data', 'user', *stream.pattern.fields])})"
            raise self._error(
                name,
                f"expected the parameters {wanted} of a {info.kind} hook, got ({', '.join(found)})",
            )

    def _stream(self, stream: Stream[Any, Any], hooks: dict[str, str]) -> StreamPlan:
        name = stream.name
        if inspect.iscoroutinefunction(stream.run):
            raise self._error(name, f"a stream must be a method with a `yield`, got {stream.run!r}")
        if stream.pattern.first == RESERVED_PATH:
            raise self._error(
                name, f"the path must not start with {RESERVED_PATH!r}, got {stream.pattern.text!r}"
            )
        fields = self._path_fields(
            name, stream.run, stream.pattern, leading=stream.leading_arguments
        )
        is_stored = stream.options.store is not None
        for hook in ("history", "last"):
            if is_stored and hook in hooks:
                raise self._error(
                    hooks[hook],
                    f"expected a {hook} hook or a store of the stream {name!r}, got both; use one:"
                    " the store has the rows",
                )
        if stream.options.cursor is not None and not is_stored and "history" not in hooks:
            raise self._error(
                name,
                "expected a history hook for a stream with a cursor, got none; "
                f"decorate a method with @{name}.history",
            )
        if stream.options.cursor is None and "last" in hooks:
            raise self._error(hooks["last"], f"expected a cursor of the stream {name!r}, got none")
        cursor = self._cursor(stream, hooks)
        try:
            path_type = msgspec.defstruct(f"{name}_path", fields, frozen=True, kw_only=True)
            principal = principal_of(stream.pattern)
            query_type = query_class(name, [each for each in fields if each[0] != principal])
            check_type(query_type)
        except (TypeError, ValueError) as error:
            raise self._error(name, str(error)) from error
        return StreamPlan(
            name=name,
            pattern=stream.pattern,
            options=stream.options,
            cursor=cursor,
            row=self._row(stream, cursor),
            path_type=path_type,
            query_type=query_type,
            history="the store" if is_stored else hooks.get("history"),
            last=hooks.get("last"),
            subscribe=hooks.get("subscribe"),
            principal=principal,
            publish=self._publish(hooks["publish"], stream.pattern) if "publish" in hooks else None,
            suggest=MappingProxyType(self._suggest[name]),
        )

    def _publish(self, name: str, pattern: Pattern) -> PublishPlan:
        method = self._members[name]
        kind = resolve(method, self._owner).get(next(iter(parameters(method))), Any)
        self._check_resolved(name, "the data", kind)
        try:
            check_type(kind)
        except TypeError as error:
            raise self._error(name, f"{kind!r} cannot be decoded from JSON: {error}") from error
        return PublishPlan(name, kind, wants_user(list(parameters(method)), pattern))

    def _cursor(self, stream: Stream[Any, Any], hooks: dict[str, str]) -> CursorKind | None:
        """The kind of the stream's cursor, if it has one."""
        columns = stream.options.cursor
        if columns is None:
            return None
        if stream.options.store is not None:
            return CursorKind(str(columns))
        name = next(iter(parameters(stream.run)))
        hints = resolve(stream.run, self._owner)
        self._check_resolved(stream.name, repr(name), hints.get(name))
        try:
            kind = stream_cursor(columns, name, hints.get(name), hints.get("return"))
        except TypeError as error:
            raise self._error(stream.name, str(error)) from None
        history = self._members[hooks["history"]]
        hints = resolve(history, self._owner)
        history_range = next(iter(parameters(history)))
        try:
            check_history_types(kind, hints.get(history_range), hints.get("return"))
        except TypeError as error:
            raise self._error(hooks["history"], str(error)) from None
        if "last" in hooks:
            try:
                check_last_type(
                    kind, resolve(self._members[hooks["last"]], self._owner).get("return")
                )
            except TypeError as error:
                raise self._error(hooks["last"], str(error)) from None
        return kind

    def _row(self, stream: Stream[Any, Any], cursor: CursorKind | None) -> type | None:
        annotation = resolve(stream.run, self._owner).get("return")
        self._check_resolved(stream.name, "the rows", annotation)
        try:
            row = row_class(annotation)
            if row is not None and stream.options.store is not None:
                from aiostream_ds._encoding.recorded_rows import declared_row  # rarely used

                row = declared_row(row, str(stream.options.cursor))
            if row is not None and cursor is not None:
                check_cursor(cursor, row)
            if row is not None and stream.options.order is not None:
                from aiostream_ds._encoding.ordering import check_order  # few streams have one

                check_order(stream.options.order, row)
        except TypeError as error:
            raise self._error(stream.name, str(error)) from error
        return row

    def _check_resolved(self, name: str, what: str, annotation: Any) -> None:
        try:
            check_resolved(what, annotation)
        except TypeError as error:
            raise self._error(name, str(error)) from None

    # Path fields

    def _resolved(
        self, name: str, function: Callable[..., Any], pattern: Pattern, leading: int = 0
    ) -> Pattern:
        """The pattern with the kinds that annotations name."""
        self._check_parameters(name, function, leading)
        try:
            return resolve_kinds(pattern, function, self._owner, leading)
        except (TypeError, ValueError) as error:
            raise self._error(name, str(error)) from None

    def _path_fields(
        self,
        name: str,
        function: Callable[..., Any],
        pattern: Pattern,
        other: Collection[str] = (),
        leading: int = 0,
    ) -> list[PathField]:
        if len(parameters(function)) < leading:
            raise self._error(
                name, "the first parameter of a stream with a cursor must be a `Cursor`, got none"
            )
        try:
            return path_fields(pattern, function, self._owner, other, leading)
        except TypeError as error:
            raise self._error(name, str(error)) from None

    def _check_paths(self, streams: dict[str, StreamPlan]) -> None:
        seen: list[StreamPlan] = []
        for stream in streams.values():
            for other in seen:
                self._check_overlap(stream.name, stream.pattern, other.name, other.pattern)
            seen.append(stream)

    def _check_overlap(self, name: str, pattern: Pattern, other: str, others: Pattern) -> None:
        if pattern.overlaps(others):
            raise self._error(
                name,
                f"expected paths of one handler only, got {pattern.text!r}, which overlaps "
                f"{others.text!r} of {other!r}",
            )

    # Queries and resources

    def _queries(self) -> Iterator[tuple[str, QueryPlan]]:
        seen: dict[str, str] = {}
        for name, info in self._handlers.items():
            query_type, method = info.query, self._members[name]
            if query_type is None:
                continue
            if _yields(method):
                raise self._error(name, f"a query must be a method without a yield, got {method!r}")
            self._check_parameters(name, method, int(takes_query(method, self._owner)))
            if query_type in seen:
                raise self._error(
                    name,
                    f"expected one handler of the query type {query_type!r}, "
                    f"got also {seen[query_type]!r}",
                )
            try:
                plan = query_plan(name, method, self._owner)
            except (TypeError, ValueError) as error:
                raise self._error(name, str(error)) from None
            seen[query_type] = name
            yield query_type, plan

    def _resources(self) -> Iterator[ResourcePlan]:
        seen: list[ResourcePlan] = []
        for name, info in self._handlers.items():
            if info.resource is None:
                continue
            plan = self._resource(name, info.resource)
            for other in seen:
                if other.http_method == plan.http_method:
                    self._check_overlap(name, plan.pattern, other.method, other.pattern)
            seen.append(plan)
            yield plan

    def _resource(self, name: str, info: ResourceInfo) -> ResourcePlan:
        method = self._members[name]
        pattern = self._resolved(name, method, info.pattern)
        if pattern.first in RESERVED_RESOURCES:
            raise self._error(
                name, f"the path must not start with {pattern.first!r}, got {pattern.text!r}"
            )
        if "request" in pattern.fields:
            raise self._error(
                name,
                "a path field must not be named 'request', which is the HTTP request, "
                f"got {pattern.text!r}",
            )
        fields = self._path_fields(name, method, pattern, ("request",))
        return ResourcePlan(
            method=name,
            http_method=info.method,
            pattern=pattern,
            path_type=msgspec.defstruct(f"{name}_path", fields, frozen=True, kw_only=True),
            wants_request="request" in parameters(method),
            is_generator=_yields(method),
        )


def _yields(function: Any) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
