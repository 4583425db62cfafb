"""Exact panels in a real browser: the shipped module, with a real plugin process.

50 rows a second; each frame that a panel gets is compared with the log. `-s` prints the counts.
"""

import asyncio
import re

import anyio
import pytest

from tests.exact.upstream import PAIRS

from .conftest import stock
from .stage import TIMEOUT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

NARROW, WIDE = 10, 30  # seconds of a panel's range
SETTLE = 1.0  # seconds in which a panel follows the channel before the event

POLLING = "info: No live connection: new rows are fetched every 2 s."


async def two_panels(stage):
    """Open two panels of one channel in one tab, the second with a wider range."""
    tab = await stage.tab()
    await stage.open(tab, "narrow", NARROW)
    await anyio.sleep(0.05)
    await stage.open(tab, "wide", WIDE)
    await stage.caught_up()
    await anyio.sleep(SETTLE)
    return tab


async def finish(stage, case, log=0):
    """Wait until every row is drawn, then check all frames."""
    await stage.caught_up(log)
    with anyio.fail_after(TIMEOUT):
        while (tally := await stage.verdict()).drawings <= 10:
            await anyio.sleep(0.3)
    assert tally.exact
    calls = sum("replay/rows" in call for call in stage.server.wire.calls)
    print(f"\n{case}: {tally}, rows fetched {calls} times, {sorted(stage.notices) or 'no notice'}")


async def test_a_first_panel_is_exact(open_stage):
    async with open_stage() as stage:
        await stage.open(await stage.tab(), "p", NARROW)
        await stage.caught_up()
        await anyio.sleep(2)
        await finish(stage, "first panel")
        assert stage.notices == set()


async def test_a_second_viewer_and_a_second_tab_are_exact(open_stage):
    async with open_stage() as stage:
        first = await stage.tab()
        await stage.open(first, "first", NARROW)
        await anyio.sleep(SETTLE)
        await stage.open(await stage.tab(), "other viewer", NARROW)
        await stage.open(await stage.tab(first.context), "second tab", NARROW)
        await anyio.sleep(SETTLE)
        await finish(stage, "second viewer, second tab")


async def test_a_wider_panel_of_the_same_channel_is_exact(open_stage):
    async with open_stage(before=40) as stage:
        await two_panels(stage)
        await finish(stage, "wider panel")
        assert stage.short == 0


async def test_two_panels_that_open_at_the_same_time_are_exact(open_stage):
    async with open_stage(before=40) as stage:
        tab = await stage.tab()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.open(tab, "narrow", NARROW))
            tasks.create_task(stage.open(tab, "wide", WIDE))
        await anyio.sleep(SETTLE)
        await finish(stage, "two panels at the same time")
        assert stage.short == 0


