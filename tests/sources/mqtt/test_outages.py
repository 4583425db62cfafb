"""Rows over restarts of the broker and a cut network: exact with QoS 1 and 2; with QoS 0 what is
missing is in the outages that the panel names."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aiostream_ds import UpstreamError
from aiostream_ds.sources.mqtt.broker_connection import BrokerConnection
from aiostream_ds.sources.mqtt.packets import Arrival, TopicMessage
from aiostream_ds.sources.mqtt.repeated_messages import RepeatedMessages
from tests.exact.hosts import open_node
from tests.servers import Mosquitto, Proxy, certificates
from tests.sources.outage_run import run_outages

from .connecting import publishing, serving, settings_for, status_texts, topics

BUILTIN = "from aiostream_ds.sources.builtin_plugin import main; main()"


class Writer:
    """Publishes numbers with QoS 1, each once: the topic is not ended by an outage."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._stack = contextlib.AsyncExitStack()
        self._connection: BrokerConnection | None = None

    async def write(self, numbers: Sequence[int]) -> list[int]:
        return [number for number in numbers if await self._publish(number)]

    async def _publish(self, number: int) -> bool:
        """False if it is not known whether the broker has the number: it is not compared then."""
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._stack.enter_async_context(
                        publishing(self._broker)
                    )
            except UpstreamError:
                await asyncio.sleep(0.02)
                continue
            try:
                await self._connection.publish(
                    "n", json.dumps({"n": number}).encode(), qos=1, retain=False
                )
            except UpstreamError:
                self._connection = None
                await self._stack.aclose()
                return False
            return True

    async def aclose(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def writing(broker: Mosquitto) -> AsyncGenerator[Writer]:
    writer = Writer(broker)
    try:
        yield writer
    finally:
        await writer.aclose()


class Keeping(Mosquitto):
    """A broker that keeps all messages of an outage; by default it keeps 1,000."""

    saves_changes = True
    """Whether it saves each change, so that one that is killed loses nothing: that is slow."""

    def _lines(self) -> list[str]:
        lines = [*super()._lines(), "max_queued_messages 0"]
        return [each for each in lines if self.saves_changes or "autosave" not in each]


def numbers(viewer) -> list[int]:
    """The numbers that an exact viewer has received."""
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    return [int(n) for each in found if "data" in each for n in each["data"]["values"][-1]]


async def outcome_of(restart: str = "restart", **changes):
    with (
        Keeping(tls=certificates().server) as broker,
        Proxy(broker.port) as proxy,
    ):

        def stop_and_start() -> None:
            broker.stop()
            broker.start()

        act = broker.restart if restart == "restart" else stop_and_start
        if restart != "restart":
            broker.stop()
            broker.saves_changes = False
            broker.start()
        async with (
            serving(broker, port=proxy.port, **changes) as grafana,
            writing(broker) as writer,
        ):
            viewer = await grafana.follow("x/" + topics("n"))
            outcome = await run_outages(writer.write, lambda: numbers(viewer), act, proxy)
            return outcome, status_texts(viewer), (await grafana.health())[1]


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize("restart", ["restart", "stop_and_start"])
@pytest.mark.parametrize(("qos", "protocol"), [(1, "5"), (2, "5"), (1, "3.1.1")])
async def test_no_row_is_lost_or_doubled_with_a_session(qos, protocol, restart):
    outcome, texts, health = await outcome_of(restart, qos=qos, protocol=protocol)
    assert outcome.lost == outcome.doubled == outcome.out_of_order == 0, outcome
    assert "it is connected to again" in texts and "missing" not in texts
    assert health.endswith("the connection was lost 3 times")


@pytest.mark.go
@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_no_row_is_lost_or_doubled_under_the_go_host(host_binary: Path):
    received: list[int] = []
    names: list[str] = []

    def receive(packet: dict[str, Any]) -> None:
        if "schema" in packet:
            names[:] = [field["name"] for field in packet["schema"]["fields"]]
        if packet.get("data", {}).get("values"):
            received.extend(map(int, packet["data"]["values"][names.index('n {topic="n"}')]))

    with Keeping(tls=certificates().server) as broker, Proxy(broker.port) as proxy:
        broker.stop()
        broker.saves_changes = False
        broker.start()

        def stop_and_start() -> None:
            broker.stop()
            broker.start()

        settings = settings_for(broker, source="mqtt", port=proxy.port)
        secrets = {"password": broker.password}
        command = [sys.executable, "-c", BUILTIN]
        async with (
            writing(broker) as writer,
            open_node(host_binary, command, settings, secrets) as node,
        ):
            await node.subscribe(topics("n"), receive)
            outcome = await run_outages(writer.write, lambda: received, stop_and_start, proxy)
            assert node.starts == 1
    assert outcome.is_exact, outcome


@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_with_qos_0_the_panel_names_each_outage_and_only_their_rows_are_lost():
    outcome, texts, health = await outcome_of(qos=0)
    assert outcome.doubled == outcome.out_of_order == 0
    assert 1 <= len(outcome.gaps) <= 3, outcome
    named = texts.count("UTC may be missing")
    assert named >= len(outcome.gaps), texts


@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_a_broker_that_does_not_keep_sessions_is_named():
    class Forgetful(Mosquitto):
        def _lines(self) -> list[str]:
            return [each for each in super()._lines() if "persist" not in each]

    with Forgetful() as broker:
        async with serving(broker) as grafana, writing(broker) as writer:
            viewer = await grafana.follow("x/" + topics("n"))
            while not numbers(viewer):
                await writer.write([0])
            broker.restart()
            while 1 not in numbers(viewer):
                await writer.write([1])
            assert "the broker has lost the session" in status_texts(viewer)
            text = (await grafana.health())[1]
            assert "the connection was lost once, 1 without the session" in text


def arrival(packet_id: int, payload: bytes, *, repeated: bool = False, qos: int = 1) -> Arrival:
    return Arrival(TopicMessage("t", payload, False, 0, ""), (), qos, packet_id, repeated)


def test_a_message_is_the_same_only_if_its_number_and_content_are():
    messages = RepeatedMessages()
    assert messages.add(arrival(1, b"a"))
    assert messages.add(arrival(2, b"a"))  # an equal value is another message
    assert not messages.add(arrival(1, b"a", repeated=True))
    assert messages.add(arrival(2, b"b", repeated=True))  # the number was used again
    assert messages.add(arrival(2, b"b"))
    assert messages.add(arrival(3, b"a", repeated=True))  # its first delivery did not arrive
    assert messages.count == 1
    messages.reset()
    assert messages.add(arrival(1, b"a", repeated=True))


def test_a_message_of_qos_2_is_the_same_until_it_is_released():
    messages = RepeatedMessages()
    assert messages.add(arrival(1, b"a", qos=2))
    assert not messages.add(arrival(1, b"a", qos=2, repeated=True))
    messages.release(1)
    assert messages.add(arrival(1, b"a", qos=2))
    assert messages.count == 1


@pytest.mark.slow
def test_what_is_remembered_is_bounded():
    messages = RepeatedMessages()
    for number in range(1, 50_000):
        assert messages.add(arrival(number, b"a"))
    assert len(messages._at_least_once) == 1_000
    assert not messages.add(arrival(49_999, b"a", repeated=True))
    assert messages.add(arrival(1, b"a", repeated=True))
