"""`self.tasks`: background tasks that live as long as the lifespan of their data source."""

import asyncio
import contextvars
import threading
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

from aiostream_ds import (
    ConfigError,
    DataSource,
    Health,
    Query,
    Settings,
    UpstreamError,
    query,
    stream,
)
from aiostream_ds._background_tasks import TASK_RETRY, TASKS_CLOSE_TIMEOUT
from aiostream_ds._grafana.instances import CLOSE_GRACE
from aiostream_ds.datasource import create_instance
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual

VARIABLE = contextvars.ContextVar("variable", default="empty")


class PanicException(BaseException):
    """As pyo3's."""


class Mode(Settings):
    mode: str = ""


def source_with(function, *arguments, **options):
    """A class that starts `function(self, …)` in its lifespan."""

    class Source(DataSource[Mode]):
        log: list = []

        @asynccontextmanager
        async def lifespan(self):
            self.tasks.start_soon(function, self, *arguments, **options)
            self.log.append("opened")
            yield
            self.log.append("closed")

        async def health(self):
            return Health(message="fine")

        @stream("ticks")
        async def ticks(self):
            while True:
                yield {"n": 1}
                await anyio.sleep(1)

    return Source


async def test_a_task_runs_from_the_end_of_the_opening_to_the_beginning_of_the_closing():
    async def work(self, word):
        self.log.append(word)
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)
            self.log.append("ended")

    source = source_with(work, "began")
    async with serve_in_memory(source) as grafana:
        assert await grafana.health() == (True, "fine")
        await anyio.sleep(0)
        assert source.log == ["opened", "began"]
    assert source.log == ["opened", "began", "ended", "closed"]


async def test_a_change_of_settings_ends_the_tasks_of_the_former_instance():
    async def work(self):
        try:
            await anyio.sleep_forever()
        finally:
            self.log.append(f"ended {self.settings.mode}")

    source = source_with(work)
    async with serve_in_memory(source, settings={"mode": "one"}) as grafana:
        await grafana.health()
        await grafana.change_settings({"mode": "two"})
        await grafana.health()
        await anyio.sleep(CLOSE_GRACE + 0.1)
        assert source.log == ["opened", "opened", "ended one", "closed"]


async def test_a_task_that_returns_is_done():
    async def work(self):
        self.log.append("worked")

    source = source_with(work)
    async with serve_in_memory(source) as grafana:
        assert (await grafana.health())[0]
        await anyio.sleep(60)
        assert source.log.count("worked") == 1
        assert await grafana.health() == (True, "fine")


@pytest.mark.parametrize("error", [ValueError, PanicException, SystemExit, asyncio.CancelledError])
async def test_a_bug_is_logged_with_its_traceback_and_the_task_runs_again(error, caplog):
    async def work(self):
        self.log.append(anyio.current_time())
        raise error("a bug")

    source = source_with(work, name="poll")
    async with serve_in_memory(source) as grafana:
        await grafana.health()
        await anyio.sleep(60)
        times = source.log[1:]
        assert 5 <= len(times) <= 12
        waits = [b - a for a, b in zip(times, times[1:], strict=False)]
        assert waits[0] < 1 and max(waits) > 10 and max(waits) <= TASK_RETRY.max_delay * 1.5
        ok, message = await grafana.health()
        assert not ok and message.startswith("fine; the background task poll fails: ")
        assert grafana.plugin.counters.task_failures == len(times)
        assert "aiostream_ds_task_failures_total" in await grafana.metrics()
    records = [r for r in caplog.records if "background task poll failed" in r.getMessage()]
    assert len(records) == len(times) and all(record.exc_info for record in records)


async def test_an_upstream_error_is_a_warning_and_health_is_green_after_a_healthy_while(caplog):
    async def work(self):
        self.log.append("worked")
        if len(self.log) < 5:
            raise UpstreamError("gone") from OSError("cause")
        await anyio.sleep_forever()

    source = source_with(work, name="poll")
    async with serve_in_memory(source) as grafana:
        await grafana.health()
        await anyio.sleep(0.3)
        assert (await grafana.health())[1] == "fine; the background task poll fails: gone"
        await anyio.sleep(60)
        assert source.log.count("worked") == 4
        assert await grafana.health() == (True, "fine")
    records = [r for r in caplog.records if "background task poll interrupted" in r.getMessage()]
    assert [bool(r.exc_info) for r in records] == [True, False, False]
    assert {r.levelname for r in records} == {"WARNING"}


