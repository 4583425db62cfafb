"""The bytes of MQTT's packets: what a PUBLISH has, properties, acknowledgements."""

import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gmqtt.mqtt.property import Property
from gmqtt.mqtt.utils import unpack_variable_byte_integer

__all__ = [
    "CONNACK",
    "DISCONNECT",
    "PUBACK",
    "PUBCOMP",
    "PUBLISH",
    "PUBREC",
    "PUBREL",
    "SUBACK",
    "UNSUBACK",
    "Arrival",
    "PublishReader",
    "TopicMessage",
    "acknowledgements",
    "missing_bytes",
    "packet_id",
    "read_properties",
    "reply",
]

CONNACK, PUBLISH, PUBACK, PUBREC = 0x20, 0x30, 0x40, 0x50
PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT = 0x60, 0x70, 0x90, 0xB0, 0xE0

_CACHED = 10_000  # topics and property blocks whose decoded form is remembered


class TopicMessage(NamedTuple):
    """One message of a topic."""

    topic: str
    payload: bytes
    retain: bool
    """Whether it is the retained message of a topic that was subscribed to."""
    received: int
    """When it arrived, in Unix ms."""
    content_type: str


class Arrival(NamedTuple):
    """A message with what the protocol adds."""

    message: TopicMessage
    identifiers: tuple[int, ...]
    """The subscriptions for which the broker has sent it; empty if it does not name them."""
    qos: int
    packet_id: int
    is_repeated: bool
    """Whether the broker may have sent it before."""


class PublishReader:
    """Decodes the packets PUBLISH of one connection.

    Args:
        version: 5, or 4 for MQTT 3.1.1, which has no properties.
    """

    def __init__(self, version: int) -> None:
        self._has_properties = version == 5
        self._topics: dict[bytes, str] = {}
        self._properties: dict[bytes, tuple[tuple[int, ...], str]] = {}

    def read(self, command: int, data: bytes) -> Arrival:
        """The message of a packet. Raises an exception of Python if it is malformed."""
        end = 2 + (data[0] << 8) + data[1]
        raw = data[2:end]
        topic = self._topics.get(raw)
        if topic is None:
            if len(self._topics) >= _CACHED:
                self._topics.clear()
            topic = self._topics[raw] = raw.decode()
        qos = (command >> 1) & 3
        number = 0
        if qos:
            number = (data[end] << 8) + data[end + 1]
            end += 2
        identifiers: tuple[int, ...] = ()
        content_type = ""
        if self._has_properties:
            size, left = data[end], end + 1
            if size >= 0x80:
                size, rest = unpack_variable_byte_integer(data[end:])
                left = len(data) - len(rest)
            end = left + size
            if size:
                identifiers, content_type = self._message_properties(data[left:end])
        received = time.time_ns() // 1_000_000
        message = TopicMessage(topic, data[end:], bool(command & 1), received, content_type)
        return Arrival(message, identifiers, qos, number, bool(command & 8))

    def _message_properties(self, block: bytes) -> tuple[tuple[int, ...], str]:
        """The identifiers and the content type in the properties of a message."""
        found = self._properties.get(block)
        if found is None:
            if len(self._properties) >= _CACHED:
                self._properties.clear()
            values, identifiers = _decode_properties(block)
            found = tuple(identifiers), str(values.get("content_type", ""))
            self._properties[block] = found
        return found


def acknowledgements(arrivals: Iterable[Arrival]) -> bytes:
    """The packets that acknowledge the messages of QoS 1 and 2."""
    return b"".join(
        struct.pack("!BBH", PUBACK if each.qos == 1 else PUBREC, 2, each.packet_id)
        for each in arrivals
        if each.qos
    )


def reply(command: int, data: bytes) -> bytes:
    """A packet PUBREL or PUBCOMP with the packet identifier at the beginning of `data`."""
    return struct.pack("!BB2s", command | 2 if command == PUBREL else command, 2, data[:2])


def packet_id(data: bytes) -> int:
    """The packet identifier at the beginning of a packet's data."""
    return (data[0] << 8) + data[1]


def missing_bytes(data: bytes) -> int:
    """How many bytes of a packet are missing at least; -1 if it has no valid length."""
    size = shift = 0
    for index, byte in enumerate(data[1:5], 2):
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return index + size - len(data)
    return 1 if len(data) < 5 else -1


def read_properties(data: bytes) -> tuple[Mapping[str, Any], bytes]:
    """The properties at the beginning of some bytes, by gmqtt's names, and the rest."""
    if not data:
        return {}, data
    size, rest = unpack_variable_byte_integer(data)
    return _decode_properties(rest[:size])[0], rest[size:]


def _decode_properties(block: bytes) -> tuple[dict[str, Any], list[int]]:
    """The properties of a packet by gmqtt's names, and all subscription identifiers."""
    found: dict[str, Any] = {}
    identifiers: list[int] = []
    while block:
        kind = Property.factory(id_=block[0])
        if kind is None:
            raise ValueError(f"unknown property {block[0]}")
        values, block = kind.loads(block[1:])
        found |= values
        if "subscription_identifier" in values:
            identifiers.append(values["subscription_identifier"])
    return found, identifiers
