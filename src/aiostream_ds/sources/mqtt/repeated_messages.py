"""Recognizes messages that a broker sends again after an outage: it has not got the answer."""

from collections import OrderedDict

from aiostream_ds.sources.mqtt.broker_connection import RECEIVE_MAXIMUM
from aiostream_ds.sources.mqtt.packets import Arrival

__all__ = ["RepeatedMessages"]


class RepeatedMessages:
    """The messages of one session that the broker may send again.

    QoS 1 does not say which messages are the same: one is taken for the same if it is sent as a
    repeated one with the packet identifier, the topic and the payload of one of the last messages.
    QoS 2 does.

    Attributes:
        count: the messages that were dropped.
    """

    __slots__ = ("_at_least_once", "_exactly_once", "count")

    def __init__(self) -> None:
        self.count = 0
        self._at_least_once: OrderedDict[int, int] = OrderedDict()  # hashes by packet identifier
        self._exactly_once: set[int] = set()

    def reset(self) -> None:
        """The broker has begun another session: packet identifiers name other messages."""
        self._at_least_once.clear()
        self._exactly_once.clear()

    def add(self, arrival: Arrival) -> bool:
        """Remember a message of QoS 1 or 2. False if it is a repeated one, which is counted."""
        number = arrival.packet_id
        if arrival.qos == 2:
            if number in self._exactly_once:
                self.count += 1
                return False
            self._exactly_once.add(number)
            return True
        content = hash((arrival.message.topic, arrival.message.payload))
        known = self._at_least_once.pop(number, None)
        self._at_least_once[number] = content
        if arrival.is_repeated and known == content:
            self.count += 1
            return False
        if len(self._at_least_once) > RECEIVE_MAXIMUM:
            self._at_least_once.popitem(last=False)
        return True

    def release(self, packet_id: int) -> None:
        """The broker will not send this message of QoS 2 again."""
        self._exactly_once.discard(packet_id)
