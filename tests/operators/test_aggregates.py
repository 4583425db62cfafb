"""resample and ohlc: aggregates of windows by series."""

import math
from collections import namedtuple
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace

import pytest

from aiostream_ds import Broadcast, Buffer, Row
from aiostream_ds.operators import ohlc, resample
from tests.operators.kit import START, at, collect, ticks

pytestmark = pytest.mark.virtual


class Reading(Row):
    time: datetime
    price: float


@dataclass
class Point:
    x: int


NamedPoint = namedtuple("NamedPoint", "y")


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
    many = {f"c{n}": n for n in range(30)}
    for row, columns in (
        ({"time": START, "bid": 1}, "'time', 'bid'$"),
        (Reading(time=START, price=1.0), "'time', 'price'$"),
        (Point(1), "'x'$"),
        (SimpleNamespace(bid=1, _hidden=2), "'bid'$"),
        (NamedPoint(1), "'y'$"),
        (many, "'c18', 'c19' and 10 more$"),
        ({}, "none: {}$"),
        (object(), "none: <object"),
    ):
        rows = resample([row], 1, {"v": "max"}, time=lambda row: START)
        text = f"^a row has no column 'v'; its columns are.*{columns}"
        with pytest.raises(LookupError, match=text):
            await anext(rows)
        await rows.aclose()


async def test_a_missing_column_of_a_bar_or_a_series_is_named():
    for bars in (ohlc([{"time": START, "bid": 1}], 1), ohlc(ticks(1), 1, value="v", by="symbol")):
        text = "no column '(price|symbol)'; its columns are 'time', "
        with pytest.raises(LookupError, match=text):
            await anext(bars)
        await bars.aclose()


async def test_a_broadcast_is_resampled():
    trades = Broadcast(buffer=Buffer(rows=10_000))
    bars = ohlc(trades.subscribe(), 1, idle=math.inf)
    for n in range(5_000):
        trades.publish({"time": at(n / 1000), "price": n})
    trades.close()
    assert [bar["close"] for bar in await collect(bars)] == [999, 1999, 2999, 3999, 4999]
