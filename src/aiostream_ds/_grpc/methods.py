"""Method tables: which function handles a call. A service's methods are created by the first call
to the service.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

__all__ = [
    "Handler",
    "Method",
    "MethodTable",
    "RequestDecoder",
    "Services",
    "bidi_stream",
    "server_stream",
    "unary",
]


class RequestDecoder(Protocol):
    """Decodes a request: a message class, or a faster decoder of it."""

    def parse(self, data: bytes, /) -> Any:
        """The message in `data`."""


Handler = Callable[[Any, Any], Awaitable[Any]]
"""Handles one call. Its arguments are the decoded request and the `Call`."""


Begin = Callable[[Any, Any], bool]
"""Begins a server stream without a task: sets `Call.unattended`. Or answers a unary call with
`Call.respond_nowait`. Its arguments are those of a `Handler`. False: it has done nothing, and the
`Handler` has to be called. Raises GRPCError."""


class Method(NamedTuple):
    """One method of a service; `unary`, `server_stream` and `bidi_stream` create it."""

    kind: Literal["unary", "server_stream", "bidi_stream"]
    func: Handler
    request_type: RequestDecoder
    response_type: type
    begin: Begin | None = None


def unary(
    func: Handler, request_type: RequestDecoder, response_type: type, begin: Begin | None = None
) -> Method:
    """`func(request, call)` returns the response: a `response_type`, its bytes, or a list of parts
    of its bytes. `begin` is called first, if the request is there."""
    return Method("unary", func, request_type, response_type, begin)


def server_stream(
    func: Handler,
    request_type: RequestDecoder,
    response_type: type,
    begin: Begin | None = None,
) -> Method:
    """`func(request, call)` sends with `await call.send(...)`. The stream ends when it returns
    None; it may also return an `Unattended`, with which the response goes on. `begin` is called
    first, if the request is there."""
    return Method("server_stream", func, request_type, response_type, begin)


def bidi_stream(func: Handler, request_type: RequestDecoder, response_type: type) -> Method:
    """`func(None, call)` uses `await call.receive()` and `await call.send(...)`."""
    return Method("bidi_stream", func, request_type, response_type)


Services = Mapping[str, Callable[[], Mapping[str, Method]]]
"""By "package.Service": a function that creates the service's methods by their paths,
"/package.Service/Method"."""


class MethodTable:
    """The methods of some services. The methods of a service are created by the first call to it:
    most of a plugin's code and message classes are not needed at the start."""

    def __init__(self, services: Services) -> None:
        self._factories = dict(services)
        self._methods: dict[str, Method] = {}

    def known(self, path: str) -> Method | None:
        """The method of a path, or None; also None before the first call to its service."""
        return self._methods.get(path)

    def find(self, path: str) -> Method | None:
        """The method of a path, or None."""
        method = self._methods.get(path)
        if method is None and self._factories:
            self._create(path[1:].rpartition("/")[0])
            method = self._methods.get(path)
        return method

    def _create(self, service: str) -> None:
        factory = self._factories.get(service)
        if factory is not None:
            self._methods |= factory()
            del self._factories[service]