async def test_a_task_that_is_cancelled_by_others_while_it_waits_runs_again(caplog):
    class Source(DataSource):
        def __init__(self):
            self.runs = 0

        @asynccontextmanager
        async def lifespan(self):
            self.tasks.start_soon(self.poll, name="the poll")
            yield

        async def poll(self):
            self.runs += 1
            if self.runs == 1:
                raise UpstreamError("away")
            await anyio.sleep_forever()

    async with serve_in_memory(Source) as grafana:
        source = await grafana.data_source(Source)
        await anyio.sleep(0.1)
        (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "the poll"]
        task.cancel()
        await anyio.sleep(5)
        assert source.runs == 2
        assert "the author's code cancelled itself" in caplog.text


async def test_a_permanent_error_ends_the_task_until_the_settings_change(caplog):
    async def work(self):
        self.log.append("worked")
        if self.settings.mode != "right":
            raise ConfigError("the password is wrong")
        await anyio.sleep_forever()

    source = source_with(work, name="poll")
    async with serve_in_memory(source) as grafana:
        await grafana.health()
        await anyio.sleep(60)
        assert source.log.count("worked") == 1
        ok, message = await grafana.health()
        assert (ok, message) == (
            False,
            "fine; the background task poll fails: the password is wrong",
        )
        await grafana.change_settings({"mode": "right"})
        assert await grafana.health() == (True, "fine")
        await anyio.sleep(1)
        assert source.log.count("worked") == 2


async def test_a_task_that_swallows_its_cancellation_is_reported_and_left(caplog):
    release = anyio.Event()

    async def work(self):
        while not release.is_set():
            try:
                await release.wait()
            except BaseException:
                pass

    source = source_with(work)
    async with serve_in_memory(source) as grafana:
        await grafana.health()
        await grafana.change_settings({"mode": "two"})
        await grafana.health()
        await anyio.sleep(CLOSE_GRACE + TASKS_CLOSE_TIMEOUT + 1)
        assert source.log == ["opened", "opened", "closed"]
        (record,) = [r for r in caplog.records if "has not ended" in r.getMessage()]
        assert "await release.wait()" in record.getMessage() or "in work" in record.getMessage()
        assert grafana.plugin.counters.tasks_stuck == 1
        release.set()
        await anyio.sleep(0.1)


async def test_a_task_can_be_started_by_any_method_in_any_thread_and_outlives_it():
    seen = []

    async def work(name):
        seen.append((name, VARIABLE.get(), threading.current_thread() is threading.main_thread()))

    class Source(DataSource):
        @contextmanager
        def lifespan(self):
            self.tasks.start_soon(work, "lifespan")
            yield

        @query
        def blocking(self, q: Query):
            VARIABLE.set("a query's")
            self.tasks.start_soon(work, "thread")
            return []

        @stream("s")
        async def s(self):
            VARIABLE.set("a stream's")
            self.tasks.start_soon(work, "stream")
            yield {"n": 1}

    async with serve_in_memory(Source) as grafana:
        await grafana.query({"queryType": "blocking"})
        await (await grafana.follow("s")).next()
        await anyio.sleep(1)
    assert sorted(seen) == [(n, "empty", True) for n in ("lifespan", "stream", "thread")]


def test_tasks_cannot_be_used_before_the_lifespan():
    class Early(DataSource):
        def __init__(self):
            self.tasks.start_soon(anyio.sleep, 1)

    with pytest.raises(RuntimeError, match=r"Early.tasks exists from `lifespan` on, not in __init"):
        create_instance(Early, Settings())


async def test_tasks_cannot_be_started_after_the_end():
    kept = []

    class Source(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            kept.append(self)
            yield
            with pytest.raises(RuntimeError, match="it starts no background tasks"):
                self.tasks.start_soon(anyio.sleep, 1)

    async with serve_in_memory(Source) as grafana:
        await grafana.health()
    with pytest.raises(RuntimeError, match="it starts no background tasks"):
        kept[0].tasks.start_soon(anyio.sleep, 1)


@pytest.mark.parametrize("function", [lambda: None, print, 5, None, "text"])
async def test_what_is_no_async_function_is_a_clear_error(function, caplog):
    errors = []

    class Source(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            try:
                self.tasks.start_soon(function)
            except TypeError as error:
                errors.append(str(error))
            yield

    async with serve_in_memory(Source) as grafana:
        await grafana.health()
        await anyio.sleep(0.1)
    if function is print:  # only its call shows it
        assert "background task print failed" in caplog.text
    else:
        assert errors and "start_soon takes an `async def`, got" in errors[0]


async def test_a_coroutine_is_refused_with_the_right_call(recwarn):
    class Source(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            self.tasks.start_soon(self.poll(5))
            yield

        async def poll(self, seconds): ...

    async with serve_in_memory(Source) as grafana:
        ok, message = await grafana.health()
    assert not ok and "got a call of" in message and "Source.poll; pass the function" in message
    assert not [each for each in recwarn if "never awaited" in str(each.message)]
