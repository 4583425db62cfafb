"""When a node compares its place in a log with the end of the log: after silence, ever later."""

from collections.abc import Callable

import anyio

from aiostream_ds._cluster.engine import EntryId
from aiostream_ds._cluster.node_options import NodeOptions

__all__ = ["PositionCheck"]

_RATE = 500  # checks of all channels of a node in a second: each takes a call of the engine
_BUSY = 1.0  # seconds at most until a check is due again while other calls wait


class PositionCheck:
    """The times of the checks of one channel. Does nothing by itself.

    Args:
        position: the last entry that was read.
        channel_count: returns how many channels the node has.
        is_busy: whether another call of the node would have to wait.
    """

    __slots__ = (
        "_at",
        "_channel_count",
        "_checked",
        "_interval",
        "_is_busy",
        "_is_demanded",
        "_options",
    )

    def __init__(
        self,
        options: NodeOptions,
        position: EntryId,
        channel_count: Callable[[], int],
        is_busy: Callable[[], bool],
    ) -> None:
        self._options = options
        self._channel_count = channel_count
        self._is_busy = is_busy
        self._interval = options.check
        self._at = 0.0
        self._checked = position
        self._is_demanded = False  # also if entries have arrived

    def restart(self, position: EntryId) -> None:
        """Begin with the shortest interval."""
        self._interval = self._at_least(self._options.check)
        self._at = anyio.current_time() + self._spread()
        self._checked = position
        self._is_demanded = False

    def now(self) -> None:
        """The next check is due at once."""
        self._interval = self._at_least(self._options.check)
        self.after(0.0)

    def after(self, seconds: float) -> None:
        """The next check is due then, also if entries arrive meanwhile."""
        self._at = anyio.current_time() + seconds
        self._is_demanded = True

    @property
    def delay(self) -> float:
        """Seconds until it is due; negative: it is."""
        return self._at - anyio.current_time()

    def is_due(self, position: EntryId) -> bool:
        """Whether to check now; the next one comes later then. Not if entries arrive: these name
        the ones before. Nor, unless it is demanded, if calls wait: what viewers wait for would come
        after the checks of all silent channels."""
        if self.delay > 0:
            return False
        if self._checked != position and not self._is_demanded:
            self.restart(position)
            return False
        if self._is_busy() and not self._is_demanded:
            self._at = anyio.current_time() + _BUSY * (0.5 + 0.5 * self._options.random.random())
            return False
        self._checked, self._is_demanded = position, False
        self._interval = min(2 * self._interval, self._at_least(self._options.longest_check))
        self._at = anyio.current_time() + self._spread()
        return True

    def _at_least(self, seconds: float) -> float:
        """An interval, longer if this node has too many channels for it."""
        return max(seconds, self._channel_count() / _RATE)

    def _spread(self) -> float:
        """Channels that were joined at one time are not all checked at one time."""
        return self._interval * (0.8 + 0.4 * self._options.random.random())
