"""The gRPC server: an asyncio task for each call of the host, while it has something to do.

Its interface is that of grpclib's server, which is not imported: that one brings h2, and takes its
HTTP/2 connection from private methods only.
Each call is cancelled at most once and always gets a status, unless the host has reset its stream.
After the host's deadline that is DEADLINE_EXCEEDED, whatever the call's function does, as in other
gRPC servers.

    accepted ──▶ running ──▶ finished     status and message in the trailers
                  ▲   ├──▶ reset          by the host or a lost connection: cancelled, no status
                  │   ▼
                unattended                a server stream that goes on without a task
"""

import asyncio
import contextvars
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import islice
from typing import Any

from aiostream_ds._author_code import cancel, describe
from aiostream_ds._grpc.call import Call, Codec, GRPCError, Status, Unattended
from aiostream_ds._grpc.http2_protocol import Http2Protocol
from aiostream_ds._grpc.http2_stream import CallStream, StreamClosedError
from aiostream_ds._grpc.methods import MethodTable, Services, bidi_stream
from aiostream_ds._http2.headers import RequestHead
from aiostream_ds._loggers import get_logger

__all__ = ["CLOSE_TIMEOUT", "RECEIVE_LIMIT", "Server"]

RECEIVE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message from Grafana; a longer message gets the status RESOURCE_EXHAUSTED."""

CLOSE_TIMEOUT = 0.2
"""Seconds that `Server.wait_closed` gives the host to read the last bytes and close."""

PACED = frozenset({"/pluginv2.Stream/SubscribeStream", "/pluginv2.Stream/RunStream"})
"""The calls that Grafana makes by the thousand when it has started. A few of them begin in each
iteration of the event loop, so that a health check is answered meanwhile."""

CALLS_AT_ONCE = 32
"""How many of `PACED` begin in one iteration; each takes a fraction of a millisecond."""

CALLS_WHILE_MORE_ARRIVE = 4
"""How many begin in an iteration in which more than CALLS_AT_ONCE have arrived. What arrives
next is read first, since a health check may follow."""

log = get_logger(__name__)


_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}  # of grpc-timeout
_CONTENT_TYPES = frozenset({"application/grpc", "application/grpc+proto"})


class _Undecoded:
    """The request type of a method that does not exist."""

    @staticmethod
    def parse(data: bytes, /) -> bytes:
        return data


async def _unimplemented(_: None, call: Call) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, f"unknown method {call.path}")


_UNIMPLEMENTED = bidi_stream(_unimplemented, _Undecoded, bytes)


class Server:
    """Serves the methods of `services`. Create it in a running event loop.

    `close` cancels each running call once, with the status UNAVAILABLE; `wait_closed` closes the
    connections, too. `on_rate_limited` is called when a connection is closed because its host
    exceeded a rate limit.
    """

    on_rate_limited: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, services: Services, *, receive_limit: int = RECEIVE_LIMIT) -> None:
        self.table = MethodTable(services)
        self.receive_limit = receive_limit
        self.codec = Codec()
        self.tasks: set[asyncio.Task[None]] = set()
        self.connections: set[Http2Protocol] = set()
        self._listening: asyncio.Server | None = None

    async def start(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        path: str | None = None,
        sock: socket.socket | None = None,
        ssl: Any = None,
    ) -> None:
        """Listen at a TCP address, at the path of a UNIX socket, or on a bound socket. `ssl` is the
        context of a server that uses TLS.

        Raises RuntimeError when the server was started before, and OSError when it cannot listen.
        """
        if self._listening is not None:
            raise RuntimeError("the server is started already; create another one")
        loop = asyncio.get_running_loop()
        if path is not None:
            self._listening = await loop.create_unix_server(self.new_connection, path, ssl=ssl)
        elif sock is not None:
            self._listening = await loop.create_server(self.new_connection, sock=sock, ssl=ssl)
        else:
            self._listening = await loop.create_server(self.new_connection, host, port, ssl=ssl)

    def new_connection(self) -> Http2Protocol:
        """The asyncio protocol of a connection that is about to be made."""
        return Http2Protocol(_ConnectionCalls(self), self.connections)

    @property
    def sockets(self) -> Sequence[Any]:
        """The listening sockets; empty before `start` and after `close`."""
        return () if self._listening is None else self._listening.sockets

    def close(self) -> None:
        """Stop listening and cancel every call. Does not wait.

        Raises RuntimeError when the server was not started.
        """
        if self._listening is None:
            raise RuntimeError("the server must be started before it is closed")
        self._listening.close()
        for connection in self.connections:
            connection.calls.close()

    async def wait_closed(self) -> None:
        """Wait for the cancelled calls, without a limit, then close the connections."""
        if self.tasks:
            await asyncio.wait(self.tasks)
        connections = tuple(self.connections)
        for connection in connections:
            connection.end()
        if connections:
            await asyncio.wait([c.lost for c in connections], timeout=CLOSE_TIMEOUT)
        for connection in connections:
            connection.abort()


class _ConnectionCalls:
    """The calls of one connection. Each operation is O(1): a connection has thousands of calls."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.codec, self.receive_limit = server.codec, server.receive_limit
        self._loop = asyncio.get_running_loop()
        self._calls: dict[CallStream, Call] = {}  # those that can be cancelled
        self._waiting: dict[CallStream, RequestHead] = {}  # oldest first
        self._arrived = 0  # of these, since some have begun
        self._closing = self._begins_soon = False
        self._timer_context = contextvars.Context()  # one for all: left out, each would have a copy
        self.rate_limited = server.on_rate_limited

    def accept(self, stream: CallStream, head: RequestHead) -> None:
        if head.path not in PACED or self._closing:
            return self._begin(stream, head)
        self._waiting[stream] = head
        self._arrived += 1
        stream.read_ahead()
        self._begin_soon()

    def _begin_soon(self) -> None:
        """Begin some of `_waiting` in the next iteration, once for all that ask for it."""
        if not self._begins_soon:
            self._begins_soon = True
            self._loop.call_soon(self._begin_some)

    def _begin_some(self) -> None:
        self._begins_soon = False
        is_burst, self._arrived = self._arrived > CALLS_AT_ONCE, 0
        count = CALLS_WHILE_MORE_ARRIVE if is_burst else CALLS_AT_ONCE
        for stream in tuple(islice(self._waiting, count)):
            stream.end_read_ahead()
            self._begin(stream, self._waiting.pop(stream))
        if self._waiting:
            self._begin_soon()

    def _begin(self, stream: CallStream, head: RequestHead) -> None:
        call = self._calls[stream] = Call(stream, head, _UNIMPLEMENTED, self)
        if head.method != "POST" or head.content_type not in _CONTENT_TYPES:
            stream.write_status("415" if head.method == "POST" else "405")
            self._end(call, is_cancelled=False)
        elif not self._begin_nowait(call, head):
            self._attend(call, self._respond(call, head.timeout))

    def _begin_nowait(self, call: Call, head: RequestHead) -> bool:
        """Begin a call without a task, if it can be. Thousands begin at once."""
        method = self._server.table.known(head.path)
        if method is None or method.begin is None or self._closing:
            return False
        call.method = method
        request = call.peek()
        if request is None:
            return False
        try:
            self._set_deadline(call, head.timeout)
            if not method.begin(request, call):
                return False
            call.take()
            if method.kind == "server_stream":
                return True
            call.finish(Status.OK)
        except BaseException as error:  # the other calls of this iteration begin
            call.finish(*_failure(call, error))
        self._end(call, is_cancelled=False)
        return True

    def resume(self, call: Call) -> None:
        """See `CallServer.resume`."""
        if call.task is not None:  # it waits in `Call.attend`
            call.stream.wake()
        elif call.unattended is not None:
            # an empty context: what has resumed it may be the code of an author
            self._attend(call, self._respond(call), contextvars.Context())

    def _set_deadline(self, call: Call, grpc_timeout: str | None) -> None:
        """End the call when the host's deadline has passed. Raises GRPCError for a bad one."""
        if grpc_timeout is None or call.deadline is not None:
            return
        call.deadline = self._loop.time() + _seconds_of(grpc_timeout)
        call.timer = self._loop.call_at(
            call.deadline, self._expired, call, context=self._timer_context
        )

    def _expired(self, call: Call) -> None:
        call.timer = None
        if self._calls.pop(call.stream, None) is None:
            return  # cancelled already
        call.has_expired = True
        if call.task is None:
            self._end(call, is_cancelled=True)
        else:
            cancel(call.task)

    def _attend(
        self,
        call: Call,
        work: Coroutine[Any, Any, None],
        context: contextvars.Context | None = None,
    ) -> None:
        # not by the loop's factory, which may be one of eager tasks: `task` is set before it begins
        call.task = task = asyncio.Task(work, loop=self._loop, context=context)
        self._server.tasks.add(task)
        # a callback: a task that is cancelled before its first step never runs a `finally`
        task.add_done_callback(partial(self._done, call), context=context)

    def _done(self, call: Call, task: "asyncio.Task[None]") -> None:
        self._server.tasks.discard(task)
        if call.task is task:
            self._end(call, is_cancelled=task.cancelled())
        try:
            # also for a cancelled task: until `exception` is called it keeps the CancelledError,
            # whose traceback refers to the call and its request
            error = task.exception()
        except asyncio.CancelledError:
            return
        if error is not None:
            log.error("a call failed unexpectedly", exc_info=error)

    def _end(self, call: Call, *, is_cancelled: bool) -> None:
        call.task = None
        self._calls.pop(call.stream, None)
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        response, call.unattended = call.unattended, None
        if response is not None:
            response.cancel()
        if is_cancelled:  # before its first step, or without a task; or it had responded
            call.finish(*_ending_of(call))
        call.stream.forget()

    def cancel(self, stream: CallStream) -> None:
        if self._waiting.pop(stream, None) is not None:
            stream.end_read_ahead()
            return stream.forget()
        call = self._calls.pop(stream, None)
        if call is None:  # done, or cancelled already
            return
        if call.task is not None:
            cancel(call.task)
        else:
            self._end(call, is_cancelled=True)

    def close(self) -> None:
        self._closing = True
        for stream in tuple(self._calls):
            self.cancel(stream)
        while self._waiting:  # not cancelled: each begins, and ends with its status
            self._begin_some()

    async def _respond(self, call: Call, grpc_timeout: str | None = None) -> None:
        """Begin the response, or attend it; send the status unless it goes on without a task."""
        status, message = Status.OK, ""
        try:
            response, call.unattended = call.unattended, None
            if response is not None:
                response = await response.attend()
            elif self._closing:
                raise GRPCError(Status.UNAVAILABLE, "the plugin is stopping")
            else:
                # here: the first call of a service imports it, which may fail
                call.method = self._server.table.find(call.path) or _UNIMPLEMENTED
                self._set_deadline(call, grpc_timeout)
                response = await _handle(call)
            if response is not None and call.stream in self._calls:
                # in the last step of the task: there is no moment in which nothing can cancel it
                call.unattended, call.task = response, None
                return
            if response is not None:  # cancelled, which the function has suppressed
                response.cancel()
        except StreamClosedError:
            pass  # the host reset the stream during a write: `finish` sends nothing
        except asyncio.CancelledError:
            status, message = _ending_of(call)
            if not _is_deadline_the_cause(call):
                call.finish(status, message)
                raise
        except GeneratorExit:
            raise  # the event loop is gone
        except BaseException as error:
            status, message = _failure(call, error)
        if call.has_expired:  # whatever the function has made of its cancellation
            status, message = _ending_of(call)
        call.finish(status, message)


