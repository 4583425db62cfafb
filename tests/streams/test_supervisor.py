"""What becomes of a stream whose run fails, in virtual time."""

import asyncio
import logging
from typing import Any

import pytest

from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Retry
from aiostream_ds._channels.registry import ChannelRegistry, StreamFailed
from aiostream_ds._streams.supervisor import BUG_RETRY, BugDelays, supervise
from aiostream_ds._telemetry import Counters
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
        self._retry = retry
        self._zero = self.registry.loop.time()

    @property
    def now(self) -> float:
        return round(self.registry.loop.time() - self._zero, 6)

    def join(self):
        run = supervise(self._open, encode, KEY, self._retry, self.delays, self.counters)
        return self.registry.join(KEY, run)

    def _open(self):
        self.begun.append(self.now)
        return self._author(len(self.begun))

    async def run_to_its_end(self):
        """What one reader gets until its channel ends: rows, and the error."""
        rows, reader = [], self.join()
        try:
            async for taken in reader:
                rows += rows_of(taken)
        except StreamFailed as error:
            return rows, error
        return rows, None


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.0)


async def test_a_downstream_error_is_tried_again_for_ever_with_growing_waits(caplog):
    async def author(number):
        yield number
        raise UpstreamError("gone")

    stage = Stage(author)
    reader = stage.join()
    got = []
    async for taken in reader:
        got += rows_of(taken)
        if len(got) == 40:
            break
    reader.leave()
    assert got == list(range(1, 41)), "the rows before each error are sent"
    gaps = [b - a for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert gaps == [1, 2, 4] + [8] * 36
    assert stage.counters.stream_errors == {"transient": 40} and stage.counters.retries == 40
    assert "stream interrupted: gone; retry in 4.0 s (attempt 3)" in caplog.messages
    await stage.registry.aclose()


async def test_a_run_that_lasted_longer_than_the_longest_wait_starts_the_waits_anew():
    async def author(number):
        await asyncio.sleep(100 if number == 4 else 0)
        raise UpstreamError("gone")
        yield

    stage = Stage(author)
    reader = stage.join()
    await asyncio.sleep(200)
    reader.leave()
    assert stage.begun[:7] == [0, 1, 3, 7, 108, 110, 114]
    await stage.registry.aclose()


async def test_the_author_may_recover_and_return():
    async def author(number):
        yield number
        if number < 3:
            raise UpstreamError("gone")

    assert await Stage(author).run_to_its_end() == ([1, 2, 3], None)


@pytest.mark.parametrize("error", [ConfigError("no url"), BadQuery("odd"), NotFound("no topic")])
async def test_a_lasting_error_is_said_once_and_the_channel_stays_open_and_silent(error, caplog):
    async def author(number):
        yield number
        raise error

    stage = Stage(author)
    reader = stage.join()
    assert rows_of(await anext(reader)) == [1]
    await asyncio.sleep(100_000)
    assert stage.begun == [0] and stage.registry.peek(KEY).open
    assert stage.counters.stream_errors == {"permanent": 1} and stage.counters.retries == 0
    said = [r for r in caplog.records if "stream refused: " in r.message]
    assert len(said) == 1 and said[0].levelno == logging.ERROR
    reader.leave()
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
    reader = stage.join()
    await asyncio.sleep(0.5)
    reader.leave()
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
    reader = stage.join()
    await asyncio.sleep(100)
    reader.leave()
    assert stage.begun == [0, 1, 3], "a lasting one among several wins"
    assert stage.counters.stream_errors == {"transient": 2, "permanent": 1}
    await stage.registry.aclose()


async def test_a_bug_beside_a_declared_error_is_a_bug():
    async def author(number):
        yield number
        raise ExceptionGroup("both", [UpstreamError("gone"), KeyError("oops")])

    stage = Stage(author)
    rows, error = await stage.run_to_its_end()
    assert rows == [1] and isinstance(error.__cause__, ExceptionGroup)
    assert stage.counters.stream_errors == {"bug": 1}


@pytest.mark.parametrize("error", [KeyError("oops"), SystemExit(3)])
async def test_a_bug_reaches_the_readers_at_once(error, caplog):
    async def author(number):
        yield number
        raise error

    stage = Stage(author)
    rows, failed = await stage.run_to_its_end()
    assert (rows, stage.now) == ([1], 0) and failed.__cause__ is error
    assert stage.counters.stream_errors == {"bug": 1}
    (said,) = [record for record in caplog.records if record.message == "stream failed"]
    assert said.exc_info[1] is error and said.path == "path"


async def test_after_a_bug_the_next_run_waits_longer_each_time():
    async def author(number):
        raise KeyError("oops")
        yield

    stage = Stage(author)
    for _ in range(9):
        await stage.run_to_its_end()
    gaps = [b - a for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert gaps == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_a_long_run_before_a_bug_makes_the_next_wait_short_again():
    async def author(number):
        await asyncio.sleep(BUG_RETRY.max_delay + 1 if number == 4 else 0)
        raise KeyError("oops")
        yield

    stage = Stage(author)
    for _ in range(6):
        await stage.run_to_its_end()
    waits = [b - a for a, b in zip(stage.begun, stage.begun[1:], strict=False)]
    assert waits == [0.5, 1, 2, 31 + 0.5, 1]


async def test_whoever_joins_later_does_not_wait_for_what_is_over():
    async def author(number):
        raise KeyError("oops")
        yield

    stage = Stage(author)
    await stage.run_to_its_end()
    await asyncio.sleep(10)
    await stage.run_to_its_end()
    assert stage.begun == [0, 10]


async def test_leaving_while_the_run_waits_for_its_turn_starts_nothing():
    async def author(number):
        raise KeyError("oops")
        yield

    stage = Stage(author)
    await stage.run_to_its_end()
    stage.join().leave()
    reader = stage.join()
    await asyncio.sleep(0.2)
    reader.leave()
    await asyncio.sleep(5)
    assert stage.begun == [0] and stage.counters.stream_errors == {"bug": 1}


@pytest.mark.parametrize("ends", ["waits", "returns"])
async def test_a_row_that_cannot_be_encoded_delays_the_next_run_like_a_bug(ends):
    async def author(number):
        yield number
        yield "bad"
        if ends == "waits":
            await asyncio.Event().wait()

    stage = Stage(author)
    for number in range(1, 5):
        rows, error = await stage.run_to_its_end()
        assert rows == [number] and "'bad'" in str(error)
    assert stage.begun == [0, 0.5, 1.5, 3.5]
    await stage.registry.aclose()


async def test_a_batch_that_only_fails_together_delays_nothing():
    def alone(rows):
        if len(rows) > 1:
            raise ValueError("one at a time")
        return encode(rows)

    async def author():
        yield 1
        yield 2

    stage = Stage(None)
    run = supervise(author, alone, KEY, RETRY, stage.delays, stage.counters)
    async for _ in stage.registry.join(KEY, run):
        pass
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0


async def test_a_stream_cancelled_from_within_is_a_bug():
    async def author(number):
        yield number
        raise asyncio.CancelledError

    stage = Stage(author)
    rows, error = await stage.run_to_its_end()
    assert rows == [1] and "a task or future that was cancelled" in str(error.__cause__)
    assert stage.counters.stream_errors == {"bug": 1}
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0.5


@pytest.mark.parametrize("error", [UpstreamError("gone"), ConfigError("odd"), KeyError("oops")])
async def test_what_a_stream_raises_because_it_was_told_to_end_starts_nothing(error):
    async def author(number):
        yield number
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    stage = Stage(author)
    reader = stage.join()
    await anext(reader)
    reader.leave()
    await asyncio.sleep(0.1)
    assert stage.registry.running == 0, "it ended at once, without a second cancel"
    assert stage.begun == [0] and stage.counters.stream_errors == {}
    assert stage.delays.pending(KEY, stage.registry.loop.time()) == 0


async def test_leaving_ends_a_stream_that_waits_for_its_next_try():
    async def author(number):
        raise UpstreamError("gone")
        yield

    stage = Stage(author)
    reader = stage.join()
    await asyncio.sleep(0.5)
    reader.leave()
    await asyncio.sleep(5)
    assert stage.begun == [0] and stage.registry.running == 0


def test_only_so_many_failures_are_remembered_and_the_oldest_goes_first():
    delays = BugDelays()
    for key in range(1_001):
        delays.failed(key, 0.0, 0.0)
    delays.failed(1, 0.0, 0.0)
    delays.failed("new", 0.0, 0.0)
    assert [delays.pending(key, 0.0) > 0 for key in (0, 1, 2, 3, "new")] == [
        False, True, False, True, True,
    ]  # fmt: skip


def test_a_group_is_what_its_errors_are():
    passing, permanent, bug = UpstreamError("away"), NotFound("gone"), OSError("bug")
    assert unwrap(bug) is bug
    assert unwrap(ExceptionGroup("", [ExceptionGroup("", [passing])])) is passing
    assert unwrap(ExceptionGroup("", [passing, permanent])) is permanent
    mixed = ExceptionGroup("", [passing, bug])
    assert unwrap(mixed) is mixed
