"""`@stream` and the hooks of a stream."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial, update_wrapper
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from aiostream_ds._annotations import signature
from aiostream_ds._author_threads import runs_in_thread, threads_of
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.dataframes import Table
from aiostream_ds._frames.frame import Frame
from aiostream_ds._paths import Pattern
from aiostream_ds.decorators.handler_info import (
    HookInfo,
    HookKind,
    check_function,
    error_of,
    handler_info,
    pattern_of,
    store,
)
from aiostream_ds.decorators.stream_options import StreamKeywords, StreamOptions
from aiostream_ds.models import User
from aiostream_ds.rows import Columns, Cursor, HistoryPage, HistoryRange

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    RowT = DefaultTypeVar("RowT", default=Any)
else:
    RowT = TypeVar("RowT")

__all__ = ["CursorStream", "Rows", "Stream", "stream"]

P = ParamSpec("P")
D = TypeVar("D")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
A = TypeVar("A")
H = TypeVar("H", bound="Frame | Columns[Any] | HistoryPage[Any] | Sequence[Any] | Table")
SuggestionsT = TypeVar("SuggestionsT", bound="Sequence[str | int | float]")
R_co = TypeVar("R_co", covariant=True)

_Pair = tuple[int, int]

Rows = AsyncIterator[RowT]
"""What a stream method returns: `Rows`, or `Rows[Reading]` if it yields one `Row` class."""


def _iterated_in_thread(run: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    """A method that is a `def`, as one that returns an async iterator."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        from aiostream_ds._encoding.yielded import reader  # not needed before the first stream

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
        return store(f"{self.name}.{kind}", hook, info._replace(hooks=hooks))

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
        check_function("stream", run)
        try:
            checked = StreamOptions(cursor=cursor, **options)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise error_of(run, str(error)) from None
        takes_cursor = checked.cursor is not None and checked.store is None
        kind = CursorStream if takes_cursor else Stream
        return kind(pattern_of(pattern, run, kind.leading_arguments), run, checked)

    return decorate
