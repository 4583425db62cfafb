"""What happens in the plugin, for the page: each channel's counts, and the newest log lines.

Bounded: channels that are over are forgotten, the oldest first.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._frames.packet import CursorRange
from aiostream_ds._grafana.application import Application
from aiostream_ds._telemetry import JsonLines, redact

__all__ = ["LINES", "Counts", "LogTap", "Watch"]

REMEMBERED = 4_000
"""Channels whose counts are kept; the one that was silent longest is forgotten first."""

LINES = 500
"""Log lines that a page which opens is shown."""

LINE_LIMIT = 16 * 1024
"""Characters of one log line; what a traceback is about stands at its end, which is kept."""


class Counts:
    """What one channel has done since it was first seen; `error` is its last, with traceback."""

    __slots__ = ("bytes", "dropped", "error", "errors", "packets", "rows", "starts")

    def __init__(self) -> None:
        self.packets = self.rows = self.bytes = 0
        self.dropped = self.starts = self.errors = 0
        self.error = ""


class Watch(Observer):
    """An observer before the plugin's own, which it tells everything."""

    def __init__(self) -> None:
        self.counts: OrderedDict[ChannelKey, Counts] = OrderedDict()
        self._application: Application | None = None
        self._next = Observer()

    def attach(self, application: Application) -> None:
        """From now on this application's channels are watched; counts go on."""
        self._application = application
        self._next = application.registry.observer
        application.registry.observer = self

    def _of(self, key: ChannelKey) -> Counts:
        found = self.counts.get(key)
        if found is None:
            found = self.counts[key] = Counts()
            if len(self.counts) > REMEMBERED:
                self.counts.popitem(last=False)
        return found

    def channels(self) -> list[list[Any]]:
        """A line for each channel that is or was: path, state, readers, packets, rows, bytes,
        dropped rows, starts, errors, where it stands, the last error."""
        registry = self._application.registry if self._application is not None else None
        if registry is None:
            return []
        alive = {channel.key: channel for channel in registry.channels}
        keys = dict.fromkeys((*self.counts, *alive))
        return [
            _line(key, registry, alive.get(key), self.counts.get(key) or Counts()) for key in keys
        ]

    def totals(self) -> dict[str, int]:
        """The plugin's own counters and gauges."""
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
        }

    def failed(self, path: str, text: str) -> None:
        """A log line spoke of an error of this path: it is the last one of its channels."""
        for key, counts in self.counts.items():
            if key.path == path:
                counts.error = text

    def on_start(self, key: ChannelKey) -> None:
        """One more run."""
        counts = self._of(key)
        counts.starts += 1
        self.counts.move_to_end(key)
        self._next.on_start(key)

    def on_end(self, key: ChannelKey, error: BaseException | None) -> None:
        """A run is over."""
        if error is not None:
            self._of(key).errors += 1
        self._next.on_end(key, error)

    def on_join(self, key: ChannelKey) -> None:
        """A reader joined."""
        self._next.on_join(key)

    def on_leave(self, key: ChannelKey) -> None:
        """A reader left."""
        self._next.on_leave(key)

    def on_fail(self, key: ChannelKey, error: Exception) -> None:
        """A row cannot be sent."""
        self._of(key).errors += 1
        self._next.on_fail(key, error)

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """Packets were emitted."""
        counts = self._of(key)
        counts.packets += packets
        counts.rows += rows
        counts.bytes += size
        self._next.on_emit(key, packets, rows, size)

    def on_behind(self, key: ChannelKey) -> None:
        """A reader falls behind."""
        self._next.on_behind(key)

    def on_drop(self, key: ChannelKey, rows: int, packets: int) -> None:
        """What it lost."""
        self._of(key).dropped += rows
        self._next.on_drop(key, rows, packets)

    def on_stuck(self, key: ChannelKey, seconds: float) -> None:
        """A stream that does not end."""
        self._next.on_stuck(key, seconds)


def _line(
    key: ChannelKey, registry: ChannelRegistry, channel: Channel | None, counts: Counts
) -> list[Any]:
    state, readers, place = "closed", 0, None
    if channel is not None:
        state = "stuck" if channel.stuck else channel.state.value
        readers, place = registry.readers(channel), channel.place
        if place is None and channel.ring is not None:
            place = CursorRange(channel.ring.epoch, 0, channel.ring.last)
    stands = "" if place is None else f"{place.epoch}:{place.last}"
    return [
        key.path, state, readers, counts.packets, counts.rows, counts.bytes, counts.dropped,
        counts.starts, counts.errors, stands, redact(counts.error),
    ]  # fmt: skip


class LogTap(logging.Handler):
    """Keeps the newest lines as JSON texts and hands each on. Records come from any thread."""

    def __init__(self, hand_on: Callable[[str, str, str], None]) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque(maxlen=LINES)
        self._push_direct = hand_on
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        """One line: its JSON, the path it is about, and its error with traceback."""
        try:
            error = ""
            if record.exc_info and record.levelno >= logging.WARNING:
                error = logging.Formatter().formatException(record.exc_info)[-LINE_LIMIT:]
                error = f"{time.strftime('%H:%M:%S')} {record.getMessage()}\n{error}"
            line = self.format(record)
            self.lines.append(line)
            self._push_direct(line, str(getattr(record, "path", "")), redact(error))
        except Exception:
            self.handleError(record)
