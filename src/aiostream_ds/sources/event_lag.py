"""How far the times of rows are from those by which the upstream system orders its log."""

from typing import NamedTuple

__all__ = ["NO_LAG", "Lag"]

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
