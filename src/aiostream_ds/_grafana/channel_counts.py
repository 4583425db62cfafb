"""What happens in the channels, as counts and log lines."""

import logging

from aiostream_ds._channels.registry import ChannelKey, Observer
from aiostream_ds._telemetry import Counters

__all__ = ["CountingObserver"]

log = logging.getLogger(__name__)


class CountingObserver(Observer):
    """The registry's events as counts."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def on_start(self, key: ChannelKey) -> None:
        """One more run."""
        self._counters.starts += 1

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """Packets were emitted, whatever the number of their readers."""
        counters = self._counters
        counters.packets += packets
        counters.rows += rows
        counters.bytes += size

    def on_fail(self, key: ChannelKey, error: Exception) -> None:
        """A row that cannot be encoded: the author's bug, which no `except` of theirs can see."""
        self._counters.count_error("bug")
        log.error("stream failed: a row cannot be sent", exc_info=error, extra={"path": key.path})

    def on_drop(self, key: ChannelKey, rows: int, packets: int) -> None:
        """Rows that a slow reader never gets."""
        self._counters.rows_dropped += rows

    def on_behind(self, key: ChannelKey) -> None:
        """A reader falls behind: said once for each episode, counted row by row."""
        self._counters.drop_episodes += 1
        log.warning("a reader is behind: rows are dropped", extra={"path": key.path})

    def on_caught_up(self, key: ChannelKey, rows: int, packets: int) -> None:
        """The episode is over."""
        text = "no reader is behind any more: %d rows were dropped, in %d packets"
        log.warning(text, rows, packets, extra={"path": key.path})

    def on_stuck(self, key: ChannelKey, seconds: float) -> None:
        """A stream that does not end."""
        self._counters.stuck += 1
