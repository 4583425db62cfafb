"""Exact panels in a real browser: the module as it is shipped, before a real plugin process.

50 rows a second; each frame that a panel was given is compared with the log. The letters name the
cases in docs/exact.md. `-s` prints the counts.
"""

import asyncio

import anyio
import pytest

from .conftest import stock

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(150),
]

NARROW, WIDE = 10, 30  # seconds of a panel's range
SETTLE = 1.0  # seconds in which a panel follows before something happens

POLLING = "info: No live connection: new rows are fetched every 2 s."


async def two_panels(stage):
    """Two panels of one channel in one tab, the second of a wider range."""
    tab = await stage.tab()
    await stage.open(tab, "narrow", NARROW)
    await anyio.sleep(0.05)
    await stage.open(tab, "wide", WIDE)
    await stage.caught_up()
    await anyio.sleep(SETTLE)
    return tab


async def played(stage, case, log=0):
    """Until everything is drawn; then what was wrong in all frames since the beginning."""
    await stage.caught_up(log)
    await anyio.sleep(0.3)
    tally = await stage.verdict()
    assert tally.exact and tally.emissions > 10
    calls = sum("replay/rows" in call for call in stage.server.wire.calls)
    print(f"\n{case}: {tally}, rows fetched {calls} times, {sorted(stage.notices) or 'no notice'}")


async def test_a_first_open(open_stage):
    async with open_stage() as stage:
        await stage.open(await stage.tab(), "p", NARROW)
        await stage.caught_up()
        await anyio.sleep(2)
        await played(stage, "a first open")
        assert stage.notices == set()


async def test_b_a_second_viewer_and_a_second_tab(open_stage):
    async with open_stage() as stage:
        first = await stage.tab()
        await stage.open(first, "first", NARROW)
        await anyio.sleep(SETTLE)
        await stage.open(await stage.tab(), "other viewer", NARROW)
        await stage.open(await stage.tab(first.context), "second tab", NARROW)
        await anyio.sleep(SETTLE)
        await played(stage, "b second viewer, second tab")


async def test_c_a_wider_panel_of_the_same_channel(open_stage):
    async with open_stage(before=40) as stage:
        await two_panels(stage)
        await played(stage, "c wider panel")
        assert stage.short == 0


async def test_c_both_panels_at_the_same_instant(open_stage):
    async with open_stage(before=40) as stage:
        tab = await stage.tab()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.open(tab, "narrow", NARROW))
            tasks.create_task(stage.open(tab, "wide", WIDE))
        await anyio.sleep(SETTLE)
        await played(stage, "c' both at once")
        assert stage.short == 0


async def test_d_the_network_is_down_for_a_second(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        stage.server.wire.join_loss = 0.2
        await stage.server.wire.cut()
        await anyio.sleep(1)
        stage.server.wire.mend()
        await anyio.sleep(SETTLE)
        await played(stage, "d down for 1 s")


async def down_for_30_s(stage):
    await two_panels(stage)
    await stage.server.wire.cut()
    await anyio.sleep(30)
    stage.server.wire.mend()
    await played(stage, "d down for 30 s")


async def refused_for_30_s(stage):
    await two_panels(stage)
    await stage.server.wire.cut(http=False)
    await anyio.sleep(15)
    await stage.caught_up()  # live all the time, by polling
    await anyio.sleep(15)
    stage.server.wire.mend()
    await played(stage, "d only the socket is refused for 30 s")
    assert POLLING in stage.notices


async def frozen_for_20_s(stage):
    await two_panels(stage)
    stage.server.wire.freeze()
    await anyio.sleep(20)
    stage.server.wire.mend()
    await played(stage, "d frozen for 20 s, nothing is closed")


async def away_for_14_s(stage):
    tab = await two_panels(stage)
    await tab.call("habit", "cannotReopen", True)
    await stage.collect()
    for panel in stage.panels:
        await panel.close()
    stage.panels.clear()
    await anyio.sleep(14)
    await stage.open(tab, "again", NARROW)
    await anyio.sleep(5)
    await played(stage, "i away for 14 s, and the channel cannot be opened again")
    assert POLLING in stage.notices


async def test_d_i_long_outages(open_stage, tmp_path):
    async def play(case):
        async with open_stage(folder=tmp_path / case.__name__) as stage:
            await case(stage)

    async with asyncio.TaskGroup() as tasks:
        for case in (down_for_30_s, refused_for_30_s, frozen_for_20_s, away_for_14_s):
            tasks.create_task(play(case))


async def test_e_the_plugin_is_killed(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.server.kill()
        await anyio.sleep(2)
        await played(stage, "e kill -9")


async def test_e_the_plugin_is_killed_and_then_nothing_more_is_written(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.server.kill())
            tasks.create_task(stage.silence())
        await played(stage, "e kill -9, then silence")


async def test_f_settings_change_and_the_log_is_the_same(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.show(0)
        await anyio.sleep(2)
        await played(stage, "f settings changed")


async def test_f_settings_change_to_another_log(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.show(1)
        await played(stage, "f another log", log=1)


async def test_f_two_saves_in_a_row(open_stage):
    async with open_stage() as stage:
        await two_panels(stage)
        await stage.show(1)
        await anyio.sleep(0.4)
        await stage.show(0)
        await anyio.sleep(2)
        await played(stage, "f two saves 0.4 s apart")


async def test_g_the_page_is_loaded_again(open_stage):
    async with open_stage() as stage:
        tab = await two_panels(stage)
        await stage.collect()
        stage.panels.clear()
        await tab.load()
        await stage.open(tab, "narrow", NARROW)
        await stage.open(tab, "wide", WIDE)
        await anyio.sleep(SETTLE)
        await played(stage, "g reload")


async def test_h_refreshes_and_another_range(open_stage):
    async with open_stage(before=40) as stage:
        await two_panels(stage)
        narrow, wide = stage.panels
        await narrow.run()
        await wide.run()
        await anyio.sleep(SETTLE)
        await stage.collect()
        await narrow.run(WIDE)
        await anyio.sleep(SETTLE)
        await played(stage, "h refresh, range 10 s to 30 s")
        assert stage.short == 0


async def test_without_raw_streams_rows_are_polled(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await tab.call("withoutRawStreams")
        await stage.open(tab, "p", NARROW)
        await tab.until("p", lambda record: POLLING in record["notices"])
        await anyio.sleep(3)
        await stage.caught_up()
        assert (await stage.verdict()).exact


@stock
async def test_the_stock_path_is_seen_to_lose_rows_where_the_exact_one_does_not(open_stage):
    """So the judge can find something: the same outage, the same page, the same log."""
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.open(tab, "stock", NARROW, exact=False)
        await stage.caught_up()
        await anyio.sleep(SETTLE)
        await stage.server.wire.cut()
        await anyio.sleep(1)
        stage.server.wire.mend()
        await anyio.sleep(2)
        await stage.caught_up()
        await stage.collect()
        assert stage.tally.missing > 0 and stage.wrong
        print(f"\nstock, down for 1 s: {stage.tally}")
