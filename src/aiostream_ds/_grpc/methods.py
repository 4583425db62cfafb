"""The table that a host's calls are answered by: a service's methods are made when it is first
called.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

__all__ = [
    "Decodes",
    "Handler",
    "Method",
    "Services",
    "Table",
    "both_streams",
    "server_stream",
    "unary",
]


class Decodes(Protocol):
    """What reads a request: a message class, or a decoder of one."""

    def parse(self, data: bytes, /) -> Any:
        """The message in `data`."""


Handler = Callable[[Any, Any], Awaitable[Any]]
"""What answers one call: of the decoded request and the `Call`."""


class Method(NamedTuple):
    """One line of the table that `Server` answers from; `unary` and its siblings make it."""

    kind: Literal["unary", "server_stream", "both_streams"]
    func: Handler
    request_type: Decodes
    reply_type: type


def unary(func: Handler, request_type: Decodes, reply_type: type) -> Method:
    """`func(request, call)` returns the reply: a `reply_type`, or its bytes, whole or in a list."""
    return Method("unary", func, request_type, reply_type)


def server_stream(func: Handler, request_type: Decodes, reply_type: type) -> Method:
    """`func(request, call)` sends by `await call.send(...)`; the stream ends when it returns."""
    return Method("server_stream", func, request_type, reply_type)


def both_streams(func: Handler, request_type: Decodes, reply_type: type) -> Method:
    """`func(None, call)` reads by `await call.receive()` and sends by `await call.send(...)`."""
    return Method("both_streams", func, request_type, reply_type)


Services = Mapping[str, Callable[[], Mapping[str, Method]]]
"""What makes the methods of each service: "package.Service", and then "/package.Service/Method"."""


class Table:
    """The methods of some services. Those of one are made when one of them is first called: most
    of a plugin's code, and of its messages, is not needed before the host's first answer."""

    def __init__(self, services: Services) -> None:
        self._unmade = dict(services)
        self._made: dict[str, Method] = {}

    def find(self, path: str) -> Method | None:
        """The method at a path, if there is one."""
        method = self._made.get(path)
        if method is None and self._unmade:
            self._make(path[1:].rpartition("/")[0])
            method = self._made.get(path)
        return method

    def _make(self, service: str) -> None:
        make = self._unmade.get(service)
        if make is not None:
            self._made |= make()
            del self._unmade[service]
