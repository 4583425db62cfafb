"""Long ranges of the built-in sources are drawn from their first row to their last."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest

from aiostream_ds import Cursor, DataSource, HistoryPage, HistoryRange, Rows, stream
from aiostream_ds._grafana import range_reading
from aiostream_ds.sources.demo import Demo
from aiostream_ds.sources.file import File
from aiostream_ds.sources.host import SAMPLES, Cpu, _SampleSeries
from aiostream_ds.testing import serve_in_memory

DAY = 86_400


@pytest.fixture(autouse=True)
def a_busy_machine_reads_all(monkeypatch):
    monkeypatch.setattr(range_reading, "RANGE_SECONDS", 1e6)


def write(path, start, seconds):
    """A file with a row a second from `start` on."""
    rows = (
        {"time": round(start.timestamp()) + n, "n": n, "v": math.sin(n / 3000)} for n in seconds
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


async def draw(grafana, query, start, seconds, points=1000, exact=True):
    """The columns of a panel's first frame, and its notices."""
    (frame,) = await grafana.query(
        {**query, "exact": exact},
        start=start,
        end=start + timedelta(seconds=seconds),
        max_data_points=points,
    )
    columns = {field.name: list(field.values) for field in frame.fields}
    return columns, frame, [notice.text for notice in frame.meta.notices]


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
async def test_a_day_of_a_file_is_drawn_over_its_whole_range(tmp_path, exact):
    start = datetime(2026, 3, 1, tzinfo=UTC)
    write(tmp_path / "day.ndjson", start, range(DAY))
    query = {"queryType": "rows", "file": "day.ndjson"}
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        columns, frame, (notice,) = await draw(grafana, query, start, DAY, exact=exact)
        found = columns["n"]
        assert (found[0], found[-1]) == (0, DAY - 1) and 700 < len(found) <= 1000
        assert max(later - n for n, later in zip(found, found[1:], strict=False)) <= 5 * DAY / 1000
        assert f"Thinned: {len(found):,} of 86,400 rows are drawn" in notice
        if exact:
            missed = await grafana.resource(
                f"replay/rows?path=x/rows/day.ndjson&after={frame.meta.custom['cursor']['last']}"
            )
            assert b'"data"' not in missed.body, "the history ends at the newest row"


@pytest.mark.slow
async def test_a_range_of_rotated_files_has_the_rows_of_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 150)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for name, seconds in {
        "a.ndjson": range(2_000, 2_900),
        "a.ndjson.1": range(1_000, 2_000),
        "a.ndjson.2": range(1_000),
    }.items():
        write(tmp_path / name, start, seconds)
    query = {"queryType": "rows", "file": "a.ndjson"}
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        columns, _, (notice,) = await draw(grafana, query, start, 3_000, points=100)
        assert columns["n"] == sorted(set(columns["n"]))
        assert (columns["n"][0], columns["n"][-1]) == (0, 2_899)
        assert "of 2,900 rows are drawn" in notice
        # a range that ends within a rotated file
        columns, _, (notice,) = await draw(grafana, query, start, 1_500, points=100)
        assert (columns["n"][0], columns["n"][-1]) == (0, 1_500)
        assert "of 1,501 rows are drawn" in notice


async def test_bad_lines_of_a_long_range_are_in_its_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 500)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    path = tmp_path / "a.ndjson"
    write(path, start, range(1_000))
    path.write_text(path.read_text().replace('"n": 100,', '"n": 100').replace('"n": 900,', "{"))
    query = {"queryType": "rows", "file": "a.ndjson"}
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        _, _, notices = await draw(grafana, query, start, 1_000, points=50)
    assert notices[0].startswith("2 lines of a.ndjson are not rows")
    assert "of 998 rows are drawn" in notices[1] and len(notices) == 2


async def test_the_samples_of_the_host_are_drawn_over_the_whole_hour():
    series: _SampleSeries[Cpu] = _SampleSeries()
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for n in range(SAMPLES + 500):
        busy = 100.0 if n == 2_222 else n % 50
        series.add(Cpu(round(start.timestamp() + n) * 1000, busy, 1.0, n % 7, 0.0, None))

    class Host(DataSource):
        @stream("cpu", cursor="time")
        async def cpu(self, after: Cursor) -> Rows[Cpu | Cursor]:
            async for row in series.follow(after):
                yield row

        @cpu.history
        async def past(self, history_range: HistoryRange) -> HistoryPage:
            return series.read(history_range)

    async with serve_in_memory(Host) as grafana:
        columns, frame, (notice,) = await draw(grafana, {}, start, 7_200)
    seconds = [time / 1000 - start.timestamp() for time in columns["time"]]
    assert (seconds[0], seconds[-1]) == (500, SAMPLES + 499) and 100.0 in columns["busy"]
    assert "of 3,600 rows are drawn" in notice
    assert frame.meta.custom["cursor"]["last"] == columns["time"][-1]


async def test_six_hours_of_the_walk_are_drawn_by_each_nth_row():
    end = datetime.now(UTC)
    query = {"queryType": "walk", "hz": 10}
    async with serve_in_memory(Demo) as grafana:
        columns, frame, (notice,) = await draw(
            grafana, query, end - timedelta(hours=6), 6 * 3600, exact=True
        )
        (static,) = await grafana.query(
            query, start=end - timedelta(hours=6), end=end, headers={"FromAlert": "true"}, user=None
        )
    times = columns["time"]
    assert times[-1] - times[0] > 0.99 * 6 * 3_600_000 and 900 < len(times) <= 1000
    assert notice.startswith("Thinned by the data source")
    assert frame.meta.custom["cursor"]["last"] == times[-1]
    assert static.rows == 1000 and static.meta is None, "an alert rule gets the newest rows"
