"""Paired ratios: the result of a server divided by that of the reference in the same round.

A measurement with missing data (`error`) does not count, and neither does its pair. A measurement
of ours that missed ticks does not count either; for a peer missed ticks are only reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from .figures import OURS, Figure

__all__ = ["MAX_MISSED", "Measurement", "Outcome", "Spread", "outcome", "spread"]


MAX_MISSED = 0.03  # includes the inaccuracy of the start and end of counting


@dataclass(frozen=True, slots=True)
class Measurement:
    """The load client's result for one workload of one server in one round.

    `first` is the error of the first attempt, if this is the second.
    """

    round: int
    workload: str
    server: str
    seen: Mapping[str, Any]
    first: str = ""

    @property
    def missed(self) -> float:
        """The share of due packets that were not made."""
        return float(self.seen.get("missed", 0))

    @property
    def error(self) -> str:
        """Why it does not count; "" if it counts."""
        if "error" in self.seen:
            return str(self.seen["error"])
        if self.server == OURS and self.missed > MAX_MISSED:
            return f"{self.missed:.0%} of the due packets were not made"
        return ""

    def value(self, key: str) -> float | None:
        """A value of the result; None if it does not count."""
        found = self.seen.get(key)
        return None if self.error or found is None else float(found)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of some rounds, and how many of them counted."""

    median: float
    least: float
    most: float
    counted: int
    rounds: int

    @property
    def complete(self) -> bool:
        return self.counted == self.rounds


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure of one server. `ratio` is None if no pair counted; `error` is the first error."""

    value: Spread | None
    ratio: Spread | None
    error: str = ""

    def reached(self, figure: Figure, target: float | None) -> bool:
        """Whether the target is reached and every round counted."""
        judged = self.value if figure.absolute else self.ratio
        return judged is not None and judged.complete and figure.reached(judged.median, target)


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of the values that are not None; None if there are none."""
    every = [*values]
    counted = [v for v in every if v is not None]
    if not counted:
        return None
    return Spread(median(counted), min(counted), max(counted), len(counted), len(every))


def outcome(
    measurements: Iterable[Measurement], figure: Figure, server: str = OURS
) -> Outcome | None:
    """A figure of a server; None if it was not measured."""
    by_key = {(m.round, m.server, m.workload): m for m in measurements}
    base_server, base_workload, base_key = figure.base
    own = [m for m in by_key.values() if (m.server, m.workload) == (server, figure.workload)]
    ratios = []
    for measured in own:
        base = by_key.get((measured.round, base_server, base_workload))
        below = base.value(base_key) if base else None
        above = measured.value(figure.key)
        ratios.append(above / below if above is not None and below else None)
    if not own:
        return None
    error = next((m.error for m in own if m.error), "")
    return Outcome(spread(m.value(figure.key) for m in own), spread(ratios), error)
