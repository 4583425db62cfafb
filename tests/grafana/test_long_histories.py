"""Histories of more rows than a panel draws: read in pages, and thinned."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import (
    Cursor,
    DataSource,
    HistoryPage,
    HistoryRange,
    Replay,
    Row,
    Rows,
    SchemaPolicy,
    UpstreamError,
    stream,
)
from aiostream_ds._frames import json
from aiostream_ds._frames.config import Notice
from aiostream_ds._grafana import range_reading
from aiostream_ds.testing import QueryFailed, serve_in_memory

from .calls import a_query, query_data

START = 1_700_000_000_000
ALERT = {"FromAlert": "true"}
EXPRESSION = {"http_X-Grafana-From-Expr": "true"}


@pytest.fixture(autouse=True, scope="module")
def a_busy_machine_reads_all():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_reading, "RANGE_SECONDS", 1e6)
        patch.setattr(range_reading, "SAMPLE_SECONDS", 1e6)
        yield


class Reading(Row):
    time: int
    value: float
    id: int


class Line(Row):
    time: int
    text: str
    id: int


def ms(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def moment(offset_ms):
    return datetime.fromtimestamp((START + offset_ms) / 1000, UTC)


class Table:
    """Rows that are read as from a database; `asked` has the ranges."""

    def __init__(self, times: Sequence[int], kind: type[Row] = Reading) -> None:
        value = (lambda n: f"line {n}") if kind is Line else (lambda n: (n * 7919) % 1009 / 7)
        self.rows = [kind(START + time, value(n), n) for n, time in enumerate(times)]
        self.asked: list[HistoryRange] = []

    def read(self, wanted: HistoryRange) -> list[Row]:
        self.asked.append(wanted)
        if wanted.after is not None:
            found = [row for row in self.rows if row.id > wanted.after]
            return found[: wanted.limit]
        times = [row.time for row in self.rows]
        first, end = bisect_left(times, ms(wanted.start)), bisect_right(times, ms(wanted.end))
        return self.rows[first:end][-wanted.limit :]


def source(read, *, row=Reading, **options):
    """A data source whose stream `rows` has this history."""

    class Source(DataSource):
        @stream("rows", **options)
        async def rows(self) -> Rows[row]:
            return
            yield

        @rows.history
        async def past(self, history_range: HistoryRange):
            return read(history_range)

    return Source


def numbered(read, *, row=Reading, **options):
    """The same with a cursor."""

    class Source(DataSource):
        @stream("rows", cursor="id", **options)
        async def rows(self, after: Cursor) -> Rows[row]:
            return
            yield

        @rows.history
        async def past(self, history_range: HistoryRange):
            return read(history_range)

        @rows.last
        async def newest(self) -> int:
            return 10**6

    return Source


async def ask(kind, span, points, *, exact=False, headers=(), **query):
    """The first frame of a panel of so many milliseconds."""
    async with serve_in_memory(kind) as grafana:
        frames = await grafana.query(
            {"queryType": "rows", "exact": exact, **query},
            start=moment(0),
            end=moment(span),
            max_data_points=points,
            headers=dict(headers),
        )
    return frames[0]


def texts(frame):
    return [notice.text for notice in frame.meta.notices] if frame.meta else []


def column(frame, name):
    return list(next(field.values for field in frame.fields if field.name == name))


DAY = 86_400


@pytest.mark.slow
async def test_a_day_is_drawn_over_its_whole_range():
    table = Table([n * 1000 for n in range(DAY + 1)])
    frame = await ask(source(table.read), DAY * 1000, 1000)
    assert 700 < frame.rows <= 1000
    assert column(frame, "id")[:1] + column(frame, "id")[-1:] == [0, DAY]
    known = {(row.time, row.value) for row in table.rows}
    assert set(zip(column(frame, "time"), column(frame, "value"), strict=True)) <= known
    assert texts(frame) == [
        f"Thinned: {frame.rows} of 86,401 rows are drawn, with the lowest and the highest values of"
        " each interval. To see all, raise Max data points in the query options, or choose a"
        " shorter range."
    ]
    assert [each.limit for each in table.asked] == [1001] + [range_reading.PAGE_ROWS] * 5
    assert {(each.points, each.interval) for each in table.asked} == {
        (1000, timedelta(seconds=86.4))
    }


async def test_a_short_range_is_read_once_and_complete():
    table = Table([n * 1000 for n in range(1000)])
    frame = await ask(source(table.read), 10**6, 1000)
    assert (frame.rows, texts(frame), len(table.asked)) == (1000, [], 1)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([0, 0, 0, 1, 1, 5, 300]), min_size=1, max_size=120),
    st.integers(1, 12),
    st.integers(2, 15),
    st.booleans(),
)
async def test_each_row_is_read_once_whatever_rows_have_the_same_time(
    gaps, points, page_rows, has_cursor
):
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    table = Table(times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_reading, "PAGE_ROWS", page_rows)
        make = numbered if has_cursor else source
        frame = await ask(make(table.read), times[-1], points, exact=has_cursor)
    if len(times) <= points:
        assert column(frame, "id") == list(range(len(times)))
        return
    assert f"of {len(times)} rows are drawn" in texts(frame)[0]
    found = column(frame, "id")
    assert found == sorted(set(found)) and len(found) <= points and found[-1] == len(times) - 1
    if has_cursor:
        assert frame.meta.custom["cursor"]["last"] == len(times) - 1


async def test_a_history_that_is_thinned_by_its_author_is_read_once():
    asked = []

    def read(wanted):
        asked.append(wanted)
        count = (wanted.end - wanted.start) // wanted.interval
        rows = [Reading(ms(wanted.start + n * wanted.interval), 1.0 * n, n) for n in range(count)]
        return HistoryPage(rows, total=12_345)

    frame = await ask(source(read), DAY * 1000, 500)
    assert (frame.rows, len(asked)) == (500, 1)
    assert texts(frame)[0].startswith("Thinned by the data source: 500 of 12,345 rows are drawn.")


async def test_with_thin_false_the_newest_rows_are_drawn():
    table = Table([n * 1000 for n in range(2_000)])
    frame = await ask(source(table.read, thin=False), 2 * 10**6, 100)
    assert column(frame, "id") == list(range(1_900, 2_000))
    assert texts(frame)[0].startswith("Only the newest 100 rows of the range are drawn")
    assert [(each.limit, each.points) for each in table.asked] == [(100, 100)]


async def test_texts_without_numbers_are_not_thinned():
    table = Table([n * 1000 for n in range(2_000)], Line)
    frame = await ask(numbered(table.read, row=Line), 2 * 10**6, 100)
    assert column(frame, "id") == list(range(1_900, 2_000))
    assert texts(frame)[0].startswith("Only the newest 100 rows of the range are drawn")
    assert len(table.asked) == 1


async def test_an_alert_rule_gets_all_rows_up_to_its_limit():
    table = Table([n * 1000 for n in range(2_000)])
    frame = await ask(source(table.read), 2 * 10**6, 1_500, headers=ALERT.items())
    assert (frame.rows, texts(frame)) == (1_500, [])
    assert [(each.limit, each.points) for each in table.asked] == [(1_500, 1_500)]


async def test_a_panel_with_an_expression_gets_thinned_rows():
    table = Table([n * 1000 for n in range(2_000)])
    frame = await ask(source(table.read), 2 * 10**6, 100, headers=EXPRESSION.items())
    assert 60 < frame.rows <= 100


@pytest.mark.parametrize("kind", ["logs", "table"])
async def test_a_panel_that_lists_rows_gets_the_newest(kind):
    table = Table([n * 1000 for n in range(2_000)])
    headers = {"http_X-Panel-Plugin-Id": kind}
    for exact in (False, True):
        frame = await ask(
            numbered(table.read), 2 * 10**6, 100, exact=exact, headers=headers.items()
        )
        assert column(frame, "id") == list(range(1_900, 2_000))
        assert "thinned" not in str(frame.meta.custom)


async def test_a_query_for_annotations_gets_the_newest_rows():
    table = Table([n * 1000 for n in range(2_000)])
    async with serve_in_memory(source(table.read)) as grafana:
        request = a_query("Anno", "rows", {}, points=100, start=START, end=START + 2 * 10**6)
        answer = await query_data(grafana, request)
    frame = json.decode(answer["Anno"].frames[0])
    assert column(frame, "id") == list(range(1_900, 2_000))


async def test_pages_with_numbers_of_several_types_are_joined_as_floats(monkeypatch):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 500)

    def read(wanted):
        last = min(1_999, (ms(wanted.end) - START) // 1000)
        rows = [
            {"time": moment(n * 1000), "value": n % 50 if n > 1_000 else n % 50 + 0.5}
            for n in range(last + 1)
        ]
        return rows[-wanted.limit :]

    frame = await ask(source(read, row=dict), 2 * 10**6, 100)
    values = column(frame, "value")
    assert None not in values and 49.5 in values and 0.0 in values


async def test_a_frame_has_the_number_of_live_rows_that_may_follow_a_thinned_history():
    table = Table([n * 1000 for n in range(2_000)])
    headers = {"http_X-Panel-Plugin-Id": "timeseries"}
    frame = await ask(source(table.read), 2 * 10**6, 100, headers=headers.items())
    assert frame.meta.custom == {"thinned": 10}
    frame = await ask(source(table.read), 2 * 10**6, 100, withStreaming=False)
    assert frame.meta.custom is None


async def test_an_exact_history_ends_at_the_cursor_where_live_rows_join():
    table = Table([n * 1000 for n in range(5_000)])
    late = []

    def read(wanted):
        found = table.read(wanted)
        if wanted.after is None:  # written after this read, with times of the past
            late.append(Reading(START + len(late) * 1000 + 1, 1e9, 5_000 + len(late)))
            table.rows = sorted([*table.rows, late[-1]], key=lambda row: row.time)
        return found

    frame = await ask(numbered(read), 10**7, 100, exact=True)
    cursor = frame.meta.custom["cursor"]
    assert (cursor["last"], cursor["thinned"], max(column(frame, "id"))) == (4_999, 10, 4_999)
    assert late and 1e9 not in column(frame, "value")


@pytest.mark.parametrize("options", [{"thin": False}, {}])
async def test_only_a_cursor_of_rows_that_are_thinned_has_their_factor(options):
    rows = [Reading(START + n, 1.0, n) for n in range(10)]
    frame = await ask(numbered(lambda _: rows, **options), 10**6, 100, exact=True)
    assert frame.meta.custom["cursor"].get("thinned") == (None if options else 10)


async def test_a_log_that_is_replaced_while_it_is_read_ends_the_read():
    table, pages = Table([n * 1000 for n in range(5_000)]), []

    def read(wanted):
        pages.append(wanted)
        return HistoryPage(table.read(wanted), epoch=f"e{len(pages) // 2}")

    frame = await ask(numbered(read), 5 * 10**6, 100, exact=True)
    assert len(pages) == 2 and min(column(frame, "id")) >= 4_899
    assert "of more than 100 rows are drawn" in texts(frame)[0]


@pytest.mark.parametrize("bound", ["RANGE_ROWS", "RANGE_SECONDS"])
async def test_the_rest_of_a_range_that_takes_too_long_is_sampled(monkeypatch, bound):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 500)
    monkeypatch.setattr(range_reading, bound, 2_000 if bound == "RANGE_ROWS" else -1.0)
    table = Table([n * 1000 for n in range(5_000)])
    frame = await ask(numbered(table.read), 5 * 10**6, 100, exact=True)
    rows = 2_096 if bound == "RANGE_ROWS" else 100
    since = moment((5_000 - rows) * 1000 - 1)
    assert f"Before {since:%Y-%m-%d %H:%M:%S} UTC only samples were read" in texts(frame)[0]
    assert texts(frame)[0].endswith("To see more, choose a shorter range.")
    assert "were not read" not in texts(frame)[0]
    found = column(frame, "id")
    assert found == sorted(set(found)) and len(found) <= 100
    assert found[0] < 50 and found[-1] == 4_999 == frame.meta.custom["cursor"]["last"]
    samples = [each for each in table.asked if each.limit == range_reading.SAMPLE_ROWS]
    assert range_reading.SAMPLES <= len(samples) <= range_reading.SAMPLES + 1
    assert all(later.start > each.end for later, each in pairwise(samples))


@pytest.mark.parametrize("bound", ["RANGE_ROWS", "RANGE_SECONDS"])
async def test_a_range_that_takes_too_long_is_read_in_part(monkeypatch, bound):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 500)
    monkeypatch.setattr(range_reading, bound, 2_000 if bound == "RANGE_ROWS" else -1.0)
    monkeypatch.setattr(range_reading, "SAMPLE_SECONDS", -1.0)
    table = Table([n * 1000 for n in range(5_000)])
    frame = await ask(source(table.read), 5 * 10**6, 100)
    rows = 2_096 if bound == "RANGE_ROWS" else 100
    unread = moment((5_000 - rows) * 1000 - 1)
    assert f"of more than {rows:,} rows are drawn" in texts(frame)[0]
    assert f"Rows before {unread:%Y-%m-%d %H:%M:%S} UTC were not read" in texts(frame)[0]
    assert texts(frame)[0].endswith("To see more, choose a shorter range.")
    assert min(column(frame, "id")) == 5_000 - rows


@pytest.mark.parametrize(
    "read",
    [
        lambda table, wanted: table.rows[-wanted.limit :],
        lambda table, wanted: table.rows,
        lambda table, wanted: [r for r in table.rows if r.time <= ms(wanted.end)][-wanted.limit :],
    ],
    ids=["no range", "no range and no limit", "no start"],
)
@pytest.mark.slow
async def test_a_hook_that_ignores_its_range_is_not_asked_for_ever(monkeypatch, read):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 500)
    table, asked = Table([n * 1000 for n in range(5_000)]), []

    def counted(wanted):
        asked.append(wanted)
        return read(table, wanted)

    frame = await ask(source(counted), 5 * 10**6, 100)
    found = column(frame, "id")
    assert len(asked) <= 12 and found == sorted(set(found)) and len(found) <= 100


async def test_rows_of_the_same_moment_are_asked_for_together(monkeypatch):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 100)
    table = Table([0] * 10 + [5_000] * 1_000 + [9_000])
    frame = await ask(source(table.read), 10_000, 50)
    assert "of 1,011 rows" in texts(frame)[0]
    assert column(frame, "id")[0] == 0 and column(frame, "id")[-1] == 1_010


async def test_more_rows_of_a_moment_than_can_be_read_are_reported(monkeypatch):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 100)
    monkeypatch.setattr(range_reading, "HISTORY_LIMIT", 200)
    table = Table([0] * 10 + [5_000] * 1_000)
    frame = await ask(source(table.read), 10_000, 50)
    assert "of more than 210 rows" in texts(frame)[0] and column(frame, "id")[0] == 0


@pytest.mark.slow
async def test_large_rows_are_read_in_smaller_pages():
    asked = []

    class Large(Row):
        time: int
        value: float
        text: str

    def read(wanted):
        asked.append(wanted.limit)
        last = ms(wanted.end) - START
        found = [
            Large(START + n * 1000, n, "x" * 50_000) for n in range(min(999, last // 1000) + 1)
        ]
        return found[-wanted.limit :]

    await ask(source(read, row=Large), 10**6, 100)
    assert asked[0] == 101 and set(asked[1:]) == {(16 << 20) // 50_048}


async def test_an_error_in_an_earlier_page_is_that_of_the_query():
    table = Table([n * 1000 for n in range(5_000)])

    def read(wanted):
        if table.asked:
            raise UpstreamError("the database is down")
        return table.read(wanted)

    with pytest.raises(QueryFailed, match="the database is down"):
        await ask(source(read), 5 * 10**6, 100)


async def test_notices_of_all_pages_are_shown_once(monkeypatch):
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 500)
    table = Table([n * 1000 for n in range(5_000)])

    def read(wanted):
        notices = (
            Notice(severity="warning", text="equal"),
            Notice(severity="warning", text=f"page {len(table.asked)}"),
        )
        return HistoryPage(table.read(wanted), notices=notices)

    frame = await ask(source(read), 5 * 10**6, 100)
    info, warning = sorted(texts(frame), key=lambda text: "Thinned" not in text)
    assert warning == "; ".join(["equal", *(f"page {number}" for number in range(6))])
    assert info.endswith("Earlier rows have 5 more notices.")


@pytest.mark.slow
async def test_rows_of_many_series_are_read_although_few_times_have_them():
    class Labelled(DataSource):
        @stream("rows", schema=SchemaPolicy(labels=("host",)))
        async def rows(self):
            return
            yield

        @rows.history
        async def past(self, wanted: HistoryRange):
            last = min(2_000_000, ms(wanted.end) - START)
            moments = range(last // 1000 * 1000, -1, -1000)
            rows = [
                {"time": moment(each), "host": f"h{host}", "value": float(each % 17_000 + host)}
                for each in moments[: wanted.limit // 10 + 1]
                for host in range(10)
            ]
            return [row for row in rows if row["time"] >= wanted.start][: wanted.limit][::-1]

    frame = await ask(Labelled, 2_000_000, 300)
    times = [time - START for time in column(frame, "time")]
    assert (times[0], times[-1]) == (0, 2_000_000) and 200 < len(times) <= 300
    assert len(frame.fields) == 11 and "of 2,001 rows are drawn" in texts(frame)[0]


async def test_rows_of_a_log_in_memory_are_thinned():
    class Fed(DataSource):
        @stream("rows", replay=Replay(rows=2_000, bytes=1 << 20))
        async def rows(self) -> Rows[Reading]:
            for row in Table([n * 1000 for n in range(1_500)]).rows:
                yield row

    async with serve_in_memory(Fed) as grafana:
        viewer = await grafana.follow("rows")
        await viewer.take(1_500)
        for exact in (False, True):
            (frame,) = await grafana.query(
                {"queryType": "rows", "exact": exact},
                start=moment(0),
                end=moment(1_500_000),
                max_data_points=100,
            )
            assert 60 < frame.rows <= 100 and column(frame, "id")[::98] == [0]
            assert f"Thinned: {frame.rows} of 1,500 rows" in texts(frame)[0]


@pytest.mark.parametrize("total", [-1, 1.5, True, "9"])
async def test_a_total_that_is_no_number_of_rows_is_an_error(total):
    with pytest.raises(QueryFailed, match=r"HistoryPage.total must be an int of at least 0"):
        await ask(source(lambda _: HistoryPage([], total=total)), 10**6, 100)


def test_a_range_of_ones_own_has_points_and_an_interval():
    mine = HistoryRange(start=moment(0), end=moment(10_000), limit=100)
    assert (mine.points, mine.interval) == (100, timedelta(milliseconds=100))
    empty = HistoryRange(start=moment(0), end=moment(0), limit=100)
    assert empty.interval == timedelta(milliseconds=1)
