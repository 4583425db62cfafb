"""One connection to one NATS server: login, TLS, requests and their answers.

All happens in callbacks of the event loop: a connection has no task. When it is lost, requests that
wait for an answer fail at once, and `lost` is done.

nats-py (2.16) is not used. Of a server that does not demand TLS it takes a URL with tls:// as one
without, and sends it the password in plain text; with TLS it waits 30 seconds for a server that has
become silent before it connects again; it closes for good after most errors of a server; and it
sends what it has buffered when it is connected again, when a lease that it renews may be over.
"""

import asyncio
import itertools
import json
import os
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from aiostream_ds._nats.nats_credentials import parse_credentials
from aiostream_ds._nats.nats_errors import NatsErrors, PermanentRefusal
from aiostream_ds._nats.nats_protocol import (
    PING,
    PONG,
    NatsMessage,
    NatsParser,
    Operation,
    ProtocolViolation,
    ServerInfo,
    ServerPing,
    ServerPong,
    ServerRefusal,
    publish_command,
    quoted_subject,
    subscribe_command,
    unsubscribe_command,
)
from aiostream_ds._nats.nats_servers import NatsLogin, NatsServer
from aiostream_ds.errors import copy_error

__all__ = ["NatsConnection", "NatsOptions"]

_PING_INTERVAL = 1.0
_SILENCE = 5.0
"""Seconds without a byte of the server after which a connection is given up."""

_NO_RESPONDERS = 503

_LOGIN_ERRORS = ("authorization violation", "authentication", "account", "user authentication")


class NatsOptions(Protocol):
    """What a connection needs of the settings. `inbox` begins the subjects of answers."""

    @property
    def login(self) -> NatsLogin: ...
    @property
    def tls(self) -> ssl.SSLContext | None: ...
    @property
    def name(self) -> str: ...
    @property
    def inbox(self) -> str: ...


