"""Queries of panels with an expression: Grafana's server reads the answer once for each refresh."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from aiostream_ds import Cursor, DataSource, HistoryRange, Query, Row, Rows, query, stream
from aiostream_ds.testing import serve_in_memory

EXPRESSION = {"http_X-Grafana-From-Expr": "true"}
NOW = datetime.now(UTC)


class Reading(Row):
    time: datetime
    value: float
    offset: int


class Readings(DataSource):
    @stream("readings", cursor="offset", status_column="status")
    async def readings(self, after: Cursor) -> Rows[Reading]:
        await anyio.sleep_forever()
        yield Reading(NOW, 0, 0)

    @readings.history
    async def past(self, history_range: HistoryRange) -> list[Reading]:
        return [Reading(NOW, 1.5, 7)]

    @query("fixed")
    async def fixed(self, q: Query):
        return []


async def ask(headers, ended=timedelta(), **fields):
    """The answer for a range of time that has ended so long ago."""
    async with serve_in_memory(Readings) as grafana:
        request = {"queryType": "readings", **fields}
        end = datetime.now(UTC) - ended
        (frame,) = await grafana.query(
            request, start=end - timedelta(hours=1), end=end, headers=headers
        )
        return frame


def notices(frame):
    return [notice.text for notice in (frame.meta.notices if frame.meta else ())]


@pytest.mark.parametrize("exact", [True, False])
async def test_a_panel_with_an_expression_shows_that_it_does_not_stream(exact):
    frame = await ask(EXPRESSION, exact=exact)
    assert notices(frame)[0].startswith("Live rows do not reach a panel with an expression")
    assert not frame.meta.channel and not frame.meta.custom, "nobody would follow it"


async def test_an_expression_gets_neither_cursors_nor_the_status():
    plain = await ask({})
    assert [field.name for field in plain.fields][:3] == ["time", "value", "offset"], plain.fields
    frame = await ask(EXPRESSION)
    assert [field.name for field in frame.fields] == ["time", "value"]


@pytest.mark.parametrize(
    ("headers", "ended", "fields"),
    [
        ({}, timedelta(), {}),
        ({"http_X-Grafana-From-Expr": "false"}, timedelta(), {}),
        (EXPRESSION, timedelta(), {"withStreaming": False}),
        (EXPRESSION, timedelta(minutes=1), {}),
        (EXPRESSION | {"FromAlert": "true"}, timedelta(), {}),
    ],
)
async def test_other_queries_have_no_notice_about_expressions(headers, ended, fields):
    assert notices(await ask(headers, ended, **fields)) == []


async def test_a_query_without_a_stream_is_answered_as_ever():
    async with serve_in_memory(Readings) as grafana:
        assert await grafana.query({"queryType": "fixed"}, headers=EXPRESSION) == []
