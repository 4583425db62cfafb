"""Paired ratios: what a server did in a round, over what the reference did in the same round.

A measurement with anything missing (`error`) does not count, and takes its pair with it. Nor does
one of ours whose clocks fell behind; with a peer that is only said, lest it look better or worse.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from .figures import OURS, Figure

__all__ = ["BEHIND", "Measurement", "Outcome", "Spread", "outcome", "spread"]


BEHIND = 0.03  # the edges of the time in which is counted are part of it


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the load client said of one workload of one server in one round. `first` is why that
    had to be measured once more."""

    round: int
    workload: str
    server: str
    seen: Mapping[str, Any]
    first: str = ""

    @property
    def behind(self) -> float:
        """The share of packets that were due and not made."""
        return float(self.seen.get("behind", 0))

    @property
    def error(self) -> str:
        """Why it does not count, or ""."""
        if "error" in self.seen:
            return str(self.seen["error"])
        if self.server == OURS and self.behind > BEHIND:
            return f"{self.behind:.0%} of what was due was not made"
        return ""

    def value(self, key: str) -> float | None:
        """None when it does not count."""
        found = self.seen.get(key)
        return None if self.error or found is None else float(found)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, the least and the most, and how many of how many counted."""

    median: float
    least: float
    most: float
    counted: int
    rounds: int

    @property
    def whole(self) -> bool:
        return self.counted == self.rounds


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure of one server. `ratio` is None when no pair counted; `error` is the first."""

    value: Spread | None
    ratio: Spread | None
    error: str = ""

    def reached(self, figure: Figure, aim: float | None) -> bool:
        """Whether the aim is reached, with every round counted."""
        judged = self.value if figure.plain else self.ratio
        return judged is not None and judged.whole and figure.reached(judged.median, aim)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of the values that count (not None); None when none does."""
    every = [*values]
    counted = [v for v in every if v is not None]
    if not counted:
        return None
    return Spread(median(counted), min(counted), max(counted), len(counted), len(every))


def outcome(
    measurements: Iterable[Measurement], figure: Figure, server: str = OURS
) -> Outcome | None:
    """A figure of a server; None when it was not measured."""
    by_place = {(m.round, m.server, m.workload): m for m in measurements}
    base_server, base_workload, base_key = figure.base
    own = [m for m in by_place.values() if (m.server, m.workload) == (server, figure.workload)]
    ratios = []
    for measured in own:
        base = by_place.get((measured.round, base_server, base_workload))
        below = base.value(base_key) if base else None
        above = measured.value(figure.key)
        ratios.append(above / below if above is not None and below else None)
    if not own:
        return None
    error = next((m.error for m in own if m.error), "")
    return Outcome(spread(m.value(figure.key) for m in own), spread(ratios), error)
