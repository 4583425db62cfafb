"""The interface through which counters, log lines and the console observe the channels."""

from collections.abc import Hashable
from typing import NamedTuple

__all__ = ["ChannelKey", "Observer"]


class ChannelKey(NamedTuple):
    """Identifies a channel: the instance that owns it, and the path within the instance."""

    instance: Hashable
    path: str


class Observer:
    """One method call for each event. Methods must return quickly and must not raise."""

    def on_start(self, key: ChannelKey) -> None:
        """The stream's task was created."""

    def on_end(self, key: ChannelKey, error: BaseException | None) -> None:
        """The stream's task is done; `error` is what it raised, also while it was closing."""

    def on_join(self, key: ChannelKey) -> None:
        """A subscriber joined."""

    def on_leave(self, key: ChannelKey) -> None:
        """A subscriber left, or its subscription was ended."""

    def on_fail(self, key: ChannelKey, error: Exception) -> None:
        """`Channel.fail` was called, as for a row that cannot be encoded; the stream ends later."""

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """The stream emitted packets, with or without subscribers; `size` is in bytes."""

    def on_drop(self, key: ChannelKey, rows: int, packets: int) -> None:
        """A subscription dropped packets. Called at each drop, with each policy."""

    def on_lagging(self, key: ChannelKey) -> None:
        """The first drop after `on_caught_up`, or at all. Never called with the policy "latest"."""

    def on_caught_up(self, key: ChannelKey, rows: int, packets: int) -> None:
        """No drop for `LAG_END` seconds, or the stream has ended. `rows` and `packets` are what the
        channel's subscriptions dropped since `on_lagging`."""

    def on_memory_exhausted(self, instance: Hashable | None, limit: int) -> None:
        """The queues of an instance, or of the process (None), have reserved `limit` bytes. Called
        again after the reserved bytes have fallen to 75 % of it."""

    def on_stuck(self, key: ChannelKey, seconds: float) -> None:
        """The stream still runs `seconds` after its first cancellation, when its third is due."""
