"""The status of one stream: an outage, what is missing after it, and bad messages."""

from typing import NamedTuple

import anyio

from aiostream_ds._channels.status import Status
from aiostream_ds._telemetry import current_counters
from aiostream_ds.sources.decoding import MessageDecoder

__all__ = ["Interruptions", "Outage", "TopicStatus", "missing"]

GAP_SHOWN = 30.0
"""Seconds for which a status states that messages are missing, and until the next message."""

INTERRUPTIONS = 10_000
"""Maximum number of topics whose interruption is remembered until their stream goes on."""


class Outage(NamedTuple):
    """The connection is lost or has come back: what streams get among their messages."""

    is_over: bool
    text: str
    """Why the connection is lost; after the outage what is missing, or "" if nothing is."""
    at: float
    """The event loop's time."""


class Interruptions:
    """When the streams of topics were interrupted. An interrupted stream is called again."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def begin(self, topic: str) -> None:
        """The stream of a topic ends with an error; it may be called again, and fail again."""
        if len(self._since) >= INTERRUPTIONS:
            self._since.clear()
        self._since.setdefault(topic, anyio.current_time())

    def end(self, topic: str) -> str:
        """The stream goes on: what is missing; "" if it was not interrupted."""
        since = self._since.pop(topic, None)
        return "" if since is None else missing(anyio.current_time() - since)


def missing(seconds: float, reason: str = "") -> str:
    """What is missing after an outage. No broker counts it."""
    return (
        f"the connection was lost for {seconds:.1f} s{reason}: messages that were sent meanwhile"
        " are missing"
    )


class TopicStatus:
    """The status of one run. Its methods return a status that is to be yielded, or None."""

    __slots__ = ("_bad", "_decoder", "_gap", "_gap_until", "_outage", "_shown")

    def __init__(self, decoder: MessageDecoder) -> None:
        self._decoder = decoder
        self._outage = self._gap = ""
        self._gap_until = 0.0
        self._bad = self._shown = Status()

    def outage(self, outage: Outage) -> Status | None:
        """The connection is lost, or has come back; a stream that begins gets the last change."""
        if outage.is_over:
            is_new = anyio.current_time() - outage.at < GAP_SHOWN
            return self.back(outage.text if is_new else "")
        self._outage = outage.text
        return self._change()

    def back(self, gap: str) -> Status | None:
        """The connection is there again. `gap` is what is missing, if anything is: it is counted in
        `aiostream_ds_gaps_total`."""
        self._outage = ""
        if gap:
            current_counters().gaps += 1
            self._gap, self._gap_until = gap, anyio.current_time() + GAP_SHOWN
        return self._change()

    def after_message(self) -> Status | None:
        """A message was decoded."""
        bad = self._decoder.status()
        if bad is None and not self._gap:
            return None
        if bad is not None:
            self._bad = bad
        if self._gap and anyio.current_time() >= self._gap_until:
            self._gap = ""
        return self._change()

    def _change(self) -> Status | None:
        text = self._outage or self._gap
        found = Status("warning", text) if text else self._bad
        if found == self._shown:
            return None
        self._shown = found
        return found
