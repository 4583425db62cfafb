"""The source `demo`: an endless walk that needs no server, the same on every machine.

The walk is a pure function of time and seed: history and live rows, two Grafana servers and
tomorrow's run all agree. It is fractal noise, which looks like a random walk and, unlike one, can
be entered at any moment without adding up everything before.
"""

from math import ceil, floor, sqrt
from time import time
from typing import Annotated

import anyio
import anyio.to_thread
from msgspec import Meta

from aiostream_ds._frames.config import FieldConfig
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.rows import Cursor, HistoryRange, Row

__all__ = ["Demo", "Step", "Walk", "walk"]

Hz = Annotated[int, Meta(ge=1, le=1000, title="Rate", description="Rows a second")]
Seed = Annotated[int, Meta(description="Each number is another walk, the same on every machine")]

_PERIODS = tuple(0.25 * 4**octave for octave in range(11))
"""Seconds between the fixed points of each octave: a quarter second to three days."""

CAUGHT_UP = 60
"""Seconds of rows that a stream which was held up makes up for."""

INLINE_STEPS = 2_000
"""Rows of history that are computed in the loop: some 20 ms; more go to a thread."""

_WEIGHTS = tuple(sqrt(period) for period in _PERIODS)

_MASK = (1 << 64) - 1


class Step(Row):
    """One step of the walk; `time` in Unix ms."""

    time: int
    value: Annotated[float, FieldConfig(decimals=3)]


class Walk:
    """The walk of one seed; keeps the fixed points around the moment that was asked for last."""

    __slots__ = ("_points", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._points = [(-1, 0.0, 0.0)] * len(_PERIODS)

    def at(self, seconds: float) -> float:
        """The value at a moment (Unix seconds)."""
        value = 0.0
        points = self._points
        for octave, period in enumerate(_PERIODS):
            place = seconds / period
            number = int(place)
            known, left, right = points[octave]
            if known != number:
                left = _noise(self._seed, octave, number)
                right = _noise(self._seed, octave, number + 1)
                points[octave] = number, left, right
            part = place - number
            value += _WEIGHTS[octave] * (left + (right - left) * part * part * (3 - 2 * part))
        return value


def walk(seed: int, seconds: float) -> float:
    """The walk's value at a moment (Unix seconds, from 1970 on)."""
    return Walk(seed).at(seconds)


def _noise(seed: int, octave: int, point: int) -> float:
    """-1 to 1 by a 64-bit mixer (SplitMix64): the same on every machine and Python."""
    mixed = (seed * 0x9E3779B97F4A7C15 + octave * 0xD1B54A32D192ED03 + point) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) / (1 << 63) - 1


def _step(walk: Walk, hz: int, tick: int) -> Step:
    return Step(time=tick * 1000 // hz, value=walk.at(tick / hz))


def _steps(seed: int, hz: int, ticks: range) -> list[Step]:
    walk = Walk(seed)
    return [_step(walk, hz, tick) for tick in ticks]


def _next_tick(hz: int, cursor: int) -> int:
    """The first tick whose row comes behind the one of this time."""
    return -(-(cursor + 1) * hz // 1000)


def _ticks(span: HistoryRange, hz: int) -> range:
    last = floor(time() * hz)
    if span.after is not None:
        first = _next_tick(hz, span.after)
        if span.upto is not None:
            last = min(last, _next_tick(hz, span.upto) - 1)
        return range(first, min(last, first + span.limit - 1) + 1)
    if span.end.timestamp() < time():
        last = floor(span.end.timestamp() * hz)
    return range(max(0, ceil(span.start.timestamp() * hz), last - span.limit + 1), last + 1)


class Demo(DataSource):
    """An endless walk, the same on every machine: to look at panels without any server.

    Query type `walk`, fields `hz` and `seed`.
    """

    @stream("walk/{hz:int}/{seed:int}", cursor="time")
    async def walk(self, after: Cursor | None, hz: Hz = 10, seed: Seed = 1) -> Rows[Step | Cursor]:
        """A walk that has no end.

        One row each 1/hz s, at whole multiples of it; late ones are caught up, for a minute.
        """
        walk = Walk(seed)
        tick = floor(time() * hz) + 1 if after is None else _next_tick(hz, after.value)
        while True:
            await anyio.sleep(max(0.0, tick / hz - time()))
            now = floor(time() * hz)
            # a machine that slept for a night must not draw the night at once: exact panels read
            # what was left out from the history
            first = now - CAUGHT_UP * hz + 1
            if first > tick:
                tick = first
                yield Cursor("", (tick - 1) * 1000 // hz)
            for due in range(tick, now + 1):
                yield _step(walk, hz, due)
                tick = due + 1

    @walk.history
    async def walked(self, span: HistoryRange, hz: Hz = 10, seed: int = 1) -> list[Step]:
        """The rows of the span up to now: the newest of them, as many as the panel can draw."""
        ticks = _ticks(span, hz)
        if len(ticks) > INLINE_STEPS:
            return await anyio.to_thread.run_sync(_steps, seed, hz, ticks)
        return _steps(seed, hz, ticks)
