"""What was drawn against what the log has: nothing missing, nothing doubled, in order."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .client import Emission, ExactPanel


class Tally(NamedTuple):
    """Rows that are wrong, over so many emissions. `strange`: drawn, and not of the range."""

    emissions: int = 0
    missing: int = 0
    doubled: int = 0
    disorder: int = 0
    strange: int = 0

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def exact(self) -> bool:
        return not any(self[1:])


def compare(shown: Sequence[int], wanted: Sequence[int]) -> Tally:
    """One emission; both are the rows' numbers, which grow by one in the log."""
    if list(shown) == list(wanted):
        return Tally(1)
    seen, due = set(shown), set(wanted)
    disorder = sum(a > b for a, b in zip(shown, shown[1:], strict=False))
    return Tally(1, len(due - seen), len(shown) - len(seen), disorder, len(seen - due))


class Judge:
    """Looks at every emission of any panel; `wanted` says what a panel has to draw."""

    def __init__(self, wanted: Callable[[ExactPanel, Emission], Sequence[int]]) -> None:
        self.tally = Tally()
        self.wrong: list[str] = []
        self._wanted = wanted

    def __call__(self, panel: ExactPanel, emission: Emission) -> None:
        n = panel.names.index("n") if emission.rows else 0
        shown = [row[n] for row in emission.rows]
        wanted = self._wanted(panel, emission)
        found = compare(shown, wanted)
        self.tally += found
        if not found.exact:
            self.wrong.append(
                f"{found} at cursor {emission.cursor} of {emission.epoch}:"
                f" {shown[:3]}…{shown[-3:]} instead of {wanted[:3]}…{wanted[-3:]}"
            )
