"""What a channel remembers over the outages of its server: where to resume, when to ask again, and
since when messages may be missing."""

from collections import OrderedDict
from collections.abc import Hashable

import anyio

from aiostream_ds.errors import PluginError
from aiostream_ds.sources.gaps import now_ms
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
        has_failed: whether no connection has been opened since the last failure.
        lost_at: when the connection was lost, in Unix ms; None if there was none before.
        is_open: whether there is a connection.
        reason: why the server has asked not to be asked for a while.
    """

    __slots__ = (
        "_failed_at",
        "_not_before",
        "has_failed",
        "is_open",
        "last_event_id",
        "last_number",
        "lost_at",
        "reason",
    )

    def __init__(self) -> None:
        self.last_event_id = ""
        self.last_number: float | None = None
        self.lost_at: int | None = None
        self.has_failed = self.is_open = False
        self.reason = ""
        self._failed_at = self._not_before = 0.0

    @property
    def wait(self) -> float:
        """Seconds for which the server has asked not to be asked."""
        return max(0.0, self._not_before - anyio.current_time())

    def failed(self, error: PluginError, reconnect: float | None) -> None:
        """The run ended with this error. `reconnect`: seconds after which the server wants to be
        asked again."""
        if self.is_open and self.lost_at is None:
            self.lost_at = now_ms()
        self.has_failed, self.is_open = True, False
        self._failed_at = now = anyio.current_time()
        delay = error.seconds if isinstance(error, RetryLater) else reconnect
        if delay:
            self._not_before, self.reason = now + min(delay, LONGEST_WAIT), error.message

    @property
    def is_over(self) -> bool:
        """Whether no retry will follow the failure."""
        return anyio.current_time() > max(self._failed_at, self._not_before) + FORGET_AFTER


class InterruptedChannels:
    """The interrupted channels of a data source.

    Attributes:
        count: the connections that were lost after they had been open.
    """

    def __init__(self) -> None:
        self._channels: OrderedDict[Hashable, InterruptedChannel] = OrderedDict()
        self.count = 0

    def begin(self, channel: Hashable) -> InterruptedChannel:
        """For a run that begins: what the channel remembers."""
        found = self._channels.pop(channel, None)
        if found is None or found.is_over:
            found = InterruptedChannel()
        found.is_open = False
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
        self.count += state.is_open
        if not error.permanent:
            state.failed(error, reconnect)
            self.keep(channel, state)

    def text(self) -> str:
        """The number of interruptions, for the message of Save & test; empty if there were none."""
        noun = "interruption" if self.count == 1 else "interruptions"
        return f"{self.count:,} {noun}" if self.count else ""
