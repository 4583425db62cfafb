"""The source `mqtt`: the messages of topics of an MQTT broker."""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import anyio.to_thread
import msgspec
from msgspec import Meta
from msgspec.structs import replace

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._loggers import get_logger
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, resource, stream
from aiostream_ds.errors import ConfigError, PermissionDenied, PluginError, UpstreamError
from aiostream_ds.models import Health, Request, User
from aiostream_ds.sources.capabilities import DeclaredCapabilities, stream_capabilities
from aiostream_ds.sources.decoding import MessageDecoder, MessageErrors, with_labels
from aiostream_ds.sources.gaps import Gaps, now_ms
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.mqtt.broker import Broker, connect_options, open_connection
from aiostream_ds.sources.mqtt.mqtt_settings import MqttSettings
from aiostream_ds.sources.mqtt.packets import TopicMessage
from aiostream_ds.sources.mqtt.topic_filters import (
    check_filter,
    check_topic,
    matches,
    read_topic_query,
)
from aiostream_ds.sources.mqtt.topic_status import TopicStatus
from aiostream_ds.sources.mqtt.topics_seen import TopicsSeen

__all__ = ["Mqtt", "Publication"]

log = get_logger(__name__)

LINGER = 10.0
"""Seconds for which a topic stays subscribed after its last viewer has left."""

TOPICS_SHOWN = 5
"""Maximum number of topics in the message of Save & test."""

TopicText = Annotated[
    str,
    Meta(description="A topic, as home/kitchen/climate; home/+/climate, home/#, home/{place}/#"),
]