async def test_a_network_outage_of_a_second_loses_no_row(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        stage.server.wire.join_loss = 0.2
        await stage.server.wire.cut()
        await anyio.sleep(1)
        stage.server.wire.restore()
        await anyio.sleep(SETTLE)
        await finish(stage, "down for 1 s")


async def down_for_30_s(stage):
    await two_panels(stage)
    await stage.server.wire.cut()
    await anyio.sleep(30)
    stage.server.wire.restore()
    await finish(stage, "down for 30 s")


async def refused_for_30_s(stage):
    await two_panels(stage)
    await stage.server.wire.cut(http=False)
    await anyio.sleep(15)
    await stage.caught_up()  # by polling
    await anyio.sleep(15)
    stage.server.wire.restore()
    await finish(stage, "only the socket is refused for 30 s")
    assert POLLING in stage.notices


async def frozen_for_20_s(stage):
    await two_panels(stage)
    stage.server.wire.freeze()
    await anyio.sleep(20)
    stage.server.wire.restore()
    await finish(stage, "frozen for 20 s")


async def away_for_44_s(stage):  # the rows are followed for 30 s, the channel stays 10 s more
    tab = await two_panels(stage)
    await tab.call("setBehaviour", "cannotReopen", True)
    await stage.collect()
    for panel in stage.panels:
        await panel.close()
    stage.panels.clear()
    await anyio.sleep(44)
    await stage.open(tab, "again", NARROW)
    await anyio.sleep(5)
    await finish(stage, "away for 44 s, the channel cannot be reopened")
    assert POLLING in stage.notices


async def test_long_outages_lose_no_row(open_stage, tmp_path):
    async def run(case):
        async with open_stage(folder=tmp_path / case.__name__) as stage:
            await case(stage)

    async with asyncio.TaskGroup() as tasks:
        for case in (down_for_30_s, refused_for_30_s, frozen_for_20_s, away_for_44_s):
            tasks.create_task(run(case))


async def test_a_killed_plugin_loses_no_row(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.server.kill()
        await anyio.sleep(2)
        await finish(stage, "kill -9")


async def test_a_killed_plugin_loses_no_row_even_if_no_more_rows_are_written(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.server.kill())
            tasks.create_task(stage.stop_upstream())
        await finish(stage, "kill -9, then no more rows")


async def test_cursors_of_two_columns_lose_no_row_in_an_outage_and_a_kill(open_stage):
    async with open_stage(plugin=PAIRS) as stage:
        await two_panels(stage)
        stage.server.wire.join_loss = 0.2
        await stage.server.wire.cut()
        await anyio.sleep(1)
        stage.server.wire.restore()
        await anyio.sleep(SETTLE)
        await stage.server.kill()
        await anyio.sleep(2)
        await finish(stage, "two columns, down for 1 s, kill -9")
        assert any(re.search(r"after=\d{16}-\d{16}", call) for call in stage.server.wire.calls)


async def test_changed_settings_with_the_same_log_lose_no_row(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.show(0)
        await anyio.sleep(2)
        await finish(stage, "settings changed")


async def test_rows_of_another_log_are_never_mixed_with_the_old_ones(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.show(1)
        await finish(stage, "another log", log=1)


async def test_two_changes_of_the_settings_in_a_row_lose_no_row(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.show(1)
        await anyio.sleep(0.4)
        await stage.show(0)
        await anyio.sleep(2)
        await finish(stage, "two changes 0.4 s apart")


async def test_a_page_reload_is_exact(open_stage):
    async with open_stage() as stage:
        tab = await two_panels(stage)
        await stage.collect()
        stage.panels.clear()
        await tab.load()
        await stage.open(tab, "narrow", NARROW)
        await stage.open(tab, "wide", WIDE)
        await anyio.sleep(SETTLE)
        await finish(stage, "reload")


async def test_refreshes_and_another_range_are_exact(open_stage):
    async with open_stage(before=40) as stage:
        await two_panels(stage)
        narrow, wide = stage.panels
        await narrow.run()
        await wide.run()
        await anyio.sleep(SETTLE)
        await stage.collect()
        await narrow.run(WIDE)
        await anyio.sleep(SETTLE)
        await finish(stage, "refresh, range 10 s to 30 s")
        assert stage.short == 0


async def test_rows_are_polled_without_raw_streams(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await tab.call("withoutRawStreams")
        await stage.open(tab, "p", NARROW)
        await tab.until("p", lambda record: POLLING in record["notices"])
        await anyio.sleep(3)
        await stage.caught_up()
        assert (await stage.verdict()).exact


@stock
async def test_stock_panels_lose_rows_in_an_outage_and_the_judge_finds_them(open_stage):
    """Shows that the judge finds errors."""
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.open(tab, "stock", NARROW, exact=False)
        await stage.caught_up()
        await anyio.sleep(SETTLE)
        await stage.server.wire.cut()
        await anyio.sleep(1)
        stage.server.wire.restore()
        await anyio.sleep(2)
        await stage.caught_up()
        await stage.collect()
        assert stage.tally.missing > 0 and stage.wrong
        print(f"\nstock, down for 1 s: {stage.tally}")
