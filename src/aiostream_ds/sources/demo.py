"""The source `demo`: an endless walk that needs no server and is equal on every machine.

The walk is a pure function of time and seed, so histories, live rows and several Grafana servers
agree. It is fractal noise: it looks like a random walk, but each value is computed on its own.
"""

import math
from collections.abc import Sequence
from time import time
from typing import Annotated, ClassVar

import anyio
import anyio.to_thread
from msgspec import Meta

from aiostream_ds._channels.policy import Retry
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.models import Health
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange, Row
from aiostream_ds.sources.capabilities import DeclaredCapabilities

__all__ = ["Demo", "WalkRow", "Walk", "walk"]

Hz = Annotated[int, Meta(ge=1, le=1000, title="Rate", description="Rows per second")]
Seed = Annotated[int, Meta(description="Each number gives another walk, equal on every machine")]

_PERIODS = tuple(0.25 * 4**octave for octave in range(11))
"""Seconds between the fixed points of each octave: a quarter of a second to three days."""

CATCH_UP = 60
"""Seconds of rows that a delayed stream still yields; older ones are skipped."""

INLINE_ROWS = 2_000
"""Rows of history computed in the event loop, in some 20 ms; more are computed in a thread."""

_WEIGHTS = tuple(math.sqrt(period) for period in _PERIODS)

_MASK = (1 << 64) - 1


class WalkRow(Row):
    """One step of the walk; `time` in Unix ms."""

    time: int
    value: Annotated[float, FieldConfig(decimals=3)]


class Walk:
    """The walk of one seed. It caches the fixed points around the last requested moment."""

    __slots__ = ("_points", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._points = [(-1, 0.0, 0.0)] * len(_PERIODS)

    def at(self, seconds: float) -> float:
        """The value at a moment in Unix seconds."""
        value = 0.0
        points = self._points
        for octave, period in enumerate(_PERIODS):
            position = seconds / period
            number = int(position)
            cached, left, right = points[octave]
            if cached != number:
                left = _noise(self._seed, octave, number)
                right = _noise(self._seed, octave, number + 1)
                points[octave] = number, left, right
            part = position - number
            value += _WEIGHTS[octave] * (left + (right - left) * part * part * (3 - 2 * part))
        return value


def walk(seed: int, seconds: float) -> float:
    """The walk's value at a moment in Unix seconds, from 1970 on."""
    return Walk(seed).at(seconds)


def _noise(seed: int, octave: int, point: int) -> float:
    """A value from -1 to 1 by SplitMix64: equal on every machine and Python version."""
    mixed = (seed * 0x9E3779B97F4A7C15 + octave * 0xD1B54A32D192ED03 + point) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) / (1 << 63) - 1


def _step(walk: Walk, hz: int, tick: int) -> WalkRow:
    return WalkRow(time=tick * 1000 // hz, value=walk.at(tick / hz))


def _steps(seed: int, hz: int, ticks: Sequence[int]) -> list[WalkRow]:
    walk = Walk(seed)
    return [_step(walk, hz, tick) for tick in ticks]


def _next_tick(hz: int, cursor: int) -> int:
    """The first tick whose row has a later time than the cursor."""
    return -(-(cursor + 1) * hz // 1000)


def _ticks(history_range: HistoryRange, hz: int) -> range:
    last = math.floor(time() * hz)
    if history_range.after is not None:
        first = _next_tick(hz, history_range.after)
        if history_range.upto is not None:
            last = min(last, _next_tick(hz, history_range.upto) - 1)
        return range(first, min(last, first + history_range.limit - 1) + 1)
    if history_range.end.timestamp() < time():
        last = math.floor(history_range.end.timestamp() * hz)
    return range(max(0, math.ceil(history_range.start.timestamp() * hz)), last + 1)


def _drawn(ticks: range, history_range: HistoryRange, hz: int) -> Sequence[int]:
    """The ticks of a time range that are drawn: each n-th and the last one, or the newest."""
    points = history_range.points
    if len(ticks) <= points or history_range.limit == points:
        return ticks[-history_range.limit :]
    step = math.ceil(1.01 * hz * history_range.interval.total_seconds())
    first = ticks[0] + -ticks[0] % step  # the same ones when the range moves
    return [*range(first, ticks[-1], step), ticks[-1]][-points:]


class Demo(DataSource):
    """An endless walk, equal on every machine, to try panels without a server.

    Query type `walk`, fields `hz` and `seed`.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {"walk": {"event_time": True}}

    async def health(self) -> Health:
        """Compute a value, as streams do."""
        return Health(
            message=f"no server is needed; the default walk is at {Walk(1).at(time()):.3f} now"
        )

    @stream("walk/{hz:int}/{seed:int}", cursor="time", retry=Retry(fill=False))
    async def walk(self, after: Cursor, hz: Hz = 10, seed: Seed = 1) -> Rows[WalkRow | Cursor]:
        """An endless walk.

        One row every 1/hz s, at multiples of it. After a delay it yields the rows of the last
        minute.
        """
        walk = Walk(seed)
        tick = _next_tick(hz, after.value)
        while True:
            await anyio.sleep(max(0.0, tick / hz - time()))
            now = math.floor(time() * hz)
            # after a suspended night, skip its rows: exact panels read them from the history
            first = now - CATCH_UP * hz + 1
            if first > tick:
                tick = first
                yield Cursor("", (tick - 1) * 1000 // hz)
            for due in range(tick, now + 1):
                yield _step(walk, hz, due)
                tick = due + 1

    @walk.history
    async def walk_history(
        self, history_range: HistoryRange, hz: Hz = 10, seed: int = 1
    ) -> HistoryPage:
        """The rows of the range, up to now; of a long one each n-th."""
        ticks = _ticks(history_range, hz)
        drawn: Sequence[int] = ticks
        if history_range.after is None:
            drawn = _drawn(ticks, history_range, hz)
        if len(drawn) > INLINE_ROWS:
            rows = await anyio.to_thread.run_sync(_steps, seed, hz, drawn, limiter=self.threads)
        else:
            rows = _steps(seed, hz, drawn)
        return HistoryPage(rows, total=len(ticks) if len(drawn) < len(ticks) else None)
