"""What happens to a stream whose run fails, in virtual time."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from aiostream_ds._channels.exceptions import StreamFailed
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Retry
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._streams.supervisor import BUG_RETRY, BugDelays, supervise
from aiostream_ds._telemetry import Counters
from aiostream_ds.decorators import StreamOptions
from aiostream_ds.errors import BadQuery, ConfigError, NotFound, UpstreamError, unwrap
from tests.channels.parts import encode, rows_of

pytestmark = pytest.mark.virtual
KEY = ChannelKey("instance", "path")
RETRY = Retry(min_delay=1, max_delay=8, jitter=0)


class Stage:
    """One channel whose author is a generator function of the run's number."""

    def __init__(self, author: Any, retry: Retry = RETRY) -> None:
        self.registry = ChannelRegistry()
        self.delays = BugDelays()
        self.counters = Counters()
        self.begun: list[float] = []
        self._author = author
        self._options = StreamOptions(retry=retry)
        self._zero = self.registry.loop.time()

    @property
    def now(self) -> float:
        return round(self.registry.loop.time() - self._zero, 6)

    def join(self):
        run = supervise(self._open, encode, KEY, self._options, self.delays, self.counters)
        return self.registry.join(KEY, run)

    def _open(self):
        self.begun.append(self.now)
        return self._author(len(self.begun))

    async def run_to_the_end(self):
        """The rows that one subscriber gets until the channel ends, and the error."""
        rows, subscription = [], self.join()
        try:
            async for received in subscription:
                rows += rows_of(received)
        except StreamFailed as error:
            return rows, error
        return rows, None


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.0)


