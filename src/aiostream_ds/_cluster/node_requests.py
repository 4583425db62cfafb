"""Requests from one node of a cluster to another, over messages that the engine does not keep.

    request ──▶ _node.<name>, watched by that node ──▶ handler ──▶ _node.<sender> ──▶ answer

A message may get lost: a request is sent again until it has an answer. A node handles each request
once, and repeats its answer. An answer that does not come in time is an error; the request may
have been handled.

Requests have consecutive numbers for each sender and receiver, whose names are those of one process
each. One whose answer is not kept any more is refused: who has recorded an encrypted request
cannot make a node handle it again, at any time. Clocks do not matter. Without a key of the cluster
who may write to its engine can make requests, as a node does.
"""

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import anyio
import msgspec
from anyio.abc import TaskGroup

from aiostream_ds import errors
from aiostream_ds._author_code import contained, describe
from aiostream_ds._cluster.engine import EngineError, EntryTooLarge, Event, Sent
from aiostream_ds._cluster.message_cipher import Cipher, UnreadableMessage
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import PluginError, UpstreamError, unwrap

__all__ = ["NodeRequests", "RequestHandler"]

log = get_logger(__name__)

RequestHandler = Callable[[bytes], Awaitable[bytes]]
"""Answers requests of one kind. A PluginError that it raises is raised where the request comes
from; any other error is logged, and an UpstreamError there."""

_REPEAT = 0.5  # seconds until a request without an answer is sent again
_REMEMBERED = 10_000  # requests whose answers are kept
_REMEMBERED_BYTES = 32 << 20
_CLEAR, _ENCRYPTED = b"\x01", b"\x02"
_ERRORS = {
    each.__name__: each
    for each in (
        errors.BadQuery,
        errors.ConfigError,
        errors.NotFound,
        errors.PermissionDenied,
        errors.QuotaExceeded,
        errors.UpstreamError,
    )
}


class _Request(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """`number`: of the sender's requests to this receiver, from 1."""

    id: bytes
    sender: str
    number: int
    kind: str
    payload: bytes


class _Answer(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """`error` is the name of an exception's class; empty: the payload is the answer."""

    id: bytes
    error: str
    payload: bytes


_Key = tuple[str, int]  # sender and number

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Request | _Answer).decode


class NodeRequests:
    """Sends and handles the requests of one node.

    Not thread-safe: use it in the event loop's thread.

    Args:
        node: this node.
        tasks: where handlers run.
        cipher: encrypts the messages, if the cluster has a key.
    """

    def __init__(self, node: ClusterNode, tasks: TaskGroup, cipher: Cipher | None = None) -> None:
        self._node = node
        self._tasks = tasks
        self._cipher = cipher
        self._handlers: dict[str, RequestHandler] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._numbers: dict[str, int] = {}  # of the last request to each node
        self._in_progress: set[_Key] = set()
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._forgotten: dict[str, int] = {}  # the highest number of each sender
        self._answer_bytes = 0
        node.listen(_inbox(node.name), self._received)

    def handle(self, kind: str, handler: RequestHandler) -> None:
        """Answer requests of this kind."""
        self._handlers[kind] = handler

    async def request(self, node: str, kind: str, payload: bytes, seconds: float) -> bytes:
        """The answer of another node.

        Raises:
            EngineError: there is none in time, or the engine cannot be reached. The request may
                have been handled.
            EntryTooLarge: the engine does not take a message of this size.
            PluginError: what the handler of the other node has raised.
        """
        id = secrets.token_bytes(8)
        waiting = self._waiting[id] = _Waiting()
        number = self._numbers[node] = self._numbers.get(node, 0) + 1
        request = _encode(_Request(id, self._node.name, number, kind, payload))
        try:
            with anyio.move_on_after(seconds):
                while not waiting.arrived.is_set():
                    await self._send(node, request)
                    with anyio.move_on_after(_REPEAT):
                        await waiting.arrived.wait()
        finally:
            del self._waiting[id]
        if waiting.answer is None:
            raise EngineError(f"the server {node} has not answered within {seconds:g} s")
        if waiting.answer.error:
            text = waiting.answer.payload.decode()
            raise _ERRORS.get(waiting.answer.error, UpstreamError)(text)
        return waiting.answer.payload

    async def _send(self, node: str, message: bytes) -> None:
        channel = _inbox(node)
        if self._cipher is None:
            sealed = _CLEAR + message
        else:
            sealed = _ENCRYPTED + self._cipher.encrypt(message, channel)
        await self._node.engine.send(channel, sealed)

    def _received(self, event: Event) -> None:
        if not isinstance(event, Sent):
            return
        try:
            message = _decode(self._opened(event))
        except (ValueError, UnreadableMessage) as error:
            log.warning("a message of another server cannot be read: %s", error)
            return
        if isinstance(message, _Request):
            self._tasks.start_soon(self._handle, message)
        elif (waiting := self._waiting.get(message.id)) is not None:
            waiting.answer = message
            waiting.arrived.set()

    def _opened(self, event: Sent) -> bytes:
        """Raises UnreadableMessage."""
        kind, body = event.payload[:1], event.payload[1:]
        if self._cipher is not None and kind == _ENCRYPTED:
            return self._cipher.decrypt(body, event.channel)
        if self._cipher is None and kind == _CLEAR:
            return body
        raise UnreadableMessage("it has another encryption than this server")

    async def _handle(self, request: _Request) -> None:
        key = request.sender, request.number
        if key in self._in_progress:  # the answer is sent when it is ready
            return
        if key in self._answers:
            answer = self._answers[key]
        elif request.number <= self._forgotten.get(request.sender, 0):
            log.warning("an old request of the server %s was repeated, and is refused", key[0])
            text = "whether the request was handled is not known any more"
            answer = _Answer(request.id, "UpstreamError", text.encode())
        else:
            self._in_progress.add(key)
            answer = await self._answer(request)
            self._in_progress.remove(key)
            self._remember(key, answer)
        try:
            try:
                await self._send(request.sender, _encode(answer))
            except EntryTooLarge as error:
                answer = _Answer(request.id, "UpstreamError", str(error).encode())
                await self._send(request.sender, _encode(answer))
        except EngineError as error:  # the request is sent again
            log.info("the server %s was not answered: %s", request.sender, error)

    async def _answer(self, request: _Request) -> _Answer:
        handler = self._handlers.get(request.kind)
        if handler is None:
            text = f"this version cannot handle {request.kind!r}"
            return _Answer(request.id, "UpstreamError", text.encode())
        try:
            return _Answer(request.id, "", await handler(request.payload))
        except BaseException as caught:
            failure = contained(caught)
            if failure is None:
                raise
            error = unwrap(failure)
            if isinstance(error, PluginError):
                return _Answer(request.id, type(error).__name__, error.message.encode())
            log.error("a request of another server has failed", exc_info=failure)
            return _Answer(request.id, "UpstreamError", describe(error).encode())

    def _remember(self, key: _Key, answer: _Answer) -> None:
        self._answers[key] = answer
        self._answer_bytes += len(answer.payload)
        while len(self._answers) > 1 and (
            len(self._answers) > _REMEMBERED or self._answer_bytes > _REMEMBERED_BYTES
        ):
            (sender, number), oldest = self._answers.popitem(last=False)
            self._answer_bytes -= len(oldest.payload)
            self._forgotten[sender] = max(number, self._forgotten.get(sender, 0))


class _Waiting:
    """Who waits for an answer."""

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.answer: _Answer | None = None


def _inbox(node: str) -> str:
    """The channel of the messages to a node."""
    return f"_node.{node}"
