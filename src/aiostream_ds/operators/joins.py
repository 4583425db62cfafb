"""Several sources as one, and a timeout around the next row."""

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from aiostream_ds.operators.reading import Operator, Source, positive

__all__ = ["combine_latest", "merge", "with_timeout"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


def with_timeout(rows: "Source[T]", seconds: float, default: Any = None) -> "Operator[T | Any]":
    """The same rows, and `default` whenever `seconds` have passed without one.

    For what a timeout around `anext` of an async generator would destroy:

        async for row in with_timeout(client.messages(), 5):
            yield Status("warning", "silent") if row is None else row

    Raises:
        ValueError: `seconds` is not a finite number above 0.
        TypeError: `rows` is not a source.
    """
    return _WithTimeout(rows, positive("seconds", seconds), default)


def merge(*sources: "Source[T]") -> "Operator[T]":
    """The rows of all sources as they arrive. It ends when all have ended.

    Raises:
        TypeError: one is not a source.
    """
    return _Merge(sources)


@overload
def combine_latest(one: "Source[A]", two: "Source[B]", /) -> "Operator[tuple[A, B]]": ...
@overload
def combine_latest(
    one: "Source[A]", two: "Source[B]", three: "Source[C]", /
) -> "Operator[tuple[A, B, C]]": ...
@overload
def combine_latest(
    one: "Source[Any]",
    two: "Source[Any]",
    three: "Source[Any]",
    four: "Source[Any]",
    /,
    *more: "Source[Any]",
) -> "Operator[tuple[Any, ...]]": ...
def combine_latest(*sources: "Source[Any]") -> "Operator[Any]":
    """The newest row of each source as a tuple, whenever one of them has a new row; from the time
    on at which each has had one. It ends when all have ended.

    Raises:
        TypeError: one is not a source.
    """
    return _CombineLatest(sources)


class _WithTimeout(Operator[Any]):
    def __init__(self, rows: "Source[Any]", seconds: float, default: Any) -> None:
        super().__init__([rows])
        self._wait = seconds
        self._default = default

    def _receive(self, index: int, row: Any) -> None:
        self._results.append(row)

    def _timed_out(self) -> None:
        self._results.append(self._default)


class _Merge(Operator[Any]):
    def _receive(self, index: int, row: Any) -> None:
        self._results.append(row)


class _CombineLatest(Operator[tuple[Any, ...]]):
    def __init__(self, sources: "Sequence[Source[Any]]") -> None:
        super().__init__(sources)
        self._count = len(sources)
        self._newest: dict[int, Any] = {}

    def _receive(self, index: int, row: Any) -> None:
        self._newest[index] = row
        if len(self._newest) == self._count:
            self._results.append(tuple(self._newest[number] for number in range(self._count)))
