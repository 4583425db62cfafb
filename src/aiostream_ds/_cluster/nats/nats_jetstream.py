"""Requests to JetStream: storing a message, reading messages, and what a stream has."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

import anyio

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.nats.nats_client import ConnectionReplaced, NatsClient
from aiostream_ds._nats.nats_protocol import (
    NatsMessage,
    ProtocolViolation,
    parse_headers,
)

__all__ = ["NO_STREAM", "JetStream", "JetStreamError", "NotExpected", "StoredMessage"]

NO_STREAM = 10_059
"""The number of the error for a stream that does not exist."""

_NOT_FOUND = 10_037
_WRONG_SEQUENCES = (10_071, 10_164)  # of one server, of a cluster
_SUBJECTS_A_PAGE = 100_000

_SLOTS = 200
_SLOT_TIMEOUT = 10.0
"""Requests at the same time, and seconds for which another one waits. A server drops requests when
it has 10,000 of them."""

_END_OF_BATCH, _NO_MESSAGE, _TOO_MANY = 204, 404, 413

_PAGES = 4
_PAGE_BYTES = 4 << 20
"""Pages that are read at the same time, and their size: a server closes a connection for which it
has more than 64 MiB to send."""


class JetStreamError(EngineError):
    """JetStream refuses a request. `number` is that of its list of errors; 0: there is none."""

    def __init__(self, text: str, number: int = 0, status: int = 0) -> None:
        super().__init__(text)
        self.number = number
        self.status = status


class NotExpected(Exception):
    """The last message of the subject is not the expected one, or was seen on a connection that is
    lost: the server may have lost messages with it."""


class StoredMessage(NamedTuple):
    """A message of a stream. `time` is the seconds of the server's clock when it was stored."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes
    time: float


class JetStream:
    """Requests for streams. They raise EngineError.

    Args:
        repair: called when no stream takes a message that is stored.
        has_copies: whether the streams have more than one replica.
    """

    def __init__(
        self, client: NatsClient, repair: Callable[[], Awaitable[None]], *, has_copies: bool
    ) -> None:
        self._client = client
        self._repair = repair
        self._has_copies = has_copies
        self._slots = asyncio.Semaphore(_SLOTS)
        self._pages = asyncio.Semaphore(_PAGES)

    @property
    def connection_number(self) -> int:
        """Grows with each connection."""
        return self._client.connection_number

    @property
    def max_payload(self) -> int:
        """Most bytes of headers and payload together."""
        return self._client.max_payload

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        connection_number: int | None = None,
    ) -> int:
        """Store a message, on this connection only if one is given; returns its sequence.

        Raises:
            NotExpected: the headers expect another last sequence of the subject.
        """
        try:
            message = await self._client.request(subject, payload, headers, connection_number)
            if message.status:
                await self._repair()
                message = await self._client.request(subject, payload, headers, connection_number)
        except ConnectionReplaced:
            raise NotExpected from None
        if message.status:
            raise JetStreamError(f"no stream of JetStream takes {subject!r}")
        answer = _decoded(message)
        error = answer.get("error")
        if error is None:
            return _sequence(answer)
        if error.get("err_code") in _WRONG_SEQUENCES:
            raise NotExpected
        raise _error(error)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the requests that the server has at a time, other than messages that it stores.
        Raises EngineError if it is too slow."""
        try:
            with anyio.fail_after(_SLOT_TIMEOUT):
                await self._slots.acquire()
        except TimeoutError:
            raise EngineError(
                f"NATS has not answered {_SLOTS} requests in {_SLOT_TIMEOUT} s"
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    async def call(self, operation: str, stream: str, **arguments: Any) -> Mapping[str, Any]:
        """The answer of JetStream's API, as STREAM.INFO."""
        payload = json.dumps(arguments).encode() if arguments else b""
        async with self._slot():
            message = await self._client.request(f"$JS.API.{operation}.{stream}", payload)
        if message.status:
            raise JetStreamError("JetStream is not enabled, on this server or for this account")
        answer = _decoded(message)
        if "error" in answer:
            raise _error(answer["error"])
        return answer

    async def get(self, stream: str, **which: Any) -> StoredMessage | None:
        """One message; nothing is missing that was acknowledged before. None: there is none."""
        if self._has_copies:
            return await self.get_from_leader(stream, **which)
        async with self._slot():
            answer = await self._client.request(
                f"$JS.API.DIRECT.GET.{stream}", json.dumps(which).encode()
            )
        if answer.status == _NO_MESSAGE:
            return None
        if answer.status:
            raise _direct_error(stream, answer)
        return _direct(answer)

    async def get_from_leader(self, stream: str, **which: Any) -> StoredMessage | None:
        """The same if the stream has copies, which may lack the newest messages."""
        try:
            answer = await self.call("STREAM.MSG.GET", stream, **which)
        except JetStreamError as error:
            if error.number == _NOT_FOUND:
                return None
            raise
        return _from_json(answer)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject."""
        return await self.get(stream, last_by_subj=subject)

    async def page(
        self, stream: str, subject: str, first: int, count: int
    ) -> Sequence[StoredMessage]:
        """Messages of a subject from a sequence on. A replica answers, which may lack the newest
        ones; and fewer are returned if they are large."""
        arguments = {
            "seq": first,
            "batch": count,
            "max_bytes": _PAGE_BYTES,
            "next_by_subj": subject,
        }
        async with self._pages, self._slot():
            answers = await self._client.request_batch(
                f"$JS.API.DIRECT.GET.{stream}", json.dumps(arguments).encode()
            )
        if answers[-1].status not in (_END_OF_BATCH, _NO_MESSAGE):
            raise _direct_error(stream, answers[-1])
        return [_direct(each) for each in answers[:-1]]

    async def last_of_each(self, stream: str, filter: str) -> Sequence[StoredMessage]:
        """The last message of each subject; nothing is missing that was acknowledged before. One
        request, unless the stream has copies or there are more than 1024 subjects."""
        if not self._has_copies:
            async with self._slot():
                answers = await self._client.request_batch(
                    f"$JS.API.DIRECT.GET.{stream}", json.dumps({"multi_last": [filter]}).encode()
                )
            if answers[-1].status in (_END_OF_BATCH, _NO_MESSAGE):
                return [_direct(each) for each in answers[:-1]]
            if answers[-1].status != _TOO_MANY:
                raise _direct_error(stream, answers[-1])
        subjects, _ = await self.subjects(stream, filter)
        found = await asyncio.gather(*(self.last(stream, each) for each in subjects))
        return [each for each in found if each is not None]

    async def has_stream(self, stream: str) -> bool:
        """Whether there is a stream of this name."""
        try:
            await self.call("STREAM.INFO", stream)
        except JetStreamError as error:
            if error.number == NO_STREAM:
                return False
            raise
        return True

    async def time(self, stream: str) -> float:
        """Seconds of the server's clock."""
        return parse_time((await self.call("STREAM.INFO", stream))["ts"])

    async def subjects(self, stream: str, filter: str) -> tuple[Sequence[str], float]:
        """The subjects that have messages, and the time of the server."""
        found: list[str] = []
        while True:
            answer = await self.call(
                "STREAM.INFO", stream, subjects_filter=filter, offset=len(found)
            )
            page = answer["state"].get("subjects") or {}
            found += page
            if len(page) < _SUBJECTS_A_PAGE:
                return found, parse_time(answer["ts"])

    async def purge(self, stream: str, subject: str, **arguments: Any) -> int:
        """Remove the messages of a subject; returns how many there were."""
        answer = await self.call("STREAM.PURGE", stream, filter=subject, **arguments)
        return int(answer["purged"])


