"""How long the next run of a stream waits after a bug ended the last one."""

from collections import OrderedDict
from collections.abc import Hashable

from aiostream_ds._channels.policy import Retry

__all__ = ["BUG_RETRY", "BugDelays"]

BUG_RETRY = Retry(min_delay=0.5, max_delay=30.0)
"""The back-off after a bug. Grafana itself restarts a stream at once if it ran for over 100 ms."""

_REMEMBERED = 1_000
"""Maximum number of channels whose failures are remembered; the oldest is forgotten first."""


class BugDelays:
    """The delays of the next runs of channels whose last runs ended with a bug."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._failures

    def failed(self, key: Hashable, now: float, *, healthy: bool) -> None:
        """A run failed. One that was healthy before resets the delay."""
        count = self._failures.pop(key, (0, 0.0))[0]
        count = 1 if healthy else count + 1
        self._failures[key] = count, now + BUG_RETRY.delay(count)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def pending(self, key: Hashable, now: float) -> float:
        """Seconds for which a run that starts now has to wait."""
        found = self._failures.get(key)
        return max(0.0, found[1] - now) if found is not None else 0.0
