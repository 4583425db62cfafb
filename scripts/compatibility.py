"""Writes docs/compatibility.md: which tests passed with which version of Grafana's packages.

The results are in tests/browser/compatibility.json, written only by a run of the tests here.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests/browser/compatibility.json"
PAGE = ROOT / "docs/compatibility.md"

VERSIONS = ("9.4.17", "10.4.19", "11.6.16", "12.4.10", "13.0.2", "13.2.3")
"""The versions of the table; each has a folder in tests/browser/page/versions."""

DASHBOARDS = ("13.0.2", "13.2.3")
"""Those whose page has dashboards."""

TIMEOUT = 1_800
"""Seconds for the tests of one version."""


class Column(NamedTuple):
    """What works, and the tests that show it."""

    title: str
    tests: tuple[str, ...]


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
    Column("Alert rules", ()),
    Column("Explore", ()),
)

Results = dict[str, dict[str, Any]]

_TEXT = """# Compatibility

The plugin works in Grafana 9.4 to 13. This table is written by `scripts/compatibility` from tests
in Chromium that have run with the packages of each version, with a real plugin process: *n of m*
passed. *Not run* means that no such test has run with that version, not that something does not
work there.

{table}

- **Stock** and **Exact**: panels with live rows; exact ones also in an outage, after a kill of the
  plugin and at a refresh. `@grafana/data` 9.4 does not export what stock panels need here.
- **Dashboards**: query runners, transformations and panels of `@grafana/scenes`: 7.4.2 with 13.0,
  8.19.0 and 9.2.2 with 13.2. Which of its versions a Grafana has was not looked up.
- **Forms**: both editors with a stub of `@grafana/ui`. `scripts/frontend --compat` runs them with
  the real package of three versions.
- **Alert rules**: no test with a whole Grafana. What alerting makes of the answers is tested with
  Grafana's SDK for Go (`tests/conformance/test_alert_rules.py`), whichever version asks.
- **Explore**: no test.
"""


def run(version: str) -> dict[str, Any]:
    """Run all tests of the table with one version; returns the counts of each column."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        names = [f"tests/browser/{test}" for column in COLUMNS for test in column.tests]
        if version not in DASHBOARDS:
            names = [name for name in names if not name.endswith("_scenes.py")]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}", *names],
            cwd=ROOT,
            env={**os.environ, "AIOSTREAM_DS_GRAFANA": version},
            timeout=TIMEOUT,
        )
        cases = list(ElementTree.parse(report).iter("testcase"))
    counts: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    for column in COLUMNS:
        ran = [case for case in cases if _is_of(case, column) and case.find("skipped") is None]
        if ran:
            bad = [case for case in ran if case.find("failure") is not None or _is_error(case)]
            counts[column.title] = [len(ran) - len(bad), len(ran)]
    return counts


def _is_of(case: ElementTree.Element, column: Column) -> bool:
    file = case.attrib["classname"].rpartition(".")[2] + ".py"
    name = case.attrib["name"].partition("[")[0]
    return file in column.tests or f"{file}::{name}" in column.tests


def _is_error(case: ElementTree.Element) -> bool:
    return case.find("error") is not None


def render(results: Results) -> str:
    """The page with the table of these results."""
    titles = [column.title for column in COLUMNS]
    lines = [f"| Grafana | {' | '.join(titles)} | Run on |"]
    lines.append(f"| --- |{' --- |' * (len(titles) + 1)}")
    for version in VERSIONS:
        found = results.get(version, {})
        cells = [_cell(found.get(title)) for title in titles]
        lines.append(f"| {version} | {' | '.join(cells)} | {found.get('date', 'not run')} |")
    return _TEXT.format(table="\n".join(lines))


def _cell(counts: list[int] | None) -> str:
    return "not run" if counts is None else f"{counts[0]} of {counts[1]}"


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    results: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments == ["--check"]:
        if PAGE.read_text() != render(results):
            print("docs/compatibility.md is stale: run scripts/compatibility", file=sys.stderr)
            return 1
        return 0
    for version in arguments:
        if version not in VERSIONS:
            print(f"expected one of {', '.join(VERSIONS)}, got {version!r}", file=sys.stderr)
            return 2
        results[version] = run(version)
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    PAGE.write_text(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
