"""How far the times of rows are from those by which the upstream system orders its log."""

from collections import OrderedDict
from typing import NamedTuple

__all__ = ["NO_LAG", "KnownLags", "Lag"]

LAG_LIMIT = 86_400_000
"""Milliseconds between the time of an entry and that of its row that histories allow for."""


class Lag(NamedTuple):
    """The least and the most milliseconds by which entries are later than their rows."""

    low: int = 0
    high: int = 0

    def joined(self, other: "Lag") -> "Lag":
        """The lag of the entries of both."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Lag(max(low, -LAG_LIMIT), min(high, LAG_LIMIT))


NO_LAG = Lag()

LAGS = 1_000
"""Streams whose lags are remembered."""


class KnownLags:
    """The lags of the streams that were read last, for earlier pages of their histories."""

    def __init__(self) -> None:
        self._lags: OrderedDict[str, Lag] = OrderedDict()

    def of(self, stream: str) -> Lag:
        """The lag of all that was read of a stream."""
        return self._lags.get(stream, NO_LAG)

    def add(self, stream: str, lag: Lag) -> None:
        """Join what was found in a page to what is known."""
        known = self._lags.pop(stream, NO_LAG).joined(lag)
        if known != NO_LAG:
            self._lags[stream] = known
            while len(self._lags) > LAGS:
                self._lags.popitem(last=False)
