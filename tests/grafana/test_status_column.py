"""The opt-in column of stock panels that says how the stream is doing."""

from datetime import UTC, datetime

import anyio
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Field,
    FieldType,
    Frame,
    HistoryRange,
    Row,
    Rows,
    SchemaPolicy,
    Status,
    UpstreamError,
    stream,
)
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual


class Tick(Row):
    time: datetime
    n: int


NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Told(DataSource):
    """Each way to yield rows, with a column that says how it is going."""

    @stream("flaky", status_column="status", stale=20)
    async def flaky(self):
        Told.runs += 1
        if Told.runs in (2, 3):
            raise UpstreamError("gone")
        yield {"n": Told.runs, "x": float("nan")}
        if Told.runs == 1:
            await anyio.sleep(1)
            raise UpstreamError("gone")
        await anyio.sleep_forever()

    runs = 0

    @stream("rows", status_column="health")
    async def rows(self) -> Rows[Tick | Status]:
        yield Status("warning", "warming up")
        await anyio.sleep(1)
        yield Tick(time=NOW, n=1)
        yield [Tick(time=NOW, n=2), Tick(time=NOW, n=3)]
        yield Status()
        yield Tick.from_columns(time=[NOW, NOW], n=[4, 5])
        await anyio.sleep_forever()

    @rows.history
    async def past(self, history_range: HistoryRange) -> list[Tick]:
        return [Tick(time=NOW, n=0)]

    @stream("frames", status_column="status")
    async def frames(self):
        time = [NOW.replace(microsecond=1)]
        yield Frame(Field("time", time, FieldType.TIME, nullable=False), Field("v", [1.5]))
        await anyio.sleep_forever()

    @stream("labelled", status_column="status", schema=SchemaPolicy(labels=("host",)))
    async def labelled(self):
        yield {"time": NOW, "host": "a", "cpu": 1.0}
        yield Status("info", "one host is away")
        yield {"time": NOW, "host": "a", "cpu": 2.0}
        await anyio.sleep_forever()

    @stream("taken", status_column="status")
    async def taken(self):
        yield {"status": "mine"}

    @stream("log", cursor="n", status_column="status")
    async def log(self, after: Cursor | None) -> Rows[Tick]:
        Told.runs += 1
        yield Tick(time=NOW, n=10 + Told.runs)
        await anyio.sleep(1)
        raise UpstreamError("gone")

    @log.history
    async def logged(self, history_range: HistoryRange) -> list[Tick]:
        return (
            [Tick(time=NOW, n=10)][: history_range.limit] if (history_range.after or 0) < 10 else []
        )


@pytest.fixture(autouse=True)
def no_runs():
    Told.runs = 0


def column(viewer, name):
    return [row[name] for row in viewer.rows]


async def test_rows_say_live_and_a_row_of_its_own_says_each_change():
    async with serve_in_memory(Told) as grafana:
        viewer = await grafana.follow("flaky")
        await anyio.sleep(10)
        told = ["live", "reconnecting (1)", "reconnecting (2)", "reconnecting (3)", "live"]
        assert column(viewer, "status") == told
        assert column(viewer, "n") == [1, None, None, None, 4]
        times = column(viewer, "time")
        assert times == sorted(times) and None not in times
        await anyio.sleep(40)
        texts = column(viewer, "status")[5:]
        assert texts[0] == "stale 20 s" and len(texts) > 1 and viewer.broken is None


async def test_every_way_to_yield_has_the_column():
    async with serve_in_memory(Told) as grafana:
        viewer = await grafana.follow("rows")
        await anyio.sleep(2)
        said = ["warming up"] * 4 + ["live"] * 2
        assert column(viewer, "health") == said
        assert column(viewer, "n")[-5:] == [1, 2, 3, 4, 5]
        frames = await grafana.follow("frames")
        labelled = await grafana.follow("labelled")
        await anyio.sleep(1)
        assert frames.rows[0]["v"] == 1.5 and frames.rows[0]["status"] == "live"
        assert "one host is away" in column(labelled, "status")
        for each in (viewer, frames, labelled):
            assert each.broken is None


async def test_a_history_has_the_column_too():
    async with serve_in_memory(Told) as grafana:
        (frame,) = await grafana.query({"queryType": "rows"})
        assert [f.name for f in frame.fields] == ["time", "n", "health"]
        assert list(frame.fields[2].values) == [None]


async def test_a_column_of_that_name_among_the_rows_is_an_error_that_says_so(caplog):
    async with serve_in_memory(Told) as grafana:
        await grafana.follow("taken")
        await anyio.sleep(1)
    assert any("use another name" in str(r.exc_info) for r in caplog.records if r.exc_info)


async def test_an_exact_view_of_a_log_has_no_rows_that_say_only_a_status():
    async with serve_in_memory(Told) as grafana:
        (frame,) = await grafana.query({"queryType": "log", "exact": True})
        viewer = await grafana.follow("x/log", frame=frame)
        stock = await grafana.follow("log")
        await anyio.sleep(3)
        assert None not in column(viewer, "n") and len(viewer.rows) >= 2
        assert None in column(stock, "n")
