"""Explore and alert rules in a whole Grafana with the packaged plugin."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from ..requirements import require
from .conftest import VERSION
from .whole_grafana import HOME, LOGIN, PLUGIN_ID, WholeGrafana, open_grafana, version_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.package,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

SOURCE = {"type": PLUGIN_ID, "uid": "demo"}
WALK = {"datasource": SOURCE, "queryType": "walk", "hz": 20, "seed": 7}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def grafana(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WholeGrafana]:
    require("grafana", bool(HOME), "AIOSTREAM_DS_WHOLE_GRAFANA does not name a Grafana")
    version = version_of(Path(HOME))
    if version.split(".")[:2] != VERSION.split(".")[:2]:
        pytest.skip(f"this Grafana is {version}; AIOSTREAM_DS_GRAFANA is {VERSION}")
    executable: Path = request.getfixturevalue("packaged")  # only now: it takes a minute
    async with open_grafana(executable.parent, tmp_path_factory.mktemp("grafana")) as found:
        yield found


async def test_explore_draws_history_and_live_rows(grafana: WholeGrafana, browser: Any) -> None:
    context = await browser.new_context(viewport={"width": 1400, "height": 900})
    assert (await context.request.post(f"{grafana.url}/login", data=LOGIN)).ok
    tab = await context.new_page()
    errors: list[str] = []
    live: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda text: live.append(str(text))),
    )
    queries = [{"refId": "A", "withStreaming": True, "exact": True, **WALK}]
    pane = {
        "datasource": "demo",
        "queries": queries,
        "range": {"from": "now-1m", "to": "now"},
    }
    panes = quote(json.dumps({"a": pane}))
    await tab.goto(f"{grafana.url}/explore?schemaVersion=1&orgId=1&panes={panes}")
    await tab.get_by_label("Query type", exact=True).wait_for()
    await tab.get_by_role("button", name="value", exact=True).first.wait_for()  # of the legend

    async def newest() -> int:
        """How many packets with live rows have arrived."""
        return sum("walk/20/7" in text and '"values"' in text for text in live)

    async def has_live_rows() -> bool:
        return await newest() >= 5

    await grafana.until(has_live_rows)
    assert await tab.locator("canvas").count() > 0
    assert await tab.get_by_text("No data", exact=True).count() == 0
    assert errors == []
    await context.close()


async def test_alert_rules_fire_and_stay_normal(grafana: WholeGrafana) -> None:
    await grafana.call("POST", "/api/folders", {"uid": "rules", "title": "rules"})
    for title, limit in (("always", -1e9), ("never", 1e9)):
        await grafana.call("POST", "/api/v1/provisioning/alert-rules", _rule(title, limit))
    group = "/api/v1/provisioning/folder/rules/rule-groups/walk"
    about = await grafana.call("GET", group)
    await grafana.call("PUT", group, {**about, "interval": 10})

    async def evaluated() -> dict[str, tuple[str, str]]:
        answer = await grafana.call("GET", "/api/prometheus/grafana/api/v1/rules")
        rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        found = {rule["name"]: (rule["state"], rule["health"]) for rule in rules}
        done = found.get("always", ("", ""))[0] == "firing" and found["never"][1] != "unknown"
        return found if done else {}

    expected = {"always": ("firing", "ok"), "never": ("inactive", "ok")}
    assert await grafana.until(evaluated, 120) == expected


def _rule(title: str, limit: float) -> dict[str, Any]:
    expression = {"type": "__expr__", "uid": "__expr__"}
    above = {"evaluator": {"type": "gt", "params": [limit]}}
    steps = [
        {"refId": "A", "exact": True, "withStreaming": True, **WALK},
        {"refId": "B", "datasource": expression, "type": "reduce", "expression": "A"}
        | {"reducer": "last"},
        {"refId": "C", "datasource": expression, "type": "threshold", "expression": "B"}
        | {"conditions": [above]},
    ]
    data = [
        {
            "refId": step["refId"],
            "datasourceUid": step["datasource"]["uid"],
            "relativeTimeRange": {"from": 60, "to": 0},
            "model": step,
        }
        for step in steps
    ]
    return {
        "title": title,
        "ruleGroup": "walk",
        "folderUID": "rules",
        "orgID": 1,
        "condition": "C",
        "for": "0s",
        "noDataState": "NoData",
        "execErrState": "Error",
        "data": data,
    }
