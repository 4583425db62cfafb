"""Dashboards of @grafana/scenes: no drawn row is lost when Grafana empties arrays.

Grafana 13.1 and later set the length of the arrays of a panel's earlier frames to zero, also if
other panels, or Grafana's own buffer of live rows, have the same arrays.
"""

import anyio
import pytest

from tests.waiting import until

from .conftest import OPENED
from .counting import counting
from .scenes import NONE_LOST, Dashboard, Drawn, judge, numbers_of, ticks

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

PLUGIN = counting("declared")
LIMIT = {"id": "limit", "options": {"limitField": 100}}
SAVED = {"id": "limit", "options": {"limitField": 150}}
EMPTYING = [page for page in OPENED if not page.startswith(("12.", "13.0."))]
"""Grafana empties arrays from 13.1 on."""
EXPRESSION = {"type": "__expr__", "uid": "__expr__"}
MS = 20  # between two rows


async def run_five_cases(dashboard: Dashboard, exact: bool) -> dict[str, Drawn]:
    """What is lost when a dashboard is used: each case has panels and a channel of its own."""

    def panel(key, name=None, **part):
        return {"key": key, "targets": ticks(name or key, MS, exact=exact), **part}

    await dashboard.open(
        panel("repointed"),
        panel("other"),
        {"key": "pointer", "shares": "repointed"},
        panel("filtered"),
        {"key": "filter", "shares": "filtered"},
        panel("transformed"),
        panel("limited", transformations=[SAVED]),
        panel("plain", "limited"),
        panel("refreshed"),
    )
    await dashboard.until("other", 170)
    await dashboard.do("share", "pointer", {"panel": "other"})
    await dashboard.do("share", "filter", {"where": 2})
    await dashboard.do("transform", "transformed", [LIMIT])
    await dashboard.until_exactly("transformed", 100)
    await anyio.sleep(1)
    await dashboard.do("share", "filter", {"where": None})
    await dashboard.do("transform", "transformed", [])
    await dashboard.until("transformed", 101)
    await anyio.sleep(1)
    await dashboard.do("refresh")
    await anyio.sleep(2)
    keys = ("repointed", "filtered", "limited", "plain", "refreshed", "other")
    found = {key: judge(await dashboard.records(key)) for key in keys}
    records = await dashboard.records("transformed")
    assert any(each["rows"] == 100 for each in records)
    found["transformed"] = judge([each for each in records if each["rows"] != 100])
    return found


@pytest.mark.parametrize("exact", [False, True])
async def test_no_drawn_row_is_lost_when_a_dashboard_is_used(open_scenes, exact):
    async with open_scenes(plugin=PLUGIN) as stage:
        dashboard = Dashboard(await stage.tab())
        found = await run_five_cases(dashboard, exact)
        print(f"\nexact {exact}: {found}")
        assert set(found.values()) == {NONE_LOST}, found
        assert not dashboard.tab.errors, dashboard.tab.errors


@pytest.mark.parametrize("open_scenes", EMPTYING, indirect=True)
async def test_stock_panels_lose_rows_without_the_key_and_the_judge_finds_them(open_scenes):
    """Shows that the judge finds errors, and that Grafana still empties arrays.

    Which arrays are emptied depends on when they are drawn: three dashboards are tried.
    """
    lost = 0
    async with open_scenes(plugin=PLUGIN) as stage:
        for _ in range(3):
            dashboard = Dashboard(await stage.tab())
            await dashboard.tab.call("setBehaviour", "forgetsKey", True)
            found = await run_five_cases(dashboard, exact=False)
            print(f"\nwithout the key: {found}")
            lost += found["repointed"].missing + found["filtered"].missing
            if lost:
                break
    assert lost > 0


async def test_panels_that_share_the_rows_of_an_exact_panel_are_never_blank(open_scenes):
    async with open_scenes(plugin=PLUGIN) as stage:
        dashboard = Dashboard(await stage.tab())
        rates = (10, 20, 50, 100)
        parts = []
        for ms in rates:
            parts.append({"key": f"p{ms}", "targets": ticks(f"s{ms}", ms, exact=True)})
            parts.append({"key": f"s{ms}", "shares": f"p{ms}"})
        await dashboard.open(*parts)
        for ms in rates:
            await dashboard.until(f"s{ms}", 30)
        for part in parts:
            records = await drawn_often(dashboard, part["key"])
            assert judge(records) == NONE_LOST, part["key"]


