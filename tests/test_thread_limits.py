"""The threads of the runtime and of each data source, when those of one hang."""

import threading
import time
from functools import partial

import anyio
import anyio.to_thread
import pytest
from anyio.to_thread import run_sync

from aiostream_ds import DataSource, Frame, Query, query
from aiostream_ds._grafana.table_reading import INLINE_ROWS
from aiostream_ds._grafana.thread_watch import ThreadWatch
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._thread_limits import AUTHOR_THREADS, new_limiter
from aiostream_ds.datasource import create_instance
from aiostream_ds.models import InstanceSettings
from aiostream_ds.settings import Settings
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import a_query, query_data


@pytest.mark.timeout(60)
async def test_authors_threads_that_hang_do_not_stop_the_runtime():
    release = threading.Event()

    class Hanging(DataSource):
        @query
        async def hang(self, q: Query) -> Frame:
            await anyio.to_thread.run_sync(release.wait)
            return Frame.from_columns({"n": [1]})

        @query
        async def large(self, q: Query) -> Frame:
            return Frame.from_columns({"n": list(range(INLINE_ROWS + 1))})

    limiter = anyio.to_thread.current_default_thread_limiter()
    hanging = [a_query(f"q{n}", "hang") for n in range(int(limiter.total_tokens))]
    async with serve_in_memory(Hanging) as grafana, anyio.create_task_group() as tasks:
        try:
            tasks.start_soon(query_data, grafana, *hanging)
            while limiter.available_tokens:
                await anyio.sleep(0.01)
            with anyio.fail_after(20):
                for form in (pb.DataFrameFormat.ARROW, pb.DataFrameFormat.JSON):
                    answers = await query_data(grafana, a_query("A", "large"), form=form)
                    assert answers["A"].status == 200
                assert await grafana.metrics()
        finally:
            release.set()


@pytest.mark.timeout(60)
async def test_threads_of_one_data_source_that_hang_leave_those_of_others():
    release = threading.Event()
    sources: list[DataSource] = []

    class Blocking(DataSource):
        @query
        async def hang(self, q: Query) -> Frame:
            sources.append(self)
            await anyio.to_thread.run_sync(release.wait, limiter=self.threads)
            return Frame.from_columns({"n": [1]})

        @query
        async def read(self, q: Query) -> Frame:
            found = await anyio.to_thread.run_sync(lambda: [1], limiter=self.threads)
            return Frame.from_columns({"n": found})

    hanging = [a_query(f"q{n}", "hang") for n in range(AUTHOR_THREADS + 1)]
    async with serve_in_memory(Blocking) as grafana, anyio.create_task_group() as tasks:
        try:
            tasks.start_soon(query_data, grafana, *hanging)
            while not sources or not sources[0].threads.statistics().tasks_waiting:
                await anyio.sleep(0.01)
            assert sources[0].threads.borrowed_tokens == AUTHOR_THREADS
            with anyio.fail_after(20):
                answers = await query_data(grafana, a_query("A", "read"), uid="other")
                assert answers["A"].status == 200
        finally:
            release.set()


@pytest.mark.virtual
async def test_the_virtual_clock_waits_for_calls_in_threads_of_a_data_source():
    before = anyio.current_time()
    await anyio.to_thread.run_sync(time.sleep, 0.05, limiter=new_limiter())
    assert anyio.current_time() == before


@pytest.mark.timeout(60)
async def test_busy_threads_are_logged_when_it_begins_and_when_it_ends(caplog):
    caplog.set_level("INFO")
    release = threading.Event()
    source = create_instance(DataSource, Settings(), InstanceSettings(uid="hung"))
    source.threads.total_tokens = 1
    watch = ThreadWatch()

    def messages():
        watch.check([source, create_instance(DataSource, Settings())])
        return [(each.getMessage(), each.datasource) for each in caplog.records]

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(partial(run_sync, release.wait, limiter=source.threads))
        while source.threads.statistics().tasks_waiting < 2:
            await anyio.sleep(0)
        assert not messages(), "calls may wait for a moment"
        begins = (
            "all 1 threads of DataSource for calls are in use, and 2 more wait for one; raise"
            " self.threads.total_tokens, or write methods that wait as `async def`",
            "hung",
        )
        assert messages() == messages() == [begins]
        release.set()
    assert messages() == [begins]
    assert messages() == [
        begins,
        ("nothing waits for threads of DataSource for calls any more", "hung"),
    ]
