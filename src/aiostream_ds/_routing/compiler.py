"""A `DataSource` class becomes its `Plan`, once, when the class is created.

Collected over the bases, oldest first. Marks belong to names: a plain override of a query, a
resource or a hook keeps its mark, so that a subclass cannot lose a permission check by accident; a
stream is overridden by marking it again; `= None` removes a stream, query or resource, never a
hook. Every mistake is a TypeError here, which names class and member, not at the first request.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import msgspec

from aiostream_ds._annotations import Unresolved, base_type, parameters, resolve, signature
from aiostream_ds._encoding.row_type import check_cursor, row_class
from aiostream_ds._paths import Pattern
from aiostream_ds._routing.plan import (
    RESERVED_PATH,
    RESERVED_RESOURCES,
    Plan,
    PublishPlan,
    QueryPlan,
    ResourcePlan,
    StreamPlan,
    hook_begins,
    principal_of,
    query_class,
    wants_user,
)
from aiostream_ds._routing.suggest_hooks import SuggestPlan, suggest_plan
from aiostream_ds.decorators import SUGGEST, HandlerInfo, Stream, handler_info
from aiostream_ds.errors import BadQuery
from aiostream_ds.models import Query
from aiostream_ds.rows import Row
from aiostream_ds.settings import (
    Settings,
    check_settings,
    check_type,
    convert,
)

__all__ = ["compile_plan"]

_KINDS: Mapping[str, type] = {
    "segment": str, "any": str, "rest": str, "user": str, "int": int, "float": float
}  # fmt: skip

_OWN_NAMES = ("_plan", "allow", "health", "instance", "lifespan", "quota", "settings")

_Field = tuple[str, Any] | tuple[str, Any, Any]
"""A path's field as msgspec wants it: name, type, and the default if there is one."""


def compile_plan(owner: type, settings: type[Settings]) -> Plan:
    """The plan of a DataSource class. Raises TypeError for every mistake in the class."""
    return _Compiler(owner).compile(settings)


