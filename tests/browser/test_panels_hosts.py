"""What hosts do with queries: mixed panels, annotations, ranges that are over, hidden tabs."""

import anyio
import pytest

from .conftest import VERSION, stock
from .stage import last

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]

WIDTH = 10


async def ended(tab, name):
    """The panel's last record, once its query has ended."""
    for _ in range(300):
        found = await tab.call("summary", name)
        if found["completed"]:
            return found["latest"]
        await anyio.sleep(0.05)
    raise AssertionError(f"panel {name} has not ended: {found}")


async def follows(tab, name):
    """Whether a panel goes on drawing newer rows."""
    before = (await tab.call("summary", name))["latest"]["at"]
    await anyio.sleep(1)
    return (await tab.call("summary", name))["latest"]["at"] > before


@pytest.mark.parametrize("exact", [True, False])
async def test_a_mixed_panel_gets_its_rows_and_does_not_wait_for_a_stream_to_end(open_stage, exact):
    async with open_stage() as stage:
        tab = await stage.tab()
        targets = [{"exact": exact, "datasource": {"uid": uid}} for uid in ("exact", "other")]
        await stage.ask_for(tab, "mixed", {"raw": last(WIDTH)}, *targets)
        record = await ended(tab, "mixed")
        assert record["frames"] == 2 and len(record["runs"]) == 2


@pytest.mark.parametrize("exact", [True, False])
async def test_an_annotation_and_a_range_that_is_over_end_with_their_rows(open_stage, exact):
    async with open_stage() as stage:
        tab = await stage.tab()
        asked = {"raw": last(WIDTH)}
        await stage.ask_for(tab, "annotation", asked, {"refId": "Anno", "exact": exact})
        assert (await ended(tab, "annotation"))["rows"] > 100
        for raw in ({"from": "now-5s", "to": "now-2s"}, {"from": 0, "to": 1}):
            await stage.ask_for(tab, str(raw), {"raw": raw}, {"exact": exact})
            record = await ended(tab, str(raw))
            assert record["error"] is None
        log = stage.logs[0].read()
        assert record["rows"] == 0 and log.numbers


@stock
async def test_stock_exact_and_still_queries_stand_in_one_panel(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        targets = [{}, {"exact": False}, {"withStreaming": False}, {}]
        await stage.ask_for(tab, "p", {"raw": last(WIDTH)}, *targets)
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


async def test_a_query_at_fault_is_an_error_that_is_shown_and_not_asked_again(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.open(tab, "p", WIDTH, file="nothing")
        record = await tab.until("p", lambda record: record["state"] == "Error")
        assert "no file 'nothing'" in record["error"]
        if not VERSION.startswith("9."):  # which tells the browser no status of a query
            await ended(tab, "p")


async def test_a_server_that_is_away_at_first_is_waited_for(open_stage):
    async with open_stage() as stage:
        tab = await stage.tab()
        await stage.server.wire.cut()
        await stage.open(tab, "p", WIDTH)
        await tab.until("p", lambda record: record["state"] == "Error")
        stage.server.wire.mend()
        await tab.until("p", lambda record: record["state"] == "Streaming")
        await stage.caught_up()
        assert (await stage.verdict()).exact


async def test_variables_of_the_dashboard_stand_in_a_query(open_stage):
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
        await stage.ask_for(tab, "p", {"raw": last(WIDTH)}, *targets)
        await tab.until("p", lambda record: record["frames"] == 3)
        record = (await tab.call("summary", "p"))["latest"]
        assert {"A hall n", "A hall log", "B n", "B log", ""} <= set(record["titles"])


async def test_how_the_stream_is_doing_is_a_notice_of_the_panel(open_stage):
    async with open_stage() as stage:
        tab, path = await stage.tab(), stage.logs[0].path
        await stage.open(tab, "p", WIDTH)
        await stage.caught_up()
        await stage.server.joined.wait()  # there is no subscribing to what cannot be read
        await stage.silence()
        path.rename(path.with_name("away"))
        path.mkdir()  # cannot be read
        said = ("warning: reconnecting", "error: 'log' is no regular file")
        await tab.until("p", lambda record: any(n.startswith(said) for n in record["notices"]))
        path.rmdir()
        path.with_name("away").rename(path)
        assert (await stage.verdict()).exact


async def test_a_hidden_tab_draws_nothing_and_everything_when_it_is_seen(open_stage):
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


async def test_forms_are_filled_saved_and_followed(open_stage):
    """From an empty data source to a panel that follows exactly, by keyboard and mouse."""
    async with open_stage() as stage:
        tab, directory = await stage.tab(), str(stage.logs[0].path.parent)
        options = {
            "id": 1, "uid": "exact", "type": "conformance-test-datasource", "name": "exact",
            "jsonData": {}, "secureJsonFields": {}, "readOnly": False,
        }  # fmt: skip
        await tab.call("edit", "ConfigEditor", options)
        await tab.page.get_by_label("Directory").fill(directory)
        saved = (await tab.call("edited", "ConfigEditor"))["value"]["jsonData"]
        assert saved["directory"] == directory
        await stage.server.change_settings(saved)
        assert (await tab.call("health", "exact"))["status"] == "success"

        await tab.call("edit", "QueryEditor", {"refId": "A"})
        await tab.page.get_by_label("File").fill("lo")
        await tab.page.get_by_text("log", exact=True).last.click()  # suggested by the plugin
        await tab.page.get_by_label("Exact").check()
        await tab.page.get_by_label("With streaming").uncheck()
        await tab.page.get_by_label("With streaming").check()
        edited = await tab.call("edited", "QueryEditor")
        wanted = {"queryType": "rows", "file": "log", "exact": True, "withStreaming": True}
        assert edited["value"] == edited["value"] | wanted and edited["runs"] > 0
        await tab.call("open", "p", ["exact"], {"targets": [edited["value"]], "raw": last(WIDTH)})
        record = await tab.until("p", lambda record: record["rows"] > 0)
        assert record["state"] == "Streaming" and await follows(tab, "p")
