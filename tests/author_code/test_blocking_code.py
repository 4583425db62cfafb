"""Methods that are a `def` run in threads of their data source."""

import asyncio
import contextvars
import logging
import queue
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial

import anyio
import pyarrow as pa
import pytest

from aiostream_ds import (
    Buffer,
    Cursor,
    DataSource,
    Frame,
    Health,
    HistoryRange,
    Query,
    Response,
    UpstreamError,
    query,
    resource,
    stream,
)
from aiostream_ds._author_threads import ABANDONED_AFTER, CALL_WAIT, READ_AHEAD, threads_of
from aiostream_ds._grafana.thread_watch import ThreadWatch
from aiostream_ds.datasource import create_instance, open_lifespan
from aiostream_ds.settings import Settings
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests import waiting
from tests.grafana.calls import run_stream

pytestmark = pytest.mark.slow  # waits for threads in real time

VARIABLE = contextvars.ContextVar("variable", default="empty")


until = partial(waiting.until, seconds=10.0)


class Blocking(DataSource):
    """Every kind of method, as a `def`. `threads` are those in which they ran."""

    def __init__(self):
        self.ran_in = {}

    def _note(self, name):
        self.ran_in[name] = threading.current_thread()

    @contextmanager
    def lifespan(self):
        self._note("enter")
        yield
        self._note("leave")

    def health(self):
        self._note("health")
        return Health(message="a thread is well")

    @stream("numbers/{count:int}")
    def numbers(self, count: int):
        self._note("stream")
        for number in range(count):
            yield {"n": number}

    @numbers.history
    def past(self, history_range: HistoryRange, count: int):
        self._note("history")
        return [{"time": history_range.start, "n": -1}]

    @numbers.subscribe
    def may(self, user, count: int):
        self._note("subscribe")

    @numbers.publish
    def take(self, value: int, count: int):
        self._note("publish")
        return {"taken": value}

    @numbers.suggest("count")
    def counts(self, typed: str):
        self._note("suggest")
        return [1, 2]

    @stream("iterator")
    def iterator(self):
        return iter([{"n": 1}, {"n": 2}])

    @stream("log", cursor="id")
    def log(self, after: Cursor):
        yield {"id": after.value + 1}

    @log.last
    def newest(self):
        self._note("last")
        return 41

    @log.history
    def logged(self, history_range: HistoryRange):
        return []

    @query
    def answer(self, q: Query) -> Frame:
        self._note("query")
        return Frame.from_columns({"n": [1]})

    @resource("document")
    def document(self):
        self._note("resource")
        return {"a": 1}

    @resource("parts")
    def parts(self):
        yield b"one "
        self._note("parts")
        yield b"two"

    @resource("iterator")
    def chunks(self):
        return iter([b"one ", b"two"])

    @resource("response")
    def response(self):
        return Response(status=204)


async def test_each_kind_of_method_may_be_a_def_and_runs_in_a_thread():
    async with serve_in_memory(Blocking) as grafana:
        assert await grafana.health() == (True, "a thread is well")
        viewer = await grafana.follow("numbers/3")
        assert [row["n"] for row in await viewer.take(3)] == [0, 1, 2]
        assert [row["n"] for row in await (await grafana.follow("iterator")).take(2)] == [1, 2]
        assert (await (await grafana.follow("log")).next())["id"] == 42
        (frame,) = await grafana.query({"queryType": "numbers", "count": 3})
        assert frame.rows == 1
        await grafana.query({"queryType": "answer"})
        assert (await grafana.resource("document")).body == b'{"a":1}'
        assert (await grafana.resource("parts")).body == b"one two"
        assert (await grafana.resource("iterator")).body == b"one two"
        assert (await grafana.resource("response")).status == 204
        suggested = await grafana.resource("forms/suggest?stream=numbers&field=count&typed=")
        assert suggested.body == b'["1","2"]'
        assert await grafana.publish("numbers/3", 5) == b'{"taken":5}'
        (instance,) = grafana.plugin.instances._current.values()
        ran_in = instance.source.ran_in
    assert set(ran_in) == {
        *("enter", "leave", "health", "stream", "history", "subscribe", "publish"),
        *("suggest", "last", "query", "resource", "parts"),
    }
    assert threading.main_thread() not in ran_in.values()


