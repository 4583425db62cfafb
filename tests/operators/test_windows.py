"""Windows by event time."""

import asyncio
import logging
import math
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Row
from aiostream_ds.operators import tumbling
from tests.counting import steps_of
from tests.operators.kit import START, Source, at, collect, ticks

pytestmark = pytest.mark.virtual


class Reading(Row):
    n: int


async def windows(rows, seconds, **options):
    found = await collect(tumbling(rows, seconds, **options))
    return [((w.start - START).total_seconds(), [row["v"] for row in w.rows]) for w in found]


async def test_rows_are_in_the_window_of_their_own_time():
    rows = ticks(0, 0.5, 9.999, 10, 25, 29)
    assert await windows(rows, 10) == [(0, [0, 0.5, 9.999]), (10, [10]), (20, [25, 29])]
    (first, *_) = await collect(tumbling(rows, 10))
    assert (first.start, first.end) == (START, at(10))


async def test_a_window_closes_with_the_first_row_after_its_end_and_lateness():
    source = Source(*[(0, row) for row in ticks(1, 9, 11, 12.9, 13)], (99, None))
    rows = tumbling(source(), 10, lateness=3, idle=math.inf)
    begun = anyio.current_time()
    assert [row["v"] for row in (await anext(rows)).rows] == [1, 9]
    assert (source.read, anyio.current_time()) == (5, begun)
    await rows.aclose()


async def test_rows_that_are_late_within_the_lateness_are_in_their_window():
    assert await windows(ticks(1, 11, 9, 12, 14, 8, 25), 10, lateness=5) == [
        (0, [1, 9, 8]),
        (10, [11, 12, 14]),
        (20, [25]),
    ]


async def test_rows_of_closed_windows_are_left_out_and_logged_once(caplog):
    assert await windows(ticks(1, 11, 9, 12, 8, 25), 10) == [
        (0, [1]),
        (10, [11, 12]),
        (20, [25]),
    ]
    assert caplog.text.count("windows that have closed") == 1


async def test_a_row_that_is_old_but_of_no_closed_window_is_kept():
    assert await windows(ticks(101, 55, 112), 10) == [(50, [55]), (100, [101]), (110, [112])]


async def test_after_a_row_with_a_time_far_in_the_future_windows_still_close():
    times = [1, 1e9, *range(10, 100)]
    source = Source(*[(0, row) for row in ticks(*times)], (99, None))
    operator = tumbling(source(), 10, idle=math.inf)
    with anyio.fail_after(1):
        found = [await anext(operator) for _ in range(9)]
    assert [row["v"] for window in found for row in window.rows] == [1, *range(10, 90)]
    await operator.aclose()


async def test_open_windows_close_after_silence():
    source = Source((0, ticks(1)[0]), (0, ticks(2)[0]), (60, ticks(70)[0]), (60, ticks(3)[0]))
    rows = tumbling(source(), 10, lateness=1)
    begun = anyio.current_time()
    assert len((await anext(rows)).rows) == 2
    assert anyio.current_time() - begun == 11
    assert len((await anext(rows)).rows) == 1
    assert anyio.current_time() - begun == 71
    assert await collect(rows) == []  # the last row was late


async def test_idle_can_be_chosen():
    source = Source((0, ticks(1)[0]), (99, ticks(70)[0]))
    rows = tumbling(source(), 10, idle=2)
    begun = anyio.current_time()
    await anext(rows)
    assert anyio.current_time() - begun == 2
    await rows.aclose()


@pytest.mark.parametrize(
    "time", [1_767_225_605_500, 1_767_225_605_500.0, START + timedelta(seconds=5.5)]
)
async def test_a_time_is_a_datetime_or_unix_milliseconds(time):
    (window,) = await collect(tumbling([{"time": time}], 1))
    assert window.start == at(5)


async def test_rows_without_a_time_have_the_time_of_arrival():
    class Reading(Row):
        value: int

    for row in ({"value": 1}, {"time": None}, Reading(value=1)):
        before = datetime.now(UTC)
        (window,) = await collect(tumbling([row], 60))
        assert window.start <= datetime.now(UTC) and before < window.end


async def test_the_time_may_be_another_column_or_a_function():
    for time in ("at", lambda row: row["at"]):
        (window,) = await collect(tumbling([{"at": at(3)}], 2, time=time))
        assert window.start == at(2)


async def test_windows_before_1970_are_aligned_too():
    (window,) = await collect(
        tumbling([{"time": datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC)}], 10)
    )
    assert window.start == datetime(1969, 12, 31, 23, 59, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    ("row", "error", "text"),
    [
        ({"time": datetime(2026, 1, 1)}, ValueError, "must have a time zone, got datetime"),
        ({"time": "2026"}, TypeError, "must be an aware datetime or Unix milliseconds, got '2026'"),
        ({"time": True}, TypeError, "got True"),
        ({"time": math.nan}, TypeError, "got nan"),
        ([{"time": START}], TypeError, "must yield rows, got a list of 1; yield them one by one: "),
        (
            Reading.from_columns(n=[1, 2]),
            TypeError,
            "must yield rows, got Columns of 2; yield them",
        ),
    ],
)
async def test_another_time_is_named(row, error, text):
    rows = tumbling([row], 1)
    with pytest.raises(error, match=text):
        await anext(rows)
    await rows.aclose()


@given(
    st.lists(st.floats(0, 100), max_size=60),
    st.floats(0, 50),
    st.sampled_from([0.5, 1, 3, 7, 60]),
)
def test_every_row_is_in_one_window_or_late(times, lateness, seconds):
    async def run():
        return await collect(tumbling(ticks(*times), seconds, lateness=lateness))

    logging.disable(logging.WARNING)
    try:
        found = asyncio.run(run())
    finally:
        logging.disable(logging.NOTSET)
    starts = [window.start for window in found]
    assert starts == sorted(set(starts))
    for window in found:
        assert window.rows
        assert all(window.start <= row["time"] < window.end for row in window.rows)
    kept = sorted(row["v"] for window in found for row in window.rows)
    newest, expected = -math.inf, []
    for time in times:
        if newest - time <= lateness:
            expected.append(time)  # within the lateness: never left out
        newest = max(newest, time)
    assert not _missing(expected, kept)


def test_the_work_for_a_window_does_not_grow_with_the_number_of_open_ones():
    def run(count):
        rows = ticks(*range(count))
        found = asyncio.run(collect(tumbling(rows, 1, lateness=count / 2)))
        assert len(found) == count

    assert steps_of(lambda: run(800)) < 6 * steps_of(lambda: run(200))


def _missing(expected, kept):
    kept = list(kept)
    return [each for each in expected if each not in kept or kept.remove(each)]