async def drawn_often(dashboard, key):
    """The drawings of a panel, when it has been drawn more than ten times."""
    records = await dashboard.records(key)
    with anyio.fail_after(60):
        while len([each for each in records if each["runs"]]) <= 10:
            await anyio.sleep(0.2)
            records += await dashboard.records(key)  # those since the last call
    return records


async def test_a_quiet_exact_panel_stays_drawn_when_its_sharer_shows_another_panel(open_scenes):
    async with open_scenes(plugin=PLUGIN) as stage:
        dashboard = Dashboard(await stage.tab())
        await dashboard.open(
            {"key": "quiet", "targets": ticks("quiet", 5, exact=True)},
            {"key": "other", "targets": ticks("other", 50, exact=True)},
            {"key": "pointer", "shares": "quiet"},
        )
        await dashboard.until("pointer", 350)
        await dashboard.do("share", "pointer", {"panel": "other"})
        await anyio.sleep(1)
        await dashboard.do("redraw", "quiet")
        await anyio.sleep(0.5)
        records = await dashboard.records("quiet")
        assert judge(records) == NONE_LOST and len(numbers_of(records[-1])) == 350


async def test_a_panel_of_another_tab_comes_back_without_a_query_and_a_refresh_asks(open_scenes):
    async with open_scenes(plugin=PLUGIN) as stage:
        dashboard = Dashboard(await stage.tab())
        await dashboard.open(
            {"key": "a", "targets": ticks("a", MS, exact=True)},
            {"key": "b", "targets": ticks("b", MS, exact=True)},
        )
        await dashboard.until("a", 50)
        await dashboard.do("show", ["b"])
        await anyio.sleep(1.5)
        asked = dashboard.calls("/api/ds/query"), dashboard.calls("replay/rows")
        await dashboard.do("show", ["a", "b"])
        await anyio.sleep(1)
        assert asked == (dashboard.calls("/api/ds/query"), dashboard.calls("replay/rows"))
        await dashboard.do("refresh")
        await until(lambda: dashboard.calls("/api/ds/query") >= asked[0] + 2)
        await anyio.sleep(1)
        assert dashboard.calls("/api/ds/query") == asked[0] + 2
        for key in "ab":
            assert judge(await dashboard.records(key)) == NONE_LOST, key


async def test_an_exact_panel_loses_no_row_while_it_is_off_screen(open_scenes):
    async with open_scenes(plugin=PLUGIN) as stage:
        dashboard = Dashboard(await stage.tab())
        await dashboard.open({"key": "a", "targets": ticks("a", MS, exact=True)})
        await dashboard.until("a", 50)
        asked = dashboard.calls("/api/ds/query")
        await dashboard.do("scroll", 5_000)
        await anyio.sleep(1)
        await dashboard.do("scroll", 0)
        await anyio.sleep(0.5)
        assert judge(await dashboard.records("a")) == NONE_LOST
        assert dashboard.calls("/api/ds/query") == asked


async def test_an_expression_gets_the_rows_of_an_exact_query_without_a_stream(open_scenes):
    async with open_scenes(plugin=PLUGIN) as stage:
        dashboard = Dashboard(await stage.tab())
        await dashboard.open({"key": "a", "targets": ticks("a", MS, exact=True)})
        await dashboard.until("a", 50)
        math = {"refId": "B", "type": "math", "expression": "$A", "datasource": EXPRESSION}
        tab = Dashboard(await stage.tab(dashboard.tab.context))
        await tab.open({"key": "math", "targets": [*ticks("a", MS, exact=True), math]})
        await tab.until("math", 50)
        (record,) = [each for each in await tab.records("math") if each["rows"]]
        assert (record["state"], record["frames"], len(record["runs"])) == ("Done", 2, 2)
        assert {run["first"] for run in record["runs"]} == {1}
