"""The suite that authors subclass: what it accepts, and what it reports."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

import anyio
import pytest

from aiostream_ds import (
    ConfigError,
    Cursor,
    DataSource,
    Frame,
    Health,
    HistoryRange,
    PermissionDenied,
    Secret,
    Settings,
    UpstreamError,
    stream,
)
from aiostream_ds.testing.suite import PluginSuite as Suite

pytestmark = pytest.mark.slow  # runs whole suites


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
    "start": (lambda r: minutes(4)[-r.limit :], "rows from `start` on, got"),
    "end": (
        lambda r: [x for x in minutes(4) if r.start <= x["time"]][-r.limit :],
        "rows up to `end`, got",
    ),
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


def with_cursor(newest):
    class Numbered(DataSource):
        @stream("rows", cursor="id")
        async def rows(self, after: Cursor):
            yield {"id": 9, "value": 1.0}
            await anyio.sleep_forever()

        @rows.history
        async def past(self, history_range: HistoryRange):
            rows = [{"id": n, **row} for n, row in enumerate(minutes(4))]
            if history_range.after is not None:
                return [row for row in rows if row["id"] > history_range.after][
                    : history_range.limit
                ]
            return [x for x in rows if history_range.start <= x["time"] <= history_range.end][
                -history_range.limit :
            ]

        if newest != "no hook":

            @rows.last
            async def newest_cursor(self):
                return newest

    return Numbered


@pytest.mark.parametrize("newest", [2, None, -1])
async def test_a_last_hook_that_is_older_than_the_history_is_reported(newest):
    made = suite(with_cursor(newest), channels=["rows"])
    text = f"rows: the newest cursor must be at least 3, as in the history, got {newest or -1}; ret"
    with pytest.raises(AssertionError, match=text):
        await made.test_histories_continue_into_live_rows()


@pytest.mark.parametrize("newest", [3, 8, "no hook"])
async def test_a_newest_cursor_that_is_that_of_the_history_or_newer_is_not_reported(newest):
    made = suite(with_cursor(newest), channels=["rows"])
    await made.test_histories_continue_into_live_rows()


async def test_frames_that_alert_rules_cannot_use_are_reported():
    texts = with_history(
        lambda r: [{"time": row["time"], "name": "a"} for row in good(r)],
        {"time": datetime.now(UTC), "name": "a"},
    )
    with pytest.raises(AssertionError, match="^rows: .*; return a time and columns of numbers"):
        await suite(texts, channels=["rows"]).test_alert_rules_can_use_the_channels()
    await suite(with_history(good), channels=["rows"]).test_alert_rules_can_use_the_channels()


class Url(Settings):
    url: str = "here"


class Untested(DataSource[Url]):
    """Its Save & test is the default, without a connection."""


class Constant(DataSource[Url]):
    async def health(self) -> Health:
        return Health(message="it works")


class Tested(DataSource[Url]):
    async def health(self) -> Health:
        if not self.settings.url:
            raise ConfigError("url is empty")
        return Health()


class Requesting(DataSource[Url]):
    async def health(self) -> Health:
        await anyio.lowlevel.checkpoint()
        return Health()


class Inner(DataSource[Url]):
    async def health(self) -> Health:
        return (lambda: Health(message=self.settings.url))()


class Connecting(DataSource[Url]):
    def __init__(self) -> None:
        self.upstreams = []


class Choices(Settings):
    depth: int = 1
    mode: Literal["fast", "safe"] = "fast"


class Checked(DataSource[Choices]):
    """Decoding has tested its settings."""


class Login(Settings):
    password: Secret | None = None


class Unused(DataSource[Login]):
    """Its Save & test does not use the password."""


@pytest.mark.parametrize("kind", [Untested, Constant, Unused])
async def test_a_health_that_tests_nothing_is_reported(kind):
    with pytest.raises(AssertionError, match=r"Save & test is green with any settings.*; override"):
        await suite(kind).test_health_tests_the_settings()


@pytest.mark.parametrize("kind", [Tested, Requesting, Inner, Connecting, Client, Checked])
async def test_a_health_that_may_test_the_settings_is_not_reported(kind):
    await suite(kind).test_health_tests_the_settings()


# Each failure is a sentence: what was expected, what came, and the cure


class Empty(DataSource):
    """Its streams do not send what the suite expects."""

    @stream("silent")
    async def silent(self):
        yield []
        await anyio.sleep_forever()

    @stream("failing")
    async def failing(self):
        raise UpstreamError("the broker is away")
        yield {}

    @stream("buggy")
    async def buggy(self):
        raise ValueError("a bug")
        yield {}

    @stream("ended")
    async def ended(self):
        return
        yield {}

    @stream("refused")
    async def refused(self):
        yield {"n": 1}

    @refused.subscribe
    async def may(self, user):
        raise PermissionDenied("nobody may")

    @stream("history")
    async def with_history(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @with_history.history
    async def past(self, history_range: HistoryRange):
        raise UpstreamError("the database is away")

    @stream("hanging")
    async def hanging(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @hanging.history
    async def hang(self, history_range: HistoryRange):
        await anyio.sleep_forever()


class Wrong(Empty):
    def __init__(self):
        raise ConfigError("the password is wrong")


class Stubborn(DataSource):
    @stream("rows")
    async def rows(self):
        yield {"n": 1}
        while True:
            try:
                await anyio.sleep(3600)
            except asyncio.CancelledError:
                if Stubborn.released:
                    raise

    released = False


FAILURES = {
    "no class": ("test_health_is_green", None, {}, r"Made.data_source, got none; set it"),
    "red": (
        "test_health_is_green",
        Wrong,
        {},
        r"^expected Save & test to be green, got: the password is wrong; set `settings`",
    ),
    "silent": (
        "test_channels_give_rows",
        Empty,
        {"channels": ["silent"]},
        r"^silent: expected a row within 0.1 s, got none; correct the stream",
    ),
    "failing": (
        "test_channels_give_rows",
        Empty,
        {"channels": ["failing"]},
        r"^failing: .*; its status is 'reconnecting \(1\): the broker is away'; correct",
    ),
    "ended": (
        "test_channels_give_rows",
        Empty,
        {"channels": ["ended"]},
        r"^ended: expected a row, got the end of the stream; yield one",
    ),
    "refused": (
        "test_channels_give_rows",
        Empty,
        {"channels": ["refused"]},
        r"^refused: expected that an admin may subscribe, got PERMISSION_DENIED; correct",
    ),
    "unknown": (
        "test_channels_give_rows",
        Empty,
        {"channels": ["nothing"]},
        r"^nothing: expected that an admin may subscribe, got NOT_FOUND; correct the path",
    ),
    "unknown query": (
        "test_channels_answer_queries",
        Empty,
        {"channels": ["nothing"]},
        r"^`channels`: expected a path of the streams 'silent'.*, got 'nothing'; correct the path",
    ),
    "a string": (
        "test_channels_give_rows",
        Empty,
        {"channels": "silent"},
        r"got 'silent'; write channels = \['silent'\]",
    ),
    "failing history": (
        "test_channels_answer_queries",
        Empty,
        {"channels": ["history"]},
        r"^history: expected an answer of the query, got status 502: the database is away; corr",
    ),
    "hanging history": (
        "test_channels_answer_queries",
        Empty,
        {"channels": ["hanging"]},
        r"^hanging: expected an answer within 0.2 s, got none; put a timeout around",
    ),
    "settings": (
        "test_settings_survive_a_round_trip",
        Untested,
        {"settings": {"url": {"a": 1}}},
        r"^expected valid settings, got: .*url.*; set `settings`",
    ),
    "not found": (
        "test_unknown_paths_are_not_found",
        Wrong,
        {},
        r"^expected NOT_FOUND for a path that matches no stream, got .*; a lifespan that cannot",
    ),
}


@pytest.mark.virtual
@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_is_a_sentence_with_what_came_and_the_cure(case):
    name, kind, attributes, text = FAILURES[case]
    made = suite(kind, timeout=0.1, **attributes)
    if kind is None:
        del type(made).data_source
    with pytest.raises(AssertionError, match=text):
        await getattr(made, name)()


async def test_a_stream_that_does_not_end_is_named_with_the_line_at_which_it_is():
    text = r"(?s)expected the end of streams within 0.1 s, got none; do not swallow.*rows:.*in rows"
    try:
        with pytest.raises(AssertionError, match=text):
            await suite(Stubborn, channels=["rows"], timeout=0.1).test_channels_stop_cleanly()
    finally:
        Stubborn.released = True
        left = [task for task in asyncio.all_tasks() if task.get_name() == "stream rows"]
        for task in left:
            task.cancel()
        await asyncio.wait(left)


async def test_a_suite_without_channels_skips_what_needs_them():
    with pytest.raises(pytest.skip.Exception, match="set `channels` to paths that send a row"):
        await suite(Client).test_channels_give_rows()
