"""The MQTT example with a real Mosquitto, which is killed and started again."""

import base64
import json
import time
from collections.abc import Iterator

import pytest
from aiomqtt import Client

from aiostream_ds.testing import serve_in_memory
from tests.servers import Mosquitto

from .loading import load

mqtt = load("mqtt")
KITCHEN = 'celsius {topic="home/kitchen/climate"}'
BATH = 'celsius {topic="home/bath/climate"}'


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as server:
        yield server


def serving(broker: Mosquitto, password: str = Mosquitto.password):
    settings = {"host": "127.0.0.1", "port": broker.port, "login": broker.login}
    return serve_in_memory(mqtt.Mqtt, settings=settings, secrets={"password": password})


async def publish(broker: Mosquitto, topic: str, payload: object, retain: bool = False) -> None:
    login = {"username": broker.login, "password": broker.password}
    async with Client("127.0.0.1", broker.port, **login) as client:
        await client.publish(topic, json.dumps(payload), qos=1, retain=retain)


def path(pattern: str) -> str:
    return "topics/" + base64.urlsafe_b64encode(pattern.encode()).decode().rstrip("=")


async def test_topics_of_a_wildcard_are_series(broker: Mosquitto):
    await publish(broker, "home/kitchen/climate", {"celsius": 21.5}, retain=True)
    async with serving(broker) as grafana:
        viewer = await grafana.follow(path("home/+/climate"))
        assert (await viewer.next())[KITCHEN] == 21.5  # the retained value
        await publish(broker, "home/bath/climate", {"celsius": 24, "humidity": 60})
        row = await viewer.next()
    assert (row[KITCHEN], row[BATH]) == (None, 24)
    assert row['humidity {topic="home/bath/climate"}'] == 60


async def test_overlapping_wildcards_get_each_message_once(broker: Mosquitto):
    async with serving(broker) as grafana:
        await publish(broker, "a/b", 0, retain=True)
        one, both = await grafana.follow(path("a/+")), await grafana.follow(path("a/#"))
        await one.next(), await both.next()
        for number in (1, 2):
            await publish(broker, "a/b", number)
        column = 'value {topic="a/b"}'
        assert [row[column] for row in await one.take(2)] == [1, 2]
        assert [row[column] for row in await both.take(2)] == [1, 2]


async def test_a_payload_that_is_no_object_is_a_value(broker: Mosquitto):
    async with serving(broker) as grafana:
        await publish(broker, "door", "open", retain=True)
        viewer = await grafana.follow(path("door"))
        assert (await viewer.next())['value {topic="door"}'] == "open"


async def test_a_payload_does_not_replace_the_time_and_the_topic(broker: Mosquitto):
    began = time.time() * 1000
    async with serving(broker) as grafana:
        payload = {"time": 1_600_000_000, "topic": "another", "celsius": 21.5}
        await publish(broker, "home/kitchen/climate", payload, retain=True)
        row = await (await grafana.follow(path("home/kitchen/climate"))).next()
    assert row[KITCHEN] == 21.5 and row["time"] >= began - 1


@pytest.mark.slow
async def test_rows_come_again_after_the_broker_was_killed(broker: Mosquitto):
    async with serving(broker) as grafana:
        viewer = await grafana.follow(path("home/+/climate"))
        await publish(broker, "home/bath/climate", {"celsius": 24}, retain=True)
        while (await viewer.next()).get(BATH) != 24:
            pass
        broker.restart()
        await publish(broker, "home/bath/climate", {"celsius": 25}, retain=True)
        while (await viewer.next(timeout=15)).get(BATH) != 25:
            pass
        assert (await grafana.health())[0]


async def test_a_wrong_password_is_named_by_save_and_test(broker: Mosquitto):
    async with serving(broker, "wrong") as grafana:
        is_healthy, text = await grafana.health()
    assert not is_healthy and text.startswith("the MQTT broker 127.0.0.1:")
    assert "Not authorized" in text
