"""The runtime's threads, when all threads of authors hang."""

import threading

import anyio
import anyio.to_thread
import pytest

from aiostream_ds import DataSource, Frame, Query, query
from aiostream_ds._grafana.replay import INLINE_ROWS
from aiostream_ds._pb import pluginv2 as pb
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
