"""Exact panels of a stream whose rows are only in the plugin's memory, in a real browser.

When the process or the settings change, rows that were drawn stay; the gap is a notice.
"""

import anyio
import pytest

from .counting import counting
from .stage import last

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

STREAMS = ("declared", "inferred")


async def opened(stage):
    """Open a panel of the last minute; returns its tab when it has drawn some rows."""
    tab = await stage.tab()
    await stage.open_queries(tab, "p", {"raw": last(60)}, {})
    record = await tab.until("p", lambda record: record["rows"] > 20)
    assert record["notices"] == [] and len(record["runs"]) == 1
    return tab


def runs_of(record):
    """How many rows of each log are drawn; fails unless they are all rows up to the last one."""
    assert all(run["first"] == 1 for run in record["runs"]), record["runs"]
    return {run["log"]: run["last"] for run in record["runs"]}


async def continued(tab, logs):
    """Wait for rows of another log; check all frames meanwhile. Returns the last record."""
    record = await tab.until("p", lambda record: len(runs_of(record)) > logs)
    drawn = {}
    for each in await tab.call("records", "p"):
        runs = runs_of(each)
        assert len(runs) == len(each["runs"]), "no row is doubled or out of order"
        assert all(runs[log] >= rows for log, rows in drawn.items()), "drawn rows stay"
        drawn = runs
    return record


def gaps(record):
    return [text for text in record["notices"] if " may be missing" in text]


@pytest.mark.parametrize("stream", STREAMS)
async def test_drawn_rows_stay_when_the_plugin_is_killed(open_stage, stream):
    async with open_stage(plugin=counting(stream)) as stage:
        tab = await opened(stage)
        await stage.server.kill()
        record = await continued(tab, 1)
        assert "between" in gaps(record)[0] and gaps(record)[0].endswith(record["annotations"][0])
        await stage.server.kill()
        record = await continued(tab, 2)
        assert gaps(record)[0].endswith("Earlier gaps: 1.") and len(record["annotations"]) == 2


@pytest.mark.parametrize("stream", STREAMS)
async def test_drawn_rows_and_their_gap_stay_when_the_panel_is_refreshed(open_stage, stream):
    async with open_stage(plugin=counting(stream)) as stage:
        tab = await opened(stage)
        await stage.server.kill()
        before = await continued(tab, 1)
        await tab.call("run", "p", {})
        record = await tab.until("p", lambda record: record["rows"] > before["rows"] + 5)
        runs = runs_of(record)
        assert all(runs[log] >= rows for log, rows in runs_of(before).items())
        assert gaps(record) == gaps(before)


async def test_a_panel_shows_that_no_row_has_come_since_a_restart(open_stage):
    async with open_stage(plugin=counting("inferred")) as stage:
        tab = await opened(stage)
        await stage.server.kill()
        record = await tab.until("p", lambda record: gaps(record) != [])
        assert gaps(record)[0].endswith("none has come since.") and record["rows"] > 20


@pytest.mark.parametrize("stream", STREAMS)
async def test_drawn_rows_stay_when_the_settings_change(open_stage, stream):
    async with open_stage(plugin=counting(stream)) as stage:
        tab = await opened(stage)
        await stage.show(1)
        assert "between" in gaps(await continued(tab, 1))[0]


async def test_a_panel_shows_that_it_waits_while_the_plugin_is_away(open_stage):
    async with open_stage(plugin=counting("declared")) as stage:
        tab = await opened(stage)
        stage.server.wire.freeze()
        await tab.until("p", lambda record: any("Waiting" in text for text in record["notices"]))
        stage.server.wire.restore()
        await tab.until("p", lambda record: not record["notices"])
        await anyio.sleep(0.1)
        assert len(runs_of((await tab.call("summary", "p"))["latest"])) == 1
