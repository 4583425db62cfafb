"""One connection to a broker, which all streams of a data source share.

With QoS 1 and 2 it outlives outages: the broker keeps the session, with the messages that are sent
meanwhile, and the streams go on. With QoS 0 an outage ends the streams, which are retried.
"""

import hashlib
import platform
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Any
from zlib import crc32

import anyio

from aiostream_ds._channels.policy import Buffer, Retry
from aiostream_ds._loggers import get_logger
from aiostream_ds._tls import ssl_context
from aiostream_ds.errors import PluginError
from aiostream_ds.models import InstanceSettings
from aiostream_ds.sources.gaps import now_ms
from aiostream_ds.sources.mqtt.broker_connection import BrokerConnection, ConnectOptions
from aiostream_ds.sources.mqtt.mqtt_settings import MqttSettings
from aiostream_ds.sources.mqtt.packets import Arrival, TopicMessage
from aiostream_ds.sources.mqtt.reason_codes import UnsupportedVersion
from aiostream_ds.sources.mqtt.repeated_messages import RepeatedMessages
from aiostream_ds.sources.mqtt.topic_filters import matches
from aiostream_ds.sources.mqtt.topic_status import Outage
from aiostream_ds.upstream import Upstream

__all__ = ["Broker", "connect_options", "open_connection"]

log = get_logger(__name__)

CONCURRENCY = 32
"""Subscriptions that are requested at a time: brokers limit those without an answer."""

QUEUE = 10_000
"""Messages that wait for one stream. Of more the oldest are dropped with QoS 0; with QoS 1 and 2
nothing is read from the network until there are less, so that the broker keeps them."""

QUEUE_BYTES = 16 << 20
"""Bytes of their payloads, with the same rule; also of the last messages of a filter."""

LAST_VALUES = 100
"""Topics of a filter whose last message a later stream of the same filter gets first: the broker
sends retained ones only to the first."""

RETRY = Retry(min_delay=0.25, max_delay=10.0)
"""The delays between attempts to connect."""

_TOPICS_CACHED = 10_000
_LAST_IDENTIFIER = 268_435_455


def connect_options(settings: MqttSettings, instance: InstanceSettings) -> ConnectOptions:
    """What CONNECT has. Blocks for some milliseconds with TLS.

    Raises:
        ConfigError: a certificate or a key cannot be used.
    """
    return ConnectOptions(
        host=settings.host.strip(),
        port=settings.port or (8883 if settings.tls else 1883),
        context=ssl_context(settings) if settings.tls else None,
        user=settings.user,
        password=settings.password.reveal(),
        client_id=_client_id(settings, instance),
        keep_alive=settings.keep_alive,
        version=4 if settings.protocol == "3.1.1" else 5,
    )


def _client_id(settings: MqttSettings, instance: InstanceSettings) -> str:
    """The same for one Grafana server until the settings are saved: then the connections of both
    instances do not end each other."""
    host = platform.node()
    if settings.client_id:
        return settings.client_id.replace("{host}", host)
    content = repr((host, instance.id, instance.uid, instance.updated_ms))
    return f"grafana-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _trying_again(error: PluginError) -> str:
    return f"{error.message}; it is connected to again"


async def open_connection(options: ConnectOptions, *, any_version: bool) -> BrokerConnection:
    """Connect with MQTT 5, else with 3.1.1 if any version will do. Raises what `open` raises."""
    try:
        return await BrokerConnection.open(options)
    except UnsupportedVersion:
        if not any_version or options.version < 5:
            raise
    return await BrokerConnection.open(options._replace(version=4))


