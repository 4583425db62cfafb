"""The source `demo`: a walk that is a function of time and seed."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Cursor, HistoryRange, Settings
from aiostream_ds.sources import demo
from aiostream_ds.sources.demo import Demo, Walk, walk
from aiostream_ds.testing import Refused, create_instance, serve_in_memory

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def source():
    return create_instance(Demo, Settings())


async def history(asked, hz, seed):
    return (await source().walk_history(asked, hz, seed)).rows


def span(start: float, end: float, limit: int = 1000, points: int = 0):
    moments = (datetime.fromtimestamp(t, UTC) for t in (start, end))
    return HistoryRange(start=next(moments), end=next(moments), limit=limit, points=points)


@given(st.integers(), st.lists(st.floats(0, 4e9), min_size=1, max_size=5))
def test_the_walk_is_a_function_of_seed_and_time(seed, moments):
    remembering = Walk(seed)
    assert [remembering.at(t) for t in moments] == [walk(seed, t) for t in moments]


def test_the_walk_is_equal_on_every_machine():
    assert round(walk(1, 1_700_000_000.125), 6) == 430.70978


@given(st.integers(0, 100), st.floats(1e9, 2e9))
def test_the_walk_has_no_jumps(seed, seconds):
    assert abs(walk(seed, seconds + 0.001) - walk(seed, seconds)) < 1.0


def test_seeds_differ():
    assert len({walk(seed, 1e9) for seed in range(100)}) == 100


@pytest.mark.parametrize("hz", [1, 3, 10, 1000])
async def test_history_and_live_rows_have_the_same_times(hz, monkeypatch):
    now = 1_700_000_000.4321
    monkeypatch.setattr(demo, "time", lambda: now)
    past = await history(span(now - 3, now + 60), hz, 7)
    rows = source().walk(Cursor("", int(now * 1000)), hz, 7)
    opening = anext(rows)

    async def sleep(seconds):
        nonlocal now
        now += seconds + 1e-6

    monkeypatch.setattr(demo.anyio, "sleep", sleep)
    live = [await opening, await anext(rows), await anext(rows)]
    await rows.aclose()
    times = [row.time for row in [*past, *live]]
    first = past[0].time * hz // 1000 + (past[0].time * hz % 1000 > 0)
    assert times == [(first + i) * 1000 // hz for i in range(len(times))]
    assert (await history(span(now - 9, now), hz, 7))[-3:] == live


async def test_a_history_has_the_newest_rows_up_to_the_limit():
    rows = await history(span(1e9, 1e9 + 3600, limit=50), 10, 1)
    assert len(rows) == 50
    assert rows[-1].time == 1_000_003_600_000


async def test_a_history_is_within_its_range_and_not_in_the_future():
    rows = await history(span(1e9 + 0.05, 1e9 + 1), 10, 1)
    assert [row.time - 10**12 for row in rows] == list(range(100, 1001, 100))
    assert await history(span(time.time() + 60, time.time() + 120), 10, 1) == []


@pytest.mark.parametrize(
    ("seconds", "hz", "points"), [(6 * 3600, 10, 1000), (3600, 1000, 777), (10, 10, 3), (9, 10, 1)]
)
async def test_a_history_of_more_rows_than_points_has_each_nth_of_the_whole_range(
    seconds, hz, points
):
    def asked(start):
        return span(start, start + seconds, points + 1, points)

    page = await source().walk_history(asked(1e9), hz, 1)
    times = [row.time - 10**12 for row in page.rows]
    assert page.total == seconds * hz + 1 and points * 0.95 - 3 < len(times) <= points
    assert times[-1] == seconds * 1000 and times == sorted(times)
    assert page.rows == [demo._step(demo.Walk(1), hz, row.time * hz // 1000) for row in page.rows]
    if points > 1:
        assert times[0] <= 3 * seconds * 1000 / points
        later = await source().walk_history(asked(1e9 + 1), hz, 1)
        moved = {row.time - 10**12 for row in later.rows[:-1]}
        assert set(times[1:-1]) - moved <= set(times[:4]), "the same rows when the range moves"


async def test_a_long_history_is_equal_in_a_thread(monkeypatch):
    asked = span(1e9, 1e9 + 100)
    inline = await history(asked, 10, 1)
    monkeypatch.setattr(demo, "INLINE_ROWS", 5)
    assert await history(asked, 10, 1) == inline


async def test_a_delayed_stream_yields_at_most_a_minute_of_missed_rows(monkeypatch):
    now = 1_700_000_000.0
    monkeypatch.setattr(demo, "time", lambda: now)

    async def sleep(seconds):
        nonlocal now
        now += 8 * 3600

    monkeypatch.setattr(demo.anyio, "sleep", sleep)
    rows = source().walk(Cursor("", int(now * 1000)), 1, 1)
    skipped_to, first = await anext(rows), await anext(rows)
    await rows.aclose()
    assert first.time == 1000 * (int(now) - demo.CATCH_UP + 1)
    assert skipped_to == Cursor("", first.time - 1000), "exact panels read the rest from history"


@given(st.integers(1, 1000), st.integers(0, 3_000_000), st.integers(1, 50), st.integers(0, 90_000))
async def test_the_history_after_a_cursor_has_the_rows_that_the_stream_yields_next(
    hz, ms, limit, more
):
    after = 1_700_000_000_000 + ms
    grid = [tick * 1000 // hz for tick in range(after * hz // 1000, after * hz // 1000 + 60)]
    expected = [time for time in grid if after < time <= after + more][:limit]
    asked = HistoryRange(start=FIRST, end=LAST, limit=limit, after=after, upto=after + more)
    found = [row.time for row in await history(asked, hz, 1)]
    assert found[: len(expected)] == expected
    assert all(after < time <= after + more for time in found) and len(found) <= limit


async def test_the_stream_continues_after_its_cursor(monkeypatch):
    monkeypatch.setattr(demo, "time", lambda: 1_700_000_010.0)
    rows = source().walk(Cursor("", 1_700_000_000_050), 10, 1)
    assert [(await anext(rows)).time - 1_700_000_000_000 for _ in range(3)] == [100, 200, 300]
    await rows.aclose()


@pytest.mark.parametrize(
    "path, found",
    [("walk/1/1", True), ("walk/1000/5", True), ("walk/0/1", False), ("walk/1001/1", False)],
)
async def test_rates_from_1_to_1000_are_allowed(path, found):
    async with serve_in_memory(Demo) as grafana:
        if found:
            await (await grafana.follow(path)).next()
        else:
            with pytest.raises(Refused, match="NOT_FOUND"):
                await grafana.follow(path)