async def test_a_transient_error_is_retried_without_limit_and_with_growing_delays(caplog):
    async def author(number):
        yield number
        raise UpstreamError("gone")

    stage = Stage(author)
    subscription = stage.join()
    got = []
    async for received in subscription:
        got += rows_of(received)
        if len(got) == 40:
            break
    subscription.leave()
    assert got == list(range(1, 41)), "the rows before each error are sent"
    gaps = [b - a for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert gaps == [1, 2, 4] + [8] * 36
    assert stage.counters.stream_errors == {"transient": 40} and stage.counters.retries == 40
    assert "stream interrupted: gone; retry in 4.0 s (attempt 3)" in caplog.messages
    await stage.registry.aclose()


async def test_a_runner_that_feeds_another_channel_counts_failures_from_the_first(caplog):
    """A server of a cluster runs a stream again with one runner whenever it owns the channel."""

    async def author(number):
        raise UpstreamError("gone")
        yield

    stage = Stage(author)
    run = supervise(stage._open, encode, KEY, StreamOptions(retry=RETRY), stage.delays, Counters())
    for _ in range(2):
        caplog.clear()
        subscription = stage.registry.join(KEY, run)
        begun = stage.now
        await asyncio.sleep(1.5)
        assert [at - begun for at in stage.begun] == [0, 1]
        assert "stream interrupted: gone; retry in 1.0 s (attempt 1)" in caplog.messages
        subscription.leave()
        await asyncio.sleep(60)
        stage.begun.clear()
    await stage.registry.aclose()


async def test_a_run_longer_than_the_longest_delay_resets_the_delays():
    async def author(number):
        await asyncio.sleep(100 if number == 4 else 0)
        raise UpstreamError("gone")
        yield

    stage = Stage(author)
    subscription = stage.join()
    await asyncio.sleep(200)
    subscription.leave()
    assert stage.begun[:7] == [0, 1, 3, 7, 108, 110, 114]
    await stage.registry.aclose()


@pytest.mark.parametrize("error", [UpstreamError("gone"), KeyError("oops")], ids=["outage", "bug"])
async def test_a_run_that_sent_rows_for_a_while_resets_the_delays(error):
    async def author(number):
        for row in range(50 if number == 6 else 1):
            yield row
            await asyncio.sleep(0.1)
        raise error

    stage = Stage(author, Retry(min_delay=0.5, max_delay=30, jitter=0))
    while len(stage.begun) < 8:
        subscription = stage.join()
        with contextlib.suppress(StreamFailed):
            async for _ in subscription:
                if len(stage.begun) == 8:
                    break
        subscription.leave()
    begun = stage.begun
    waits = [round(b - a - 0.1, 3) for a, b in zip(begun, begun[1:], strict=False)]
    assert waits == [0.5, 1, 2, 4, 8, 4.9 + 0.5, 1]
    await stage.registry.aclose()


async def test_rows_at_the_beginning_of_a_run_do_not_reset_the_delays():
    async def author(number):
        yield number
        await asyncio.sleep(5)
        raise UpstreamError("gone")

    stage = Stage(author, Retry(min_delay=1, max_delay=8, jitter=0))
    subscription = stage.join()
    subscription.on_ready = subscription.receive_nowait
    await asyncio.sleep(100)
    subscription.leave()
    gaps = [b - a - 5 for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert gaps[:5] == [1, 2, 4, 8, 8]
    await stage.registry.aclose()


async def test_the_author_may_recover_and_return():
    async def author(number):
        yield number
        if number < 3:
            raise UpstreamError("gone")

    assert await Stage(author).run_to_the_end() == ([1, 2, 3], None)


@pytest.mark.parametrize("error", [ConfigError("no url"), BadQuery("why"), NotFound("no topic")])
async def test_a_permanent_error_is_logged_once_and_the_channel_stays_open(error, caplog):
    async def author(number):
        yield number
        raise error

    stage = Stage(author)
    subscription = stage.join()
    assert rows_of(await anext(subscription)) == [1]
    await asyncio.sleep(100_000)
    assert stage.begun == [0] and stage.registry.peek(KEY).open
    assert stage.counters.stream_errors == {"permanent": 1} and stage.counters.retries == 0
    refusals = [r for r in caplog.records if "stream refused: " in r.message]
    assert len(refusals) == 1 and refusals[0].levelno == logging.ERROR
    subscription.leave()
    await stage.registry.aclose()
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0


async def test_the_cause_of_a_declared_error_is_in_the_log(caplog):
    async def author(number):
        try:
            raise OSError("refused by the peer")
        except OSError as error:
            raise UpstreamError("gone") from error
        yield

    stage = Stage(author)
    subscription = stage.join()
    await asyncio.sleep(0.5)
    subscription.leave()
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert isinstance(record.exc_info[1], OSError)
    await stage.registry.aclose()


async def test_a_declared_error_out_of_a_task_group_is_the_same_error():
    async def fail(error):
        raise error

    async def author(number):
        yield number
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail(UpstreamError("gone")))
            if number == 3:
                tasks.create_task(fail(ConfigError("wrong")))
        yield

    stage = Stage(author)
    subscription = stage.join()
    await asyncio.sleep(100)
    subscription.leave()
    assert stage.begun == [0, 1, 3], "a permanent error among several decides"
    assert stage.counters.stream_errors == {"transient": 2, "permanent": 1}
    await stage.registry.aclose()


async def test_a_bug_in_a_group_with_a_declared_error_is_a_bug():
    async def author(number):
        yield number
        raise ExceptionGroup("both", [UpstreamError("gone"), KeyError("oops")])

    stage = Stage(author)
    rows, error = await stage.run_to_the_end()
    assert rows == [1] and isinstance(error.__cause__, ExceptionGroup)
    assert stage.counters.stream_errors == {"bug": 1}


@pytest.mark.parametrize("error", [KeyError("oops"), SystemExit(3)])
async def test_a_bug_reaches_the_subscribers_at_once(error, caplog):
    async def author(number):
        yield number
        raise error

    stage = Stage(author)
    rows, failed = await stage.run_to_the_end()
    assert (rows, stage.now) == ([1], 0) and error in (failed.__cause__, failed.__cause__.__cause__)
    assert stage.counters.stream_errors == {"bug": 1}
    (record,) = [each for each in caplog.records if each.message == "stream failed"]
    logged = record.exc_info[1]
    assert error in (logged, logged.__cause__) and record.path == "path"


async def test_after_each_bug_the_next_run_is_delayed_longer():
    async def author(number):
        raise KeyError("oops")
        yield

    stage = Stage(author)
    for _ in range(9):
        await stage.run_to_the_end()
    gaps = [b - a for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert gaps == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_a_long_run_before_a_bug_resets_the_delay():
    async def author(number):
        await asyncio.sleep(BUG_RETRY.max_delay + 1 if number == 4 else 0)
        raise KeyError("oops")
        yield

    stage = Stage(author)
    for _ in range(6):
        await stage.run_to_the_end()
    waits = [b - a for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert waits == [0.5, 1, 2, 31 + 0.5, 1]


async def test_a_later_join_does_not_wait_for_an_expired_delay():
    async def author(number):
        raise KeyError("oops")
        yield

    stage = Stage(author)
    await stage.run_to_the_end()
    await asyncio.sleep(10)
    await stage.run_to_the_end()
    assert stage.begun == [0, 10]


async def test_leaving_while_a_run_is_delayed_starts_nothing():
    async def author(number):
        raise KeyError("oops")
        yield

    stage = Stage(author)
    await stage.run_to_the_end()
    stage.join().leave()
    subscription = stage.join()
    await asyncio.sleep(0.2)
    subscription.leave()
    await asyncio.sleep(5)
    assert stage.begun == [0] and stage.counters.stream_errors == {"bug": 1}


@pytest.mark.parametrize("then", ["waits", "returns"])
async def test_a_row_that_cannot_be_encoded_delays_the_next_run_like_a_bug(then):
    async def author(number):
        yield number
        yield "bad"
        if then == "waits":
            await asyncio.Event().wait()

    stage = Stage(author)
    for number in range(1, 5):
        rows, error = await stage.run_to_the_end()
        assert rows == [number] and "'bad'" in str(error)
    assert stage.begun == [0, 0.5, 1.5, 3.5]
    await stage.registry.aclose()


async def test_a_batch_that_can_be_encoded_row_by_row_delays_nothing():
    def alone(rows):
        if len(rows) > 1:
            raise ValueError("one at a time")
        return encode(rows)

    async def author():
        yield 1
        yield 2

    stage = Stage(None)
    run = supervise(author, alone, KEY, StreamOptions(retry=RETRY), stage.delays, stage.counters)
    async for _ in stage.registry.join(KEY, run):
        pass
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0


async def test_a_stray_cancellation_in_a_stream_is_a_bug():
    async def author(number):
        yield number
        raise asyncio.CancelledError

    stage = Stage(author)
    rows, error = await stage.run_to_the_end()
    assert rows == [1] and "a task or future that was cancelled" in str(error.__cause__)
    assert stage.counters.stream_errors == {"bug": 1}
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0.5


@pytest.mark.parametrize("error", [UpstreamError("gone"), ConfigError("no url"), KeyError("oops")])
async def test_an_error_of_a_cancelled_stream_is_not_retried(error):
    async def author(number):
        yield number
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    stage = Stage(author)
    subscription = stage.join()
    await anext(subscription)
    subscription.leave()
    await asyncio.sleep(0.1)
    assert stage.registry.running == 0, "it ended at once, without a second cancel"
    assert stage.begun == [0] and stage.counters.stream_errors == {}
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0


async def test_leaving_ends_a_stream_that_waits_for_its_next_retry():
    async def author(number):
        raise UpstreamError("gone")
        yield

    stage = Stage(author)
    subscription = stage.join()
    await asyncio.sleep(0.5)
    subscription.leave()
    await asyncio.sleep(5)
    assert stage.begun == [0] and stage.registry.running == 0


def test_a_bounded_number_of_failures_is_remembered_and_the_oldest_is_forgotten_first():
    delays = BugDelays()
    for key in range(1_001):
        delays.failed(key, 0.0, healthy=False)
    delays.failed(1, 0.0, healthy=False)
    delays.failed("new", 0.0, healthy=False)
    assert [delays.pending(key, 0.0) > 0 for key in (0, 1, 2, 3, "new")] == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_unwrap_returns_the_error_that_decides_about_a_group():
    transient, permanent, bug = UpstreamError("away"), NotFound("gone"), OSError("bug")
    assert unwrap(bug) is bug
    assert unwrap(ExceptionGroup("", [ExceptionGroup("", [transient])])) is transient
    assert unwrap(ExceptionGroup("", [transient, permanent])) is permanent
    mixed = ExceptionGroup("", [transient, bug])
    assert unwrap(mixed) is mixed
