"""The wire: Grafana's gRPC calls come in, replies and stream packets go out.

Knows grpclib 0.4.9: `grpclib.server.Server` listens, `http2.py` is the connection below; the calls
are driven here, one task each, cancelled once, answered always. What a call means is service.py's.
May import frames, channels and the ground.

    accepted ──▶ running ──▶ answered      status and message in the trailers
                    └──▶ reset             by the host or a lost connection: cancelled, no answer
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from grpclib import GRPCError, Status
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.metadata import decode_timeout, encode_grpc_message
from grpclib.server import Server as _GrpclibServer

from aiostream_ds._grpc.methods import Services, Table, both_streams
from aiostream_ds._http2.connection import Http2Protocol
from aiostream_ds._http2.headers import RequestHead, encode_headers
from aiostream_ds._http2.stream import Http2Stream, StreamClosedError
from aiostream_ds._http2.write_buffer import FLUSH_BYTES
from aiostream_ds._telemetry import redact

__all__ = [
    "LEAVE_TIMEOUT",
    "RECEIVE_LIMIT",
    "Call",
    "Codec",
    "GRPCError",
    "Server",
    "Status",
]

RECEIVE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message that Grafana may send; a longer one is answered RESOURCE_EXHAUSTED."""

LEAVE_TIMEOUT = 0.2
"""Seconds that `Server.wait_closed` gives the host to read the last bytes and close."""

_TEXT_LIMIT = 4_000  # characters of a grpc-message: hosts refuse header lists above 64 KiB
_REPLY_HEADERS = encode_headers([(":status", "200"), ("content-type", "application/grpc+proto")])
_OK = encode_headers([("grpc-status", "0")])

_log = logging.getLogger(__name__)


class Codec(CodecBase):
    """betterproto2 messages to bytes and back; a reply that is bytes already goes out as it is.

    A request type needs only a `parse(bytes)`, so a faster decoder can stand in for a message.
    """

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Raises TypeError for anything but bytes and `message_type`."""
        if isinstance(message, bytes):
            return message
        if isinstance(message, message_type):
            return bytes(message)
        raise TypeError(f"the reply is {message!r}; it must be bytes or {message_type.__name__}")

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Raises what the parser raises."""
        return message_type.parse(data)


class _Unread:
    """The request of a method that does not exist."""

    @staticmethod
    def parse(data: bytes, /) -> bytes:
        return data


async def _unknown(_: None, call: "Call") -> None:
    raise GRPCError(Status.UNIMPLEMENTED, f"the plugin has no method {call.path}")


_UNKNOWN = both_streams(_unknown, _Unread, bytes)