class _Compiler:
    """One class on its way: its members by name, and what is marked on each name."""

    def __init__(self, owner: type) -> None:
        self._owner = owner
        self._members: dict[str, Any] = {}
        self._marks: dict[str, HandlerInfo] = {}
        for base in reversed(owner.__mro__):
            for name, value in vars(base).items():
                self._collect(name, value)
        self._streams = {n: v for n, v in self._members.items() if isinstance(v, Stream)}
        self._suggest: dict[str, dict[str, SuggestPlan]] = {name: {} for name in self._streams}

    def compile(self, settings: type[Settings]) -> Plan:
        self._check_life()
        hooks = self._hooks()
        streams = {name: self._stream(s, hooks[name]) for name, s in self._streams.items()}
        self._check_paths(streams)
        queries = dict(self._queries())
        for name in queries.keys() & streams.keys():
            raise self._wrong(
                queries[name].method, f"the stream {name!r} answers this query type already"
            )
        resources = tuple(self._resources())
        try:
            check_settings(settings)
        except TypeError as error:
            raise self._wrong("settings", str(error)) from error
        return Plan(
            streams=MappingProxyType(streams),
            queries=MappingProxyType(queries),
            resources=resources,
            settings=settings,
        )

    def _wrong(self, name: str, text: str) -> TypeError:
        return TypeError(f"{self._owner.__module__}.{self._owner.__qualname__}.{name}: {text}")

    # Members and their marks

    def _collect(self, name: str, value: Any) -> None:
        """One more member, which may override an older one."""
        former, kept = self._members.get(name), self._marks.get(name, HandlerInfo())
        own = handler_info(value)
        if value is None:
            if kept.hooks:
                text = "a hook is a permission check; override it, do not remove it"
                raise self._wrong(name, text)
            kept = own
        elif isinstance(value, Stream):
            if value.name != name:
                text = f"the stream {value.name!r} keeps its own name; mark a method of this name"
                raise self._wrong(name, text)
            if kept.hooks:
                raise self._wrong(name, "hides a hook; give the stream another name")
            kept = own
        elif isinstance(former, Stream):
            raise self._wrong(
                name,
                f"hides the stream {former.pattern.text!r}; mark it with @stream again, "
                "or write `= None` to remove the stream",
            )
        elif not inspect.isfunction(value):
            if (
                kept != HandlerInfo()
                or handler_info(getattr(value, "__wrapped__", value)) != HandlerInfo()
            ):
                raise self._wrong(name, f"a marked method is a plain `async def`, not {value!r}")
        elif own.query is None and own.resource is None:
            kept = kept._replace(hooks=tuple(dict.fromkeys(kept.hooks + own.hooks)))
        else:
            # Another mark may not take the place of a hook: both are found, and refused below.
            kept = own._replace(hooks=tuple(dict.fromkeys(kept.hooks + own.hooks)))
        if (bool(kept.hooks), kept.query is not None, kept.resource is not None).count(True) > 1:
            raise self._wrong(name, "is marked twice; a hook, a query and a resource are three")
        if name in _OWN_NAMES and (isinstance(value, Stream) or kept != HandlerInfo()):
            raise self._wrong(name, "every data source has this name; call it something else")
        self._members[name] = value
        self._marks[name] = kept

    def _check_life(self) -> None:
        if not inspect.iscoroutinefunction(self._members["health"]):
            raise self._wrong("health", "is an `async def` that returns a Health")
        lifespan = self._members["lifespan"]
        if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
            raise self._wrong("lifespan", "put @asynccontextmanager above it, and a `yield` in it")

    def _check_parameters(self, name: str, function: Callable[..., Any], positional: int) -> None:
        """The framework gives `positional` arguments by position, the rest by name."""
        taken = list(signature(function).parameters.values())
        for index, parameter in enumerate(taken):
            by_name = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            by_position = parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            )
            if not (by_position if index <= positional else by_name):
                how = "position" if index <= positional else "name"
                raise self._wrong(name, f"{str(parameter)!r} has to take one value by {how}")
        if not taken:
            raise self._wrong(name, "is called on the instance; its first parameter is `self`")

    # Streams and their hooks

    def _hooks(self) -> dict[str, dict[str, str]]:
        """For each stream: hook kind to method name."""
        found: dict[str, dict[str, str]] = {name: {} for name in self._streams}
        for name, marks in self._marks.items():
            for target, kind in marks.hooks:
                if target not in self._streams:
                    if target in self._members and self._members[target] is None:
                        continue  # the stream was removed by `= None`, its hooks go with it
                    text = f"is a {kind} hook of {target!r}, which is no stream of this class"
                    raise self._wrong(name, text)
                other = found[target].setdefault(kind, name)
                if other != name:
                    raise self._wrong(name, f"{target!r} has a {kind} hook already: {other!r}")
                self._check_hook(name, kind, self._streams[target])
        return found

    def _check_hook(self, name: str, kind: str, stream: Stream[Any, Any]) -> None:
        hook = self._members[name]
        if not inspect.iscoroutinefunction(hook):
            raise self._wrong(name, f"a {kind} hook is an `async def` without a yield")
        taken = list(parameters(hook))
        if kind.startswith(SUGGEST):
            self._check_parameters(name, hook, 1)
            field = kind.removeprefix(SUGGEST)
            try:
                self._suggest[stream.name][field] = suggest_plan(name, field, taken, stream.pattern)
            except ValueError as error:
                raise self._wrong(name, str(error)) from None
            return
        first = hook_begins(kind, taken, stream.pattern)
        self._check_parameters(name, hook, len(first))
        expected = [*first, *stream.pattern.fields]
        if len(taken) != len(expected) or set(taken[len(first) :]) != set(stream.pattern.fields):
            raise self._wrong(
                name, f"takes ({', '.join(taken)}); its stream gives ({', '.join(expected)})"
            )

    def _stream(self, stream: Stream[Any, Any], hooks: dict[str, str]) -> StreamPlan:
        name = stream.name
        if not inspect.isasyncgenfunction(stream.run):
            raise self._wrong(name, "a stream is an async generator: `async def` with a `yield`")
        if stream.pattern.first == RESERVED_PATH:
            text = f"the path {stream.pattern.text!r} begins with {RESERVED_PATH!r}"
            raise self._wrong(name, f"{text}, which is reserved")
        before = stream.given_before
        fields = self._path_fields(name, stream.run, stream.pattern, set(), before)
        for field, *_ in fields:
            if field in Query.__struct_fields__:
                text = f"{field!r} in the path {stream.pattern.text!r} is a field of every query"
                raise self._wrong(name, text)
        if stream.options.cursor is not None and "history" not in hooks:
            text = "has a cursor: the rows behind one are asked of a history hook, mark one with"
            raise self._wrong(name, f"{text} @{name}.history")
        try:
            path_type = msgspec.defstruct(f"{name}_path", fields, frozen=True, kw_only=True)
            principal = principal_of(stream.pattern)
            query_type = query_class(name, [each for each in fields if each[0] != principal])
            check_type(query_type)
        except (TypeError, ValueError) as error:
            raise self._wrong(name, str(error)) from error
        return StreamPlan(
            name=name,
            pattern=stream.pattern,
            options=stream.options,
            row=self._row(stream),
            path_type=path_type,
            query_type=query_type,
            history=hooks.get("history"),
            subscribe=hooks.get("subscribe"),
            principal=principal,
            publish=self._publish(hooks["publish"], stream.pattern) if "publish" in hooks else None,
            suggest=MappingProxyType(self._suggest[name]),
        )

    def _publish(self, name: str, pattern: Pattern) -> PublishPlan:
        method = self._members[name]
        kind = resolve(method, self._owner).get(next(iter(parameters(method))), Any)
        if isinstance(kind, Unresolved):
            raise self._wrong(name, f"the annotation of its data, {_unknown(kind)}")
        try:
            check_type(kind)
        except TypeError as error:
            raise self._wrong(name, f"{kind!r} cannot be read from JSON: {error}") from error
        return PublishPlan(name, kind, wants_user(list(parameters(method)), pattern))

    def _row(self, stream: Stream[Any, Any]) -> type[Row] | None:
        annotation = resolve(stream.run, self._owner).get("return")
        if isinstance(annotation, Unresolved):
            raise self._wrong(stream.name, f"the annotation of its rows, {_unknown(annotation)}")
        try:
            row = row_class(annotation)
            if row is not None and stream.options.cursor is not None:
                check_cursor(stream.options.cursor, row)
            if row is not None and stream.options.order is not None:
                from aiostream_ds._encoding.ordering import check_order  # few streams have one

                check_order(stream.options.order, row)
        except TypeError as error:
            raise self._wrong(stream.name, str(error)) from error
        return row

    def _path_fields(
        self,
        name: str,
        function: Callable[..., Any],
        pattern: Pattern,
        other: set[str],
        before: int = 0,
    ) -> list[_Field]:
        """The path's fields with annotations and defaults. `other` are names beside the path's;
        `before` counts the arguments that come before them."""
        self._check_parameters(name, function, before)
        taken, hints = parameters(function), resolve(function, self._owner)
        if len(taken) < before:
            raise self._wrong(name, "has a cursor: its first argument is a `Cursor | None`")
        taken = dict(list(taken.items())[before:])
        for parameter in taken.keys() - pattern.fields.keys() - other:
            text = f"takes {parameter!r}, which the path {pattern.text!r} does not name"
            raise self._wrong(name, text)
        fields: list[_Field] = []
        for field, kind in pattern.fields.items():
            if field not in taken:
                text = f"the path {pattern.text!r} names {field!r}, the method does not"
                raise self._wrong(name, text)
            annotation = hints.get(field, _KINDS[kind])
            self._check_kind(name, field, kind, annotation)
            default = taken[field].default
            if default is inspect.Parameter.empty:
                fields.append((field, annotation))
            else:
                self._check_default(name, field, kind, annotation, default)
                fields.append((field, annotation, default))
        return fields

    def _check_kind(self, name: str, field: str, kind: str, annotation: Any) -> None:
        expected = _KINDS[kind]
        if isinstance(annotation, Unresolved):
            raise self._wrong(name, f"the annotation of {field!r}, {_unknown(annotation)}")
        base = base_type(annotation)
        literal = get_origin(base) is Literal and all(type(v) is expected for v in get_args(base))
        if base is not expected and not literal:
            shown = getattr(base, "__name__", repr(base))
            raise self._wrong(
                name, f"{_braces(field, kind)} is {expected.__name__}, the method says {shown}"
            )

    def _check_default(
        self, name: str, field: str, kind: str, annotation: Any, default: Any
    ) -> None:
        try:
            Pattern(_braces(field, kind)).format(**{field: default})
            convert(default, annotation)
        except (BadQuery, ValueError, TypeError) as error:
            text = f"the default {default!r} of {field!r}: {error}"
            raise self._wrong(name, text) from None

    def _check_paths(self, streams: dict[str, StreamPlan]) -> None:
        seen: list[StreamPlan] = []
        for stream in streams.values():
            for other in seen:
                if stream.pattern.overlaps(other.pattern):
                    raise self._wrong(
                        stream.name,
                        f"{stream.pattern.text!r} and {other.pattern.text!r} of {other.name!r} "
                        "match the same path",
                    )
            seen.append(stream)

    # Queries and resources

    def _queries(self) -> Iterator[tuple[str, QueryPlan]]:
        seen: dict[str, str] = {}
        for name, marks in self._marks.items():
            query_type, method = marks.query, self._members[name]
            if query_type is None:
                continue
            if not inspect.iscoroutinefunction(method) or len(parameters(method)) != 1:
                raise self._wrong(name, "a query is an `async def` with one argument, its Query")
            self._check_parameters(name, method, 1)
            kind = base_type(resolve(method, self._owner).get(next(iter(parameters(method)))))
            if isinstance(kind, Unresolved):
                raise self._wrong(name, f"the annotation of its argument, {_unknown(kind)}")
            if not (isinstance(kind, type) and issubclass(kind, Query)):
                raise self._wrong(name, f"annotate its argument with a Query class, not {kind!r}")
            if query_type in seen:
                text = f"{seen[query_type]!r} answers the query type {query_type!r} already"
                raise self._wrong(name, text)
            try:
                check_type(kind)
            except TypeError as error:
                text = f"{kind.__name__} cannot be read from JSON: {error}"
                raise self._wrong(name, text) from error
            seen[query_type] = name
            yield query_type, QueryPlan(name, kind)

    def _resources(self) -> Iterator[ResourcePlan]:
        seen: list[ResourcePlan] = []
        for name, marks in self._marks.items():
            mark, method = marks.resource, self._members[name]
            if mark is None:
                continue
            generator = inspect.isasyncgenfunction(method)
            if not (generator or inspect.iscoroutinefunction(method)):
                raise self._wrong(name, "a resource is an `async def`")
            if mark.pattern.first in RESERVED_RESOURCES:
                text = f"the path {mark.pattern.text!r} begins with {mark.pattern.first!r}"
                raise self._wrong(name, f"{text}, which is reserved")
            if "request" in mark.pattern.fields:
                raise self._wrong(name, "'request' is the HTTP request; call the field otherwise")
            fields = self._path_fields(name, method, mark.pattern, {"request"})
            plan = ResourcePlan(
                method=name,
                http_method=mark.method,
                pattern=mark.pattern,
                path_type=msgspec.defstruct(f"{name}_path", fields, frozen=True, kw_only=True),
                wants_request="request" in parameters(method),
                is_generator=generator,
            )
            for other in seen:
                if other.http_method == plan.http_method and other.pattern.overlaps(plan.pattern):
                    raise self._wrong(
                        name,
                        f"{plan.pattern.text!r} and {other.pattern.text!r} of {other.method!r} "
                        "match the same path",
                    )
            seen.append(plan)
            yield plan


def _unknown(annotation: Unresolved) -> str:
    return f"{annotation}, is not known here: import or define it where it exists at run time"


def _braces(field: str, kind: str) -> str:
    return f"{{{field}}}" if kind == "segment" else f"{{{field}:{kind}}}"
