"""Operators: windows by event time, joins, and a timeout around the next row."""

import asyncio
import gc
import logging
import math
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Broadcast, Buffer, Row, UpstreamError
from aiostream_ds.operators import (
    READ_AHEAD,
    combine_latest,
    merge,
    ohlc,
    resample,
    tumbling,
    with_timeout,
)
from tests.counting import steps_of

pytestmark = pytest.mark.virtual

START = datetime(2026, 1, 1, tzinfo=UTC)


class Table:
    """What pandas, polars and pyarrow have in common."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise NotImplementedError

    def __iter__(self):
        return iter(["time", "v"])  # the columns of a DataFrame


def at(seconds):
    return START + timedelta(seconds=seconds)


class Source:
    """An async generator that yields (delay, row) pairs; it counts its `finally`."""

    def __init__(self, *rows, error=None):
        self.rows, self.error = rows, error
        self.closed = self.read = 0

    async def __call__(self):
        try:
            for delay, row in self.rows:
                await anyio.sleep(delay)
                self.read += 1
                yield row
            if self.error is not None:
                raise self.error
        finally:
            await anyio.sleep(0.1)
            self.closed += 1


async def collect(rows):
    return [row async for row in rows]


# with_timeout


async def test_a_timeout_yields_its_default_and_loses_no_row():
    source = Source((0, 1), (25, 2), (5, 3))
    begun = anyio.current_time()
    found = [(row, anyio.current_time() - begun) async for row in with_timeout(source(), 10)]
    assert found == [(1, 0), (None, 10), (None, 20), (2, 25), (3, 30)]
    assert source.closed == 1


async def test_the_default_of_a_timeout_can_be_chosen():
    found = await collect(with_timeout(Source((0, 1), (3, 2))(), 2, "silent"))
    assert found == [1, "silent", 2]


async def test_a_timeout_around_an_operator_loses_no_row():
    rows = with_timeout(Source(*[(1, n) for n in range(5)])(), 100)
    found = []
    while len(found) < 5:
        with anyio.move_on_after(0.3):
            found.append(await anext(rows))
    assert found == list(range(5))
    await rows.aclose()


# merge, combine_latest


async def test_merged_rows_come_as_they_arrive():
    one, two = Source((1, "a"), (2, "b"), (2, "c")), Source((2, 1), (2, 2))
    assert await collect(merge(one(), two())) == ["a", 1, "b", 2, "c"]
    assert (one.closed, two.closed) == (1, 1)


async def test_the_newest_rows_are_joined_when_each_source_has_had_one():
    one, two = Source((1, "a"), (2, "b"), (2, "c")), Source((2, 1), (2, 2))
    assert await collect(combine_latest(one(), two())) == [
        ("a", 1),
        ("b", 1),
        ("b", 2),
        ("c", 2),
    ]


async def test_no_sources_are_no_rows():
    assert await collect(merge()) == await collect(combine_latest(*())) == []


async def test_lists_are_sources_too():
    assert sorted(await collect(merge([1, 2], (3,), iter([4])))) == [1, 2, 3, 4]


# Errors and ends


async def test_an_error_comes_after_the_rows_before_it_and_closes_the_other_sources():
    failing, other = Source((0, 1), (0, 2), error=UpstreamError("away")), Source((99, 3))
    rows, found = merge(failing(), other()), []
    with pytest.raises(UpstreamError, match="away"):
        while True:
            found.append(await anext(rows))
    assert found == [1, 2]
    assert (failing.closed, other.closed) == (1, 1)
    assert await collect(rows) == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_what_is_no_exception_is_contained(error):
    with pytest.raises(RuntimeError):
        await collect(merge(Source(error=error)()))


async def test_a_source_ends_in_the_task_that_read_it():
    tasks = []

    async def source():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            tasks.append(asyncio.current_task())
            try:
                yield 1
                yield 2
                await anyio.sleep_forever()
            finally:
                tasks.append(asyncio.current_task())
                group.cancel_scope.cancel()

    rows = with_timeout(source(), 5)
    assert [await anext(rows) for _ in range(3)] == [1, 2, None]
    await rows.aclose()
    assert tasks[0] is tasks[1]


async def test_an_operator_that_is_closed_has_closed_its_sources():
    source = Source(*[(1, n) for n in range(9)])
    async with aclosing(with_timeout(source(), 5)) as rows:
        assert await anext(rows) == 0
    assert source.closed == 1
    await rows.aclose()
    assert await collect(rows) == []


async def test_operators_of_operators_are_closed_together():
    source = Source(*[(1, {"time": at(n), "v": n}) for n in range(99)])
    rows = with_timeout(tumbling(merge(source()), 10), 60)
    window = await anext(rows)
    assert len(window.rows) == 10
    await rows.aclose()
    assert source.closed == 1


async def test_an_operator_that_nothing_refers_to_ends():
    source = Source(*[(1, n) for n in range(99)])
    rows = merge(source())
    assert await anext(rows) == 0
    del rows
    gc.collect()
    await anyio.sleep(1)
    assert source.closed == 1


async def test_an_operator_that_was_never_read_opens_nothing():
    source = Source((0, 1))
    merge(source())
    await anyio.sleep(1)
    assert source.read == 0


async def test_a_source_that_ignores_its_cancellation_is_cancelled_again():
    attempts = []

    async def stubborn():
        while True:
            try:
                yield 1
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                attempts.append(1)
                if len(attempts) == 3:
                    raise

    rows = merge(stubborn())
    await anext(rows)
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(rows.aclose())
    while not closing.done():
        await anyio.sleep(1)
        closing.cancel()
    assert len(attempts) == 3 and closing.cancelled()


async def test_an_error_of_a_source_that_closes_is_logged(caplog):
    async def source():
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            raise ValueError("in the finally")

    rows = merge(source())
    await anext(rows)
    await rows.aclose()
    assert "in the finally" in caplog.text


async def test_a_source_is_read_ahead_up_to_the_limit_only():
    source = Source(*[(0, n) for n in range(10 * READ_AHEAD)])
    rows = merge(source())
    assert await anext(rows) == 0
    await anyio.sleep(10)
    assert READ_AHEAD <= source.read <= READ_AHEAD + 1
    assert [await anext(rows) for _ in range(5 * READ_AHEAD)] == list(range(1, 5 * READ_AHEAD + 1))
    await rows.aclose()


async def test_a_second_reader_of_one_operator_is_refused():
    rows = merge(Source((5, 1))())
    pending = asyncio.ensure_future(anext(rows))
    await anyio.sleep(1)
    with pytest.raises(RuntimeError, match="expected one task to read an operator"):
        await anext(rows)
    await asyncio.wait([pending])
    await rows.aclose()


# Windows


def ticks(*times):
    return [{"time": at(time), "v": time} for time in times]


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


# resample, ohlc


async def test_values_are_aggregated_by_window_and_series():
    rows = [
        {"time": at(s), "host": host, "load": load}
        for s, host, load in [
            (1, "a", 1.0),
            (2, "b", 5.0),
            (3, "a", 3.0),
            (4, "a", None),
            (11, "b", 7.0),
        ]
    ]
    columns = {"load": "mean", "peak": ("load", "max"), "n": ("load", "count")}
    assert await collect(resample(rows, 10, columns, by="host")) == [
        {"time": START, "host": "a", "load": 2.0, "peak": 3.0, "n": 2},
        {"time": START, "host": "b", "load": 5.0, "peak": 5.0, "n": 1},
        {"time": at(10), "host": "b", "load": 7.0, "peak": 7.0, "n": 1},
    ]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("first", 2), ("last", 9), ("min", 1), ("max", 9), ("sum", 15), ("mean", 3.75), ("count", 4)],
)
async def test_each_aggregate(aggregate, expected):
    rows = [{"time": at(t), "v": v} for t, v in [(3, 3), (1, 2), (5, 9), (4, 1), (2, math.nan)]]
    ((row),) = await collect(resample(rows, 10, {"v": aggregate}, lateness=10))
    assert row["v"] == expected


@pytest.mark.parametrize("aggregate", ["first", "last", "min", "max", "sum", "mean"])
async def test_a_window_without_values_is_none(aggregate):
    ((row),) = await collect(resample([{"time": START, "v": None}], 10, {"v": aggregate}))
    assert row["v"] is None


async def test_bars_have_the_first_and_last_price_by_event_time():
    class Trade(Row):
        time: datetime
        price: float
        size: int
        symbol: str

    rows = [
        Trade(time=at(t), price=p, size=n, symbol=s)
        for t, p, n, s in [
            (0.2, 10.0, 1, "A"),
            (0.1, 11.0, 1, "A"),
            (0.9, 12.0, 2, "A"),
            (0.5, 50.0, 1, "B"),
            (1.0, 9.0, 1, "A"),
        ]
    ]
    bars = await collect(ohlc(rows, 1, volume="size", by=("symbol",)))
    assert bars[0] == {
        "time": START,
        "symbol": "A",
        "open": 11.0,
        "high": 12.0,
        "low": 10.0,
        "close": 12.0,
        "volume": 4,
        "vwap": 11.25,
    }
    assert [(bar["symbol"], bar["close"]) for bar in bars[1:]] == [("B", 50.0), ("A", 9.0)]
    assert list(bars[0]) == ["time", "symbol", "open", "high", "low", "close", "volume", "vwap"]


async def test_a_bar_without_volume_has_no_average():
    (bar,) = await collect(ohlc([{"time": START, "price": 1.0, "n": 0}], 1, volume="n"))
    assert bar["vwap"] is None


@pytest.mark.parametrize(
    ("columns", "value", "text"),
    [
        ({"v": "sum"}, "1", "the values of 'v' must be numbers, got v='1'"),
        ({"v": "mean"}, [1], r"the values of 'v' must be numbers, got v=\[1\]"),
        ({"m": ("v", "max")}, [1], "the values of 'm' must be of one type"),
    ],
)
async def test_a_value_that_cannot_be_aggregated_is_named(columns, value, text):
    rows = resample([{"time": START, "v": 1}, {"time": START, "v": value}], 1, columns)
    with pytest.raises(TypeError, match=text):
        await anext(rows)
    await rows.aclose()


async def test_a_missing_column_is_named():
    for row, error in (({"time": START}, KeyError), (object(), AttributeError)):
        rows = resample([row], 1, {"v": "max"}, time=lambda row: START)
        with pytest.raises(error, match="a row has no column 'v': "):
            await anext(rows)
        await rows.aclose()


# Arguments


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: merge(5),
            TypeError,
            "a source must be an async iterable or a list of rows, got 5",
        ),
        (lambda: merge("abc"), TypeError, "got 'abc'"),
        (lambda: merge({"time": 1}), TypeError, "got {'time': 1}"),
        (lambda: merge(Table()), TypeError, "pass its rows as a list of dicts"),
        (lambda: resample([], 1, ["v"]), TypeError, "columns must be a dict of aggregates, got"),
        (lambda: resample([], 1, {}, by=5), TypeError, "by must be the name of a column or a list"),
        (lambda: ohlc([], 1, by=[1]), TypeError, r"got \[1\]"),
        (lambda: merge(Broadcast()), TypeError, r"call its subscribe\(\)"),
        (lambda: with_timeout([], 0), ValueError, "seconds must be a number above 0, got 0"),
        (lambda: with_timeout([], math.inf), ValueError, "got inf"),
        (lambda: with_timeout([], True), ValueError, "got True"),
        (lambda: tumbling([], -1), ValueError, "got -1"),
        (lambda: tumbling([], 0.0001), ValueError, "seconds must be at least 0.001, got 0.0001"),
        (lambda: tumbling([], 1, lateness=-1), ValueError, "lateness must be a number of at least"),
        (lambda: tumbling([], 1, lateness="1"), ValueError, "got '1'"),
        (lambda: tumbling([], 1, idle=0), ValueError, "idle must be a number above 0, got 0"),
        (lambda: tumbling([], 1, time=3), TypeError, "time must be the name of a column or a fun"),
        (
            lambda: resample([], 1, {"v": "avg"}),
            ValueError,
            "'v' must be one of first, last, .*avg",
        ),
        (lambda: resample([], 1, {"v": ("a", "b", "c")}), ValueError, "'v' must be one of"),
    ],
)
async def test_wrong_arguments_are_named(make, error, text):
    with pytest.raises(error, match=text):
        make()


# With a broadcast


async def test_a_broadcast_is_resampled():
    trades = Broadcast(buffer=Buffer(rows=10_000))
    bars = ohlc(trades.subscribe(), 1, idle=math.inf)
    for n in range(5_000):
        trades.publish({"time": at(n / 1000), "price": n})
    trades.close()
    assert [bar["close"] for bar in await collect(bars)] == [999, 1999, 2999, 3999, 4999]
