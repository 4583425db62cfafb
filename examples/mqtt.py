"""MQTT: JSON payloads of many topics as series, over one connection. Needs aiomqtt.

Try it:  aiostream-ds dev examples/mqtt.py --path 'topics/home/+/climate' --set host=localhost
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from aiomqtt import Client, Message, MqttCodeError, ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from aiostream_ds import (
    ConfigError,
    DataSource,
    Rows,
    SchemaPolicy,
    Secret,
    Settings,
    Upstream,
    secret,
    serve,
    stream,
)


class Broker(Settings):
    host: str
    port: int = 1883
    login: str = ""
    password: Secret = secret()


class Topics(Upstream[str, Message]):
    def __init__(self, broker: Broker) -> None:
        super().__init__(name=f"the MQTT broker {broker.host}:{broker.port}")
        self.client = partial(
            Client,
            broker.host,
            broker.port,
            username=broker.login or None,
            password=broker.password.reveal() or None,
            protocol=ProtocolVersion.V5,
        )
        self.filters: list[str] = []  # by subscription identifier, from 1 on

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Client]:
        try:
            async with self.client() as client:
                self.filters.clear()
                yield client
        except MqttCodeError as error:
            if getattr(error.rc, "value", error.rc) in {134, 135}:  # wrong password, not authorized
                raise ConfigError(f"{self.name} refuses the login: {error}") from error
            raise

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
    return {"topic": str(message.topic), **(value if isinstance(value, dict) else {"value": value})}


class Mqtt(DataSource[Broker]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        async with Topics(self.settings) as self.topics:
            yield

    @stream("topics/{topic:any}", schema=SchemaPolicy(labels=("topic",), conflict="null"))
    async def topic(self, topic: str) -> Rows:
        async with self.topics.follow(topic) as messages:
            async for message in messages:
                yield to_row(message)


if __name__ == "__main__":
    serve(Mqtt)
