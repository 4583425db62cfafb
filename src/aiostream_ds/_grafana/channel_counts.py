"""Counts the registry's events and logs the important ones."""

from collections.abc import Hashable

from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters

__all__ = ["CountingObserver"]

log = get_logger(__name__)


class CountingObserver(Observer):
    """Adds the registry's events to the counters."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def on_start(self, key: ChannelKey) -> None:
        """A run started."""
        self._counters.starts += 1

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """Packets were emitted; each counts once, for any number of subscriptions."""
        counters = self._counters
        counters.packets += packets
        counters.rows += rows
        counters.bytes += size

    def on_fail(self, key: ChannelKey, error: Exception) -> None:
        """A row cannot be encoded. Log it: the author's code cannot catch this error."""
        self._counters.count_error("bug")
        log.error("stream failed: a row cannot be sent", exc_info=error, extra={"path": key.path})

    def on_drop(self, key: ChannelKey, rows: int, packets: int) -> None:
        """Rows were dropped for a slow subscriber."""
        self._counters.rows_dropped += rows

    def on_lagging(self, key: ChannelKey) -> None:
        """A subscriber began to lag. Logged once until drops have ended."""
        self._counters.drop_episodes += 1
        log.warning("a subscriber is too slow: rows are dropped", extra={"path": key.path})

    def on_caught_up(self, key: ChannelKey, rows: int, packets: int) -> None:
        """All subscribers have caught up."""
        text = "all subscribers have caught up: %d rows were dropped, in %d packets"
        log.warning(text, rows, packets, extra={"path": key.path})

    def on_memory_exhausted(self, instance: Hashable | None, limit: int) -> None:
        """The queues of slow subscribers hold as much as they may. Logged once until it is over."""
        self._counters.memory_exhausted += 1
        log.warning(
            "the queues of slow subscribers hold %g MiB, the limit of %s: each is now full, and"
            " its stream's buffer policy applies",
            limit / (1 << 20),
            "the process" if instance is None else "the data source",
            extra={"datasource": getattr(instance, "uid", "")} if instance is not None else None,
        )

    def on_stuck(self, key: ChannelKey, seconds: float) -> None:
        """A cancelled stream did not end."""
        self._counters.stuck += 1
