"""What a channel remembers over the outages of its server: where to resume, when to ask again, and
since when messages may be missing."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import anyio

from aiostream_ds._channels.status import Status
from aiostream_ds._telemetry import current_counters
from aiostream_ds.errors import PluginError
from aiostream_ds.sources.gaps import Gap, now_ms
from aiostream_ds.sources.http_client.answers import LONGEST_WAIT, RetryLater

__all__ = ["InterruptedChannel", "InterruptedChannels"]

REMEMBERED = 1_000
"""Maximum number of channels that are remembered; the oldest is forgotten first."""

FORGET_AFTER = 60.0
"""Seconds after which a channel that was not opened again has a new beginning: its viewers left."""


class InterruptedChannel:
    """One channel between two connections; without outages it has nothing to state.

    Attributes:
        last_event_id: the id of the last event, with which Server-Sent Events resume.
        last_number: the last value of the column of the setting `sequence`.
    """

    __slots__ = (
        "_failed_at",
        "_is_live",
        "_not_before",
        "_reason",
        "_since",
        "last_event_id",
        "last_number",
    )

    def __init__(self) -> None:
        self.last_event_id = ""
        self.last_number: float | None = None
        self._since: int | None = None  # Unix ms of the loss of a connection that had messages
        self._failed_at = self._not_before = 0.0
        self._is_live = False
        self._reason = ""

    @property
    def wait(self) -> float:
        """Seconds for which the server has asked not to be asked."""
        return max(0.0, self._not_before - anyio.current_time())

    def waiting(self) -> Status:
        """The status during this wait."""
        return Status("warning", f"waiting for {self.wait:.0f} s: {self._reason}")

    def connected(self, *, resumes: bool) -> str | None:
        """The connection is open again. Returns what may be missing; "" if nothing is; None if
        there was no outage."""
        self._is_live = True
        if not self._failed_at:
            return None
        since, self._since, self._failed_at = self._since, None, 0.0
        if since is None or resumes:
            return ""
        return Gap("", since, now_ms(), "the server does not send them again").text

    def failed(self, error: PluginError, reconnect: float | None) -> None:
        now = anyio.current_time()
        if self._is_live:
            self._is_live = False
            if self._since is None:
                self._since = now_ms()
        self._failed_at = now
        delay = error.seconds if isinstance(error, RetryLater) else reconnect
        if delay:
            self._not_before, self._reason = now + min(delay, LONGEST_WAIT), error.message

    def is_over(self, now: float) -> bool:
        """Whether no retry will follow the failure."""
        return now > max(self._failed_at, self._not_before) + FORGET_AFTER


class InterruptedChannels:
    """The interruptions of a data source's channels.

    Attributes:
        count: the connections that were lost after they had been open.
        gaps: after how many of them messages may be missing.
        missing: rows that the numbers of the setting `sequence` have shown as missing.
    """

    def __init__(self) -> None:
        self._channels: OrderedDict[Hashable, InterruptedChannel] = OrderedDict()
        self._counters = current_counters()
        self.count = self.gaps = self.missing = 0

    def begin(self, channel: Hashable) -> InterruptedChannel:
        """For a run that begins: what the channel remembers."""
        found = self._channels.pop(channel, None)
        if found is None or found.is_over(anyio.current_time()):
            found = InterruptedChannel()
        found._is_live = False
        return found

    def keep(self, channel: Hashable, state: InterruptedChannel) -> None:
        """Remember the state of a channel for its next run."""
        self._channels[channel] = state
        while len(self._channels) > REMEMBERED:
            self._channels.popitem(last=False)

    def failed(
        self,
        channel: Hashable,
        state: InterruptedChannel,
        error: PluginError,
        reconnect: float | None,
    ) -> None:
        """The run ended with this error, and another follows if it is transient."""
        self.count += state._is_live
        if not error.permanent:
            state.failed(error, reconnect)
            self.keep(channel, state)

    def count_gap(self, missing: int = 0) -> None:
        """Messages may be missing, or so many rows are."""
        self.gaps += 1
        self.missing += missing
        self._counters.gaps += 1
        self._counters.rows_missing += missing

    def text(self) -> str:
        """What was lost, for the message of Save & test; empty if nothing was."""
        if not self.count and not self.gaps:
            return ""
        noun = "interruption" if self.count == 1 else "interruptions"
        text = f"{self.count:,} {noun}"
        if self.gaps:
            text += f", after {self.gaps:,} of which messages may be missing"
        return f"{text}; {self.missing:,} rows are missing" if self.missing else text

    def details(self) -> dict[str, Any]:
        """The same as numbers."""
        return {
            "interruptions": self.count,
            "gaps": self.gaps,
            "rows_missing": self.missing,
        }
