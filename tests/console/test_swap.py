"""The front: code is exchanged under calls that stay open."""

from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import Cursor, DataSource, HistoryRange, Rows, UpstreamError, stream
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.console.swap import open_front
from aiostream_ds.testing import QueryFailed
from aiostream_ds.testing.grafana import CHECK_INTERVAL, open_grafana

pytestmark = pytest.mark.virtual


def counting(name: str, log: list[str]):
    class Counting(DataSource):
        @stream("n")
        async def n(self):
            log.append(f"{name} begins")
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


async def test_rows_go_on_from_the_new_code_within_the_same_call():
    log: list[str] = []
    async with (
        open_front(Catalog(counting("old", log))) as front,
        open_grafana(front) as grafana,
    ):
        viewer = await grafana.follow("n")
        assert (await viewer.next())["name"] == "old"
        (run,) = grafana._runs.values()
        await front.swap(Catalog(counting("new", log)))
        assert (await viewer.next())["name"] == "new"
        assert [*grafana._runs.values()] == [run] and not run.ended.is_set()
    assert log == ["old begins", "old ends", "new begins", "new ends"]


async def test_the_old_stream_has_ended_before_the_new_one_begins():
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

    async with open_front(Catalog(Slow)) as front, open_grafana(front) as grafana:
        viewer = await grafana.follow("n")
        await viewer.next()
        await front.swap(Catalog(counting("new", log)))
        while (await viewer.next()).get("name") != "new":
            pass
    assert log[:2] == ["old ends", "new begins"]


async def test_a_query_that_comes_while_the_code_changes_is_answered_by_the_new():
    async with open_front(Catalog(counting("old", []))) as front, open_grafana(front) as grafana:
        answers = []

        async def ask():
            answers.append(await grafana.query({"queryType": "n"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(front.swap, Catalog(counting("new", [])))
            tasks.start_soon(ask)
        assert len(answers) == 1


async def test_a_clean_end_and_an_authors_error_are_told_as_without_a_front():
    async with open_front(Catalog(counting("old", []))) as front, open_grafana(front) as grafana:
        viewer = await grafana.follow("short")
        await viewer.next()
        with pytest.raises(anyio.EndOfStream):
            await viewer.next()


class Log(DataSource):
    """Ten rows a second that anybody can read again."""

    begun: float = 0.0

    def _rows(self, after: int) -> list[dict[str, int]]:
        last = int((anyio.current_time() - Log.begun) * 10)
        return [{"time": 100 * n, "n": n} for n in range(after + 1, last + 1)]

    @stream("log", cursor="n")
    async def log(self, position: Cursor) -> Rows:
        after = position.value
        while True:
            for row in self._rows(after):
                after = row["n"]
                yield row
            await anyio.sleep(0.1)

    @log.history
    async def past(self, span: HistoryRange) -> list[dict[str, int]]:
        after = -1 if span.after is None else span.after
        return self._rows(after)[-span.limit :]


async def test_nothing_is_lost_where_the_rows_can_be_read_again():
    Log.begun = anyio.current_time()
    async with open_front(Catalog(Log)) as front, open_grafana(front) as grafana:
        viewer = await grafana.follow("log")
        for _ in range(10):
            await viewer.take(7)
            await front.swap(Catalog(Log))
            await anyio.sleep(0.35)
        numbers = [row["n"] for row in viewer.rows]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))] and len(numbers) > 70


async def test_a_stream_that_will_not_end_holds_up_the_new_code_only_so_long():
    class Stubborn(DataSource):
        @stream("n")
        async def n(self):
            while True:
                yield {"name": "old"}
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(30)

    async with open_front(Catalog(Stubborn)) as front, open_grafana(front) as grafana:
        viewer = await grafana.follow("n")
        await viewer.next()
        with anyio.fail_after(CHECK_INTERVAL):
            await front.swap(Catalog(counting("new", [])))
            while (await viewer.next())["name"] != "new":
                pass
        await anyio.sleep(60)


async def test_a_lifespan_that_cannot_open_is_told_as_a_query_error_and_mended_by_the_next_swap():
    class Broken(counting("old", [])):
        @asynccontextmanager
        async def lifespan(self):
            raise UpstreamError("the broker is away")
            yield

    async with open_front(Catalog(Broken)) as front, open_grafana(front) as grafana:
        with pytest.raises(QueryFailed, match="broker is away"):
            await grafana.query({"queryType": "n"})
        await front.swap(Catalog(counting("new", [])))
        assert await grafana.query({"queryType": "n"})


async def test_a_front_is_what_a_grafana_can_talk_to_like_a_plugin():
    async with open_application(Catalog(counting("one", []))) as plain:
        async with open_front(Catalog(counting("one", []))) as front:
            there, here = front.services(), plain.services()
            assert {name: set(make()) for name, make in there.items()} == {
                name: set(make()) for name, make in here.items()
            }
