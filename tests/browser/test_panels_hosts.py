"""Queries of mixed panels, annotations, past ranges and hidden tabs, in a real browser."""

import anyio
import pytest

from .conftest import VERSION, stock
from .stage import last

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

WIDTH = 10


async def ended(tab, name):
    """Wait until the panel's query has ended; returns its last record."""
    for _ in range(300):
        found = await tab.call("summary", name)
        if found["completed"]:
            return found["latest"]
        await anyio.sleep(0.05)
    raise AssertionError(f"panel {name} has not ended: {found}")


async def follows(tab, name):
    """Whether a panel continues to draw newer rows."""
    before = (await tab.call("summary", name))["latest"]["at"]
    with anyio.move_on_after(15):
        while (await tab.call("summary", name))["latest"]["at"] <= before:
            await anyio.sleep(0.1)
        return True
    return False


@pytest.mark.parametrize("exact", [True, False])
async def test_a_mixed_panel_gets_its_rows_without_a_stream(open_stage, exact):
    async with open_stage() as stage:
        tab = await stage.tab()
        targets = [{"exact": exact, "datasource": {"uid": uid}} for uid in ("exact", "other")]
        await stage.open_queries(tab, "mixed", {"raw": last(WIDTH)}, *targets)
        record = await ended(tab, "mixed")
        assert record["frames"] == 2 and len(record["runs"]) == 2


@pytest.mark.parametrize("exact", [True, False])
async def test_an_annotation_and_a_range_in_the_past_end_with_their_rows(open_stage, exact):
    async with open_stage() as stage:
        tab = await stage.tab()
        options = {"raw": last(WIDTH)}
        await stage.open_queries(tab, "annotation", options, {"refId": "Anno", "exact": exact})
        assert (await ended(tab, "annotation"))["rows"] > 100
        for raw in ({"from": "now-5s", "to": "now-2s"}, {"from": 0, "to": 1}):
            await stage.open_queries(tab, str(raw), {"raw": raw}, {"exact": exact})
            record = await ended(tab, str(raw))
            assert record["error"] is None
        log = stage.logs[0].read()
        assert record["rows"] == 0 and log.numbers


