"""MQTT: JSON payloads of many topics as series, over one connection. Needs aiomqtt.

Try it:  aiostream-ds dev examples/mqtt.py --path 'topics/home/+/climate' --set host=localhost
"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiomqtt import Client, Message, MqttCodeError, MqttError, ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import aiostream_ds as ds


class Broker(ds.Settings):
    host: str
    port: int = 1883
    login: str = ""
    password: ds.Secret = ds.secret()


def refused(error: MqttCodeError) -> type[ds.ConfigError] | None:
    """A wrong password, or a missing permission: another attempt cannot help."""
    return ds.ConfigError if getattr(error.rc, "value", error.rc) in {134, 135} else None


class Topics(ds.Upstream[str, Message]):
    declared_errors = {MqttCodeError: refused, MqttError: ds.UpstreamError}

    def __init__(self, broker: Broker) -> None:
        super().__init__(name=f"the MQTT broker {broker.host}:{broker.port}")
        self.broker = broker

    def connect(self) -> Client:
        self.filters: list[str] = []  # by subscription identifier, from 1 on
        return Client(
            self.broker.host,
            self.broker.port,
            username=self.broker.login or None,
            password=self.broker.password.reveal() or None,
            protocol=ProtocolVersion.V5,
        )

    async def subscribe(self, client: Client, key: str) -> None:
        self.filters.append(key)
        properties: Any = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        properties.SubscriptionIdentifier = len(self.filters)
        await client.subscribe(key, qos=1, properties=properties)

    async def unsubscribe(self, client: Client, key: str) -> None:
        await client.unsubscribe(key)

    async def messages(self, client: Client) -> AsyncGenerator[tuple[str, Message]]:
        async for message in client.messages:
            properties: Any = message.properties
            # a message of overlapping filters comes once for each of them
            for number in properties.SubscriptionIdentifier:
                yield self.filters[number - 1], message


def to_row(message: Message) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(message.payload)
    except msgspec.DecodeError:
        value = message.payload.decode(errors="replace")
    row = {"time": datetime.now(UTC), "topic": str(message.topic)}  # a payload does not change them
    return row | (value if isinstance(value, dict) else {"value": value}) | row


class Mqtt(ds.DataSource[Broker]):
    def lifespan(self) -> Topics:
        self.topics = Topics(self.settings)
        return self.topics

    @ds.stream("topics/{topic:any}", schema=ds.SchemaPolicy(labels=("topic",), conflict="null"))
    async def topic(self, topic: str) -> ds.Rows:
        async for message in self.topics.follow(topic):
            yield to_row(message)


if __name__ == "__main__":
    ds.serve(Mqtt)
