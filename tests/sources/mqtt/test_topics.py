"""Topics of a real Mosquitto, with TLS and a password: series, retained messages, sharing."""

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from aiostream_ds import PermissionDenied
from aiostream_ds.sources.mqtt import Mqtt
from aiostream_ds.sources.panel_status import PanelStatus
from aiostream_ds.testing import Refused
from tests.servers import Mosquitto, certificates

from .connecting import VERSIONS, publish, publishing, serving, topics, until

pytestmark = pytest.mark.slow  # real servers


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto(tls=certificates().server) as server:
        yield server


async def retain(broker: Mosquitto, topic: str, payload: object) -> None:
    await publish(broker, topic, payload, retain=True)


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_topics_of_a_filter_are_series_and_retained_messages_come_first(
    broker, protocol, qos
):
    await retain(broker, "home/kitchen/climate", {"celsius": 21.5})
    async with serving(broker, protocol=protocol, qos=qos) as grafana:
        viewer = await grafana.follow(topics("home/+/climate"))
        kitchen = 'celsius {topic="home/kitchen/climate"}'
        bath = 'celsius {topic="home/bath/climate"}'
        assert (await viewer.next())[kitchen] == 21.5
        await publish(broker, "home/bath/climate", {"celsius": 24, "humidity": 60}, qos=qos)
        row = await viewer.next()
        assert (row[kitchen], row[bath]) == (None, 24)
        assert row['humidity {topic="home/bath/climate"}'] == 60


@pytest.mark.parametrize("protocol", VERSIONS)
async def test_named_levels_are_labels(broker, protocol):
    await retain(broker, "plant/north/press", 3)
    async with serving(broker, protocol=protocol) as grafana:
        viewer = await grafana.follow(topics("plant/{site}/{machine}"))
        assert (await viewer.next())['value {machine="press", site="north"}'] == 3


@pytest.mark.parametrize("protocol", VERSIONS)
async def test_each_panel_of_overlapping_filters_gets_a_message_once(broker, protocol):
    await retain(broker, "o/b", 0)
    async with serving(broker, protocol=protocol) as grafana:
        viewers = [await grafana.follow(topics(each)) for each in ("o/+", "o/#", "o/b", "{a}/b")]
        first = [await viewer.next() for viewer in viewers]
        for number in range(1, 6):
            await publish(broker, "o/b", number)
        for viewer, row in zip(viewers, first, strict=True):
            rows = [row, *(await viewer.take(5))]
            column = next(name for name in row if name.startswith("value"))
            assert [each[column] for each in rows] == [0, 1, 2, 3, 4, 5]


async def test_topics_with_any_characters_can_be_followed(broker):
    async with serving(broker) as grafana:
        for topic in ("a b", "/lead", "trail/", "a//b", "grün/ä", "{x}y", "%/\"'\\"):
            await retain(broker, topic, 1)
            viewer = await grafana.follow(topics(topic))
            assert 1 in (await viewer.next()).values()


async def test_topics_of_the_broker_itself_can_be_followed(broker):
    async with serving(broker) as grafana:
        viewer = await grafana.follow(topics("$SYS/broker/version"))
        row = await viewer.next()
        assert "mosquitto" in row['text {topic="$SYS/broker/version"}']


async def test_a_shared_subscription_divides_the_messages(broker):
    async with serving(broker) as one, serving(broker, clientId="other") as other:
        viewers = [await each.follow(topics("$share/g/s/+")) for each in (one, other)]
        for each in (one, other):  # what is published before is for nobody
            source = await each.data_source(Mqtt)
            await until(lambda broker=source._broker: broker.statistics().keys)
        async with publishing(broker) as connection:
            sent = 0

            def received() -> list[float]:
                column = 'value {topic="s/a"}'
                return [row[column] for viewer in viewers for row in viewer.rows]

            while not all(viewer.rows for viewer in viewers):
                await connection.publish("s/a", str(sent).encode(), qos=1, retain=False)
                sent += 1
            await until(lambda: len(received()) == sent)
        assert sorted(received()) == list(range(sent))


async def test_a_text_that_is_not_a_filter_is_refused_and_other_panels_go_on(broker):
    async with serving(broker) as grafana:
        viewer = await grafana.follow(topics("ok"))
        for bad in ("a/#/b", "a+", "$share/g"):
            with pytest.raises(Refused):
                await grafana.follow(topics(bad))
        while not viewer.rows:
            await publish(broker, "ok", 1)


async def test_a_payload_has_the_formats_of_all_sources(broker):
    async with serving(broker, labels=["device"]) as grafana:
        await retain(broker, "f/json", [{"device": "a", "v": 1}, {"device": "b", "v": 2}])
        viewer = await grafana.follow(topics("f/json"))
        row = await viewer.next()
        assert row['v {device="a", topic="f/json"}'] == 1
        assert row['v {device="b", topic="f/json"}'] == 2


async def test_an_empty_message_that_removes_a_retained_one_is_not_an_error(broker):
    async with serving(broker) as grafana:
        viewer = await grafana.follow(topics("gone"))
        while not viewer.rows:
            await retain(broker, "gone", b"")
            await publish(broker, "gone", 1)
        assert "left out" not in (await grafana.health())[1]


async def test_topics_are_suggested_as_one_types(broker):
    await retain(broker, "suggest/me", 1)
    async with serving(broker) as grafana:
        path = "forms/suggest?stream=topics&field=topic&typed=gest"
        answer = await grafana.resource(path)
        assert b"suggest/me" in answer.body
    async with serving(broker, discover="") as grafana:
        assert b"suggest/me" not in (await grafana.resource(path)).body
    async with serving(broker, discover="other/#") as grafana:
        assert b"suggest/me" not in (await grafana.resource(path)).body


