"""Who is told what happens in the channels of a process: counts and log lines are made there.

Imports the standard library only.
"""

from collections.abc import Hashable
from typing import NamedTuple

__all__ = ["ChannelKey", "Observer"]


class ChannelKey(NamedTuple):
    """Which channel: the instance that owns it, and the path within it."""

    instance: Hashable
    path: str


class Observer:
    """Is told what happens, one call an event. Methods must be quick and must not raise."""

    def on_start(self, key: ChannelKey) -> None:
        """The stream's task was made."""

    def on_end(self, key: ChannelKey, error: BaseException | None) -> None:
        """The stream's task is over; `error` is what it raised, also while it was closing."""

    def on_join(self, key: ChannelKey) -> None:
        """A reader joined."""

    def on_leave(self, key: ChannelKey) -> None:
        """A reader left, or was ended."""

    def on_fail(self, key: ChannelKey, error: Exception) -> None:
        """The stream was failed from without, by a row that cannot be encoded; it ends later."""

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """The stream emitted packets of so many rows and bytes of data, whoever listens."""

    def on_drop(self, key: ChannelKey, rows: int, packets: int) -> None:
        """A reader that is behind has lost these: told at each drop, whatever the policy."""

    def on_behind(self, key: ChannelKey) -> None:
        """The first drop of an episode; with the policy "latest", where it is the wish, never."""

    def on_caught_up(self, key: ChannelKey, rows: int, packets: int) -> None:
        """The episode is over: for a while nothing was dropped, or the stream has ended."""

    def on_stuck(self, key: ChannelKey, seconds: float) -> None:
        """The stream was told to end so many seconds ago, cancelled twice, and is still alive."""
