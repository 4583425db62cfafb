"""Writes docs/compatibility.md: which tests passed with which version of Grafana's packages.

The results are in tests/browser/compatibility.json, written only by a run of the tests here.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests/browser/compatibility.json"
PAGE = ROOT / "docs/compatibility.md"

VERSIONS = ("9.4.17", "10.4.19", "11.6.16", "12.4.10", "13.0.2", "13.2.3")
"""The versions of the table; each has a folder in tests/browser/page/versions."""

DASHBOARDS = ("12.4.10", "13.0.2", "13.2.3")
"""Those whose page has dashboards."""

TIMEOUT = 1_800
"""Seconds for the tests of one version."""


class Column(NamedTuple):
    """What works, and the tests that show it."""

    title: str
    tests: tuple[str, ...]


_WHOLE = "test_panels_whole_grafana.py"

COLUMNS = (
    Column(
        "Stock",
        (
            "test_panels_hosts.py::test_a_panel_may_have_stock_exact_and_non_streaming_queries",
            "test_panels_hosts.py::test_an_alias_names_the_series_of_stock_and_exact_queries",
        ),
    ),
    Column(
        "Exact",
        (
            "test_panels_exact.py::test_a_first_panel_is_exact",
            "test_panels_exact.py::test_two_panels_that_open_at_the_same_time_are_exact",
            "test_panels_exact.py::test_a_network_outage_of_a_second_loses_no_row",
            "test_panels_exact.py::test_a_killed_plugin_loses_no_row",
            "test_panels_exact.py::test_refreshes_and_another_range_are_exact",
        ),
    ),
    Column("Dashboards", ("test_panels_scenes.py",)),
    Column(
        "Mixed panels and annotations",
        (
            "test_panels_hosts.py::test_a_mixed_panel_gets_its_rows_without_a_stream",
            "test_panels_hosts.py::test_an_annotation_and_a_range_in_the_past_end_with_their_rows",
        ),
    ),
    Column(
        "Forms",
        ("test_panels_hosts.py::test_a_data_source_is_configured_and_followed_through_the_forms",),
    ),
    Column("Alert rules", (f"{_WHOLE}::test_alert_rules_fire_and_stay_normal",)),
    Column("Explore", (f"{_WHOLE}::test_explore_draws_history_and_live_rows",)),
)

Results = dict[str, Any]
"""By version: the date of the run, and for each test whether it has passed."""

_TEXT = """# Compatibility

The plugin works in Grafana 9.4 to 13. This table is written by `scripts/compatibility` from tests
in Chromium that have run with the packages of each version, with a real plugin process: *n of m*
passed. *Not run* means that no such test has run with that version, not that something does not
work there. The tests depend on time: one that failed on a busy machine may have been run again.

{table}

- **Stock** and **Exact**: panels with live rows; exact ones also in an outage, after a kill of the
  plugin and at a refresh. `@grafana/data` 9.4 does not export what stock panels need here.
- **Dashboards**: query runners, transformations and panels of `@grafana/scenes`: 6.52.11 with
  12.4 (that of Grafana 12.4.3), 7.4.2 with 13.0, 8.19.0 and 9.2.2 with 13.2.
- **Forms**: both editors with a stub of `@grafana/ui`. `scripts/frontend --compat` runs them with
  the real package of three versions.
- **Alert rules** and **Explore**: with a whole Grafana and the packaged plugin, if
  `AIOSTREAM_DS_WHOLE_GRAFANA` names one whose version begins alike; 12.4.3 in the row of 12.4.10.
  What alerting makes of the answers is also tested with Grafana's SDK for Go
  (`tests/conformance/test_alert_rules.py`), whichever version asks.
"""


def run(version: str, only: Sequence[str] = ()) -> dict[str, bool]:
    """Run the tests of the table, or some of them, with one version; returns which have passed."""
    names = [test for column in COLUMNS for test in column.tests]
    if version not in DASHBOARDS:
        names = [name for name in names if not name.endswith("_scenes.py")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        paths = [f"tests/browser/{name}" for name in only or names]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}", *paths],
            cwd=ROOT,
            env={**os.environ, "AIOSTREAM_DS_GRAFANA": version},
            timeout=TIMEOUT,
        )
        cases = list(ElementTree.parse(report).iter("testcase"))
    return {_name(case): _passed(case) for case in cases if case.find("skipped") is None}


def _name(case: ElementTree.Element) -> str:
    return f"{case.attrib['classname'].rpartition('.')[2]}.py::{case.attrib['name']}"


def _passed(case: ElementTree.Element) -> bool:
    return case.find("failure") is None and case.find("error") is None


def render(results: Results) -> str:
    """The page with the table of these results."""
    titles = [column.title for column in COLUMNS]
    lines = [f"| Grafana | {' | '.join(titles)} | Run on |"]
    lines.append(f"| --- |{' --- |' * (len(titles) + 1)}")
    for version in VERSIONS:
        found = results.get(version, {"date": "not run", "tests": {}})
        cells = [_cell(column, found["tests"]) for column in COLUMNS]
        lines.append(f"| {version} | {' | '.join(cells)} | {found['date']} |")
    return _TEXT.format(table="\n".join(lines))


def _cell(column: Column, tests: Mapping[str, bool]) -> str:
    passed = [
        result
        for name, result in tests.items()
        if name.partition("[")[0] in column.tests or name.partition("::")[0] in column.tests
    ]
    return f"{sum(passed)} of {len(passed)}" if passed else "not run"


def _read() -> Results:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}  # type: ignore[no-any-return]


def _record(version: str, only_failed: bool) -> None:
    before = _read().get(version, {"tests": {}})["tests"] if only_failed else {}
    found = run(version, [name for name, passed in before.items() if not passed])
    results = _read()  # again: others may have run meanwhile
    date = datetime.now(UTC).date().isoformat()
    results[version] = {"date": date, "tests": {**before, **found}}
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    if arguments == ["--check"]:
        if PAGE.read_text() != render(_read()):
            print("docs/compatibility.md is stale: run scripts/compatibility", file=sys.stderr)
            return 1
        return 0
    only_failed = arguments[:1] == ["--failed"]
    for version in arguments[only_failed:]:
        if version not in VERSIONS:
            print(f"expected one of {', '.join(VERSIONS)}, got {version!r}", file=sys.stderr)
            return 2
        _record(version, only_failed)
    PAGE.write_text(render(_read()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
