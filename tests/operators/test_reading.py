"""What all operators have in common: how they read their sources and end; wrong arguments."""

import asyncio
import gc
import math
from contextlib import aclosing

import anyio
import pytest

from aiostream_ds import Broadcast, UpstreamError
from aiostream_ds.operators import READ_AHEAD, merge, ohlc, resample, tumbling, with_timeout
from tests.operators.kit import Source, at, collect

pytestmark = pytest.mark.virtual


class Table:
    """What pandas, polars and pyarrow have in common."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise NotImplementedError

    def __iter__(self):
        return iter(["time", "v"])  # the columns of a DataFrame


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


@pytest.mark.slow
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
