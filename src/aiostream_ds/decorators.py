"""The decorators of a data source: `@stream` with its hooks, `@query`, `@resource`; `LiveChannel`.

A mark only stores a record; `compiler.py` collects them when the class is created. Hooks hang on
their stream like a property's setter, so each path is written once. A hook mark names its stream
and is kept on the hook function, never on the stream object: a subclass would else change its base.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    overload,
)

from aiostream_ds._annotations import signature
from aiostream_ds._channels.policy import Buffer, Replay, Retry, RowOrder, SchemaPolicy
from aiostream_ds._frames.frame import Frame
from aiostream_ds._paths import Pattern
from aiostream_ds._stream_options import StreamOptions
from aiostream_ds.models import Query, User
from aiostream_ds.rows import Columns, Cursor, HistoryPage, HistoryRange

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    from aiostream_ds.access import Allow

    RowT = DefaultTypeVar("RowT", default=Any)
else:
    RowT = TypeVar("RowT")

__all__ = [
    "CursorStream",
    "HookMark",
    "LiveChannel",
    "HandlerInfo",
    "ResourceMark",
    "Rows",
    "SUGGEST",
    "Stream",
    "handler_info",
    "query",
    "resource",
    "stream",
]

P = ParamSpec("P")
D = TypeVar("D")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
A = TypeVar("A")
Q = TypeVar("Q", bound=Query)
H = TypeVar("H", bound="Frame | Columns[Any] | HistoryPage | Sequence[Any]")
OfferT = TypeVar("OfferT", bound="Sequence[str | int | float]")
AnswerT = TypeVar("AnswerT", bound="Frame | LiveChannel | Sequence[Frame | LiveChannel]")
R_co = TypeVar("R_co", covariant=True)

HTTPMethod = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]

Rows = AsyncIterator[RowT]
"""What a stream method returns: `Rows`, or `Rows[Reading]` when it yields one `Row` class."""


class HookMark(NamedTuple):
    """This function is the `kind` hook of the stream with this name."""

    stream: str
    kind: str


class ResourceMark(NamedTuple):
    """This function answers this HTTP method on this path."""

    method: str
    pattern: Pattern


class HandlerInfo(NamedTuple):
    """All that is marked on one function. `query` is the query type that it answers."""

    hooks: tuple[HookMark, ...] = ()
    query: str | None = None
    resource: ResourceMark | None = None


_MARKS = "__ds_marks__"

SUGGEST = "suggest "
"""Begins the kind of a hook that offers values for a field, whose name follows."""


def handler_info(value: object) -> HandlerInfo:
    """What is marked on `value`, which may be anything."""
    found = getattr(value, "__dict__", {}).get(_MARKS)
    return found if isinstance(found, HandlerInfo) else HandlerInfo()


def _mark(mark: str, function: F, marks: HandlerInfo) -> F:
    if not inspect.isfunction(function):
        raise TypeError(f"@{mark} marks a method, an `async def` in the class, not {function!r}")
    setattr(function, _MARKS, marks)
    return function


class Stream(Generic[P, R_co]):
    """A marked stream. On the class it is this object; on an instance, the bound method."""

    given_before = 0
    """Arguments that the method is given before the path's."""

    def __init__(
        self,
        pattern: Pattern,
        run: Callable[..., Any],
        options: StreamOptions,
    ) -> None:
        self.pattern = pattern
        self.run = run
        self.options = options
        self.name: str = getattr(run, "__name__", repr(run))
        self.__doc__ = run.__doc__

    @overload
    def __get__(self, instance: None, owner: Any) -> "Stream[P, R_co]": ...
    @overload
    def __get__(self, instance: object, owner: Any = None) -> Callable[P, AsyncIterator[R_co]]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else MethodType(self.run, instance)

    def history(
        self, hook: Callable[Concatenate[D, HistoryRange, P], Awaitable[H]], /
    ) -> Callable[Concatenate[D, HistoryRange, P], Awaitable[H]]:
        """Mark the method that gives the rows of a `HistoryRange`, oldest first.

        Called for each QueryData of this stream (a panel's first load, a refresh, an alert rule).
        Of a stream with a cursor also when its run starts, and when a viewer of an exact panel has
        missed rows.
        """
        return self._hook("history", hook)

    def subscribe(
        self, hook: Callable[Concatenate[D, User | None, P], Awaitable[None]], /
    ) -> Callable[Concatenate[D, User | None, P], Awaitable[None]]:
        """Mark the method that lets a viewer in, or raises PermissionDenied or NotFound.

        Called each time a browser subscribes, with its own user; also before its history is read.
        """
        return self._hook("subscribe", hook)

    @overload
    def publish(
        self, hook: Callable[Concatenate[D, T, P], Awaitable[A]], /
    ) -> Callable[Concatenate[D, T, P], Awaitable[A]]: ...
    @overload
    def publish(
        self, hook: Callable[Concatenate[D, T, User | None, P], Awaitable[A]], /
    ) -> Callable[Concatenate[D, T, User | None, P], Awaitable[A]]: ...
    def publish(self, hook: Any, /) -> Any:
        """Mark the method that takes what a user publishes; the annotation of `data` decodes it. An
        argument `user` behind it is who publishes.

        Called for each PublishStream. Without this hook publishing is denied.
        """
        return self._hook("publish", hook)

    def suggest(self, field: str, /) -> "_SuggestMark":
        """Mark the method that offers values for a field of the path: texts or numbers, best first.

        Called as a user types in the query editor, with what is there so far as `typed`. By name it
        may take other fields of the path, None while they have no value, and `user`. What is
        offered is help: any other value may be typed, and the subscribe hook decides.
        """
        if not isinstance(field, str):
            raise TypeError(f'write @{self.name}.suggest("field"), not {field!r}')

        def mark(hook: F, /) -> F:
            return self._hook(f"{SUGGEST}{field}", hook)

        return mark

    def _hook(self, kind: str, hook: F) -> F:
        marks = handler_info(hook)
        hooks = (*marks.hooks, HookMark(self.name, kind))
        return _mark(f"{self.name}.{kind}", hook, marks._replace(hooks=hooks))

    def path(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The channel path for these arguments.

        Raises BadQuery for values no path can hold, TypeError for arguments the method lacks.
        """
        before = (None,) * (1 + self.given_before)  # self comes first
        bound = signature(self.run).bind(*before, *args, **kwargs)
        bound.apply_defaults()
        return self.pattern.format(**{name: bound.arguments[name] for name in self.pattern.fields})


class CursorStream(Stream[P, R_co]):
    """A marked stream whose rows have a cursor: its method is told behind which place to start."""

    given_before = 1

    if TYPE_CHECKING:

        @overload  # type: ignore[override]  # one more argument than a Stream's method takes
        def __get__(self, instance: None, owner: Any) -> "CursorStream[P, R_co]": ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None
        ) -> Callable[Concatenate[Cursor | None, P], AsyncIterator[R_co]]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...


if TYPE_CHECKING:

    class _SuggestMark(Protocol):
        def __call__(
            self, hook: Callable[Concatenate[D, str, P], Awaitable[OfferT]], /
        ) -> Callable[Concatenate[D, str, P], Awaitable[OfferT]]: ...

    class _StreamMark(Protocol):
        def __call__(
            self, run: Callable[Concatenate[D, P], AsyncIterator[T]], /
        ) -> Stream[P, T]: ...

    class _CursorStreamMark(Protocol):
        def __call__(
            self, run: Callable[Concatenate[D, Cursor | None, P], AsyncIterator[T]], /
        ) -> CursorStream[P, T]: ...

    class _QueryMark(Protocol):
        def __call__(
            self, method: Callable[[D, Q], Awaitable[AnswerT]], /
        ) -> Callable[[D, Q], Awaitable[AnswerT]]: ...


_BUFFER, _RETRY, _REPLAY, _SCHEMA = Buffer(), Retry(), Replay(), SchemaPolicy()


@overload
def stream(
    pattern: str,
    *,
    cursor: None = None,
    linger: float = 0.0,
    buffer: Buffer = _BUFFER,
    retry: Retry = _RETRY,
    replay: Replay = _REPLAY,
    schema: SchemaPolicy = _SCHEMA,
    order: RowOrder | None = None,
    stale: float = 0.0,
    flush: float = 0.0,
    max_hz: float = 0.0,
    status_column: str | None = None,
    allow: "Sequence[Allow]" = (),
) -> "_StreamMark": ...
@overload
def stream(
    pattern: str,
    *,
    cursor: str,
    linger: float = 0.0,
    buffer: Buffer = _BUFFER,
    retry: Retry = _RETRY,
    replay: Replay = _REPLAY,
    schema: SchemaPolicy = _SCHEMA,
    order: RowOrder | None = None,
    stale: float = 0.0,
    flush: float = 0.0,
    max_hz: float = 0.0,
    status_column: str | None = None,
    allow: "Sequence[Allow]" = (),
) -> "_CursorStreamMark": ...
def stream(pattern: str, **options: Any) -> Any:
    """Mark an async generator as the stream of all paths that match `pattern`.

    One running stream serves all viewers of one path; whatever changes the rows has to be in it.

    Args:
        cursor: the column of whole numbers, rising from row to row, by which the rows can be read
            again: an offset, an id. The method then takes a `Cursor` before the path's fields,
            and starts after it; the `history` hook answers `HistoryRange.after`. Panels can then
            be exact across restarts and servers.
        linger: how many seconds it goes on after its last viewer left.
        buffer: bounds what a slow reader may be behind.
        retry: the back-off when the method raises UpstreamError.
        replay: how many rows are kept in memory, of a stream without history or cursor.
        schema: what happens to dicts that bring many columns, or values of another type; the
            labels of many series in one channel.
        order: what happens to rows that come late or twice.
        stale: after how many seconds without a row viewers are told so; 0: never.
        flush: how many seconds rows are collected for one packet.
        max_hz: most packets of single rows in a second; 0: as many as come.
        status_column: the name of a column of text that says in each row how the stream is doing,
            and in a row of its own when no others come: for panels that are not exact.
        allow: rules of who may follow, query and publish, beside the hooks; none: everybody.

    Raises TypeError for a pattern or an option that makes no sense.
    """

    def mark(run: Callable[..., Any], /) -> Any:
        if not inspect.isfunction(run):
            raise TypeError(f"@stream marks a method, an `async def` in the class, not {run!r}")
        try:
            checked = StreamOptions(**options)
        except (TypeError, ValueError) as error:
            raise _wrong(run, str(error)) from None
        kind = Stream if checked.cursor is None else CursorStream
        return kind(_pattern(pattern, run), run, checked)

    if not isinstance(pattern, str):
        raise TypeError(f'write @stream("path/{{field}}") with a path pattern, not {pattern!r}')
    return mark


def _pattern(text: str, function: Callable[..., Any]) -> Pattern:
    try:
        return Pattern(text)
    except ValueError as error:
        raise _wrong(function, str(error)) from None


def _wrong(function: Callable[..., Any], text: str) -> TypeError:
    """A mark cannot be made: the qualified name of the function is that of class and member."""
    return TypeError(f"{function.__module__}.{function.__qualname__}: {text}")


@overload
def query(
    method: Callable[[D, Q], Awaitable[AnswerT]], /
) -> Callable[[D, Q], Awaitable[AnswerT]]: ...
@overload
def query(name: str, /) -> "_QueryMark": ...
def query(method: Any, /) -> Any:
    """Mark a method that answers queries whose `queryType` is its name, or the given one.

    Its argument is annotated with a `Query` class, which decodes and checks the query. It returns a
    `Frame`, a `LiveChannel`, or a list of them.

    `@query("")` answers queries that name no type. Raises TypeError for a mark on what is no
    method.
    """
    if not isinstance(method, str):
        name = getattr(method, "__name__", "")
        return _mark("query", method, handler_info(method)._replace(query=name))
    name = method

    def mark(method: F) -> F:
        return _mark("query", method, handler_info(method)._replace(query=name))

    return mark


def resource(path: str, *, method: HTTPMethod = "GET") -> Callable[[F], F]:
    """Mark a method that answers HTTP requests to the data source, `…/resources/<path>`.

    It takes the path's fields and, if it wants it, `request`. It returns anything that can be JSON,
    a `Response`, or yields bytes (an async generator) for a body in pieces.

    Raises TypeError for a path or an HTTP method that makes no sense.
    """
    if not isinstance(path, str):
        raise TypeError(f'write @resource("path/{{field}}") with a path, not {path!r}')

    def mark(function: F) -> F:
        if method not in get_args(HTTPMethod):
            allowed = ", ".join(get_args(HTTPMethod))
            raise _wrong(function, f"the HTTP method {method!r} is none of {allowed}")
        made = ResourceMark(method, _pattern(path, function))
        return _mark("resource", function, handler_info(function)._replace(resource=made))

    return mark


class LiveChannel:
    """A query's answer "follow this channel": the stream and its path arguments, checked by types.

    return Live(Sensors.sensor, id=q.sensor).with_history(frame)
    """

    __slots__ = ("history", "path", "stream")

    def __init__(self, stream: Stream[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.stream: str = stream.name
        self.path = stream.path(*args, **kwargs)
        self.history: Frame | None = None

    def with_history(self, frame: Frame) -> "LiveChannel":
        """The same, with rows to draw before the first live one. Same columns as the stream's."""
        self.history = frame
        return self