@stock
async def test_a_panel_may_have_stock_exact_and_non_streaming_queries(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        targets = [{}, {"exact": False}, {"withStreaming": False}, {}]
        await stage.open_queries(tab, "p", {"raw": last(WIDTH)}, *targets)
        record = await tab.until("p", lambda record: record["frames"] == 4)
        with anyio.fail_after(15):
            while len({run["last"] for run in record["runs"]}) < 2:
                await anyio.sleep(0.1)
                record = (await tab.call("summary", "p"))["latest"]
        assert await follows(tab, "p")


async def test_a_query_without_streaming_ends_with_its_rows(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.open(tab, "p", WIDTH, withStreaming=False)
        assert (await ended(tab, "p"))["rows"] > 100
        assert not any("live" in call for call in stage.server.wire.calls)


async def test_an_invalid_query_is_shown_as_an_error_and_not_repeated(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.open(tab, "p", WIDTH, file="log/nothing")
        record = await tab.until("p", lambda record: record["state"] == "Error")
        assert "no such file: 'log/nothing'" in record["error"]
        if not VERSION.startswith("9."):  # 9.4 sends no status of a query to the browser
            await ended(tab, "p")


async def test_an_unreachable_server_is_retried(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.server.wire.cut()
        await stage.open(tab, "p", WIDTH)
        await tab.until("p", lambda record: record["state"] == "Error")
        stage.server.wire.restore()
        await tab.until("p", lambda record: record["state"] == "Streaming")
        await stage.caught_up()
        assert (await stage.verdict()).exact


async def test_dashboard_variables_are_replaced_in_a_query(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await tab.call("variable", "which", "log")
        await stage.open(tab, "p", WIDTH, file="${which}")
        await stage.caught_up()
        assert (await stage.verdict()).exact


@stock
async def test_an_alias_names_the_series_of_stock_and_exact_queries(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await tab.call("variable", "site", "hall")
        targets = [{"alias": "A $site"}, {"alias": "B", "exact": False}, {}]
        await stage.open_queries(tab, "p", {"raw": last(WIDTH)}, *targets)
        await tab.until("p", lambda record: record["frames"] == 3)
        record = (await tab.call("summary", "p"))["latest"]
        assert {"A hall n", "A hall log", "B n", "B log", ""} <= set(record["titles"])


async def test_the_status_of_the_stream_is_a_notice_of_the_panel(open_stage):
    async with open_stage() as stage:
        tab, path = await stage.tab(), stage.logs[0].path
        await stage.open(tab, "p", WIDTH)
        await stage.caught_up()
        await stage.server.joined.wait()  # a log that cannot be read cannot be subscribed to
        await stage.stop_upstream()
        path.rename(path.with_name("away"))
        path.mkdir()  # cannot be read
        expected = ("warning: reconnecting", "error: 'log' is not a regular file")
        await tab.until("p", lambda record: any(n.startswith(expected) for n in record["notices"]))
        path.rmdir()
        path.with_name("away").rename(path)
        assert (await stage.verdict()).exact


async def test_a_hidden_tab_draws_nothing_until_it_is_visible(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.open(tab, "p", WIDTH)
        await stage.caught_up()
        await tab.call("hide", True)
        await anyio.sleep(0.2)
        await stage.collect()
        await anyio.sleep(2)
        assert await tab.call("records", "p") == []
        await tab.call("hide", False)
        await stage.caught_up()
        assert (await stage.verdict()).exact


@stock
async def test_in_the_frontend_sandbox_panels_get_arrays_of_the_page(open_stage):
    """Each value of an array of the sandbox's realm would pass a proxy."""
    async with open_stage() as stage:
        tab = await stage.tab(sandboxed=True)
        await stage.open(tab, "p", WIDTH)
        targets = [{"exact": False}, {"alias": "B"}]
        await stage.open_queries(tab, "both", {"raw": last(WIDTH)}, *targets)
        await stage.caught_up()
        assert await follows(tab, "p") and await follows(tab, "both")
        await stage.server.kill()
        await stage.caught_up()
        assert (await stage.verdict()).exact
        assert await tab.call("inspect", "p") == {"refIds": ["A"], "foreign": []}
        assert await tab.call("inspect", "both") == {"refIds": ["A", "B"], "foreign": []}


async def test_a_data_source_is_configured_and_followed_through_the_forms(open_stage):
    """From an empty data source to a panel that follows exactly, by keyboard and mouse."""
    async with open_stage() as stage:
        tab, directory = await stage.tab(), str(stage.logs[0].path.parent)
        options = {
            "id": 1,
            "uid": "exact",
            "type": "conformance-test-datasource",
            "name": "exact",
            "jsonData": {},
            "secureJsonFields": {},
            "readOnly": False,
        }
        await tab.call("edit", "ConfigEditor", options)
        await tab.page.get_by_label("Directory").fill(directory)
        saved = (await tab.call("edited", "ConfigEditor"))["value"]["jsonData"]
        assert saved["directory"] == directory
        await stage.server.change_settings(saved)
        assert (await tab.call("health", "exact"))["status"] == "success"

        await tab.call("edit", "QueryEditor", {"refId": "A"})
        await tab.page.get_by_label("File").fill("lo")
        await tab.page.get_by_role("option", name="log", exact=True).click()  # a suggestion
        assert await tab.page.get_by_label("Exact").is_checked()  # the default of a new query
        await tab.page.get_by_label("With streaming").uncheck()
        await tab.page.get_by_label("With streaming").check()
        edited = await tab.call("edited", "QueryEditor")
        expected = {"queryType": "rows", "file": "log", "exact": True, "withStreaming": True}
        assert edited["value"] == edited["value"] | expected and edited["runs"] > 0
        await tab.call("open", "p", ["exact"], {"targets": [edited["value"]], "raw": last(WIDTH)})
        record = await tab.until("p", lambda record: record["rows"] > 0)
        assert record["state"] == "Streaming" and await follows(tab, "p")