def parse_time(text: str) -> float:
    """Seconds of a time as JetStream writes it, with nine digits of a second."""
    return datetime.fromisoformat(text).timestamp()


def _sequence(answer: Mapping[str, Any]) -> int:
    sequence = answer.get("seq")
    if not isinstance(sequence, int):
        raise EngineError(f"expected the sequence of a message from JetStream, got {answer!r:.80}")
    return sequence


def _from_json(answer: Mapping[str, Any]) -> StoredMessage:
    try:
        found = answer["message"]
        return StoredMessage(
            found["seq"],
            found["subject"],
            parse_headers(b64decode(found["hdrs"])) if "hdrs" in found else {},
            b64decode(found.get("data", "")),
            parse_time(found["time"]),
        )
    except (KeyError, TypeError, ValueError, ProtocolViolation) as error:
        raise EngineError(f"expected a message from JetStream, got {answer!r:.80}") from error


def _direct(message: NatsMessage) -> StoredMessage:
    headers = message.headers
    try:
        return StoredMessage(
            int(headers["Nats-Sequence"]),
            headers["Nats-Subject"],
            headers,
            message.payload,
            parse_time(headers["Nats-Time-Stamp"]),
        )
    except (KeyError, ValueError) as error:
        raise EngineError(f"expected a message from JetStream, got {message!r:.80}") from error


def _direct_error(stream: str, answer: NatsMessage) -> JetStreamError:
    reason = answer.description or "no answer to a direct get"
    return JetStreamError(f"{stream}: {reason} ({answer.status})", status=answer.status)


def _decoded(message: NatsMessage) -> dict[str, Any]:
    try:
        answer = json.loads(message.payload)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EngineError(
            f"expected an object of JSON from JetStream, got {message.payload[:80]!r}"
        )
    return answer


def _error(error: Mapping[str, Any]) -> JetStreamError:
    return JetStreamError(
        f"JetStream: {error.get('description')}",
        int(error.get("err_code", 0)),
        int(error.get("code", 0)),
    )
