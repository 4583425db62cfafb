"""How the values of one series in one window become one value."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["ACCUMULATORS", "Accumulator", "Aggregate", "Sum", "WeightedMean"]

Aggregate = Literal["first", "last", "min", "max", "sum", "mean", "count"]
"""How the values of a window become one. `first` and `last` are by event time."""


class Accumulator:
    """One aggregate of one series in one window."""

    __slots__ = ("count", "time", "value")

    takes: str
    """What its values must be, as an error names it."""

    def __init__(self) -> None:
        self.value: Any = None
        self.time = 0
        self.count: Any = 0

    @abstractmethod
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        """Add a value, which is not None. Raises TypeError for one that does not fit."""

    @property
    def result(self) -> Any:
        """The value of the window."""
        return self.value


class _First(Accumulator):
    takes = "of any type"

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or time < self.time:
            self.value, self.time = value, time


class _Last(_First):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or time >= self.time:
            self.value, self.time = value, time


class _Min(Accumulator):
    takes = "of one type"

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or value < self.value:
            self.value = value


class _Max(_Min):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        if self.value is None or value > self.value:
            self.value = value


class Sum(Accumulator):
    takes = "numbers"

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        # `0 +` refuses what can be added to its like but is not a number, such as texts
        self.value = 0 + value if self.value is None else self.value + value


class _Mean(Sum):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        super().add(time, value)
        self.count += 1

    @property
    def result(self) -> Any:
        return self.value / self.count if self.count else None


class _Count(_First):
    def add(self, time: int, value: Any, weight: Any = None) -> None:
        self.count += 1

    @property
    def result(self) -> Any:
        return self.count


class WeightedMean(_Mean):
    """`value` is the sum of value times weight, `count` that of the weights."""

    def add(self, time: int, value: Any, weight: Any = None) -> None:
        total = (0 + value) * weight
        self.value = total if self.value is None else self.value + total
        self.count += weight


ACCUMULATORS: Mapping[str, type[Accumulator]] = {
    "first": _First,
    "last": _Last,
    "min": _Min,
    "max": _Max,
    "sum": Sum,
    "mean": _Mean,
    "count": _Count,
}
