"""`@query`, `@resource`, and `LiveChannel`: an answer that names a stream."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    overload,
)

from aiostream_ds._frames.dataframes import Table
from aiostream_ds._frames.frame import Frame
from aiostream_ds.decorators.handler_info import (
    ResourceInfo,
    check_function,
    error_of,
    handler_info,
    pattern_of,
    store,
)
from aiostream_ds.decorators.stream_decorator import Stream
from aiostream_ds.rows import Columns

__all__ = ["LiveChannel", "query", "resource"]

P = ParamSpec("P")
D = TypeVar("D")
F = TypeVar("F", bound=Callable[..., Any])
AnswerT = TypeVar(
    "AnswerT",
    bound="Answer | Sequence[Answer] | list[Any] | Mapping[str, Frame | Table | list[Any]]",
)

HTTPMethod = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


if TYPE_CHECKING:

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
        return store("query", method, handler_info(method)._replace(query=name))
    name = method

    def decorate(method: F) -> F:
        return store("query", method, handler_info(method)._replace(query=name))

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
        check_function("resource", function)
        if method not in get_args(HTTPMethod):
            methods = ", ".join(get_args(HTTPMethod))
            raise error_of(function, f"the HTTP method must be one of {methods}, got {method!r}")
        info = ResourceInfo(method, pattern_of(path, function))
        return store("resource", function, handler_info(function)._replace(resource=info))

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