class Broker(Upstream[str, "TopicMessage | Outage"]):
    """The connection of a data source. Its keys are topic filters.

    Attributes:
        repeated: the messages that the broker has sent again.
        outages: how often an open connection was lost.
        pauses: how often nothing was read from the network, because streams were too slow.
        sessions_lost: how often the broker had not kept the session.
    """

    def __init__(self, options: ConnectOptions, settings: MqttSettings) -> None:
        super().__init__(
            name=options.server,
            buffer=Buffer(
                rows=QUEUE, bytes=QUEUE_BYTES, full="block" if settings.qos else "drop_oldest"
            ),
            retry=RETRY,
            concurrency=CONCURRENCY,
            timeout=20.0,
            last_values=LAST_VALUES,
        )
        self._options = self._resume_options = options
        self._qos = settings.qos
        self._any_version = settings.protocol == "auto"
        self._expiry = settings.session_expiry
        self._connection: BrokerConnection | None = None
        self._next: BrokerConnection | None = None  # after an outage
        self._targets: Iterable[str] = ()  # the keys of the message that is handed over
        self._filters: dict[int, str] = {}  # by subscription identifier
        self._matching: dict[str, tuple[str, ...]] = {}  # filters by topic
        self._retained: dict[str, set[str] | None] = {}  # topics by filter, see `_wants_retained`
        self.repeated = RepeatedMessages()
        self.outages = self.sessions_lost = self._earlier_pauses = 0

    @property
    def connection(self) -> BrokerConnection | None:
        """The connection, if it is open."""
        found = self._connection
        return found if found is not None and not found.is_lost else None

    @property
    def pauses(self) -> int:
        current = 0 if self._connection is None else self._connection.arrivals.pauses
        return self._earlier_pauses + current

    @property
    def _keeps_session(self) -> bool:
        return self._qos > 0

    # -- the Upstream --------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator["Broker"]:
        """Connect, with a new session."""
        options = self._options
        if self._keeps_session:
            # mosquitto stores no session that was begun with a clean start
            options = options._replace(session_expiry=self._expiry, clean_start=False)
        connection = await open_connection(options, any_version=self._any_version)
        if connection.session_present:
            connection = await self._replace_session(connection)
        self._resume_options = connection.options
        self._forget()
        self._use(connection)
        async with anyio.create_task_group() as self._subscribing:
            try:
                yield self
            finally:
                await self._end_session()
                self._subscribing.cancel_scope.cancel()

    async def messages(
        self, connection: Any
    ) -> AsyncGenerator[tuple[str, "TopicMessage | Outage"], None]:
        """The messages by topic, until the connection is lost for good."""
        while True:
            current = self._connection
            assert current is not None
            try:
                arrivals = await current.arrivals.take()
            except PluginError as error:
                if not self._can_resume(error):
                    raise
                lost = error
            else:
                for arrival in arrivals:
                    if arrival.qos and not self.repeated.add(arrival):
                        continue
                    self._targets = self._keys_of(arrival)
                    yield arrival.message.topic, arrival.message
                current.acknowledge(arrivals)
                continue
            self.outages += 1
            since, lost_at = anyio.current_time(), now_ms()
            log.warning("%s: the connection is lost: %s", self.name, lost.message)
            yield self._outage(_trying_again(lost), lost_at)
            async with aclosing(self._connect_again()) as failures:
                async for failure in failures:
                    yield self._outage(_trying_again(failure), lost_at)
            is_resumed = self._resume()
            seconds = anyio.current_time() - since
            log.info("%s: connected again after %.1f s", self.name, seconds)
            text = "" if is_resumed else "the broker has lost the session"
            if text:
                log.warning("%s: %s: messages of %.1f s may be missing", self.name, text, seconds)
            yield self._outage(text, lost_at, is_over=True)

    def _outage(self, text: str, since: int, *, is_over: bool = False) -> tuple[str, Outage]:
        """A change of an outage, for all streams."""
        self._targets = tuple(self.followed)
        return "", Outage(is_over, text, since, anyio.current_time())

    def message_bytes(self, message: "TopicMessage | Outage") -> int:
        """The bytes of the payload."""
        return len(message.payload) if isinstance(message, TopicMessage) else 0

    def keys_for(self, address: str) -> Iterable[str]:
        """The filters of the message that `messages` has just yielded."""
        return self._targets

    async def subscribe(self, connection: Any, key: str) -> None:
        """Subscribe to a topic filter."""
        found = self._connection
        assert found is not None
        identifier = self._identify(key) if found.has_identifiers else 0
        self._matching.clear()
        try:
            await found.subscribe(key, self._qos, identifier)
        except BaseException:
            self._filters.pop(identifier, None)
            raise

    async def unsubscribe(self, connection: Any, key: str) -> None:
        """End the subscription to a topic filter."""
        self._matching.clear()
        self._retained.pop(key, None)
        for identifier in [each for each, text in self._filters.items() if text == key]:
            del self._filters[identifier]
        found = self.connection
        if found is not None:
            await found.unsubscribe(key)

    # -- which streams get a message -----------------------------------------------------------

    def _identify(self, key: str) -> int:
        """A number for a filter, the same after an outage. Messages name it, so that a message of
        overlapping filters comes once for each."""
        number = crc32(key.encode()) % _LAST_IDENTIFIER + 1
        while self._filters.get(number, key) != key:
            number = number % _LAST_IDENTIFIER + 1
        self._filters[number] = key
        return number

    def _keys_of(self, arrival: Arrival) -> Iterable[str]:
        if arrival.identifiers:
            return [self._filters[each] for each in arrival.identifiers if each in self._filters]
        topic = arrival.message.topic
        found = self._matching.get(topic)
        if found is None:
            if len(self._matching) >= _TOPICS_CACHED:
                self._matching.clear()
            found = tuple(key for key in self.followed if matches(key, topic))
            self._matching[topic] = found
        if arrival.message.retain:
            return [key for key in found if self._wants_retained(key, topic)]
        return found

    def _wants_retained(self, key: str, topic: str) -> bool:
        """Whether a filter has not got the retained message of a topic. Without identifiers the
        message may be for another filter, which was subscribed to later."""
        topics = self._retained.setdefault(key, set())
        if topics is None or topic in topics:
            return False
        if len(topics) < _TOPICS_CACHED:
            topics.add(topic)
        return True

    # -- sessions ------------------------------------------------------------------------------

    def _use(self, connection: BrokerConnection) -> None:
        connection.on_release = self.repeated.release
        self._earlier_pauses = self.pauses
        self._connection, self._next = connection, None

    def _forget(self) -> None:
        """A new session begins."""
        self.repeated.reset()
        self._filters.clear()
        self._matching.clear()
        self._retained.clear()

    async def _replace_session(self, connection: BrokerConnection) -> BrokerConnection:
        """End the session of a process that was killed, whose topics are not known, and begin
        another one."""
        await self._close(connection)
        return await BrokerConnection.open(connection.options)

    async def _end_session(self) -> None:
        """Close the connection on purpose, with its session."""
        self._earlier_pauses = self.pauses
        connection, self._connection = self._next or self._connection, None
        self._next = None
        if connection is None:
            return
        try:
            with anyio.move_on_after(2.0, shield=True):
                await self._close(connection)
        except PluginError as error:
            log.warning("%s: the session could not be ended: %s", self.name, error.message)

    async def _close(self, connection: BrokerConnection) -> None:
        """Close a connection, with its session: one of MQTT 3.1.1 ends when another begins."""
        await connection.close()
        if self._keeps_session and connection.options.version < 5:
            options = connection.options._replace(clean_start=True)
            await (await BrokerConnection.open(options)).close()

    def _can_resume(self, error: PluginError) -> bool:
        return self._keeps_session and not error.permanent and bool(self.followed)

    async def _connect_again(self) -> AsyncGenerator[PluginError]:
        """Connect again, and yield why each attempt fails if it is another reason than before. A
        broker that starts may refuse a client that it has accepted before.

        Raises:
            PluginError: the session has expired.
        """
        deadline = anyio.current_time() + self._expiry
        reason = ""
        for failures in count(1):
            await anyio.sleep(RETRY.delay(failures))
            try:
                self._next = await BrokerConnection.open(self._resume_options)
            except PluginError as error:
                log.debug("%s: attempt %d failed: %s", self.name, failures, error.message)
                if anyio.current_time() > deadline:
                    raise
                if error.message != reason:
                    reason = error.message
                    yield error
            else:
                return

    def _resume(self) -> bool:
        """Use the next connection. True if the broker has kept the session."""
        connection = self._next
        assert connection is not None
        if not connection.session_present:
            self.sessions_lost += 1
            self._forget()
        self._matching.clear()
        # of MQTT 3.1.1: retained messages come again for subscriptions that the session has
        if connection.session_present and connection.options.version < 5:
            self._retained = dict.fromkeys(self.followed)
        self._use(connection)
        # its answers come between the messages, which are handed over meanwhile
        self._subscribing.start_soon(self._subscribe_again, connection)
        return connection.session_present

    async def _subscribe_again(self, connection: BrokerConnection) -> None:
        """Subscribe to all filters again: a broker that was killed may have kept an older state."""
        limiter = anyio.Semaphore(CONCURRENCY)

        async def subscribe(key: str) -> None:
            async with limiter:
                try:
                    identifier = self._identify(key) if connection.has_identifiers else 0
                    await connection.subscribe(key, self._qos, identifier, if_new=True)
                except PluginError as error:
                    if not connection.is_lost:
                        self.fail(key, error)

        async with anyio.create_task_group() as tasks:
            for key in tuple(self.followed):
                tasks.start_soon(subscribe, key)