class _Answers:
    """The answers to one request: one, or as many as come until the end of a batch."""

    def __init__(self, subject: str, is_batch: bool) -> None:
        self.subject = subject
        self.is_batch = is_batch
        self.messages: list[NatsMessage] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, message: NatsMessage) -> None:
        self.messages.append(message)
        if (not self.is_batch or message.status) and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class NatsConnection(asyncio.Protocol):
    """A connection.

    Args:
        errors: the exceptions that it raises.
        refused: called with a subject that the server refuses and the error; the subject is empty
            if the server names none, as when there are too many subscriptions.

    Attributes:
        server: where it leads.
        info: the last INFO of the server.
        lost: done when the connection is closed, with the reason.
    """

    def __init__(
        self,
        server: NatsServer,
        options: NatsOptions,
        errors: NatsErrors,
        refused: Callable[[str, Exception], None],
    ) -> None:
        self.server = server
        self._refused = refused
        self.info: Mapping[str, Any] = {}
        self._options = options
        self._errors = errors
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._parser = NatsParser()
        self._first_info: asyncio.Future[None] = self._loop.create_future()
        self._pongs: list[asyncio.Future[None]] = []
        self._unsent: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._handlers: dict[int, Callable[[NatsMessage], object]] = {}
        self._answers: dict[str, _Answers] = {}
        self._tokens = itertools.count(1)
        self._inbox = self.new_inbox()
        self._last_received = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._refusal = ""
        self._was_opened = False
        self._inbox_error: Exception | None = None
        self._cause: Exception | None = None

    # -- opening and closing -------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and log in. When it is cancelled, the connection is closed.

        Raises:
            NatsErrors.unavailable: the server cannot be reached, or is not ready.
            ConfigError: TLS or the login is refused.
        """
        try:
            await self._connect()
            await self._first_info
            await self._start_tls()
            self._send(self._connect_command())
            self._handlers[0] = self._answer
            self._send(subscribe_command(0, f"{self._inbox}.*"))
            await self.flush()
            if self._inbox_error is not None:
                raise PermanentRefusal(str(self._inbox_error))
        except BaseException:
            self.close("it was not opened")
            raise
        self._was_opened = True
        self._check_silence()

    async def _connect(self) -> None:
        host, port = self.server.host, self.server.port
        try:
            await self._loop.create_connection(lambda: self, host, port)
        except OSError as error:
            raise self._explained(error) or self._unreachable(error) from error

    def _explained(self, error: OSError) -> Exception | None:
        explain = self._errors.explain
        return explain(self.server, error) if explain is not None else None

    def _unreachable(self, error: OSError) -> Exception:
        number = error.errno or 0  # negative: of DNS
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        return self._errors.unavailable(f"NATS {self.server} cannot be reached: {reason}")

    @property
    def timeout_reason(self) -> str:
        """Why it was not opened in time, for the user."""
        text = f"NATS {self.server} does not answer in time"
        if self.info:
            return text
        return f"{text}; it may be another kind of server, or have handshake_first in its tls"

    async def _start_tls(self) -> None:
        demanded = self.info.get("tls_required", False)
        offered = demanded or self.info.get("tls_available", False)
        context = self._options.tls
        if self.server.tls and not offered:
            raise PermanentRefusal(f"NATS {self.server} has no TLS, but its URL begins with tls://")
        if context is not None and not offered:
            raise PermanentRefusal(
                f"NATS {self.server} has no TLS, but certificates for it are configured"
            )
        if not (self.server.tls or context is not None or demanded):
            return
        if context is None:  # reads the certificates of the system
            context = await self._loop.run_in_executor(None, ssl.create_default_context)
        assert self._transport is not None
        try:
            transport = await self._loop.start_tls(
                self._transport, self, context, server_hostname=self.server.tls_name
            )
        except OSError as error:
            raise self._explained(error) or self._tls_error(error) from error
        assert transport is not None
        self._transport = transport

    def _tls_error(self, error: OSError) -> Exception:
        if not isinstance(error, ssl.SSLError):
            text = f"NATS {self.server} has closed the connection during the handshake of TLS"
            return self._errors.unavailable(text)
        if isinstance(error, ssl.SSLCertVerificationError):
            return PermanentRefusal(
                f"NATS {self.server}: its certificate is refused: {error.verify_message}"
            )
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return self._errors.unavailable(f"NATS {self.server}: TLS failed: {reason}")

    def _connect_command(self) -> bytes:
        options: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "lang": "python3",
            "version": "1",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "name": self._options.name,
        }
        options |= self._login()
        return b"CONNECT %s\r\n" % json.dumps(options).encode()

    def _login(self) -> Mapping[str, str]:
        own = self._options.login
        login = own if any(own) else self.server.login
        if login.credentials:
            credentials = parse_credentials(login.credentials)
            nonce = self.info.get("nonce")
            if not nonce:
                raise PermanentRefusal(
                    f"NATS {self.server} does not take a JWT; set a user or a token"
                )
            return {"jwt": credentials.jwt, "sig": credentials.sign(nonce)}
        if login.token:
            return {"auth_token": login.token}
        return {"user": login.user, "pass": login.password} if login.user else {}

    def close(self, reason: str) -> None:
        """Close the connection at once, without waiting for the server."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            if not self._transport.is_closing():
                self._flush_unsent()
            self._transport.abort()
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        error = self._error(reason)
        futures = [each for each in (self._first_info, *self._pongs) if not each.done()]
        for future in futures:
            future.set_exception(error)
            future.exception()  # nobody may wait for it
        for answers in self._answers.values():
            answers.fail(self._error(reason))
        self._writable.set()

    def _error(self, reason: str) -> Exception:
        if self._cause is not None:
            return copy_error(self._cause)
        text = f"NATS {self.server}: {reason}"
        lower = reason.lower()
        is_late = lower.startswith("authentication timeout")  # this process was too busy
        if is_late or not any(lower.startswith(each) for each in _LOGIN_ERRORS):
            return self._errors.unavailable(text)
        text = f"{text}; {self._errors.login_hint}"
        # a login that ends later is an error of requests, and a refusal of the next connection
        return self._errors.unavailable(text) if self._was_opened else PermanentRefusal(text)

    # -- what the event loop calls -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(exc, OSError) and not (self._was_opened or self._refusal):
            self._cause = self._explained(exc)  # as a certificate that the server refuses
        self._end(self._refusal or "the connection is lost")

    def pause_writing(self) -> None:
        """Called by the event loop when the server does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._last_received = self._loop.time()
        try:
            for operation in self._parser.feed(data):
                self._process(operation)
        except ProtocolViolation as error:
            self.close(f"it does not answer as NATS does: {error}")

    def _process(self, operation: Operation) -> None:
        if isinstance(operation, NatsMessage):
            handler = self._handlers.get(operation.subscription)
            if handler is not None:
                handler(operation)
        elif isinstance(operation, ServerPing):
            self._send(PONG)
        elif isinstance(operation, ServerPong):
            if self._pongs and not (pong := self._pongs.pop(0)).done():
                pong.set_result(None)
        elif isinstance(operation, ServerInfo):
            self.info = operation.values
            if not self._first_info.done():
                self._first_info.set_result(None)
        else:
            self._refuse(operation)

    def _refuse(self, refusal: ServerRefusal) -> None:
        """An error that concerns one subject, or one after which the server closes."""
        text = refusal.text
        if not text.lower().startswith("permissions violation"):
            self._refusal = text  # after most errors the server closes the connection
            for pong in self._pongs:
                if not pong.done():
                    pong.set_exception(self._error(text))
                    pong.exception()
            self._refused("", self._error(text))
            return
        subject = quoted_subject(text)
        error = self._errors.missing_permission(f"NATS {self.server}: {text}")
        if subject == f"{self._inbox}.*":
            self._inbox_error = error
        for answers in self._answers.values():
            if answers.subject == subject:
                answers.fail(error)
        self._refused(subject, error)

    def _check_silence(self) -> None:
        """Called each second."""
        if self.lost.done():
            return
        if self._loop.time() - self._last_received > _SILENCE:
            self.close("the server does not answer")
            return
        self._send(PING)
        self._pongs.append(self._loop.create_future())
        self._timer = self._loop.call_later(_PING_INTERVAL, self._check_silence)

    # -- sending -------------------------------------------------------------------------------

    @property
    def has_tls(self) -> bool:
        """Whether the connection is encrypted."""
        transport = self._transport
        return transport is not None and transport.get_extra_info("ssl_object") is not None

    @property
    def silence(self) -> float:
        """Seconds since the server has sent something, which it does each second."""
        return self._loop.time() - self._last_received

    def new_inbox(self) -> str:
        """A subject for answers to a subscription of its own."""
        return f"{self._options.inbox}.{secrets.token_hex(11)}"

    @property
    def max_payload(self) -> int:
        """Most bytes of headers and payload together."""
        return int(self.info.get("max_payload", 1 << 20))

    def _send(self, command: bytes) -> None:
        """Send with everything else that is sent in this step of the event loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush_unsent)
        self._unsent.append(command)

    def _flush_unsent(self) -> None:
        commands, self._unsent = self._unsent, []
        if commands and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(commands))

    async def flush(self) -> None:
        """Wait until the server has processed what was sent. Raises as `request`."""
        self._raise_if_lost()
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._send(PING)
        await pong

    def subscribe(
        self, number: int, subject: str, handler: Callable[[NatsMessage], object]
    ) -> None:
        """Call a function for each message of a subject. The number is from 1."""
        self._handlers[number] = handler
        self._send(subscribe_command(number, subject))

    def unsubscribe(self, number: int) -> None:
        """End a subscription; no message of it comes any more."""
        if self._handlers.pop(number, None) is not None:
            self._send(unsubscribe_command(number))

    async def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str], reply: str = ""
    ) -> None:
        """Publish; answers go to a subscription of the subject `reply`. Raises as `request`."""
        await self._writable.wait()
        self._raise_if_lost()
        self._send(publish_command(subject, reply, headers, payload))

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        is_batch: bool = False,
    ) -> Sequence[NatsMessage]:
        """Publish, and wait for the answer, or for those of a batch with their end.

        Raises:
            NatsErrors.unavailable: the connection is lost; the server may have processed it.
            NatsErrors.missing_permission: the user may not publish to this subject.
        """
        token, answers = await self._ask(subject, payload, headers or {}, is_batch=is_batch)
        try:
            await answers.done
        finally:
            del self._answers[token]
        return answers.messages

    async def has_subscribers(self, subject: str, headers: Mapping[str, str]) -> bool:
        """Publish without a payload: whether the server has a subscriber for that. Nobody answers;
        if there is none, the server does so before it answers a PING. Raises as `request`."""
        token, answers = await self._ask(subject, b"", headers)
        try:
            await self.flush()
        finally:
            del self._answers[token]
            error = answers.done.exception() if answers.done.done() else None
        if error is not None:
            raise error
        return not any(each.status == _NO_RESPONDERS for each in answers.messages)

    async def _ask(
        self, subject: str, payload: bytes, headers: Mapping[str, str], *, is_batch: bool = False
    ) -> tuple[str, _Answers]:
        """Publish with an inbox for answers. Raises as `request`."""
        await self._writable.wait()
        self._raise_if_lost()
        token = format(next(self._tokens), "x")
        answers = self._answers[token] = _Answers(subject, is_batch)
        self._send(publish_command(subject, f"{self._inbox}.{token}", headers, payload))
        return token, answers

    def _answer(self, message: NatsMessage) -> None:
        answers = self._answers.get(message.subject.rpartition(".")[2])
        if answers is not None:
            answers.add(message)

    def _raise_if_lost(self) -> None:
        if self.lost.done():
            raise self._error(self.lost.result())
