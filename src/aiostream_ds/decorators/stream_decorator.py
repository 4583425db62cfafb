"""The decorators of a data source."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial, update_wrapper
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
    TypedDict,
    TypeVar,
    Unpack,
    get_args,
    overload,
)

import msgspec

from aiostream_ds._annotations import parameters, signature
from aiostream_ds._author_threads import runs_in_thread, threads_of
from aiostream_ds._channels.policy import Buffer, Policy, Replay, Retry, RowOrder, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._encoding.yielded import reader
from aiostream_ds._frames.dataframes import Table
from aiostream_ds._frames.frame import Frame
from aiostream_ds._paths import Pattern
from aiostream_ds.models import User
from aiostream_ds.rows import Columns, Cursor, HistoryPage, HistoryRange

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    from aiostream_ds.access import Allow

    RowT = DefaultTypeVar("RowT", default=Any)
else:
    RowT = TypeVar("RowT")

__all__ = [
    "CursorStream",
    "HandlerInfo",
    "HookInfo",
    "LiveChannel",
    "ResourceInfo",
    "Rows",
    "Stream",
    "StreamKeywords",
    "StreamOptions",
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
H = TypeVar("H", bound="Frame | Columns[Any] | HistoryPage[Any] | Sequence[Any] | Table")
SuggestionsT = TypeVar("SuggestionsT", bound="Sequence[str | int | float]")
AnswerT = TypeVar(
    "AnswerT",
    bound="Answer | Sequence[Answer] | list[Any] | Mapping[str, Frame | Table | list[Any]]",
)
R_co = TypeVar("R_co", covariant=True)

_Pair = tuple[int, int]

HookKind = Literal["history", "last", "subscribe", "publish", "suggest"]

HTTPMethod = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]

Rows = AsyncIterator[RowT]
"""What a stream method returns: `Rows`, or `Rows[Reading]` if it yields one `Row` class."""


# Options of a stream


class StreamKeywords(TypedDict, total=False):
    """The options of `@stream`, except `cursor`, on which the type of the method depends.

    Defaults and checks are in the field of the same name: of `Policy` for what concerns the
    channel, else of `StreamOptions`.
    """

    linger: float
    """Seconds that the stream runs after its last viewer left. Default: 0."""
    buffer: Buffer
    """The limits of the queue of a slow subscriber."""
    retry: Retry
    """The back-off after the method raised UpstreamError."""
    replay: Replay
    """How many rows a stream without a cursor keeps in memory. None are kept if it has a history
    and no panel of it is exact."""
    schema: SchemaPolicy
    """What happens to dicts with many columns or with values of another type; labels of series."""
    order: RowOrder | None
    """What happens to rows that arrive late or twice. Default: they are sent as they arrive."""
    stale: float
    """Seconds without a row after which viewers see the stream as stale. Default: 0, never."""
    flush: float
    """Seconds for which rows are collected into one packet. Default: 0."""
    max_hz: float
    """Most packets of single rows per second. Default: 0, no limit."""
    status_column: str | None
    """The name of a string column with the stream's status, for panels that are not exact. A
    change of the status is sent as a row of its own if no other row follows. Default: no column."""
    thin: bool
    """Whether a history of more rows than the panel draws is thinned by time. If not, its newest
    rows are drawn. Default: True."""
    allow: "Sequence[Allow]"
    """Rules for who may follow, query and publish, in addition to hooks. Default: everybody."""


class StreamOptions(Policy, frozen=True, kw_only=True):
    """The checked options of one stream: the policy of its channels, and what concerns its rows.

    Raises:
        TypeError: an option has another type, or two options exclude each other.
        ValueError: a number of the policy is out of its bounds.
    """

    cursor: str | tuple[str, str] | None = None
    retry: Retry = Retry()
    replay: Replay = Replay()
    schema: SchemaPolicy = SchemaPolicy()
    order: RowOrder | None = None
    status_column: str | None = None
    thin: bool = True
    allow: tuple[Any, ...] = ()

    @property
    def policy(self) -> Policy:
        """The delivery policy of this stream's channels, without a replay buffer."""
        options = {name: getattr(self, name) for name in Policy.__struct_fields__}
        return Policy(**{**options, "replay": None})

    def __post_init__(self) -> None:
        _expect("buffer", self.buffer, Buffer)
        _expect("retry", self.retry, Retry)
        _expect("replay", self.replay, Replay)
        _expect("schema", self.schema, SchemaPolicy)
        _expect("thin", self.thin, bool)
        if self.order is not None:
            _expect("order", self.order, RowOrder)
        super().__post_init__()
        if self.allow != ():
            from aiostream_ds.access import check_rules  # few streams have rules

            msgspec.structs.force_setattr(self, "allow", check_rules(self.allow))
        column = self.status_column
        if column is not None and (not isinstance(column, str) or column in ("", "time")):
            raise TypeError(f"status_column must be a name other than 'time', got {column!r}")
        if self.cursor is not None:
            self._check_cursor()

    def _check_cursor(self) -> None:
        names = (self.cursor,) if isinstance(self.cursor, str) else self.cursor
        if not (isinstance(names, tuple) and all(isinstance(n, str) and n for n in names)):
            raise TypeError(
                f"cursor must be the name of a column, or a tuple of two, got {self.cursor!r}"
            )
        if not isinstance(self.cursor, str) and (len(names) != 2 or names[0] == names[1]):
            raise TypeError(f"cursor must have one or two different columns, got {self.cursor!r}")
        if self.order is not None:
            raise TypeError(
                "expected an order or a cursor, got both; use one: the history would return the"
                " rows that the order leaves out"
            )
        if self.schema.labels:
            raise TypeError("expected schema.labels or a cursor, got both; use one")


