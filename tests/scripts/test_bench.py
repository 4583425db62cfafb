"""The results of scripts/bench: ratios, targets, the table and the picture."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.runner import growth, report, rounds
from benchmarks.runner.figures import FIGURES, OURS, WORKLOADS, Figure
from benchmarks.runner.programs import Program
from benchmarks.runner.ratios import Measurement, outcome, spread

MORE = Figure("b1x2", "pps", "packets/s", "packets", True, 1.3, 1.6)
LESS = Figure("t1000", "p99_ms", "ms", "age", False, 1.5, 1.2)
ABSOLUTE = Figure("m10000", "channel_kb", "KB", "memory", False, 20, 9, absolute=True)
COLD = Figure("cold", "health_ms", "ms", "start", False, 1.5, 1.1, ("python", "bare", "end_ms"))


def measured(workload: str, **servers: list[dict[str, Any]]) -> list[Measurement]:
    return [
        Measurement(number, workload, server, seen)
        for server, rounds in servers.items()
        for number, seen in enumerate(rounds)
    ]


def rates(*values: float) -> list[dict[str, Any]]:
    return [{"pps": value} for value in values]


def test_the_ratio_is_the_median_of_the_rounds_ratios_not_a_ratio_of_medians():
    found = outcome(measured("b1x2", go=rates(100, 200, 400), ours=rates(200, 200, 400)), MORE)
    assert found is not None and found.ratio is not None
    assert (found.ratio.median, found.ratio.least, found.ratio.most) == (1, 1, 2)


def test_a_round_with_missing_data_does_not_count_for_either_side():
    ours = [{"pps": 300.0}, {"pps": 900.0, "error": "3 packets of 4 arrived"}, {"pps": 300.0}]
    found = outcome(measured("b1x2", go=rates(100, 100, 100), ours=ours), MORE)
    assert found is not None and found.ratio is not None
    assert (found.ratio.median, found.ratio.counted, found.ratio.rounds) == (3, 2, 3)
    assert found.error == "3 packets of 4 arrived"
    assert not found.reached(MORE, MORE.must), "a target is reached only if every round counts"
    go = [{"pps": 100.0, "error": "gone"}]
    found = outcome(measured("b1x2", go=go, ours=rates(100)), MORE)
    assert found is not None and found.ratio is None


def test_ours_does_not_count_if_it_missed_ticks_but_a_peer_does():
    late = [{"p99_ms": 1.0, "missed": 0.2}]
    in_time = [{"p99_ms": 1.0, "missed": 0.01}]
    found = outcome(measured("t1000", go=in_time, ours=late), LESS)
    assert found is not None and found.ratio is None and "20%" in found.error
    found = outcome(measured("t1000", go=late, ours=in_time), LESS)
    assert found is not None and found.reached(LESS, LESS.must)


@pytest.mark.parametrize(("ratio", "reached"), [(1.2, True), (1.21, False), (0.5, True)])
def test_if_less_is_better_a_target_is_an_upper_bound(ratio: float, reached: bool):
    seen = measured("t1000", go=[{"p99_ms": 1.0}], ours=[{"p99_ms": ratio}])
    found = outcome(seen, LESS)
    assert found is not None and found.reached(LESS, LESS.stretch) is reached


def test_an_absolute_figure_does_not_need_the_reference():
    found = outcome(measured("m10000", ours=[{"channel_kb": 8.0}]), ABSOLUTE)
    assert found is not None and found.ratio is None
    assert found.reached(ABSOLUTE, ABSOLUTE.stretch)


def test_a_figure_may_have_another_reference():
    seen = measured("cold", ours=[{"health_ms": 150.0}], go=[{"health_ms": 10.0}])
    found = outcome([*seen, Measurement(0, "bare", "python", {"end_ms": 100.0})], COLD)
    assert found is not None and found.ratio is not None and found.ratio.median == 1.5


def test_without_a_measurement_there_is_no_outcome():
    assert outcome(measured("b1x2", go=rates(1)), MORE) is None
    assert spread([None, None]) is None


def test_the_table_shows_reached_targets_and_invalid_measurements():
    seen = measured("b1x2", go=rates(100, 100), ours=rates(240, 250))
    seen += measured("rows", go=[{"rps": 100.0}], ours=[{"error": "expected row 6, got 7"}])
    lines = [*report.table(report.Run(seen, {}, {}, {}))]
    (packets,) = (line for line in lines if line.startswith("| `b1x2`"))
    assert "2.45 (2.4–2.5)" in packets and packets.endswith("| must |")
    (rows,) = (line for line in lines if line.startswith("| `rows`"))
    assert "**does not count**" in rows and rows.endswith("| **no** |")
    assert len({line.count("|") for line in lines}) == 1


def test_written_results_contain_the_table_and_the_errors(tmp_path):
    seen = measured("b1x2", go=rates(100), ours=[{"error": "4 of 5 arrived"}])
    page = report.write(
        report.Run(seen, {"rounds": "1"}, {"Go": "1.26"}, {"rust": "no cargo"}), tmp_path
    )
    text = page.read_text("utf-8")
    assert "round 1: 4 of 5 arrived" in text and "rust is missing: no cargo" in text
    assert '"pps": 100.0' in (tmp_path / "results.json").read_text("utf-8")


def test_an_invalid_measurement_is_repeated_once_and_reported(monkeypatch, tmp_path):
    answers = iter([{"error": "lost"}, {"pps": 1.0}, {"error": "lost"}, {"error": "gone"}])
    monkeypatch.setattr(rounds, "measure", lambda *_: next(answers))
    programs = {name: Program(name, ()) for name in ("go", OURS)}
    bench: Any = SimpleNamespace(programs=programs)
    seen = [*rounds.rounds(bench, ["b1x2"], 1, 1.0)]
    assert [(m.error, m.first) for m in seen] == [("", "lost"), ("gone", "lost")]
    page = report.write(report.Run(seen, {}, {}, {}), tmp_path).read_text("utf-8")
    repeated = page.partition("## Repeated measurements")[2].splitlines()
    assert repeated[2:4] == ["- `b1x2` go, round 1: lost", f"- `b1x2` {OURS}, round 1: lost"]


def test_the_client_has_every_workload():
    client = (Path(__file__).parents[2] / "benchmarks/go/client/main.go").read_text("utf-8")
    known = set(re.findall(r'^\t"(\w+)":\s+func', client, re.M)) | {"cold", "bare"}
    assert {*WORKLOADS, *(figure.base[1] for figure in FIGURES)} <= known
    assert {f"g{n}" for n in growth.CHANNELS} <= known


@pytest.mark.parametrize(
    ("value", "text"), [(123456, "123,000"), (1234, "1,230"), (12.34, "12.3"), (0.01234, "0.0123")]
)
def test_numbers_have_three_significant_digits(value: float, text: str):
    assert report.number(value) == text


@pytest.mark.parametrize(
    ("value", "above"), [(0, 1), (0.7, 0.8), (1, 1), (3, 4), (47, 50), (81, 100), (230, 250)]
)
def test_an_axis_ends_at_the_next_round_number(value: float, above: float):
    assert growth.axis_end(value) == pytest.approx(above)


def test_the_picture_is_valid_and_has_only_valid_measurements():
    series = {
        "packet_us": {OURS: [20.0, 21.0, 22.0, None], "go": [30.0, 31.0, 32.0, 33.0]},
        "open_us": {OURS: [None] * 4, "go": [100.0, 110.0, 120.0, 130.0]},
    }
    root = ET.fromstring(growth.draw(series))
    circles = [e.get("class") for e in root.iter() if e.tag.endswith("circle")]
    keys = 2  # the legend of each panel
    assert circles.count("ours") == 3 + keys and circles.count("go") == 8 + keys