def a_source(run, **options):
    """An instance with the stream `s`, and its instance's threads."""

    class Source(DataSource):
        s = stream("s", **options)(run)

    return create_instance(Source, Settings())


def named_s(run):
    run.__name__ = "s"
    return run


async def test_a_slow_generators_rows_leave_at_once():
    sent = queue.SimpleQueue()

    @named_s
    def run(self):
        while True:
            yield {"n": sent.get()}

    rows = a_source(run).s()
    for number in range(5):
        sent.put(number)
        with anyio.fail_after(15):
            assert await anext(rows) == {"n": number}
    sent.put(5)  # the generator is at its yield when it is closed
    await rows.aclose()


async def test_a_generator_is_advanced_by_one_row_more_than_was_asked_for():
    produced = []

    @named_s
    def run(self):
        for number in range(10 * READ_AHEAD):
            produced.append(number)
            yield {"n": number}

    rows = a_source(run).s()
    assert await anext(rows) == {"n": 0}
    while True:  # it stands still
        before = len(produced)
        await anyio.sleep(0.05)
        if len(produced) == before:
            break
    assert before <= READ_AHEAD + 1
    taken = [row["n"] async for row in rows]
    assert taken == list(range(1, 10 * READ_AHEAD))


async def test_a_reader_who_stalls_stops_a_generator_with_the_policy_block():
    produced = []

    class Source(DataSource):
        @stream("s", buffer=Buffer(rows=100, full="block", stall_timeout=60))
        def s(self):
            for number in range(1_000_000):
                produced.append(number)
                yield {"text": "x" * 1_000}

    async with serve_in_memory(Source) as grafana:
        grafana.reading_delay = 1_000
        await grafana.follow("s")
        before = -1
        while not produced or len(produced) > before:  # until it stands still
            before = len(produced)
            await anyio.sleep(0.2)
        assert before < 10_000


async def test_a_value_that_is_changed_after_its_yield_is_sent_as_it_was():
    @named_s
    def run(self):
        row, rows = {"n": 0}, [{"m": 0}]
        for number in range(500):
            row["n"] = rows[0]["m"] = number
            yield row
            yield rows

    found = [each async for each in a_source(run).s()]
    assert found[::2] == [{"n": number} for number in range(500)]
    assert found[1::2] == [[{"m": number}] for number in range(500)]


async def test_a_closed_stream_runs_its_finally_in_the_thread_of_its_run():
    steps = []

    class Source(DataSource):
        @stream("s")
        def s(self):
            connection = sqlite3.connect(":memory:")  # may be used in this thread only
            try:
                while True:
                    time.sleep(0.001)
                    yield {"n": connection.execute("select 1").fetchone()[0]}
            except GeneratorExit:
                steps.append("closed")
                raise
            finally:
                connection.close()
                steps.append(threading.current_thread().name)

    async with serve_in_memory(Source) as grafana:
        async with run_stream(grafana, "s") as call:
            await call.recv_message()
        await until(lambda: len(steps) == 2)
    assert steps == ["closed", "Source.s"]


async def test_a_stream_has_an_empty_context_and_a_call_has_its_callers():
    @named_s
    def run(self):
        for _ in range(2):
            yield {"v": VARIABLE.get()}
            VARIABLE.set("own")

    VARIABLE.set("callers")
    source = a_source(run)
    assert [row["v"] async for row in source.s()] == ["empty", "own"]
    assert await threads_of(source).call("get", VARIABLE.get) == "callers"


async def test_a_stream_that_yields_while_it_is_closed_is_a_bug(caplog):
    class Source(DataSource):
        @stream("s")
        def s(self):
            try:
                while True:
                    yield {"n": 1}
                    time.sleep(0.01)
            finally:
                yield {"n": 2}

    async with serve_in_memory(Source) as grafana:
        async with run_stream(grafana, "s") as call:
            await call.recv_message()
        await until(lambda: not grafana.plugin.registry.running)
    assert "yields in its finally while it is closed" in caplog.text


async def test_a_def_that_returns_a_table_is_an_error_without_its_rows():
    table = pa.table({"secret": [1, 2]})
    with pytest.raises(TypeError, match="must yield, or return an iterator, got <Table>"):
        await anext(a_source(named_s(lambda self: table)).s())


