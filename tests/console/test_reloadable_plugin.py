"""The code of a plugin is replaced under calls that stay open."""

from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import Cursor, DataSource, HistoryRange, Rows, UpstreamError, stream
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.console.reloadable_plugin import open_reloadable_plugin as open_plugin
from aiostream_ds.testing import QueryFailed
from aiostream_ds.testing.grafana import CHECK_INTERVAL, open_grafana

pytestmark = pytest.mark.virtual


def counting(name: str, log: list[str]):
    class Counting(DataSource):
        @stream("n")
        async def n(self):
            log.append(f"{name} starts")
            try:
                count = 0
                while True:
                    yield {"name": name, "count": count}
                    count += 1
                    await anyio.sleep(1)
            finally:
                log.append(f"{name} ends")

        @stream("short")
        async def short(self):
            yield {"n": 1}

    return Counting


async def test_a_call_stays_open_and_gets_rows_from_the_new_code():
    log: list[str] = []
    async with (
        open_plugin(Catalog(counting("old", log))) as plugin,
        open_grafana(plugin) as grafana,
    ):
        viewer = await grafana.follow("n")
        assert (await viewer.next())["name"] == "old"
        (run,) = grafana._runs.values()
        await plugin.replace_code(Catalog(counting("new", log)))
        assert (await viewer.next())["name"] == "new"
        assert [*grafana._runs.values()] == [run] and not run.ended.is_set()
    assert log == ["old starts", "old ends", "new starts", "new ends"]


async def test_the_old_stream_ends_before_the_new_one_starts():
    log: list[str] = []

    class Slow(DataSource):
        @stream("n")
        async def n(self):
            try:
                while True:
                    yield {"n": 1}
                    await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)
                log.append("old ends")

    async with open_plugin(Catalog(Slow)) as plugin, open_grafana(plugin) as grafana:
        viewer = await grafana.follow("n")
        await viewer.next()
        await plugin.replace_code(Catalog(counting("new", log)))
        while (await viewer.next()).get("name") != "new":
            pass
    assert log[:2] == ["old ends", "new starts"]


async def test_a_query_during_a_replacement_is_answered_by_the_new_code():
    async with (
        open_plugin(Catalog(counting("old", []))) as plugin,
        open_grafana(plugin) as grafana,
    ):
        answers = []

        async def ask():
            answers.append(await grafana.query({"queryType": "n"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plugin.replace_code, Catalog(counting("new", [])))
            tasks.start_soon(ask)
        assert len(answers) == 1


async def test_the_end_of_a_stream_reaches_the_viewer():
    async with (
        open_plugin(Catalog(counting("old", []))) as plugin,
        open_grafana(plugin) as grafana,
    ):
        viewer = await grafana.follow("short")
        await viewer.next()
        with pytest.raises(anyio.EndOfStream):
            await viewer.next()


class Log(DataSource):
    """Ten rows a second that can be read again."""

    start: float = 0.0

    def _rows(self, after: int) -> list[dict[str, int]]:
        last = int((anyio.current_time() - Log.start) * 10)
        return [{"time": 100 * n, "n": n} for n in range(after + 1, last + 1)]

    @stream("log", cursor="n")
    async def log(self, cursor: Cursor) -> Rows:
        after = cursor.value
        while True:
            for row in self._rows(after):
                after = row["n"]
                yield row
            await anyio.sleep(0.1)

    @log.history
    async def history(self, history_range: HistoryRange) -> list[dict[str, int]]:
        after = -1 if history_range.after is None else history_range.after
        return self._rows(after)[-history_range.limit :]


async def test_a_stream_with_a_cursor_loses_no_row():
    Log.start = anyio.current_time()
    async with open_plugin(Catalog(Log)) as plugin, open_grafana(plugin) as grafana:
        viewer = await grafana.follow("log")
        for _ in range(10):
            await viewer.take(7)
            await plugin.replace_code(Catalog(Log))
            await anyio.sleep(0.35)
        numbers = [row["n"] for row in viewer.rows]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))] and len(numbers) > 70


async def test_a_stream_that_does_not_end_delays_the_new_code_for_a_limited_time():
    class Stubborn(DataSource):
        @stream("n")
        async def n(self):
            while True:
                yield {"name": "old"}
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(30)

    async with open_plugin(Catalog(Stubborn)) as plugin, open_grafana(plugin) as grafana:
        viewer = await grafana.follow("n")
        await viewer.next()
        with anyio.fail_after(CHECK_INTERVAL):
            await plugin.replace_code(Catalog(counting("new", [])))
            while (await viewer.next())["name"] != "new":
                pass
        await anyio.sleep(60)


async def test_a_lifespan_that_cannot_open_fails_queries_until_the_code_is_replaced():
    class Broken(counting("old", [])):
        @asynccontextmanager
        async def lifespan(self):
            raise UpstreamError("the broker is down")
            yield

    async with open_plugin(Catalog(Broken)) as plugin, open_grafana(plugin) as grafana:
        with pytest.raises(QueryFailed, match="broker is down"):
            await grafana.query({"queryType": "n"})
        await plugin.replace_code(Catalog(counting("new", [])))
        assert await grafana.query({"queryType": "n"})


async def test_a_reloadable_plugin_has_the_methods_of_a_plain_one():
    async with open_application(Catalog(counting("one", []))) as application:
        async with open_plugin(Catalog(counting("one", []))) as plugin:
            reloadable, direct = plugin.services(), application.services()
            assert {name: set(make()) for name, make in reloadable.items()} == {
                name: set(make()) for name, make in direct.items()
            }
