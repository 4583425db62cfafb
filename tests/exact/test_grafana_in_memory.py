"""The Grafana in memory: viewers of exact channels, and a plugin process that dies."""

from datetime import UTC, datetime

import anyio
import pytest

from aiostream_ds import DataSource, HistoryPage, Row, stream
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.grafana import CHECK_INTERVAL, open_grafana
from aiostream_ds.testing.viewer import Viewer

pytestmark = pytest.mark.virtual


class Count(Row):
    time: datetime
    n: int


class Counting(DataSource):
    """Counts the seconds of the event loop's clock."""

    @stream("count", cursor="n")
    async def count(self, after):
        number = after.value
        while True:
            while number < self.now():
                number += 1
                yield Count(datetime.now(UTC), number)
            await anyio.sleep(0.5)

    @count.history
    async def past(self, history_range):
        first = self.now() - 3 if history_range.after is None else history_range.after + 1
        numbers = range(first, self.now() + 1)
        return HistoryPage([Count(datetime.now(UTC), n) for n in numbers])

    def now(self):
        return int(anyio.current_time())


def numbers(viewer):
    return [row["n"] for row in viewer.rows]


async def test_a_viewer_decodes_an_exact_channel_with_the_frame_of_the_query():
    async with serve_in_memory(Counting) as grafana:
        (frame,) = await grafana.query({"queryType": "count", "exact": True}, as_json=True)
        cursor = frame.meta.custom["cursor"]
        viewer = await grafana.follow("x/count", frame=frame)
        first = await viewer.message()
        assert first["cursor"]["epoch"] == cursor["epoch"] and "data" not in first
        rows = await viewer.take(5)
        assert rows[0]["n"] == frame.fields[1].values[-1] + 1 == cursor["last"] + 1
        assert viewer.position == (cursor["epoch"], rows[-1]["n"])
        assert viewer.broken is None


async def test_a_viewer_without_a_frame_gets_the_packets_of_an_exact_channel():
    async with serve_in_memory(Counting) as grafana:
        viewer = await grafana.follow("x/count")
        while "data" not in (message := await viewer.message()):
            pass
        assert message["data"]["values"][message["cursor"]["column"]] == [viewer.position.value]
        assert viewer.rows == [] and viewer.broken is None


async def test_a_viewer_reports_how_long_it_waited_for_a_message():
    viewer = Viewer("quiet", lambda _: None)
    with pytest.raises(TimeoutError, match="no packet came within 3 s"):
        await viewer.message(timeout=3)


async def test_after_the_plugin_died_its_streams_run_again_and_viewers_get_no_event():
    async with (
        open_application(Catalog(Counting)) as first,
        open_application(Catalog(Counting)) as second,
        open_grafana(first) as grafana,
    ):
        viewer = await grafana.follow("count")
        await viewer.take(5)
        await grafana.replace_plugin(second)
        assert grafana.plugin is second
        assert first.registry.subscriptions == 0, "its calls are over"
        await viewer.take(5)
        assert numbers(viewer) == list(range(numbers(viewer)[0], numbers(viewer)[-1] + 1))
        assert (first.registry.subscriptions, second.registry.subscriptions) == (0, 1)
        assert not viewer.ended


async def test_a_pending_call_fails_with_the_plugin_and_its_task_can_still_be_cancelled():
    class Slow(DataSource):
        @stream("slow")
        async def slow(self):
            yield {"n": 1}

        @slow.history
        async def past(self, history_range):
            await anyio.sleep_forever()

    async with (
        open_application(Catalog(Slow)) as first,
        open_application(Catalog(Slow)) as second,
        open_grafana(first) as grafana,
    ):
        ended = anyio.Event()

        async def query_and_wait():
            with pytest.raises(Exception, match="Connection lost"):
                await grafana.query({"queryType": "slow"})
            ended.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(query_and_wait)
            await anyio.sleep(1)
            await grafana.replace_plugin(second)
            with anyio.fail_after(CHECK_INTERVAL):
                await ended.wait()
            tasks.cancel_scope.cancel()
        await anyio.sleep(1)