class Publication(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a panel publishes."""

    payload: Any = ""
    """A text as it is; any other value as JSON."""
    qos: Annotated[int, Meta(ge=0, le=2)] = 1
    """With 0 the broker does not answer."""
    retain: bool = False
    """Whether the broker keeps it for later subscribers."""


class Mqtt(DataSource[MqttSettings]):
    """Topics of an MQTT broker, with one connection for all panels.

    Query type `topics`, field `topic`: a topic or a topic filter. Each topic is a series, with the
    label `topic`; levels in braces are labels instead: `home/{place}/{sensor}`.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "topics": {
            "resume": "with QoS 1 and 2",
            "event_time": "if messages have a time",
            "publish": "where allowed",
        }
    }

    def __init__(self) -> None:
        self.errors = MessageErrors()
        self._gaps = Gaps("the broker has kept none of them")

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Check the settings. The first stream connects."""
        settings = self.settings
        MessageDecoder(settings)
        for text in (*settings.publish, *((settings.discover,) if settings.discover else ())):
            try:
                check_filter(text)
            except PluginError as error:
                raise ConfigError(f"publish and discover: {error.message}") from None
        self._options = await anyio.to_thread.run_sync(
            connect_options, settings, self.instance, limiter=self.threads
        )
        any_version = settings.protocol == "auto"
        self._seen = TopicsSeen(self._options, settings.discover, any_version=any_version)
        async with Broker(self._options, settings) as self._broker:
            yield

    def _is_shared(self, declared: str) -> bool:
        return self.settings.share or super()._is_shared(declared)

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings)

    async def health(self) -> Health:
        """Connect, subscribe for a second, and report what was seen and what the source can do."""
        topics = await self._seen.topics(again=True)
        version = "MQTT 5" if self._seen.version == 5 else "MQTT 3.1.1"
        tls = "with" if self.settings.tls else "without"
        found = [f"connected to {self._options.server} with {version} {tls} TLS"]
        problems = []
        if self._seen.refusal:
            problems.append(f"{self._seen.refusal}; set discover to a filter that it grants")
        elif self.settings.discover:
            shown = ", ".join(topics[:TOPICS_SHOWN]) + (", …" if len(topics) > TOPICS_SHOWN else "")
            noun = "topic" if len(topics) == 1 else "topics"
            names = f": {shown}" if topics else ""
            found.append(f"{len(topics):,} {noun} of {self.settings.discover!r} seen{names}")
        broker = self._broker
        if broker.outages:
            times = "once" if broker.outages == 1 else f"{broker.outages:,} times"
            lost = f", {broker.sessions_lost:,} without the session" if broker.sessions_lost else ""
            problems.append(f"the connection was lost {times}{lost}")
        problems += [self.errors.text(), self._gaps.text()]
        return health_report(found, problems, [f"topics {self._abilities()}"], self._details())

    def _abilities(self) -> str:
        found = stream_capabilities(type(self))["topics"]
        allowed = ", ".join(self.settings.publish)
        return replace(
            found, resume=self.settings.qos > 0, publish=f"to {allowed}" if allowed else False
        ).text()

    def _details(self) -> dict[str, Any]:
        statistics = self._broker.statistics()
        return {
            **self.errors.details(),
            "topics_followed": statistics.keys,
            "messages": statistics.messages,
            "messages_dropped": statistics.dropped,
            "reading_paused": self._broker.pauses,
            "messages_repeated": self._broker.repeated.count,
            "gaps": self._gaps.details(),
            "outages": self._broker.outages,
            "sessions_lost": self._broker.sessions_lost,
        }

    # a value that does not fit its column is left out: one message must not end the stream
    @stream(
        "topics/{topic:any}",
        linger=LINGER,
        schema=SchemaPolicy(conflict="null", labels=("topic",), series=2_000, columns=5_000),
    )
    async def topics(self, topic: TopicText) -> Rows[list[dict[str, Any]] | Status]:
        """The messages of a topic, or of all topics that a filter matches; retained ones first."""
        query = read_topic_query(topic)
        decoder = MessageDecoder(self.settings, self.errors)
        status = TopicStatus(topic, decoder, self._gaps)
        is_following = False
        try:
            async with self._broker.follow(query.filter) as messages:
                is_following = True
                changed = status.subscribed()
                if changed is not None:
                    yield changed
                while True:
                    message = await status.next_message(messages)
                    if isinstance(message, TopicMessage):
                        rows = self._rows(decoder, query.columns(message.topic), message)
                        if rows:
                            yield rows
                        changed = status.after_message()
                    else:
                        changed = status.change(message)
                    if changed is not None:
                        yield changed
        except UpstreamError:
            self._gaps.begin(topic, now_ms() if is_following else None)
            raise

    @staticmethod
    def _rows(
        decoder: MessageDecoder, columns: Mapping[str, Any], message: TopicMessage
    ) -> list[dict[str, Any]]:
        return decoder.rows(
            message.payload,
            columns,
            message.received,
            address=message.topic,
            content_type=message.content_type,
        )

    @topics.subscribe
    async def may_follow(self, user: User | None, topic: str) -> None:
        """Refuse what is not a topic filter, before the broker is asked."""
        read_topic_query(topic)

    @topics.publish
    async def publish_message(self, data: Publication, user: User | None, topic: str) -> None:
        """Publish to the topic of the channel, if the setting `publish` allows it.

        Grafana answers with a status only; the log has the broker's reason.
        """
        try:
            await self._publish_allowed(topic, data, user)
        except PluginError as error:
            log.warning("%s", error.message)
            raise

    @resource("publish/{topic:any}", method="POST")
    async def publish_by_http(self, topic: str, request: Request) -> dict[str, Any]:
        """As `publish_message`; answered with the broker's reason if it is refused."""
        return await self._publish_allowed(topic, request.json(Publication), request.user)

    async def _publish_allowed(
        self, topic: str, data: Publication, user: User | None
    ) -> dict[str, Any]:
        check_topic(topic)
        allowed = self.settings.publish
        if not any(matches(each, topic) for each in allowed):
            raise PermissionDenied(
                f"the setting publish allows {', '.join(allowed) or 'no topic'}, got {topic!r}"
            )
        text = data.payload
        payload = text.encode() if isinstance(text, str) else msgspec.json.encode(text)
        await self._publish(topic, payload, data)
        who = user.login if user else "nobody"
        log.info("published %d bytes to %r for %r", len(payload), topic, who)
        return {"topic": topic, "bytes": len(payload)}

    async def _publish(self, topic: str, payload: bytes, data: Publication) -> None:
        connection = self._broker.connection
        if connection is not None:
            await connection.publish(topic, payload, qos=data.qos, retain=data.retain)
            return
        client_id = f"{self._options.client_id}-{secrets.token_hex(4)}"  # others publish meanwhile
        options = self._options._replace(client_id=client_id)
        any_version = self.settings.protocol == "auto"
        connection = await open_connection(options, any_version=any_version)
        try:
            await connection.publish(topic, payload, qos=data.qos, retain=data.retain)
        finally:
            await connection.close()

    @topics.suggest("topic")
    async def suggest_topics(self, typed: str) -> list[str]:
        """The topics that have messages and contain the typed text, if the setting `discover`
        allows looking for them."""
        if not self.settings.discover:
            return []
        try:
            found = await self._seen.topics()
        except PluginError as error:
            log.debug("no topics to suggest: %s", error.message)
            return []
        return [topic for topic in found if typed in topic]
