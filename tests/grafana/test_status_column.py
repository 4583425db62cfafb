"""The optional column of stock panels with the stream's status."""

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


class WithStatus(DataSource):
    """Each kind of yielded rows, with a status column."""

    @stream("flaky", status_column="status", stale=20)
    async def flaky(self):
        WithStatus.runs += 1
        if WithStatus.runs in (2, 3):
            raise UpstreamError("not reachable")
        yield {"n": WithStatus.runs, "x": float("nan")}
        if WithStatus.runs == 1:
            await anyio.sleep(1)
            raise UpstreamError("not reachable")
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
    async def read_rows(self, history_range: HistoryRange) -> list[Tick]:
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
    async def log(self, after: Cursor) -> Rows[Tick]:
        WithStatus.runs += 1
        yield Tick(time=NOW, n=10 + WithStatus.runs)
        await anyio.sleep(1)
        raise UpstreamError("not reachable")

    @log.history
    async def read_log(self, history_range: HistoryRange) -> list[Tick]:
        return (
            [Tick(time=NOW, n=10)][: history_range.limit] if (history_range.after or 0) < 10 else []
        )


@pytest.fixture(autouse=True)
def no_runs():
    WithStatus.runs = 0


def column(viewer, name):
    return [row[name] for row in viewer.rows]


async def test_rows_have_the_status_and_each_change_is_a_row():
    async with serve_in_memory(WithStatus) as grafana:
        viewer = await grafana.follow("flaky")
        await anyio.sleep(10)
        away = [f"reconnecting ({n}): not reachable" for n in (1, 2, 3)]
        expected = ["live", *away, "live"]
        assert column(viewer, "status") == expected
        assert column(viewer, "n") == [1, None, None, None, 4]
        times = column(viewer, "time")
        assert times == sorted(times) and None not in times
        await anyio.sleep(40)
        texts = column(viewer, "status")[5:]
        assert texts[0] == "stale 20 s" and len(texts) > 1 and viewer.broken is None


async def test_each_kind_of_yielded_rows_has_the_column():
    async with serve_in_memory(WithStatus) as grafana:
        viewer = await grafana.follow("rows")
        await anyio.sleep(2)
        expected = ["warming up"] * 4 + ["live"] * 2
        assert column(viewer, "health") == expected
        assert column(viewer, "n")[-5:] == [1, 2, 3, 4, 5]
        frames = await grafana.follow("frames")
        labelled = await grafana.follow("labelled")
        await anyio.sleep(1)
        assert frames.rows[0]["v"] == 1.5 and frames.rows[0]["status"] == "live"
        assert "one host is away" in column(labelled, "status")
        for each in (viewer, frames, labelled):
            assert each.broken is None


async def test_a_history_has_the_column():
    async with serve_in_memory(WithStatus) as grafana:
        (frame,) = await grafana.query({"queryType": "rows"})
        assert [f.name for f in frame.fields] == ["time", "n", "health"]
        assert list(frame.fields[2].values) == [None]


async def test_rows_with_a_column_of_the_same_name_are_an_error(caplog):
    async with serve_in_memory(WithStatus) as grafana:
        await grafana.follow("taken")
        await anyio.sleep(1)
    assert any("use another name" in str(r.exc_info) for r in caplog.records if r.exc_info)


async def test_an_exact_channel_with_a_cursor_has_no_rows_with_only_a_status():
    async with serve_in_memory(WithStatus) as grafana:
        (frame,) = await grafana.query({"queryType": "log", "exact": True})
        viewer = await grafana.follow("x/log", frame=frame)
        stock = await grafana.follow("log")
        await anyio.sleep(3)
        assert None not in column(viewer, "n") and len(viewer.rows) >= 2
        assert None in column(stock, "n")
