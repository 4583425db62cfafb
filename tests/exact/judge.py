"""Compares drawn frames with the log: no row missing, duplicated or out of order."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .client import Drawing, ExactPanel


class Tally(NamedTuple):
    """The number of wrong rows in so many drawings. `unexpected`: drawn, but not in the range."""

    drawings: int = 0
    missing: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unexpected: int = 0

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def exact(self) -> bool:
        return not any(self[1:])


def compare(drawn: Sequence[int], expected: Sequence[int]) -> Tally:
    """Compare one drawing; both are row numbers, which grow by one in the log."""
    if list(drawn) == list(expected):
        return Tally(1)
    seen, due = set(drawn), set(expected)
    out_of_order = sum(a > b for a, b in zip(drawn, drawn[1:], strict=False))
    return Tally(1, len(due - seen), len(drawn) - len(seen), out_of_order, len(seen - due))


class Judge:
    """Checks every drawing of its panels; `expected` returns the numbers that one must have, which
    are in a column."""

    def __init__(
        self, expected: Callable[[ExactPanel, Drawing], Sequence[int]], column: str = "n"
    ) -> None:
        self._column = column
        self.tally = Tally()
        self.wrong: list[str] = []
        self._expected = expected

    def __call__(self, panel: ExactPanel, drawing: Drawing) -> None:
        n = panel.names.index(self._column) if drawing.rows else 0
        drawn = [row[n] for row in drawing.rows]
        expected = self._expected(panel, drawing)
        found = compare(drawn, expected)
        self.tally += found
        if not found.exact:
            self.wrong.append(
                f"{found} at cursor {drawing.cursor} of {drawing.epoch}:"
                f" {drawn[:3]}…{drawn[-3:]}, expected {expected[:3]}…{expected[-3:]}"
            )
