"""One gRPC call: receives request messages, sends response messages and the status."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from grpclib import GRPCError, Status
from grpclib.encoding.base import CodecBase

from aiostream_ds._grpc.framing import message_prefix
from aiostream_ds._grpc.http2_stream import CallStream
from aiostream_ds._grpc.methods import Method
from aiostream_ds._grpc.write_buffer import FLUSH_BYTES
from aiostream_ds._http2.headers import RequestHead, encode_headers
from aiostream_ds._redaction import redact_start

__all__ = ["Call", "Codec", "GRPCError", "Status", "Unattended"]

# Characters of a grpc-message: hosts refuse header lists above 64 KiB. A little more than messages
# that were cut before.
_MESSAGE_LIMIT = 4_100
_RESPONSE_HEADERS = encode_headers([(":status", "200"), ("content-type", "application/grpc+proto")])
_OK = encode_headers([("grpc-status", "0")])


class Codec(CodecBase):
    """Converts betterproto2 messages to bytes and back. A response of bytes is sent as it is.

    A request type needs only `parse(bytes)`, so a faster decoder can replace a message class.
    """

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Raises TypeError for anything but bytes and `message_type`."""
        if isinstance(message, bytes):
            return message
        if isinstance(message, message_type):
            return bytes(message)
        raise TypeError(
            f"a response must be bytes or {message_type.__name__}, got {message!r}; "
            "return or send one of them"
        )

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Raises what `message_type.parse` raises."""
        return message_type.parse(data)


class CallServer(Protocol):
    """What a call needs of its server."""

    codec: Any
    receive_limit: int

    def resume(self, call: "Call") -> None:
        """Run a task for an unattended call."""


class Unattended(Protocol):
    """A response that goes on without a task: most streams wait for most of the time, and a task
    that waits takes two kilobytes. The function of a server stream may return one.
    """

    async def attend(self) -> "Unattended | None":
        """Called in a task after `Call.resume`. Returns itself when the response can go on without
        a task, None at its end, and raises why it fails."""

    def cancel(self) -> None:
        """The call has ended while no task attends it. Must not raise."""


class Call:
    """One gRPC call, as the function that handles it sees it.

    `path` is "/package.Service/Method". `metadata` has lower-case names, repeated values are joined
    by a comma; calls share it: do not change it. `deadline` is the event loop's time at which the
    host cancels the call, None without a deadline. `sent` is True once the response headers are
    sent. `stream` is the HTTP/2 stream: once `sent`, `stream.write_nowait` sends without waiting.
    `task` is the task that attends the call, `unattended` what goes on while there is none.
    `timer` ends the call at its deadline; `has_expired` is True once it has done so.

    Not thread-safe: use it on the event loop's thread.
    """

    __slots__ = (
        "_peeked",
        "_server",
        "_when_done",
        "deadline",
        "has_expired",
        "metadata",
        "method",
        "path",
        "sent",
        "stream",
        "task",
        "timer",
        "unattended",
    )

    def __init__(
        self, stream: CallStream, head: RequestHead, method: Method, server: CallServer
    ) -> None:
        self.stream = stream
        self._server = server
        self._when_done: Callable[[], None] | None = None
        self._peeked: Any = None
        self.task: asyncio.Task[None] | None = None
        self.unattended: Unattended | None = None
        self.sent = False
        self.deadline: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.has_expired = False
        self.path = head.path
        self.metadata = head.metadata
        self.method = method

    @property
    def peer(self) -> str:
        """The host's address as "HOST:PORT"; "unix" on a UNIX socket."""
        address = self.stream.connection.write_buffer.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"

    def peek(self) -> Any:
        """The only request message, decoded, if the host has sent it and ended its side of the
        stream. It can still be received. None in any other case, also for an invalid message."""
        body = self._whole_body()
        if body is None:
            return None
        try:
            self._peeked = self._server.codec.decode(body, self.method.request_type)
        except Exception:
            return None  # `receive` raises it
        return self._peeked

    def take(self) -> Any:
        """Receive the message that `peek` has returned."""
        message, self._peeked = self._peeked, None
        self.stream.discard()
        return message

    def _whole_body(self) -> bytes | None:
        """The body of the only request message, once all of it is there; None if it is not valid.
        It can still be read."""
        data = self.stream.unread
        if data is None or len(data) < 5 or data[0]:
            return None
        size = len(data) - 5
        if size != int.from_bytes(data[1:5], "big") or size > self._server.receive_limit:
            return None
        return data[5:] if isinstance(data, bytes) else bytes(memoryview(data)[5:])

    async def receive(self) -> Any:
        """The next request message, decoded; None when the host has ended its side of the stream.

        Raises GRPCError for a message that is compressed, too long, truncated or not decodable.
        """
        if self._peeked is not None:
            return self.take()
        body = await self._receive_body()
        if body is None:
            return None
        try:
            return self._server.codec.decode(body, self.method.request_type)
        except Exception as error:
            raise GRPCError(
                Status.INTERNAL, f"cannot decode the request of {self.path}: {error}"
            ) from error

    async def _receive_body(self) -> bytes | None:
        limit = self._server.receive_limit
        whole = self._whole_body()  # nearly every request
        if whole is not None:
            self.stream.discard()
            return whole
        prefix = await self.stream.read(5)
        if not prefix:
            return None
        size = int.from_bytes(prefix[1:], "big")
        if prefix[0]:
            raise GRPCError(
                Status.UNIMPLEMENTED,
                f"expected an uncompressed message, got compressed flag {prefix[0]}",
            )
        if size > limit:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"a message must have at most {limit} bytes, got {size}",
            )
        body = await self.stream.read(size) if len(prefix) == 5 else b""
        if len(prefix) < 5 or len(body) != size:
            raise GRPCError(Status.INTERNAL, "the stream ended in the middle of a message")
        return body

    async def send(self, message: Any) -> None:
        """Send one message: the method's response type, or its bytes, or a list of parts of its
        bytes. Waits for the flow-control windows.

        Raises TypeError for another type.
        """
        parts = self._encode(message)
        await self._send(parts, sum(map(len, parts)))

    def respond(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Send the only message of a unary response, with the trailers when everything can be
        written at once. Returns what is left to be awaited, if it cannot.

        Raises TypeError for another type.
        """
        parts = self._encode(message)
        size = sum(map(len, parts))
        if size < FLUSH_BYTES:
            whole = message_prefix(size), *parts
            if self.stream.write_response(_RESPONSE_HEADERS, whole, size + len(whole[0]), _OK):
                self.sent = True
                return None
        return self._send(parts, size)

    def respond_nowait(self, message: Any) -> bool:
        """Send the only message of a unary response, and the trailers. Sends nothing and returns
        False if it would have to wait. Raises TypeError for another type."""
        rest = self.respond(message)
        if rest is not None:
            rest.close()
        return rest is None

    def _encode(self, message: Any) -> "list[bytes | memoryview]":
        if isinstance(message, list):
            return message
        return [self._server.codec.encode(message, self.method.response_type)]

    async def _send(self, parts: "list[bytes | memoryview]", size: int) -> None:
        """Write large parts without a copy, and small ones joined."""
        small: list[bytes | memoryview] = [message_prefix(size)]
        for part in parts:
            if len(part) < FLUSH_BYTES:
                small.append(part)
                continue
            if small:
                await self.write(b"".join(small))
                small = []
            await self.stream.write(part)
        if small:
            await self.write(b"".join(small))

    async def write(self, data: bytes | memoryview) -> None:
        """Write one or more messages that have their gRPC prefixes already. Waits for the
        flow-control windows."""
        self.start()
        if len(data) > FLUSH_BYTES or not self.stream.write_nowait(data):
            await self.stream.write(data)

    def start(self) -> None:
        """Send the response headers, if they are not sent. Raises StreamClosedError when the stream
        is closed."""
        if not self.sent:
            self.stream.write_headers(_RESPONSE_HEADERS, end=False)
            self.sent = True

    def start_with(self, data: bytes) -> bool:
        """Send the response headers and one or more messages, which have their prefixes, without
        waiting. Sends nothing and returns False if it would have to, or the headers are sent."""
        if self.sent or not self.stream.write_first(_RESPONSE_HEADERS, data):
            return False
        self.sent = True
        return True

    def resume(self) -> None:
        """Attend the response again in a task: an unattended one has to wait, or has ended."""
        self._server.resume(self)

    async def attend(self, response: Unattended | None) -> None:
        """Attend a response in this task until it ends, as if it could not go on without one."""
        while response is not None:
            try:
                await self.stream.wait()  # until `resume`
            except BaseException:
                response.cancel()
                raise
            response = await response.attend()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, after the response is written. Only the last callback is kept."""
        self._when_done = callback

    def finish(self, status: Status, message: str = "") -> None:
        """Send the trailers with this status. Does nothing when the stream is closed."""
        if self.stream.can_respond:
            block = _OK if status is Status.OK else _encode_status(status, message)
            self.stream.write_headers(block if self.sent else _RESPONSE_HEADERS + block, end=True)
        callback, self._when_done = self._when_done, None
        if callback is not None:
            callback()


def _encode_status(status: Status, message: str) -> bytes:
    headers = [("grpc-status", str(status.value))]
    if message:
        from grpclib.metadata import encode_grpc_message  # imports multidict, for errors only

        text = redact_start(message, _MESSAGE_LIMIT)
        headers.append(("grpc-message", encode_grpc_message(text)))
    return encode_headers(headers)