async def test_a_topic_lingers_so_that_a_reload_does_not_subscribe_again(broker):
    async with serving(broker) as grafana:
        viewer = await grafana.follow(topics("linger"))
        source = await grafana.data_source(Mqtt)
        await until(lambda: source._broker.statistics().keys == 1)
        viewer.leave()
        await grafana.follow(topics("linger"))
        assert source._broker.statistics().connects == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("protocol", VERSIONS)
async def test_a_thousand_topics_share_one_connection(broker, protocol):
    async with serving(broker, protocol=protocol) as grafana:
        viewers = [await grafana.follow(topics(f"many/{n}")) for n in range(1_000)]
        source = await grafana.data_source(Mqtt)
        await until(lambda: source._broker.statistics().keys == 1_000, 60)
        async with publishing(broker) as connection:
            for n in range(1_000):
                await connection.publish(f"many/{n}", str(n).encode(), qos=0, retain=False)
        for n, viewer in enumerate(viewers):
            assert (await viewer.next(30))[f'value {{topic="many/{n}"}}'] == n
        assert source._broker.statistics().connects == 1
        # the connections of the source, of the last `publishing`, and none else
        assert broker.log.count("New client connected") - broker.log.count("disconnected") <= 2


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_burst_beyond_the_queue_of_a_stream_is_not_dropped(broker, monkeypatch, qos):
    monkeypatch.setattr("aiostream_ds.sources.mqtt.broker.QUEUE", 100)
    monkeypatch.setattr("aiostream_ds.sources.mqtt.arrival_queue.HIGH_WATER", 30)
    async with serving(broker, qos=qos) as grafana:
        viewer = await grafana.follow(topics("burst"))
        source = await grafana.data_source(Mqtt)
        await until(lambda: source._broker.statistics().keys)
        async with publishing(broker) as connection, anyio.create_task_group() as tasks:
            for n in range(600):
                payload = str(n).encode()
                tasks.start_soon(partial(connection.publish, "burst", payload, qos=1, retain=False))
        await until(lambda: len(viewer.rows) == 600)
        column = 'value {topic="burst"}'
        assert sorted(row[column] for row in viewer.rows) == list(range(600))
        assert source._broker.statistics().dropped == 0


MEGABYTE = 1_000_000
LARGE = 150


class VolatileMosquitto(Mosquitto):
    is_persistent = False


@asynccontextmanager
async def unread_large_messages(qos: int) -> AsyncIterator[tuple[Any, Any]]:
    """A subscriber that reads nothing while 150 MB arrive, whose memory is measured."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(VolatileMosquitto(tls=certificates().server))
        grafana = await stack.enter_async_context(serving(broker, qos=qos))
        connection = await stack.enter_async_context(publishing(broker))
        source = await grafana.data_source(Mqtt)
        async with source._broker.follow("large") as messages:
            tracemalloc.start()
            try:
                for n in range(LARGE):
                    payload = n.to_bytes(4) * (MEGABYTE // 4)
                    await connection.publish("large", payload, qos=1, retain=False)
                yield source, messages
                _, most = tracemalloc.get_traced_memory()
                assert most < 70 * MEGABYTE
            finally:
                tracemalloc.stop()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("qos", [1, 2])
async def test_large_messages_wait_in_the_broker_unacknowledged(qos):
    async with unread_large_messages(qos) as (source, messages):
        await until(lambda: source._broker.pauses)
        for n in range(LARGE):
            message = await anext(messages)
            assert int.from_bytes(message.payload[:4]) == n
        assert source._broker.statistics().dropped == 0
        assert source._details()["reading_paused"] >= 1


@pytest.mark.timeout(60)
async def test_large_messages_of_qos_0_are_dropped_counted_and_shown():
    async with unread_large_messages(0) as (source, messages):
        await until(lambda: messages.dropped > LARGE // 2)
        assert source._broker.statistics().dropped == messages.dropped
        status = PanelStatus()
        message = await status.next_message(messages)
        assert int.from_bytes(message.payload[:4]) >= messages.dropped
        shown = status.change()
        assert shown is not None and "messages were dropped: they arrive faster" in shown.text


async def test_a_filter_for_suggestions_that_is_refused_does_not_fail_save_and_test(
    broker, monkeypatch
):
    async def refuse(*_: object) -> set[str]:
        raise PermissionDenied("the broker refuses to subscribe to '#': not authorized")

    monkeypatch.setattr("aiostream_ds.sources.mqtt.topics_seen.listen", refuse)
    async with serving(broker) as grafana:
        is_healthy, text = await grafana.health()
        assert is_healthy and "not authorized; set discover to a filter" in text


@pytest.mark.parametrize("protocol", VERSIONS)
async def test_a_second_panel_that_names_levels_otherwise_gets_the_last_values(broker, protocol):
    await retain(broker, "second/a", 1)
    await retain(broker, "second/b", 2)
    async with serving(broker, protocol=protocol) as grafana:

        def received(viewer, label: str) -> set[float]:
            columns = [f'value {{{label}="{topic}"}}' for topic in ("second/a", "second/b")]
            if label == "name":
                columns = [each.replace("second/", "") for each in columns]
            return {row[each] for row in viewer.rows for each in columns if each in row} - {None}

        first = await grafana.follow(topics("second/+"))
        await until(lambda: received(first, "topic") == {1, 2})
        second = await grafana.follow(topics("second/{name}"))
        await until(lambda: received(second, "name") == {1, 2})
        await publish(broker, "second/a", 3)
        await until(lambda: received(first, "topic") == received(second, "name") == {1, 2, 3})
