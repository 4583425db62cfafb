"""The suite that authors subclass: what it accepts, and what it reports."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from aiostream_ds import DataSource, Frame, HistoryRange, stream
from aiostream_ds.testing.suite import PluginSuite as Suite


def suite(kind, **attributes):
    return type("Made", (Suite,), {"data_source": kind, **attributes})()


class Client(DataSource):
    """Its client cancels a task at the end, which it does not await, as `websockets` does."""

    @asynccontextmanager
    async def lifespan(self):
        task = asyncio.create_task(self.keep_alive())
        yield
        task.cancel()

    async def keep_alive(self):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)

    @stream("rows")
    async def rows(self):
        yield {"value": 1}
        await anyio.sleep_forever()


class Leaking(Client):
    @asynccontextmanager
    async def lifespan(self):
        self.task = Leaking.task = asyncio.create_task(self.keep_alive())
        yield


async def test_a_task_that_was_cancelled_at_the_end_may_take_some_iterations():
    await suite(Client, channels=["rows"]).test_channels_stop_cleanly()


async def test_a_task_that_is_left_is_named():
    with pytest.raises(AssertionError, match=r"expected no task after the end, got .*keep_alive"):
        await suite(Leaking, channels=["rows"]).test_channels_stop_cleanly()
    Leaking.task.cancel()
    await asyncio.wait([Leaking.task])


def with_history(history, live=None):
    class Past(DataSource):
        @stream("rows")
        async def rows(self):
            yield live or {"time": datetime.now(UTC), "value": 1.0}
            await anyio.sleep_forever()

        @rows.history
        async def past(self, history_range: HistoryRange):
            return history(history_range)

    return Past


def minutes(count, value=1.0):
    now = datetime.now(UTC)
    return [{"time": now - timedelta(minutes=count - n), "value": value} for n in range(count)]


def good(r):
    return [row for row in minutes(4) if r.start <= row["time"] <= r.end][-r.limit :]


PROBLEMS = {
    "limit": (lambda r: [x for x in minutes(4) if x["time"] >= r.start], "at most `limit` rows"),
    "range": (lambda r: minutes(4)[-r.limit :], "rows from `start` on, got"),
    "order": (lambda r: good(r)[::-1], "ordered by time, oldest first"),
    "columns": (
        lambda r: Frame.from_columns(
            {"time": [x["time"] for x in good(r)], "value": ["a"] * len(good(r))}
        ),
        "columns of the live rows",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
async def test_a_history_that_does_not_continue_into_live_rows_is_reported(case):
    history, text = PROBLEMS[case]
    made = suite(with_history(history), channels=["rows"])
    with pytest.raises(AssertionError, match=f"^rows: .*{text}.*; "):
        await made.test_histories_continue_into_live_rows()


@pytest.mark.parametrize("history", [good, lambda r: [], lambda r: good(r)[:1]])
async def test_a_good_history_is_not_reported(history):
    await suite(with_history(history), channels=["rows"]).test_histories_continue_into_live_rows()