def _seconds_of(grpc_timeout: str) -> float:
    """The value of a grpc-timeout. Raises GRPCError.

    Not grpclib's `decode_timeout`: that takes any number of digits, and imports multidict.
    """
    number, unit = grpc_timeout[:-1], _UNITS.get(grpc_timeout[-1:])
    if unit is None or len(number) > 8 or not (number.isascii() and number.isdecimal()):
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"grpc-timeout must be 1 to 8 digits and one of HMSmun, got {grpc_timeout!r}",
        )
    return int(number) * unit


async def _handle(call: Call) -> Unattended | None:
    method = call.method
    if method.kind == "bidi_stream":
        await method.func(None, call)
        return None
    request = call.take() if call.peek() is not None else await call.receive()
    if request is None:
        raise GRPCError(Status.INTERNAL, f"{call.path}: expected one request message, got none")
    response = await method.func(request, call)
    if method.kind == "unary":
        rest = None if call.has_expired else call.respond(response)
        if rest is not None:
            await rest
        return None
    unattended: Unattended | None = response
    return unattended


def _failure(call: Call, error: BaseException) -> tuple[Status, str]:
    """Status and message of a call whose function has raised. Logs what is not a GRPCError."""
    if isinstance(error, GRPCError):
        return error.status, error.message or ""
    log.error("%s failed", call.path, exc_info=error)
    return Status.INTERNAL, describe(error)


def _ending_of(call: Call) -> tuple[Status, str]:
    """Status and message of a call that was cancelled."""
    if call.has_expired:
        return Status.DEADLINE_EXCEEDED, f"{call.path} did not finish before its deadline"
    return Status.UNAVAILABLE, "the plugin cancelled the call"


def _is_deadline_the_cause(call: Call) -> bool:
    """Whether its deadline alone has cancelled the running task. The task then counts as not
    cancelled."""
    task = asyncio.current_task()
    return call.has_expired and task is not None and task.uncancel() == 0
