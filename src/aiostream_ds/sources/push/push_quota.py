"""How much may be pushed: rows and bytes per second, as token buckets."""

from collections.abc import Callable
from time import monotonic

from aiostream_ds.sources.push.push_errors import PushRefused

__all__ = ["BURST", "PushRate"]

BURST = 5.0
"""Seconds of the rate that may be pushed at once."""


class PushRate:
    """A limit of one unit per second.

    Pushes are taken as long as there are tokens; a push may take more than there are, and the next
    one waits for them to come back. So a batch of any size is taken, and the rate holds.

    Args:
        name: the setting, for messages.
        rate: the units per second; 0: no limit.
        clock: the time in seconds.
    """

    __slots__ = ("_at", "_clock", "_name", "_rate", "_tokens", "_unit")

    def __init__(
        self, name: str, unit: str, rate: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self._name, self._unit = name, unit
        self._rate = rate
        self._clock = clock
        self._tokens = rate * BURST
        self._at = clock()

    def check(self) -> None:
        """Raises PushRefused: the rate is exceeded now."""
        if not self._rate:
            return
        self._refill()
        if self._tokens <= 0:
            raise PushRefused(
                429,
                f"expected at most {self._rate:,} {self._unit} per second, which the setting"
                f" {self._name} allows, got more",
                retry_after=(1 - self._tokens) / self._rate,
            )

    def take(self, count: int) -> None:
        """Count what is pushed."""
        if self._rate:
            self._refill()
            self._tokens -= count

    def _refill(self) -> None:
        now = self._clock()
        full = self._rate * BURST
        self._tokens = min(full, self._tokens + (now - self._at) * self._rate)
        self._at = now
