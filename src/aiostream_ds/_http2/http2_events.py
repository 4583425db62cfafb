"""What the host has done: the events that `Http2Connection.receive` returns."""

from typing import Any, NamedTuple

from aiostream_ds._http2.headers import RequestHead

__all__ = [
    "ConnectionEnded",
    "DataReceived",
    "Event",
    "RequestReceived",
    "StreamReset",
    "WindowOpened",
]

# `stream` is an object of the connection's `stream_type`


class RequestReceived(NamedTuple):
    """A request has begun. `ended`: it has no body."""

    stream: Any
    head: RequestHead
    ended: bool


class DataReceived(NamedTuple):
    """A part of a request's body, or its end: then `ended`, and `data` may be empty.

    `size` bytes of the flow-control windows were used, which includes padding: pass them to
    `Http2Connection.acknowledge` once the data is read.
    """

    stream: Any
    data: bytes
    size: int
    ended: bool


class StreamReset(NamedTuple):
    """The stream is closed: by the host, or because of what the host has sent on it."""

    stream: Any
    code: int


class WindowOpened(NamedTuple):
    """A stream of `Http2Connection.blocked` may be able to send, or any of them if it is None:
    remove those that do from there."""

    stream: Any


class ConnectionEnded(NamedTuple):
    """Nothing is read any more: the host has sent GOAWAY, or the server because of an error.

    `by_host` is False for an error; `code` is that of the GOAWAY.
    """

    code: int
    reason: str
    by_host: bool


Event = RequestReceived | DataReceived | StreamReset | WindowOpened | ConnectionEnded
