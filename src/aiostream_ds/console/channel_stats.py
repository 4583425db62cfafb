"""Counts of what each channel of the plugin has done, for the console."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._frames.packet import CursorRange
from aiostream_ds._grafana.application import Application
from aiostream_ds.rows import CURSOR_LIMIT

__all__ = ["MAX_CHANNELS", "ChannelCounts", "ChannelStats"]

MAX_CHANNELS = 4_000
"""Channels whose counts are kept; the one that was started least recently is dropped first."""


class ChannelCounts:
    """Counts of one channel since it was first seen; `error` is its last, with the traceback."""

    __slots__ = ("bytes", "dropped", "error", "errors", "packets", "rows", "starts")

    def __init__(self) -> None:
        self.packets = self.rows = self.bytes = 0
        self.dropped = self.starts = self.errors = 0
        self.error = ""


class ChannelStats(Observer):
    """Counts the events of all channels, and passes them to the application's own observer."""

    def __init__(self) -> None:
        self.counts: OrderedDict[ChannelKey, ChannelCounts] = OrderedDict()
        self._application: Application | None = None
        self._next = Observer()

    def attach(self, application: Application) -> None:
        """Observe this application from now on. Counts of the previous one are kept."""
        self._application = application
        self._next = application.registry.observer
        application.registry.observer = self

    def _counts_of(self, key: ChannelKey) -> ChannelCounts:
        counts = self.counts.get(key)
        if counts is None:
            counts = self.counts[key] = ChannelCounts()
            if len(self.counts) > MAX_CHANNELS:
                self.counts.popitem(last=False)
        return counts

    def channels(self) -> list[list[Any]]:
        """Return a line for each channel: path, state, subscribers, packets, rows, bytes, dropped
        rows, starts, errors, cursor, last error."""
        registry = self._application.registry if self._application is not None else None
        if registry is None:
            return []
        open_channels = {channel.key: channel for channel in registry.channels}
        keys = dict.fromkeys((*self.counts, *open_channels))
        return [
            _line(key, registry, open_channels.get(key), self.counts.get(key) or ChannelCounts())
            for key in keys
        ]

    def totals(self) -> dict[str, int]:
        """Return the plugin's counters and gauges."""
        if self._application is None:
            return {}
        counters, registry = self._application.counters, self._application.registry
        return {
            "running": registry.running,
            "subscriptions": registry.subscriptions,
            "rows": counters.rows,
            "packets": counters.packets,
            "bytes": counters.bytes,
            "dropped": counters.rows_dropped,
            "retries": counters.retries,
            "errors": sum(counters.stream_errors.values()),
            "left out": sum(counters.dropped.values()),
            "stuck": counters.stuck,
            "queued": registry.memory.used,
            "queueLimit": registry.memory.limit,
        }

    def set_error(self, path: str, text: str) -> None:
        """Set the last error, which is redacted, of the channels of this path."""
        for key, counts in self.counts.items():
            if key.path == path:
                counts.error = text

    def on_start(self, key: ChannelKey) -> None:
        """A run has started."""
        counts = self._counts_of(key)
        counts.starts += 1
        self.counts.move_to_end(key)
        self._next.on_start(key)

    def on_end(self, key: ChannelKey, error: BaseException | None) -> None:
        """A run has ended."""
        if error is not None:
            self._counts_of(key).errors += 1
        self._next.on_end(key, error)

    def on_join(self, key: ChannelKey) -> None:
        """A subscriber has joined."""
        self._next.on_join(key)

    def on_leave(self, key: ChannelKey) -> None:
        """A subscriber has left."""
        self._next.on_leave(key)

    def on_fail(self, key: ChannelKey, error: Exception) -> None:
        """A row cannot be encoded."""
        self._counts_of(key).errors += 1
        self._next.on_fail(key, error)

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """Packets were emitted."""
        counts = self._counts_of(key)
        counts.packets += packets
        counts.rows += rows
        counts.bytes += size
        self._next.on_emit(key, packets, rows, size)

    def on_lagging(self, key: ChannelKey) -> None:
        """A subscriber reads too slowly."""
        self._next.on_lagging(key)

    def on_drop(self, key: ChannelKey, rows: int, packets: int) -> None:
        """A subscriber has lost rows."""
        self._counts_of(key).dropped += rows
        self._next.on_drop(key, rows, packets)

    def on_memory_exhausted(self, instance: Hashable | None, limit: int) -> None:
        """The queues hold as much as they may."""
        self._next.on_memory_exhausted(instance, limit)

    def on_stuck(self, key: ChannelKey, seconds: float) -> None:
        """A stream does not end."""
        self._next.on_stuck(key, seconds)


def _line(
    key: ChannelKey, registry: ChannelRegistry, channel: Channel | None, counts: ChannelCounts
) -> list[Any]:
    state, subscribers, cursors = "closed", 0, None
    if channel is not None:
        state = "stuck" if channel.stuck else channel.state.value
        subscribers, cursors = channel.subscription_count, channel.cursors
        if cursors is None and channel.log is not None:
            cursors = CursorRange(channel.log.epoch, 0, channel.log.last)
    return [
        key.path,
        state,
        subscribers,
        counts.packets,
        counts.rows,
        counts.bytes,
        counts.dropped,
        counts.starts,
        counts.errors,
        f"{cursors.epoch}:{_shown(cursors.last)}" if cursors and cursors.epoch else "",
        counts.error,
    ]


def _shown(cursor: int) -> str:
    """A cursor; one of two numbers, which is one large number in the runtime, as "7-3"."""
    if cursor < CURSOR_LIMIT:
        return str(cursor)
    return "{}-{}".format(*divmod(cursor, CURSOR_LIMIT))
