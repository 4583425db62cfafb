"""What viewers and Save & test see of a broker that refuses, is silent, or sends what is not a row;
other topics go on."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from aiostream_ds.sources.mqtt import broker_connection
from tests.servers import Mosquitto, Proxy, certificates

from .connecting import publish, publishing, serving, status_texts, statuses, topics, until, values

pytestmark = pytest.mark.slow  # real servers

CERTIFICATES = certificates()


@pytest.fixture(scope="module")
def broker():
    with Mosquitto(tls=CERTIFICATES.server) as server:
        yield server


async def shown(serving_, seconds: float = 15.0) -> str:
    """What an exact panel shows when its broker cannot be used, which is what Save & test shows."""
    async with serving_ as grafana:
        is_healthy, text = await grafana.health()
        assert not is_healthy
        viewer = await grafana.follow("x/" + topics("a"))
        await until(lambda: text in status_texts(viewer), seconds)
        assert not values(viewer)
        return text


async def test_a_wrong_password_is_named_and_not_tried_again(broker):
    text = await shown(serving(broker, password="wrong"))
    assert "refuses the user 'grafana': not authorized; check user and password" in text
    text = await shown(serving(broker, password="wrong", protocol="3.1.1"))
    assert "refuses the user 'grafana': not authorized" in text
    text = await shown(serving(broker, user="", password=""))
    assert "refuses a client without a user" in text


async def test_a_certificate_that_is_not_trusted_is_named(broker):
    text = await shown(serving(broker, caCertificate=CERTIFICATES.other_ca))
    assert "unknown authority" in text
    for certificate, words in (
        (CERTIFICATES.expired, "expired"),
        (CERTIFICATES.other_name, "serverName"),
    ):
        with Mosquitto(tls=certificate) as server:
            assert words in await shown(serving(server))
    assert "caCertificate must have a block" in await shown_settings(broker, caCertificate="x")


async def shown_settings(broker, **changes) -> str:
    async with serving(broker, **changes) as grafana:
        is_healthy, text = await grafana.health()
        assert not is_healthy
        return text


async def test_a_broker_that_demands_a_certificate_of_its_clients():
    client = CERTIFICATES.client
    with Mosquitto(tls=CERTIFICATES.server, client_ca=CERTIFICATES.ca) as server:
        ok = {"clientCertificate": client.certificate, "key": client.key}
        async with serving(server, **ok) as grafana:
            assert (await grafana.health())[0]
        async with serving(server) as grafana:
            viewer = await grafana.follow("x/" + topics("a"))
            for _ in range(3):  # the broker's reason may be lost with the connection
                assert "clientCertificate" in (await grafana.health())[1]
            await until(lambda: "clientCertificate" in status_texts(viewer))


async def test_tls_on_one_side_only_is_named(broker):
    text = await shown(serving(broker, tls=False))
    assert "has closed the connection before it answered; it may expect TLS" in text
    with Mosquitto() as plain:
        text = await shown(serving(plain, tls=True, caCertificate=CERTIFICATES.ca))
        assert "TLS" in text


async def test_settings_that_cannot_be_used_are_named(broker):
    assert "publish and discover" in await shown_settings(broker, discover="a/#/b")
    assert "publish and discover" in await shown_settings(broker, publish=["a+"])
    assert "qos" in await shown_settings(broker, qos=3)
    text = await shown_settings(broker, host="no-such-host.invalid")
    assert "'no-such-host.invalid' is not found by DNS" in text


async def test_a_broker_that_does_not_listen_or_answer_is_named_and_tried_again(
    broker, monkeypatch
):
    monkeypatch.setattr(broker_connection, "TIMEOUT", 0.5)
    with Proxy(broker.port) as proxy:
        proxy.hold()
        async with serving(broker, port=proxy.port) as grafana:
            assert "does not answer in time" in (await grafana.health())[1]
            viewer = await grafana.follow("x/" + topics("b"))
            await until(lambda: "does not answer in time" in status_texts(viewer))
            proxy.refuse()
            await until(lambda: "refuses the connection" in status_texts(viewer))
            proxy.restore()
            while not values(viewer):
                await publish(broker, "b", 1)
            await until(lambda: statuses(viewer)[-1] is None or "missing" in status_texts(viewer))


@pytest.mark.slow
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_broker_that_falls_silent_is_noticed_by_pings(broker, qos):
    with Proxy(broker.port) as proxy:
        async with serving(broker, port=proxy.port, keepAlive=2, qos=qos) as grafana:
            viewer = await grafana.follow("x/" + topics("silent"))
            while not values(viewer):
                await publish(broker, "silent", 1)
            await asyncio.sleep(5)  # pings keep a connection without messages
            assert not status_texts(viewer)
            proxy.hold()
            await until(lambda: "not even an answer to pings" in status_texts(viewer))
            proxy.cut()
            proxy.restore()
            while 2 not in values(viewer):
                await publish(broker, "silent", 2)


async def test_bad_messages_are_counted_and_other_topics_go_on(broker):
    rng = random.Random(5)
    payloads = [rng.randbytes(rng.randrange(1, 60)) for _ in range(300)]
    payloads += [b'{"v": 1', b"\xff\xfe", b"[" * 20_000, b'{"time": "never", "v": 1}', b"\0"]
    async with serving(broker, format="json") as grafana:
        bad = await grafana.follow("x/" + topics("bad"))
        good = await grafana.follow(topics("good"))
        while not (values(bad) and good.rows):
            await publish(broker, "bad", {"v": 1})
            await publish(broker, "good", {"v": 1})
        async with publishing(broker) as connection:
            for payload in payloads:
                await connection.publish("bad", payload, qos=1, retain=False)
        await publish(broker, "bad", {"v": 77})
        await publish(broker, "good", {"v": 77})
        await until(lambda: 77 in values(bad) and good.rows[-1].get('v {topic="good"}') == 77)
        assert "rows left out" in status_texts(bad)
        is_healthy, text = await grafana.health()
        assert is_healthy and "left out; the first of bad:" in text


async def test_a_message_of_ten_megabytes_is_left_out_and_named(broker):
    async with serving(broker) as grafana:
        large = await grafana.follow("x/" + topics("large"))
        other = await grafana.follow(topics("other"))
        while not (values(large) and other.rows):
            await publish(broker, "large", 1)
            await publish(broker, "other", 1)
        await publish(broker, "large", b"x" * 10_000_000)
        await until(lambda: "expected at most 1,000,000 bytes" in status_texts(large))
        await publish(broker, "large", 5)
        await publish(broker, "other", 5)
        await until(lambda: 5 in values(large))
        await until(lambda: other.rows[-1].get('value {topic="other"}') == 5)


# -- a broker that breaks the protocol -------------------------------------------------------------

CONNACK = b"\x20\x03\x00\x00\x00"


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncGenerator[int]:
    """A server that answers each packet of a client; None closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(2)  # each is shorter than 128 bytes
                found = answer(head + await reader.readexactly(head[1]))
                if found is None:
                    break
                writer.write(found)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def subscribed(packets: bytes) -> Callable[[bytes], bytes | None]:
    """A broker that grants each subscription and sends these bytes after it."""

    def answer(data: bytes) -> bytes | None:
        if data[0] == 0x10:
            return CONNACK
        if data[0] == 0x82:
            return b"\x90\x04" + data[2:4] + b"\x00\x00" + packets
        return b"" if data[0] != 0xE0 else None

    return answer


