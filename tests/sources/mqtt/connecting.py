"""The source against a broker: settings, and clients that publish."""

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from aiostream_ds.sources.mqtt import Mqtt
from aiostream_ds.sources.mqtt.broker_connection import BrokerConnection, ConnectOptions
from aiostream_ds.testing import Viewer, serve_in_memory
from tests.servers import Mosquitto, certificates
from tests.waiting import until as until

VERSIONS = ("5", "3.1.1")


def settings_for(broker: Mosquitto, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"host": "127.0.0.1", "port": broker.port, "user": broker.login}
    if broker.tls:
        found |= {"tls": True, "caCertificate": certificates().ca}
    return found | changes


def serving(
    broker: Mosquitto, password: str = Mosquitto.password, key: str = "", **changes: Any
) -> Any:
    """A Grafana with the source."""
    secrets = {"password": password} | ({"clientKey": key} if key else {})
    return serve_in_memory(Mqtt, settings=settings_for(broker, **changes), secrets=secrets)


def topics(text: str) -> str:
    """The path of a query."""
    return "topics/" + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@asynccontextmanager
async def publishing(broker: Mosquitto) -> AsyncGenerator[BrokerConnection]:
    """A client that publishes."""
    context = None
    if broker.tls:
        import ssl

        context = ssl.create_default_context(cadata=certificates().ca)
    connection = await BrokerConnection.open(
        ConnectOptions(
            "127.0.0.1", broker.port, context, broker.login, broker.password, "publisher", 60
        )
    )
    try:
        yield connection
    finally:
        await connection.close()


async def publish(
    broker: Mosquitto, topic: str, payload: Any, *, retain: bool = False, qos: int = 1
) -> None:
    """Publish one message: bytes as they are, anything else as JSON."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    async with publishing(broker) as connection:
        await connection.publish(topic, data, qos=qos, retain=retain)


def statuses(viewer: Viewer) -> list[dict[str, str] | None]:
    """The statuses that an exact viewer has received."""
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    return [message["status"] for message in found if "status" in message]


def values(viewer: Viewer) -> list[Any]:
    """All values that an exact viewer has received, with the times."""
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    columns = [column for each in found for column in each.get("data", {}).get("values", ())]
    return [value for column in columns for value in column]


def status_texts(viewer: Viewer) -> str:
    return " | ".join(each["text"] for each in statuses(viewer) if each)
