"""One connection to a broker, from CONNECT to its end. It is never opened again.

gmqtt splits the bytes into packets and builds those that are sent. What they mean is here and in
`packets.py`: gmqtt's own client reconnects in a task of its own, acknowledges before a message is
used, and does not return the broker's reasons.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import anyio
from gmqtt.client import Message as OutgoingMessage
from gmqtt.mqtt.package import LoginPackageFactor, Package
from gmqtt.mqtt.protocol import MQTTProtocol
from gmqtt.mqtt.utils import ConnectionState, IdGenerator
from gmqtt.subscription import Subscription

from aiostream_ds._connection_errors import address, connection_error
from aiostream_ds.errors import PluginError, UpstreamError
from aiostream_ds.sources.mqtt.arrival_queue import ArrivalQueue
from aiostream_ds.sources.mqtt.packets import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Arrival,
    PublishReader,
    acknowledgements,
    missing_bytes,
    packet_id,
    read_properties,
    reply,
)
from aiostream_ds.sources.mqtt.reason_codes import (
    TAKEN_OVER,
    connect_error,
    disconnect_text,
    publish_error,
    subscribe_error,
)

__all__ = ["BrokerConnection", "ConnectOptions"]

# it logs each packet, and each lost connection with a traceback
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)

TIMEOUT = 8.0
"""Seconds in which a broker must answer CONNECT, SUBSCRIBE, UNSUBSCRIBE and PUBLISH."""

RECEIVE_MAXIMUM = 1_000
"""Messages of QoS 1 and 2 that a broker may send before the first of them is acknowledged."""

PUBLISH_LIMIT = 16
"""Maximum number of messages that are published at a time; others wait."""

_CLOSE = 1.0  # seconds until a connection that does not close is aborted

_CLOSED = "has closed the connection"

_REFUSED = 0x80  # reason codes from here on are refusals


class ConnectOptions(NamedTuple):
    """Where a broker is, and what CONNECT has."""

    host: str
    port: int
    context: ssl.SSLContext | None
    user: str
    password: str
    client_id: str
    keep_alive: int
    version: int = 5
    """5, or 4 for MQTT 3.1.1."""
    clean_start: bool = True
    session_expiry: int = 0
    """Seconds for which the broker keeps the session of a lost connection. MQTT 3.1.1 knows only
    zero and any time."""

    @property
    def server(self) -> str:
        """The broker, for messages."""
        return f"the MQTT broker {address(self.host, self.port)}"


class _Protocol(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
    """gmqtt's, which splits what it gets into packets at once. gmqtt reads in a task, which loses
    what has arrived when the connection is lost: the reason, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._parts: list[bytes] = []  # of a packet whose end is missing
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        rest = data[self._read_packet(data) :]
        if rest:
            self._missing = missing_bytes(rest)
            self._parts.append(rest)
            if self._missing < 0:
                self._connection.lose(ValueError("malformed packet: its length has five bytes"))

    def eof_received(self) -> bool:
        return False  # then the transport is closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.ended(exc)  # before gmqtt's packet DISCONNECT
        super().connection_lost(exc)

    async def _read_loop(self) -> None:
        """Started by gmqtt."""


