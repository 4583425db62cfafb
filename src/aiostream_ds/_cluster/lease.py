"""The lease of a node, seen by its own clock.

A lease is counted from the moment at which its renewal was sent, by a clock that goes on while the
machine is suspended or the process is stopped. So it ends here before it ends at the server.
"""

import time
from collections.abc import Callable
from math import inf

__all__ = ["Lease", "clock"]


def clock() -> float:
    """Seconds, also of the time in which the machine was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """When a node may write, and when its lease has ended. Does nothing by itself.

    Args:
        seconds: for which a renewal is valid.
        margin: seconds before its end from which on the node does not write.
        clock: see `clock`.

    Attributes:
        round_trip: seconds that the last renewal took.
    """

    def __init__(self, seconds: float, margin: float, clock: Callable[[], float]) -> None:
        self.seconds, self.margin, self._clock = seconds, margin, clock
        self.round_trip = 0.0
        self._sent = -inf  # when the last renewal that succeeded was sent

    def now(self) -> float:
        return self._clock()

    def renewed(self, sent: float) -> None:
        """A renewal has succeeded that was sent then."""
        self.round_trip = self._clock() - sent
        self._sent = max(sent, self._sent)

    @property
    def age(self) -> float:
        """Seconds since it was renewed."""
        return self._clock() - self._sent

    @property
    def may_write(self) -> bool:
        """Whether the lease is surely valid when something that is sent now arrives."""
        return self._clock() < self._sent + self.seconds - self.margin

    @property
    def has_ended(self) -> bool:
        return self._clock() >= self._sent + self.seconds