@pytest.mark.parametrize(
    ("packets", "text"),
    [
        (b"\x30\x02\x00\x09", "malformed packet of the type 3"),  # a topic beyond the end
        (b"\x30\x05\x00\x02\xff\xfe\x00", "malformed packet of the type 3"),
        (b"\x30\x06\x00\x01a\x02\x7f\x00", "malformed packet of the type 3"),  # a property
        (b"\x30\xff\xff\xff\xff\xff\xff", "its length has five bytes"),
        (b"\xe0\x02\x8b\x00", "the broker is shutting down"),
        (b"\xe0\x02\x8e\x00", "another client has connected with the same client id, 'grafana-"),
        (b"\xe0\x00", "has closed the connection"),
    ],
)
async def test_a_broker_that_breaks_the_protocol_is_named(packets, text):
    async with answering(subscribed(packets)) as port:
        found = Mosquitto.__new__(Mosquitto)
        found.port, found.tls = port, None
        async with serving(found, qos=0) as grafana:
            viewer = await grafana.follow("x/" + topics("a"))
            await until(lambda: text in status_texts(viewer))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x87, "refuses to subscribe to 'a': not authorized"),
        (0x8F, "the topic filter is refused"),
        (0x9E, "shared subscriptions are not supported"),
        (0x97, "a quota is exceeded"),
    ],
)
async def test_a_refused_subscription_is_named_and_others_go_on(code, text):
    def answer(data: bytes) -> bytes | None:
        if data[0] == 0x10:
            return CONNACK
        if data[0] != 0x82:
            return b""
        refused = data[-2:-1] == b"a"
        suback = b"\x90\x04" + data[2:4] + b"\x00" + (bytes([code]) if refused else b"\x00")
        return suback if refused else suback + b"\x30\x06\x00\x01b\x0042"[:8]

    async with answering(answer) as port:
        found = Mosquitto.__new__(Mosquitto)
        found.port, found.tls = port, None
        async with serving(found, qos=0) as grafana:
            viewer = await grafana.follow("x/" + topics("a"))
            other = await grafana.follow(topics("b"))
            await until(lambda: text in status_texts(viewer))
            assert (await other.next())['value {topic="b"}'] == 42


async def test_a_broker_without_mqtt_5_is_connected_to_with_3_1_1():
    def answer(data: bytes) -> bytes | None:
        if data[0] == 0x10:
            return b"\x20\x02\x00\x00" if data[8] == 4 else b"\x20\x02\x00\x01"
        if data[0] == 0x82:
            return b"\x90\x03" + data[2:4] + b"\x00\x30\x04\x00\x01a7"
        return b""

    async with answering(answer) as port:
        found = Mosquitto.__new__(Mosquitto)
        found.port, found.tls = port, None
        async with serving(found, qos=0) as grafana:
            assert "with MQTT 3.1.1" in (await grafana.health())[1]
            viewer = await grafana.follow(topics("a"))
            assert (await viewer.next())['value {topic="a"}'] == 7
        async with serving(found, protocol="5") as grafana:
            assert "unsupported version of MQTT" in (await grafana.health())[1]
