"""The status of one stream: an outage, what is missing after it, and bad messages."""

from typing import NamedTuple

import anyio

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.decoding import MessageDecoder
from aiostream_ds.sources.gaps import Gap, Gaps
from aiostream_ds.sources.mqtt.packets import TopicMessage
from aiostream_ds.sources.panel_status import SHOWN, PanelStatus
from aiostream_ds.upstream.message_queue import MessageQueue

__all__ = ["Outage", "TopicStatus"]


class Outage(NamedTuple):
    """The connection is lost or has come back: what streams get among their messages."""

    is_over: bool
    text: str
    """Why the connection is lost; after the outage why messages are missing, or "" if none are."""
    since: int
    """When the connection was lost, in Unix ms."""
    at: float
    """When this was stated, by the event loop's time."""


class TopicStatus:
    """The status of one run. Its methods return a status that is to be yielded, or None."""

    __slots__ = ("_decoder", "_gaps", "_status", "_topic")

    def __init__(self, topic: str, decoder: MessageDecoder, gaps: Gaps) -> None:
        self._topic = topic
        self._decoder = decoder
        self._gaps = gaps
        self._status = PanelStatus()

    def subscribed(self) -> Status | None:
        """The topic is subscribed to, perhaps again."""
        self._show(self._gaps.end(self._topic))
        return self._status.change()

    def change(self, outage: Outage | None) -> Status | None:
        """The connection is lost, or has come back; a stream that begins gets the last change.
        None: there was no message for a second."""
        if outage is not None:
            self._set_outage(outage)
        return self._status.change()

    async def next_message(
        self, messages: MessageQueue[TopicMessage | Outage]
    ) -> TopicMessage | Outage | None:
        """As `PanelStatus.next_message`."""
        return await self._status.next_message(messages)

    def after_message(self) -> Status | None:
        """A message was decoded."""
        self._status.set("messages", self._decoder.status())
        return self._status.change()

    def _set_outage(self, outage: Outage) -> None:
        if not outage.is_over:
            self._status.set("outage", Status("warning", outage.text))
            return
        self._status.set("outage", Status())
        if outage.text and anyio.current_time() - outage.at < SHOWN:
            self._show(self._gaps.add_outage(self._topic, outage.since, outage.text))

    def _show(self, gap: Gap | None) -> None:
        if gap is not None:
            self._status.set("gap", Status("warning", gap.text), SHOWN)
