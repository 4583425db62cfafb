"""Panels of ranges with more rows than they draw: a thinned history, then each live row.

50 rows a second for 40 seconds are 2,000 rows, and the panels draw 200.
"""

from itertools import pairwise
from typing import Any

import anyio
import pytest

from .conftest import stock
from .stage import last

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

WIDTH, POINTS, HERTZ = 40, 200, 50
LIVE = 12  # seconds in which a panel follows; 600 rows
SLACK = 2_500  # ms: the first row of a thinned history may be left of the range when it moves on

Record = dict[str, Any]


async def drawings(stage: Any, *, outage: bool = False, **fields: Any) -> list[Record]:
    """The records of a panel that follows for `LIVE` seconds, with rows of this log only."""
    tab = await stage.tab()
    await stage.open_queries(tab, "long", {"raw": last(WIDTH), "points": POINTS}, fields)
    await tab.until("long", lambda record: record["rows"] > 0)
    await anyio.sleep(LIVE / 3)
    if outage:
        await stage.server.wire.cut()
        await anyio.sleep(LIVE / 3)
        stage.server.wire.restore()
    await anyio.sleep(LIVE if outage else 2 * LIVE / 3)
    newest = stage.logs[0].read().numbers[-1]
    await tab.until("long", lambda record: record["runs"][-1]["last"] >= newest)
    records: list[Record] = [each for each in await tab.call("records", "long") if each["runs"]]
    stage.logs[0].read()
    assert not tab.errors and len(records) > 20
    return records


def check_order(record: Record) -> None:
    """Assert that no row is drawn twice or out of order."""
    ends = [number for run in record["runs"] for number in (run["first"], run["last"])]
    assert ends == sorted(ends), ends
    assert all(a["last"] < b["first"] for a, b in pairwise(record["runs"]))


@pytest.mark.parametrize("outage", [False, True])
async def test_an_exact_panel_always_draws_its_range_and_each_live_row(open_stage, outage):
    async with open_stage(before=WIDTH + 5) as stage:
        records = await drawings(stage, outage=outage)
        times = stage.logs[0].times
        reloads = 0
        for before, record in pairwise([records[0], *records]):
            check_order(record)
            assert times[record["runs"][0]["first"] - 1] <= record["from"] + SLACK
            assert record["runs"][-1]["last"] >= before["runs"][-1]["last"], "a row has vanished"
            if record["runs"][-1]["first"] != before["runs"][-1]["first"]:
                reloads += 1  # else the rows since are a part of the run
            assert record["rows"] <= 10 * POINTS
        assert 1 <= reloads <= 6
        assert {record["rows"] <= POINTS for record in records} == {True, False}
        (thinned,) = {text.split(" of ")[0] for text in records[0]["notices"]}
        assert thinned.startswith("info: Thinned: ")
        print(
            f"\noutage {outage}: {len(records)} frames, {reloads} reloads,"
            f" {records[-1]['rows']} rows"
        )


@stock
async def test_a_stock_panel_keeps_its_thinned_history_while_live_rows_follow(open_stage):
    async with open_stage(before=WIDTH + 5) as stage:
        records = await drawings(stage, exact=False)
        times = stage.logs[0].times
        for record in records:
            check_order(record)
            assert times[record["runs"][0]["first"] - 1] <= record["from"] + SLACK
        assert records[0]["rows"] <= POINTS < records[-1]["rows"]
        print(f"\nstock: {len(records)} frames, {records[-1]['rows']} rows")