class Call:
    """One gRPC call, as the function that answers it sees it.

    `path` is "/package.Service/Method". `metadata` has lower-case names; values sent twice are
    joined by a comma; it is shared by calls and must not be changed. `deadline` is the time of the
    event loop at which the host gives up, None for never. `sent` is True once a message is on its
    way: what goes wrong from then on can only end the call. `stream` takes what needs no waiting,
    once something was sent.
    """

    __slots__ = (
        "_server",
        "_when_done",
        "deadline",
        "metadata",
        "method",
        "path",
        "sent",
        "stream",
    )

    def __init__(self, stream: Http2Stream, head: RequestHead, server: "Server") -> None:
        self.stream = stream
        self._server = server
        self._when_done: Callable[[], None] | None = None
        self.sent = False
        self.deadline: float | None = None
        self.path = head.path
        self.metadata = head.metadata
        self.method = server.table.find(head.path) or _UNKNOWN

    @property
    def peer(self) -> str:
        """The host's address: "unix" on a UNIX socket."""
        address = self.stream.connection.write_buffer.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"

    async def receive(self) -> Any:
        """The next message of the host, decoded; None when it sends no more.

        Raises GRPCError for a compressed, too long, cut or undecodable message.
        """
        body = await self._receive_body()
        if body is None:
            return None
        wanted = self.method.request_type
        try:
            return self._server.codec.decode(body, wanted)
        except Exception as error:
            raise GRPCError(
                Status.INTERNAL, f"the request of {self.path} cannot be read: {error}"
            ) from error

    async def _receive_body(self) -> bytes | None:
        limit = self._server.receive_limit
        head = await self.stream.read(5)
        if not head:
            return None
        size = int.from_bytes(head[1:], "big")
        if head[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not read")
        if size > limit:
            message = f"the message has {size} bytes; at most {limit} are read"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, message)
        body = await self.stream.read(size) if len(head) == 5 else b""
        if len(head) < 5 or len(body) != size:
            raise GRPCError(Status.INTERNAL, "the stream ended inside a message")
        return body

    async def send(self, message: Any) -> None:
        """Send one message: of the method's reply type, or its bytes, which may be in a list of
        pieces; waits for HTTP/2 windows.

        Raises TypeError for another type.
        """
        pieces = self._pieces(message)
        await self._send(pieces, sum(map(len, pieces)))

    async def answer(self, message: Any) -> None:
        """Send the only message; where all of the answer can leave at once, the call ends with it.

        Raises TypeError for another type.
        """
        pieces = self._pieces(message)
        size = sum(map(len, pieces))
        if size < FLUSH_BYTES:
            whole = b"".join((b"\0", size.to_bytes(4, "big"), *pieces))
            if self.stream.write_response(_REPLY_HEADERS, whole, _OK):
                self.sent = True
                return
        await self._send(pieces, size)

    def _pieces(self, message: Any) -> "list[bytes | memoryview]":
        if isinstance(message, list):
            return message
        return [self._server.codec.encode(message, self.method.reply_type)]

    async def _send(self, pieces: "list[bytes | memoryview]", size: int) -> None:
        """Large pieces are written as they are, not worth a copy; small ones together."""
        small: list[bytes | memoryview] = [b"\0" + size.to_bytes(4, "big")]
        for piece in pieces:
            if len(piece) < FLUSH_BYTES:
                small.append(piece)
                continue
            if small:
                await self.write(b"".join(small))
                small = []
            await self.stream.write(piece)
        if small:
            await self.write(b"".join(small))

    async def write(self, data: bytes) -> None:
        """Send messages that have their gRPC prefix already, one or many at once."""
        if not self.sent:
            self.stream.write_headers(_REPLY_HEADERS, end=False)
            self.sent = True
        if len(data) > FLUSH_BYTES or not self.stream.write_nowait(data):
            await self.stream.write(data)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, when the answer has been written."""
        self._when_done = callback

    def finish(self, status: Status, message: str = "") -> None:
        """End the call with a status; does nothing when the host has ended it."""
        if self.stream.closable:
            block = _OK if status is Status.OK else _failure(status, message)
            self.stream.write_headers(block if self.sent else _REPLY_HEADERS + block, end=True)
        callback, self._when_done = self._when_done, None
        if callback is not None:
            callback()


def _failure(status: Status, message: str) -> bytes:
    headers = [("grpc-status", str(status.value))]
    if message:
        text = redact(message)[:_TEXT_LIMIT]
        headers.append(("grpc-message", encode_grpc_message(text)))
    return encode_headers(headers)


class Server(_GrpclibServer):
    """Answers a host's calls by these services; made inside the running loop.

    `start` is grpclib's. A call that still runs at `close` is cancelled once, answered UNAVAILABLE,
    and `wait_closed` ends the connections too. `on_rate_limited` is called when a host floods one.
    """

    on_rate_limited: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, services: Services, *, receive_limit: int = RECEIVE_LIMIT) -> None:
        # no keepalive: silence on a local socket is not death
        super().__init__((), codec=Codec(), config=Configuration(_keepalive_time=None))
        self.table = Table(services)
        self.receive_limit = receive_limit
        self.codec = self._codec
        self.tasks: set[asyncio.Task[None]] = set()
        self.connections: set[Http2Protocol] = set()

    def _protocol_factory(self) -> Http2Protocol:
        return Http2Protocol(_Calls(self), self._config, self.connections)

    @property
    def sockets(self) -> Sequence[Any]:
        """The listening sockets; empty before `start` and after `close`."""
        return getattr(self._server, "sockets", ())

    def close(self) -> None:
        """Stop listening and cancel every call, without waiting.

        Raises RuntimeError when the server was never started.
        """
        super().close()
        for connection in self.connections:
            connection.handler.close()

    async def wait_closed(self) -> None:
        """Wait for the cancelled calls, however long they take, then end the connections."""
        if self.tasks:
            await asyncio.wait(self.tasks)
        connections = tuple(self.connections)
        for connection in connections:
            connection.write_buffer.end()
        if connections:
            await asyncio.wait([c.lost for c in connections], timeout=LEAVE_TIMEOUT)
        for connection in connections:
            connection.write_buffer.abort()


class _Calls:
    """The calls of one connection. O(1) for each: thousands of streams live on one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._uncancelled: dict[Http2Stream, asyncio.Task[None]] = {}
        self._closing = False
        self.rate_limited = server.on_rate_limited

    def accept(self, stream: Http2Stream, head: RequestHead) -> None:
        task = self._loop.create_task(self._answer(stream, head))
        self._uncancelled[stream] = task
        self._server.tasks.add(task)

        def end(task: "asyncio.Task[None]") -> None:
            self._ended(stream, task)

        # in a callback: a task that is cancelled before its first step never runs its `finally`
        task.add_done_callback(end)

    def _ended(self, stream: Http2Stream, task: "asyncio.Task[None]") -> None:
        self._uncancelled.pop(stream, None)
        self._server.tasks.discard(task)
        stream.forget()
        try:
            # asked also of a cancelled task: it keeps the exception, whose traceback leads to the
            # call and its request, until somebody takes it
            error = task.exception()
        except asyncio.CancelledError:
            return
        if error is not None:
            _log.error("a call could not be answered", exc_info=error)

    def cancel(self, stream: Http2Stream) -> None:
        task = self._uncancelled.pop(stream, None)
        if task is not None:  # else it is over, or cancelled already
            task.cancel()

    def close(self) -> None:
        self._closing = True
        for stream in tuple(self._uncancelled):
            self.cancel(stream)

    async def _answer(self, stream: Http2Stream, head: RequestHead) -> None:
        if head.method != "POST":
            return stream.write_status("405")
        if head.content_type not in ("application/grpc", "application/grpc+proto"):
            return stream.write_status("415")
        call = Call(stream, head, self._server)
        status, message = Status.OK, ""
        try:
            if self._closing:
                raise GRPCError(Status.UNAVAILABLE, "the plugin is stopping")
            if head.timeout is None:
                await _serve(call)
            else:
                await _serve_in_time(call, head.timeout)
        except StreamClosedError:
            pass  # the host reset the stream while we were writing: `finish` writes nothing
        except GRPCError as error:
            status, message = error.status, error.message or ""
        except asyncio.CancelledError:
            call.finish(Status.UNAVAILABLE, "the plugin ended the call")
            raise
        except (Exception, SystemExit) as error:
            _log.exception("%s failed", call.path)
            status, message = Status.INTERNAL, f"{type(error).__name__}: {error}"
        call.finish(status, message)


async def _serve(call: Call) -> None:
    method = call.method
    if method.kind == "both_streams":
        await method.func(None, call)
        return
    request = await call.receive()
    if request is None:
        raise GRPCError(Status.INTERNAL, f"{call.path} was called without a message")
    reply = await method.func(request, call)
    if method.kind == "unary":
        await call.answer(reply)


async def _serve_in_time(call: Call, grpc_timeout: str) -> None:
    try:
        call.deadline = asyncio.get_running_loop().time() + decode_timeout(grpc_timeout)
    except ValueError:
        message = f"grpc-timeout is {grpc_timeout!r}; it must be digits and one of HMSmun"
        raise GRPCError(Status.INVALID_ARGUMENT, message) from None
    try:
        async with asyncio.timeout_at(call.deadline) as scope:
            await _serve(call)
    except TimeoutError:
        if scope.expired():
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"{call.path} took too long") from None
        raise