@pytest.mark.parametrize("value", [None, [{"n": 1}], {"n": 1}, 5, "rows"])
async def test_a_def_that_returns_no_iterator_is_a_clear_error(value):
    rows = a_source(named_s(lambda self: value)).s()
    with pytest.raises(TypeError, match="s must yield, or return an iterator, got"):
        await anext(rows)


async def test_a_def_may_return_an_async_iterator_which_the_event_loop_reads():
    threads = []

    async def numbers():
        for number in range(3):
            threads.append(threading.current_thread())
            yield {"n": number}

    source = a_source(named_s(lambda self: numbers()))
    assert [row["n"] async for row in source.s()] == [0, 1, 2]
    assert set(threads) == {threading.main_thread()}


async def test_lists_count_by_their_rows():
    produced = []

    @named_s
    def run(self):
        for number in range(100):
            produced.append(number)
            yield [{"n": number}] * READ_AHEAD

    rows = a_source(run).s()
    await anext(rows)
    while True:  # it stands still
        before = len(produced)
        await anyio.sleep(0.05)
        if len(produced) == before:
            break
    assert before <= 3
    assert len([row async for row in rows]) == 99


async def test_only_generators_are_closed_another_iterator_may_be_shared():
    class Client:
        closed = False

        def __iter__(self):
            return self

        def __next__(self):
            return {"n": 1}

        def close(self):
            self.closed = True

    client = Client()
    rows = a_source(named_s(lambda self: client)).s()
    assert await anext(rows) == {"n": 1}
    await rows.aclose()
    assert not client.closed