class BrokerConnection:
    """One connection. Open one with `open`. Not thread-safe.

    Attributes:
        options: those of CONNECT.
        session_present: whether the broker has kept the session of an earlier connection.
        has_identifiers: whether messages name the subscriptions for which they are sent.
        arrivals: the messages that were received.
        on_release: called with the packet identifier of a message of QoS 2 that the broker will not
            send again.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self.options = options
        self.session_present = False
        self.has_identifiers = options.version == 5
        self.on_release: Callable[[int], None] | None = None
        self._version = options.version
        self._loop = asyncio.get_running_loop()
        self._ids = IdGenerator()
        self._protocol: Any = _Protocol(
            connection_state=ConnectionState(protocol_version=options.version),
            id_generator=self._ids,
        )
        self._protocol.set_connection(self)
        self._transport: asyncio.Transport | None = None
        self._connack: asyncio.Future[tuple[int, Mapping[str, Any]]] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[tuple[int, str]]] = {}
        self._publishing = asyncio.Semaphore(PUBLISH_LIMIT)
        self.arrivals = ArrivalQueue(self._set_reading)
        self._lost: PluginError | None = None
        self._is_closing = False
        self._publish_reader = PublishReader(options.version)
        self._keep_alive = options.keep_alive
        self._timer: asyncio.TimerHandle | None = None
        self._last_data_out = self._last_in = time.monotonic()  # gmqtt sets the first
        self._handlers: Mapping[int, Callable[[int, bytes], None]] = {
            CONNACK: self._on_connack,
            PUBLISH: self._on_publish,
            PUBACK: self._on_puback,
            PUBREC: self._on_pubrec,
            PUBREL: self._on_pubrel,
            PUBCOMP: self._on_pubcomp,
            SUBACK: self._on_suback,
            UNSUBACK: self._on_unsuback,
            DISCONNECT: self._on_disconnect,
        }

    # -- opening and closing -------------------------------------------------------------------

    @classmethod
    async def open(cls, options: ConnectOptions) -> "BrokerConnection":
        """Connect and authenticate. Safe to cancel.

        Raises:
            ConfigError: the broker refuses the client, or TLS does not fit.
            UpstreamError: the broker cannot be reached, does not answer in time, or is busy.
            UnsupportedVersion: the broker does not support the version of MQTT.
        """
        self = cls(options)
        is_connected = False
        try:
            with anyio.fail_after(TIMEOUT):
                transport, _ = await self._loop.create_connection(
                    lambda: self._protocol, options.host, options.port, ssl=options.context
                )
                self._transport = transport
                is_connected = True
                self._send_connect()
                code, properties = await self._connack
        except BaseException as error:
            self.abort()
            if not isinstance(error, Exception):
                raise
            found = self._connect_error(error)
            if not found.permanent and found.message.endswith(_CLOSED):
                found = UpstreamError(f"{found.message} {self._closed_hint(is_connected)}")
            raise found from error
        if code:
            self.abort()
            reason = properties.get("reason_string") or properties.get("server_reference") or ""
            raise connect_error(options.server, options.user, code, reason)
        self._keep_alive = properties.get("server_keep_alive", options.keep_alive)
        self.has_identifiers = self._version == 5 and properties.get("sub_id_available", 1) == 1
        self._check_silence()
        return self

    def _connect_error(self, error: Exception) -> PluginError:
        options = self.options
        return connection_error(error, options.host, options.port, "the MQTT broker")

    def _closed_hint(self, is_connected: bool) -> str:
        """Why a server may close the connection without a word."""
        if self.options.context is None:
            return "before it answered; it may expect TLS"
        if not is_connected:
            return "during the handshake of TLS; it may not use TLS on this port"
        return "before it answered; it may demand a clientCertificate"

    def _send_connect(self) -> None:
        options = self.options
        properties: dict[str, int] = {}
        if self._version == 5:
            properties["receive_maximum"] = RECEIVE_MAXIMUM
            if options.session_expiry:
                properties["session_expiry_interval"] = options.session_expiry
        has_login = bool(options.user or options.password)
        self._protocol.write_data(
            LoginPackageFactor.build_package(
                options.client_id.encode(),
                options.user.encode() if has_login else None,
                options.password.encode() if options.password else None,
                options.clean_start,
                options.keep_alive,
                self._protocol,
                **properties,
            )
        )

    async def close(self, *, keep_session: bool = False) -> None:
        """End the connection, and the session unless it is to be kept."""
        if self._transport is None or self._ended.done():
            return
        if not self._transport.is_closing():
            self._is_closing = True
            properties: dict[str, int] = {}
            if self._version == 5 and self.options.session_expiry and not keep_session:
                properties["session_expiry_interval"] = 0
            self._protocol.send_disconnect(**properties)
            self._transport.close()
        try:
            await asyncio.wait((self._ended,), timeout=_CLOSE)
        finally:
            self.abort()

    def abort(self) -> None:
        """End the connection without DISCONNECT."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.lose(None)

    def ended(self, error: Exception | None) -> None:
        """The transport is closed."""
        if not self._ended.done():
            self._ended.set_result(None)
        self.lose(error)

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost is not None

    def lose(self, error: Exception | None) -> None:
        """The connection has ended: with an error, or because the other side has closed it."""
        if self._lost is not None:
            return
        if isinstance(error, PluginError):
            self._lost = error
        else:
            cause = error or ConnectionResetError("closed")
            self._lost = self._connect_error(cause)
        if not self._connack.done():
            self._connack.set_exception(self._lost)
            self._connack.exception()  # the opening may have been cancelled
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(UpstreamError(f"{self._lost.message}, before it answered"))
                answer.exception()
        self.arrivals.end(self._lost)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and not self._is_closing:
            self._transport.abort()

    # -- messages ------------------------------------------------------------------------------

    def acknowledge(self, arrivals: Iterable[Arrival]) -> None:
        """The messages have been handed over: the broker may forget them."""
        data = acknowledgements(arrivals)
        if data and self._lost is None:
            self._protocol.write_data(data)

    # -- requests ------------------------------------------------------------------------------

    async def subscribe(
        self, text: str, qos: int, identifier: int = 0, *, if_new: bool = False
    ) -> None:
        """Subscribe to a topic filter. Concurrent calls are allowed. Safe to cancel.

        Args:
            identifier: what messages of this subscription name; 0: nothing.
            if_new: retained messages are sent only if the session did not have the subscription;
                MQTT 3.1.1 cannot do that.

        Raises:
            PermissionDenied, BadQuery, UpstreamError: the broker refuses it.
            UpstreamError: the connection is lost, or the broker does not answer.
        """
        self._require()
        wanted = Subscription(text, qos=qos, retain_handling_options=int(if_new))
        options = {"subscription_identifier": identifier} if identifier else {}
        if self._version < 5:
            wanted.retain_handling_options = 0
        code, reason = await self._answer(
            self._protocol.send_subscribe_packet([wanted], **options),
            f"the subscription to {text!r}",
        )
        if code >= _REFUSED:
            raise subscribe_error(self.options.server, text, code, reason)

    async def unsubscribe(self, text: str) -> None:
        """End a subscription. Raises UpstreamError. Safe to cancel."""
        self._require()
        await self._answer(
            self._protocol.send_unsubscribe_packet([text.encode()]),
            f"the end of the subscription to {text!r}",
        )

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish a message; with QoS 1 and 2 until the broker has it. Safe to cancel: the message
        may have been published.

        Raises:
            PermissionDenied, BadQuery, UpstreamError: the broker refuses it.
            UpstreamError: the connection is lost, or the broker does not answer.
        """
        async with self._publishing:
            self._require()
            message = OutgoingMessage(topic, payload, qos=qos, retain=retain)
            packet_id, _ = self._protocol.send_publish(message)
            if not qos:
                return
            code, reason = await self._answer(packet_id, f"the message to {topic!r}")
        if code >= _REFUSED:
            raise publish_error(self.options.server, topic, code, reason)

    def _require(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._is_closing:
            raise UpstreamError(f"the connection to {self.options.server} is closing")

    async def _answer(self, packet_id: int, what: str) -> tuple[int, str]:
        answer: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._answers[packet_id] = answer
        try:
            with anyio.fail_after(TIMEOUT):
                return await answer
        except TimeoutError:
            raise UpstreamError(
                f"{self.options.server} has not answered {what} within {TIMEOUT:g} s"
            ) from None
        finally:
            del self._answers[packet_id]
            self._ids.free_id(packet_id)

    # -- packets -------------------------------------------------------------------------------

    def put_package(self, package: Package) -> None:
        """Called by gmqtt for each packet; and for DISCONNECT when the connection is lost."""
        self._last_in = time.monotonic()
        # none for PINGRESP, and for AUTH, which only answers a client that has sent it
        handler = self._handlers.get(package.cmd & 0xF0)
        if handler is None:
            return
        try:
            handler(package.cmd, package.data)
        except Exception as error:
            self.lose(
                UpstreamError(
                    f"{self.options.server} has sent a malformed packet of the type"
                    f" {package.cmd >> 4}: {error or type(error).__name__}"
                )
            )

    def _on_connack(self, command: int, data: bytes) -> None:
        self.session_present = bool(data[0] & 1)
        properties = read_properties(data[2:])[0] if self._version == 5 else {}
        if not self._connack.done():
            self._connack.set_result((data[1], properties))

    def _on_publish(self, command: int, data: bytes) -> None:
        if not self._is_closing:  # else nobody takes it
            self.arrivals.put(self._publish_reader.read(command, data))

    def _on_puback(self, command: int, data: bytes) -> None:
        self._resolve(data)

    def _on_pubrec(self, command: int, data: bytes) -> None:
        if len(data) > 2 and data[2] >= _REFUSED:
            self._resolve(data)
        else:
            self._protocol.write_data(reply(PUBREL, data))

    def _on_pubcomp(self, command: int, data: bytes) -> None:
        self._resolve(data)

    def _on_pubrel(self, command: int, data: bytes) -> None:
        if self.on_release is not None:
            self.on_release(packet_id(data))
        self._protocol.write_data(reply(PUBCOMP, data))

    def _on_suback(self, command: int, data: bytes) -> None:
        properties, codes = read_properties(data[2:]) if self._version == 5 else ({}, data[2:])
        self._set_answer(packet_id(data), codes[0], str(properties.get("reason_string", "")))

    def _on_unsuback(self, command: int, data: bytes) -> None:
        self._set_answer(packet_id(data), 0, "")

    def _on_disconnect(self, command: int, data: bytes) -> None:
        """Also called by gmqtt when the connection is lost, after `lose`."""
        if self._lost is not None or self._is_closing:
            return
        code = data[0] if data else 0
        properties = read_properties(data[1:])[0] if len(data) > 1 else {}
        reason = str(properties.get("reason_string", ""))
        server = self.options.server
        text = f"{server} has closed the connection: {disconnect_text(code, reason)}"
        if code == TAKEN_OVER:
            text += f", {self.options.client_id!r}; set clientId to another one on each server"
        self.lose(UpstreamError(text if code else f"{server} has closed the connection"))

    def _resolve(self, data: bytes) -> None:
        """An answer with a packet identifier, and in MQTT 5 maybe a reason code and properties."""
        code = data[2] if len(data) > 2 else 0
        properties = read_properties(data[3:])[0] if len(data) > 3 else {}
        reason = str(properties.get("reason_string", ""))
        self._set_answer(packet_id(data), code, reason)

    def _set_answer(self, packet_id: int, code: int, reason: str) -> None:
        answer = self._answers.get(packet_id)
        if answer is not None and not answer.done():
            answer.set_result((code, reason))

    # -- the event loop ------------------------------------------------------------------------

    def _set_reading(self, is_on: bool) -> None:
        if self._transport is None:
            return
        if is_on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _check_silence(self) -> None:
        """Ping the broker if nothing was sent; without an answer the connection is lost."""
        if self._lost is not None or not self._keep_alive:
            return
        now, interval = time.monotonic(), self._keep_alive / 2
        if now - self._last_in > 1.5 * self._keep_alive and not self.arrivals.is_full:
            self.lose(
                UpstreamError(
                    f"{self.options.server} has sent nothing for {now - self._last_in:.0f} s, not"
                    " even an answer to pings"
                )
            )
            return
        if now - min(self._last_in, self._last_data_out) >= interval * 0.9:
            self._protocol.send_ping_request()
        self._timer = self._loop.call_later(interval, self._check_silence)