def _expect(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")


# What a decorator stores


class HookInfo(NamedTuple):
    """The function is a hook of the stream with this name."""

    stream: str
    kind: HookKind
    field: str = ""
    """The path field for which a suggest hook offers values."""

    @property
    def label(self) -> str:
        """The hook as an error message names it. A stream has one hook of each label."""
        return f"{self.kind} {self.field!r}" if self.field else self.kind


class ResourceInfo(NamedTuple):
    """The function answers this HTTP method on paths of this pattern."""

    method: str
    pattern: Pattern


class HandlerInfo(NamedTuple):
    """Everything that decorators stored on one function."""

    hooks: tuple[HookInfo, ...] = ()
    query: str | None = None
    """The query type that the function answers."""
    resource: ResourceInfo | None = None


_ATTRIBUTE = "__ds_handler__"


def handler_info(value: object) -> HandlerInfo:
    """What decorators stored on `value`, which may be any object."""
    found = getattr(value, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, HandlerInfo) else HandlerInfo()


def _store(decorator: str, function: F, info: HandlerInfo) -> F:
    _check_function(decorator, function)
    setattr(function, _ATTRIBUTE, info)
    return function


def _check_function(decorator: str, function: object) -> None:
    if not inspect.isfunction(function):
        raise TypeError(f"@{decorator} must decorate a method, got {function!r}")


def _error(function: Callable[..., Any], text: str) -> TypeError:
    """The qualified name of a method names its class and itself."""
    return TypeError(f"{function.__module__}.{function.__qualname__}: {text}")


def _pattern(text: str | None, function: Callable[..., Any], leading: int = 0) -> Pattern:
    """The pattern of a text; without one the method's name and its parameters, except for the
    first `leading` ones and `request`. A field gets its kind when the class is created."""
    if text is None:
        names = [name for name in list(parameters(function))[leading:] if name != "request"]
        text = "/".join([function.__name__, *(f"{{{name}}}" for name in names)])
    try:
        return Pattern(text)
    except ValueError as error:
        raise _error(function, str(error)) from None


# Streams and their hooks


def _iterated_in_thread(run: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    """A method that is a `def`, as one that returns an async iterator."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return threads_of(self).iterate(
            run.__name__, partial(run, self, *args, **kwargs), reader=reader, status=_waiting_status
        )

    return update_wrapper(method, run)


def _waiting_status(text: str) -> Status:
    return Status("warning", text) if text else Status()


class Stream(Generic[P, R_co]):
    """A method that `@stream` decorates. Its attributes decorate the hooks of the stream.

    On the class it is this object; on an instance it is the bound method, which returns an async
    iterator also if it is a `def`: its rows then come from a thread.
    """

    leading_arguments = 0
    """How many arguments the method takes before the path's fields."""

    def __init__(
        self,
        pattern: Pattern,
        run: Callable[..., Any],
        options: StreamOptions,
    ) -> None:
        self.pattern = pattern
        """A field without a kind has that of its annotation from the creation of the class on."""
        self.run = run
        self._method = _iterated_in_thread(run) if runs_in_thread(run) else run
        self.options = options
        self.name: str = getattr(run, "__name__", repr(run))
        self.__doc__ = run.__doc__

    @overload
    def __get__(self, instance: None, owner: Any) -> "Stream[P, R_co]": ...
    @overload
    def __get__(self, instance: object, owner: Any = None) -> Callable[P, AsyncIterator[R_co]]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else MethodType(self._method, instance)

    @overload
    def history(
        self, hook: Callable[Concatenate[D, HistoryRange, P], Awaitable[H]], /
    ) -> Callable[Concatenate[D, HistoryRange, P], Awaitable[H]]: ...
    @overload
    def history(
        self, hook: Callable[Concatenate[D, HistoryRange, P], H], /
    ) -> Callable[Concatenate[D, HistoryRange, P], H]: ...
    def history(self, hook: Any, /) -> Any:
        """Decorate the method that returns the rows of a `HistoryRange`, oldest first.

        Called at each query of this stream: a panel loads or refreshes, an alert rule is evaluated.
        For a stream with a cursor, also when a run starts and when a viewer of an exact panel has
        missed rows; several times for a long range. Return at most `HistoryRange.limit` rows, the
        newest ones; return a `HistoryPage` to add an epoch, a last cursor, or that older rows are
        lost. Re-entrant: calls
        of several viewers run at the same time. It is cancelled if Grafana cancels the query. A
        `PluginError` that it raises is the query's answer; anything else is logged as a bug.
        """
        return self._hook("history", hook)

    @overload
    def subscribe(
        self, hook: Callable[Concatenate[D, User | None, P], Awaitable[None]], /
    ) -> Callable[Concatenate[D, User | None, P], Awaitable[None]]: ...
    @overload
    def subscribe(
        self, hook: Callable[Concatenate[D, User | None, P], None], /
    ) -> Callable[Concatenate[D, User | None, P], None]: ...
    def subscribe(self, hook: Any, /) -> Any:
        """Decorate the method that admits a viewer, or raises PermissionDenied or NotFound.

        Called each time a browser subscribes, with that browser's user, and before the history is
        read. Any return value admits the viewer. A `PluginError` refuses with its status and is
        logged; anything else is logged as a bug. Re-entrant: calls of several viewers run at the
        same time. It is cancelled if Grafana cancels the call.
        """
        return self._hook("subscribe", hook)

    @overload
    def publish(
        self, hook: Callable[Concatenate[D, T, P], Awaitable[A]], /
    ) -> Callable[Concatenate[D, T, P], Awaitable[A]]: ...
    @overload
    def publish(  # type: ignore[overload-overlap]  # an Awaitable is an A, too
        self, hook: Callable[Concatenate[D, T, User | None, P], Awaitable[A]], /
    ) -> Callable[Concatenate[D, T, User | None, P], Awaitable[A]]: ...
    @overload
    def publish(
        self, hook: Callable[Concatenate[D, T, P], A], /
    ) -> Callable[Concatenate[D, T, P], A]: ...
    @overload
    def publish(
        self, hook: Callable[Concatenate[D, T, User | None, P], A], /
    ) -> Callable[Concatenate[D, T, User | None, P], A]: ...
    def publish(self, hook: Any, /) -> Any:
        """Decorate the method that receives what a user publishes.

        The data is decoded as the annotation of the first argument. A second argument named `user`
        is the user who publishes. Called each time a browser publishes to the channel; without this
        hook publishing is denied. A `PluginError` refuses. Re-entrant: calls of several users run
        at the same time. It is cancelled if Grafana cancels the call.
        """
        return self._hook("publish", hook)

    def suggest(self, field: str, /) -> "_SuggestDecorator":
        """Decorate the method that returns suggestions for a field of the path, best first.

        Called as a user types in the query editor, with the text so far as `typed`. By name it may
        take other fields of the path, which are None as long as they have no value, and `user`.
        A user may type any other value: `subscribe` decides. At most `SUGGESTIONS` (500) values are
        shown. Re-entrant.

        Raises:
            TypeError: `field` is not a string.
        """
        if not isinstance(field, str):
            raise TypeError(
                f'expected the name of a field, got {field!r}; use @{self.name}.suggest("field")'
            )

        def decorate(hook: F, /) -> F:
            return self._hook("suggest", hook, field)

        return decorate

    def _hook(self, kind: HookKind, hook: F, field: str = "") -> F:
        info = handler_info(hook)
        hooks = (*info.hooks, HookInfo(self.name, kind, field))
        return _store(f"{self.name}.{kind}", hook, info._replace(hooks=hooks))

    def path(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The channel path for these arguments.

        Raises:
            BadQuery: a value that no path can contain.
            TypeError: an argument is missing, or the method does not take it.
        """
        leading = (None,) * (1 + self.leading_arguments)  # self comes first
        bound = signature(self.run).bind(*leading, *args, **kwargs)
        bound.apply_defaults()
        return self.pattern.format(**{name: bound.arguments[name] for name in self.pattern.fields})


class CursorStream(Stream[P, R_co]):
    """A stream whose rows have a cursor: its method also takes the cursor to start after."""

    leading_arguments = 1

    @overload
    def last(
        self, hook: Callable[Concatenate[D, P], Awaitable[Cursor | int | None]], /
    ) -> Callable[Concatenate[D, P], Awaitable[Cursor | int | None]]: ...
    @overload
    def last(
        self, hook: Callable[Concatenate[D, P], Cursor | int | None], /
    ) -> Callable[Concatenate[D, P], Cursor | int | None]: ...
    def last(self, hook: Any, /) -> Any:
        """Decorate the method that returns the cursor of the newest row; None while there is none.

        A `Cursor` also names the epoch, the same as in the history's `HistoryPage`. Called when a
        run starts, and for exact queries and subscriptions. Re-entrant. Without this hook the
        history is asked for the newest row.
        """
        return self._hook("last", hook)

    if TYPE_CHECKING:

        @overload  # type: ignore[override]  # one more argument than a Stream's method takes
        def __get__(self, instance: None, owner: Any) -> "CursorStream[P, R_co]": ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None
        ) -> Callable[Concatenate[Cursor, P], AsyncIterator[R_co]]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...


if TYPE_CHECKING:

    class CursorPairStream(CursorStream[P, R_co]):
        """A stream whose cursor has two columns, for type checkers."""

        @overload  # type: ignore[override]
        def history(
            self, hook: Callable[Concatenate[D, HistoryRange[_Pair], P], Awaitable[H]], /
        ) -> Callable[Concatenate[D, HistoryRange[_Pair], P], Awaitable[H]]: ...
        @overload
        def history(
            self, hook: Callable[Concatenate[D, HistoryRange[_Pair], P], H], /
        ) -> Callable[Concatenate[D, HistoryRange[_Pair], P], H]: ...
        def history(self, hook: Any, /) -> Any: ...

        @overload  # type: ignore[override]
        def last(
            self, hook: Callable[Concatenate[D, P], Awaitable[Cursor[_Pair] | _Pair | None]], /
        ) -> Callable[Concatenate[D, P], Awaitable[Cursor[_Pair] | _Pair | None]]: ...
        @overload
        def last(
            self, hook: Callable[Concatenate[D, P], Cursor[_Pair] | _Pair | None], /
        ) -> Callable[Concatenate[D, P], Cursor[_Pair] | _Pair | None]: ...
        def last(self, hook: Any, /) -> Any: ...

        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: Any) -> "CursorPairStream[P, R_co]": ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None
        ) -> Callable[Concatenate[Cursor[_Pair], P], AsyncIterator[R_co]]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    class CursorTextStream(CursorStream[P, R_co]):
        """A stream whose cursor is a text, for type checkers."""

        @overload  # type: ignore[override]
        def history(
            self, hook: Callable[Concatenate[D, HistoryRange[str], P], Awaitable[H]], /
        ) -> Callable[Concatenate[D, HistoryRange[str], P], Awaitable[H]]: ...
        @overload
        def history(
            self, hook: Callable[Concatenate[D, HistoryRange[str], P], H], /
        ) -> Callable[Concatenate[D, HistoryRange[str], P], H]: ...
        def history(self, hook: Any, /) -> Any: ...

        @overload  # type: ignore[override]
        def last(
            self, hook: Callable[Concatenate[D, P], Awaitable[Cursor[str] | str | None]], /
        ) -> Callable[Concatenate[D, P], Awaitable[Cursor[str] | str | None]]: ...
        @overload
        def last(
            self, hook: Callable[Concatenate[D, P], Cursor[str] | str | None], /
        ) -> Callable[Concatenate[D, P], Cursor[str] | str | None]: ...
        def last(self, hook: Any, /) -> Any: ...

        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: Any) -> "CursorTextStream[P, R_co]": ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None
        ) -> Callable[Concatenate[Cursor[str], P], AsyncIterator[R_co]]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    class _SuggestDecorator(Protocol):
        @overload
        def __call__(
            self, hook: Callable[Concatenate[D, str, P], Awaitable[SuggestionsT]], /
        ) -> Callable[Concatenate[D, str, P], Awaitable[SuggestionsT]]: ...
        @overload
        def __call__(
            self, hook: Callable[Concatenate[D, str, P], SuggestionsT], /
        ) -> Callable[Concatenate[D, str, P], SuggestionsT]: ...

    class _StreamDecorator(Protocol):
        def __call__(
            self, run: Callable[Concatenate[D, P], AsyncIterator[T] | Iterator[T]], /
        ) -> Stream[P, T]: ...

    class _CursorStreamDecorator(Protocol):
        @overload
        def __call__(
            self, run: Callable[Concatenate[D, Cursor, P], AsyncIterator[T] | Iterator[T]], /
        ) -> CursorStream[P, T]: ...
        @overload
        def __call__(
            self, run: Callable[Concatenate[D, Cursor[str], P], AsyncIterator[T] | Iterator[T]], /
        ) -> CursorTextStream[P, T]: ...

    class _CursorPairStreamDecorator(Protocol):
        def __call__(
            self, run: Callable[Concatenate[D, Cursor[_Pair], P], AsyncIterator[T] | Iterator[T]], /
        ) -> CursorPairStream[P, T]: ...

    class _QueryDecorator(Protocol):
        @overload
        def __call__(
            self, method: Callable[Concatenate[D, P], Awaitable[AnswerT]], /
        ) -> Callable[Concatenate[D, P], Awaitable[AnswerT]]: ...
        @overload
        def __call__(
            self, method: Callable[Concatenate[D, P], AnswerT], /
        ) -> Callable[Concatenate[D, P], AnswerT]: ...


@overload
def stream(run: Callable[Concatenate[D, P], AsyncIterator[T] | Iterator[T]], /) -> Stream[P, T]: ...
@overload
def stream(
    pattern: str | None = None, *, cursor: None = None, **options: Unpack[StreamKeywords]
) -> "_StreamDecorator": ...
@overload
def stream(
    pattern: str | None = None, *, cursor: str, **options: Unpack[StreamKeywords]
) -> "_CursorStreamDecorator": ...
@overload
def stream(
    pattern: str | None = None, *, cursor: tuple[str, str], **options: Unpack[StreamKeywords]
) -> "_CursorPairStreamDecorator": ...
def stream(
    pattern: Any = None,
    *,
    cursor: str | tuple[str, str] | None = None,
    **options: Unpack[StreamKeywords],
) -> Any:
    """Decorate a method that yields the rows of all paths that match `pattern`.

    Without a pattern, also as `@stream` alone, the path is the method's name and its parameters:
    `cpu/{host}/{core:int}` for `async def cpu(self, host: str, core: int = 0)`.

    One run of the method serves all viewers of one path; everything that changes the rows must be
    in the path. Grafana starts a run when the first viewer of a path subscribes. Re-entrant: the
    runs of several paths are active at the same time, all in the event loop's thread.

    Cancellation: `linger` seconds after the last viewer left, the run is cancelled once, at an
    `await` or `yield` of the method; its `finally` may await. A run that ignores it is cancelled
    again after `CLOSE_TIMEOUT`. Do not yield inside a timeout or a cancel scope.

    Errors that the method raises: `UpstreamError` calls it again after the `retry` delay; another
    `PluginError` is shown and not retried; anything else is a bug, which is logged, ends the
    viewers' calls and delays the next run.

    Args:
        pattern: a channel path with fields in braces, such as `sensors/{id}/{hz}`. A field without
            a kind gets that of its annotation: str, int, float, bool, date, UUID, a Literal or an
            Enum, or one of them or None.
        cursor: the column of integers, increasing from row to row, by which rows can be read again:
            an offset or an id; or two columns, as ("ms", "seq"), of rows that are ordered by the
            first, then by the second; or the column with both as a text, "1700000000000-3", if the
            method is annotated with `Cursor[str]`. The method then takes a `Cursor` to start after,
            before the path's fields, and a `history` hook must support `HistoryRange.after`. Panels
            can then be exact across restarts and servers.
        options: the keys of `StreamKeywords`, where each is described.

    Raises:
        TypeError: a bad pattern or option; the message names the method.
    """
    if inspect.isfunction(pattern):
        return stream()(pattern)
    if not (pattern is None or isinstance(pattern, str)):
        raise TypeError(f"expected a path pattern or a method, got {pattern!r}")

    def decorate(run: Callable[..., Any], /) -> Any:
        _check_function("stream", run)
        try:
            checked = StreamOptions(cursor=cursor, **options)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise _error(run, str(error)) from None
        kind = Stream if checked.cursor is None else CursorStream
        return kind(_pattern(pattern, run, kind.leading_arguments), run, checked)

    return decorate


# Queries and resources


@overload
def query(
    method: Callable[Concatenate[D, P], Awaitable[AnswerT]], /
) -> Callable[Concatenate[D, P], Awaitable[AnswerT]]: ...
@overload
def query(
    method: Callable[Concatenate[D, P], AnswerT], /
) -> Callable[Concatenate[D, P], AnswerT]: ...
@overload
def query(name: str, /) -> "_QueryDecorator": ...
def query(method: Any, /) -> Any:
    """Decorate a method that answers queries of one `queryType`: its own name, or the given one.

    Its arguments are the fields of the query, of the types that a field of a path can have; or the
    first one is annotated with a `Query` class, as which the query is decoded and checked. It
    returns a `Frame`, a `Table`, a list of rows, a `LiveChannel`, a list of them, or a dict of
    tables by name. `@query("")` answers queries without a type.

    Called for each query of a panel, an alert rule or Explore. Re-entrant: calls run at the same
    time. It is cancelled if Grafana cancels the query.

    Raises:
        TypeError: the decorated object is not a function.
    """
    if not isinstance(method, str):
        name = getattr(method, "__name__", "")
        return _store("query", method, handler_info(method)._replace(query=name))
    name = method

    def decorate(method: F) -> F:
        return _store("query", method, handler_info(method)._replace(query=name))

    return decorate


@overload
def resource(function: F, /) -> F: ...
@overload
def resource(path: str | None = None, *, method: HTTPMethod = "GET") -> Callable[[F], F]: ...
def resource(path: Any = None, *, method: HTTPMethod = "GET") -> Any:
    """Decorate a method that answers HTTP requests to the data source: `…/resources/<path>`.

    It takes the fields of the path and, if it has an argument `request`, the `Request`. It returns
    a value that is encoded as JSON, or a `Response`; or it is an async generator that yields the
    body as chunks of bytes. Without a path, also as `@resource` alone, the path is the method's
    name and its parameters.

    Called for each request. Re-entrant: calls run at the same time. It is cancelled if Grafana
    cancels the request.

    Raises:
        TypeError: a bad path or HTTP method; the message names the method.
    """
    if inspect.isfunction(path):
        return resource()(path)
    if not (path is None or isinstance(path, str)):
        raise TypeError(f"expected a path or a method, got {path!r}")

    def decorate(function: F) -> F:
        _check_function("resource", function)
        if method not in get_args(HTTPMethod):
            methods = ", ".join(get_args(HTTPMethod))
            raise _error(function, f"the HTTP method must be one of {methods}, got {method!r}")
        info = ResourceInfo(method, _pattern(path, function))
        return _store("resource", function, handler_info(function)._replace(resource=info))

    return decorate


class LiveChannel:
    """A query's answer "follow this channel": a stream and the arguments of its path.

        return LiveChannel(Sensors.sensor, id=q.sensor).with_history(frame)

    Type checkers check the arguments.

    Raises:
        BadQuery: a value that no path can contain.
        TypeError: an argument is missing, or the stream does not take it.
    """

    __slots__ = ("history", "path", "stream")

    def __init__(self, stream: Stream[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.stream: str = stream.name
        self.path = stream.path(*args, **kwargs)
        self.history: Frame | Table | None = None

    def with_history(self, frame: Frame | Table) -> "LiveChannel":
        """The same object, with rows to draw before the first live one. The frame or table must
        have the columns of the stream."""
        self.history = frame
        return self


Answer = Frame | Table | Columns[Any] | LiveChannel
"""What a query method returns for one table of a panel."""