async def test_a_system_without_threads_fails_the_call_and_keeps_the_limit(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    source = create_instance(Blocking, Settings())
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await threads_of(source).call("work", int)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await anext(source.numbers(3))
    monkeypatch.undo()
    assert source.threads.borrowed_tokens == source.stream_threads.borrowed_tokens == 0
    assert await threads_of(source).call("work", int) == 0


async def test_rows_before_an_error_are_sent():
    @named_s
    def run(self):
        yield {"n": 1}
        yield {"n": 2}
        raise UpstreamError("gone")

    rows = a_source(run).s()
    assert [await anext(rows), await anext(rows)] == [{"n": 1}, {"n": 2}]
    with pytest.raises(UpstreamError, match="gone"):
        await anext(rows)


async def test_a_wrapper_of_an_async_method_is_awaited_in_the_event_loop():
    def logged(method):
        def wrapper(self, *args):  # no `async def`, and not recognized as one
            return method(self, *args)

        return wrapper

    class Source(DataSource):
        @logged
        async def health(self):
            assert threading.current_thread() is threading.main_thread()
            return Health(message="awaited")

    async with serve_in_memory(Source) as grafana:
        assert await grafana.health() == (True, "awaited")


# Limits


async def test_calls_beyond_the_limit_wait_and_the_limit_is_logged_once(caplog):
    release, running, most, sources = threading.Event(), set(), [], []

    class Source(DataSource):
        def __init__(self):
            self.threads.total_tokens = 2
            sources.append(self)

        @query
        def wait(self, q: Query) -> Frame:
            running.add(threading.get_ident())
            most.append(len(running))
            release.wait()
            running.discard(threading.get_ident())
            return Frame()

    async with serve_in_memory(Source) as grafana, anyio.create_task_group() as tasks:
        try:
            for _ in range(5):
                tasks.start_soon(grafana.query, {"queryType": "wait"})
            await until(lambda: grafana.plugin.counters.thread_waits == 3)
            await until(lambda: len(running) == 2)
            watch = ThreadWatch()
            for _ in range(3):
                watch.check(sources)
        finally:
            release.set()
    assert len(most) == 5 and max(most) == 2
    (record,) = [r for r in caplog.records if "for one" in r.getMessage()]
    text = r"all 2 threads of Source for calls are in use by (wait \(\d+ s\), ){2}and 3 more wait"
    assert re.search(text, record.getMessage())
    assert "raise self.threads.total_tokens" in record.getMessage()


@pytest.mark.slow
@pytest.mark.virtual
async def test_a_call_that_gets_no_thread_fails_with_the_limit_and_what_holds_it(caplog):
    release = threading.Event()

    class Source(DataSource):
        def __init__(self):
            self.threads.total_tokens = 1

        async def health(self):
            return Health(message="connected")

        @query
        def hang(self, q: Query) -> Frame:
            release.wait()
            return Frame()

    async with serve_in_memory(Source) as grafana, anyio.create_task_group() as tasks:
        try:
            tasks.start_soon(grafana.query, {"queryType": "hang"})
            await anyio.sleep(0.1)
            began = anyio.current_time()
            with pytest.raises(QueryFailed) as caught:
                await grafana.query({"queryType": "hang"})
            assert anyio.current_time() - began == pytest.approx(CALL_WAIT, abs=0.5)
            assert caught.value.status == 502
            assert "no thread was free for hang in 10 s: all 1 are in use by hang" in str(
                caught.value
            )
            ok, message = await grafana.health()
            assert ok and message == "connected; all 1 threads for calls are in use"
        finally:
            release.set()


async def test_a_stream_beyond_the_limit_reports_that_it_waits_and_then_runs(caplog):
    sources = []

    class Source(DataSource):
        def __init__(self):
            self.stream_threads.total_tokens = 1
            sources.append(self)

        @stream("s/{n:int}", status_column="status")
        def s(self, n: int):
            while True:
                yield {"n": n}
                time.sleep(0.01)

    async with serve_in_memory(Source) as grafana:
        async with run_stream(grafana, "s/1") as call:
            await call.recv_message()
            second = await grafana.follow("s/2")
            row = await second.next()
            assert "waits for a thread: all 1 for streams are in use" in row["status"]
            watch = ThreadWatch()
            watch.check(sources)
            watch.check(sources)
            text = r"threads of Source for streams are in use by s \(\d+ s\), and 1 more"
            assert re.search(text, caplog.text)
            assert "raise self.stream_threads.total_tokens" in caplog.text
        while row.get("n") != 2:
            row = await second.next()
        assert row["status"] == "live"


async def test_a_stream_that_is_closed_when_it_has_got_a_thread_gives_it_back():
    class Source(DataSource):
        @stream("s")
        def s(self):
            while True:
                yield {"n": 1}

    source = create_instance(Source, Settings())
    source.stream_threads.total_tokens = 1
    first, second = source.s(), source.s()
    await anext(first)
    assert "waits for a thread" in (await anext(second)).text
    started = asyncio.ensure_future(anext(second))
    await first.aclose()
    assert (await started).text == ""
    await second.aclose()
    await until(lambda: source.stream_threads.borrowed_tokens == 0)


async def test_streams_leave_the_threads_of_calls():
    class Source(DataSource):
        def __init__(self):
            self.threads.total_tokens = 1

        @stream("s/{n:int}")
        def s(self, n: int):
            while True:
                time.sleep(0.01)
                yield {"n": n}

        def health(self):
            return Health()

    async with serve_in_memory(Source) as grafana:
        for number in range(5):
            await (await grafana.follow(f"s/{number}")).next()
        assert (await grafana.health())[0]


# Threads that do not end


@pytest.mark.slow
@pytest.mark.virtual
async def test_a_stream_that_never_yields_again_is_left_and_reported_with_its_stack(caplog):
    release = threading.Event()

    class Source(DataSource):
        async def health(self):
            return Health()

        @stream("s")
        def s(self):
            yield {"n": 1}
            release.wait()  # the line that hangs
            yield {"n": 2}

    try:
        async with serve_in_memory(Source) as grafana:
            async with run_stream(grafana, "s") as call:
                await call.recv_message()
            await anyio.sleep(1.5)
            assert grafana.plugin.registry.running == 0 and grafana.plugin.counters.stuck == 0
            again = await grafana.follow("s")  # another run, next to the one that hangs
            assert (await again.next())["n"] == 1
            await anyio.sleep(ABANDONED_AFTER)
            (record,) = [r for r in caplog.records if "does not end" in r.getMessage()]
            assert record.levelno == logging.ERROR
            assert "release.wait()  # the line that hangs" in record.getMessage()
            assert grafana.plugin.counters.threads_abandoned == 1
            ok, message = await grafana.health()
            assert not ok and "a thread does not end: s (" in message
            release.set()
            while not ok:
                await anyio.sleep(0.1)
                ok, _ = await grafana.health()
    finally:
        release.set()


@pytest.mark.slow
@pytest.mark.virtual
async def test_a_cancelled_call_passes_at_once_and_keeps_its_thread_until_it_ends(caplog):
    release = threading.Event()

    class Source(DataSource):
        @query
        def hang(self, q: Query) -> Frame:
            release.wait()
            raise ValueError("nobody waits for this")

    caplog.set_level(logging.INFO)
    async with serve_in_memory(Source) as grafana:
        try:
            await grafana.health()
            (instance,) = grafana.plugin.instances._current.values()
            threads = threads_of(instance.source)
            began = anyio.current_time()
            with anyio.move_on_after(1):
                await grafana.query({"queryType": "hang"})
            assert anyio.current_time() - began == pytest.approx(1, abs=0.1)
            assert instance.source.threads.borrowed_tokens == 1 and not threads.abandoned
            await anyio.sleep(ABANDONED_AFTER + 1)
            assert len(threads.abandoned) == 1
        finally:
            release.set()
        while threads.abandoned:
            await anyio.sleep(0.1)
        assert instance.source.threads.borrowed_tokens == 0
    assert "hang failed after its cancellation" in caplog.text
    assert "Source.hang has ended" in caplog.text


@pytest.mark.slow
def test_a_thread_that_hangs_does_not_delay_the_end_of_the_process():
    code = """
import asyncio, time
from aiostream_ds import DataSource, stream
from aiostream_ds.datasource import create_instance
from aiostream_ds.settings import Settings
class S(DataSource):
    @stream("s")
    def s(self):
        yield {"n": 1}
        time.sleep(1000)
async def main():
    async for row in create_instance(S, Settings()).s():
        break
asyncio.run(main())
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


async def test_the_threads_of_an_instance_end_with_it():
    others = set(threading.enumerate())  # of tests before, which hang on purpose
    async with serve_in_memory(Blocking) as grafana:
        await (await grafana.follow("numbers/3")).take(3)
        await grafana.query({"queryType": "answer"})
    left = {t for t in threading.enumerate() if t.name.startswith("Blocking.")} - others
    await until(lambda: not any(thread.is_alive() for thread in left))


# Lifespans


@pytest.mark.slow
@pytest.mark.virtual
async def test_a_lifespan_that_opens_too_late_is_left_as_soon_as_it_is_open():
    release, steps = threading.Event(), []

    class Source(DataSource):
        @contextmanager
        def lifespan(self):
            release.wait()
            steps.append("open")
            yield
            steps.append("closed")

    async with serve_in_memory(Source) as grafana:
        ok, message = await grafana.health()
        assert not ok and "did not open within 30 s" in message
        release.set()
        await until(lambda: steps == ["open", "closed"])


async def test_a_lifespan_that_is_cancelled_when_it_has_just_opened_is_left(monkeypatch):
    has_opened, steps = threading.Event(), []
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon_threadsafe

    def call_soon_threadsafe(*arguments, **options):
        call_soon(*arguments, **options)
        has_opened.set()

    monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)

    class Source(DataSource):
        @contextmanager
        def lifespan(self):
            steps.append("open")
            yield
            steps.append("closed")

    async def use():
        async with open_lifespan(create_instance(Source, Settings())):
            steps.append("used")

    task = asyncio.ensure_future(use())
    await asyncio.sleep(0)
    has_opened.wait()  # blocks the event loop: it does not learn of it before the cancellation
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["open", "closed"]


async def test_an_error_that_a_lifespan_handles_is_passed_to_it():
    steps = []

    class Source(DataSource):
        @contextmanager
        def lifespan(self):
            try:
                yield
            finally:
                steps.append("closed")

    async with serve_in_memory(Source) as grafana:
        assert (await grafana.health())[0]
    assert steps == ["closed"]


@pytest.mark.parametrize("value", [None, 5, "text"])
async def test_a_lifespan_that_is_no_context_manager_is_a_clear_error(value):
    class Source(DataSource):
        def lifespan(self):
            return value

    async with serve_in_memory(Source) as grafana:
        ok, message = await grafana.health()
    assert not ok and "lifespan must be a context manager, got" in message


@pytest.mark.virtual
async def test_the_virtual_clock_waits_for_methods_in_threads():
    @named_s
    def run(self):
        for _ in range(3):
            time.sleep(0.02)
            yield {}

    before = anyio.current_time()
    assert len([row async for row in a_source(run).s()]) == 3
    assert anyio.current_time() == before
