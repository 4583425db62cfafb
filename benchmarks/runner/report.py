"""Writes the results: a Markdown page, and the medians as JSON."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .figures import FIGURES, OURS, WORKLOADS, Figure
from .ratios import MAX_MISSED, Measurement, Outcome, outcome, spread

__all__ = ["Run", "number", "table", "write"]

COLUMNS = (OURS, "go-batch", "go-json", "rust", "grpc.aio")

LEGEND = (
    "Go is the reference: a plugin on the SDK for Go that sends frames with `SendFrame`. The "
    "other columns are ratios to it: the median of the ratios of the rounds, with minimum and "
    "maximum in brackets. A ratio above 1 is good if more is better (↑), below 1 if less is "
    "better (↓). *ours* is `benchmarks/peer`, a class on the public API; *go-batch* is a Go plugin "
    "that merges queued rows into one frame; *go-json* writes its JSON by hand and sends bytes; "
    "*rust* is the SDK for Rust, *grpc.aio* Google's gRPC for Python with orjson. The client "
    "counts every packet and row; a measurement with missing data does not count.\n"
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its measurements, and facts about the machine and the programs."""

    measurements: Sequence[Measurement]
    facts: Mapping[str, str]
    versions: Mapping[str, str]
    skipped: Mapping[str, str]


def number(value: float) -> str:
    """A number with three significant digits: 1,230 or 12.3 or 0.0123."""
    if abs(value) >= 1000:
        digits = max(0, len(f"{abs(value):.0f}") - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def _ratio(found: Outcome | None, figure: Figure) -> str:
    if found is None:
        return "–"
    shown = found.value if figure.absolute else found.ratio
    if shown is None:
        return "**does not count**" if found.error else "–"
    text = f"{number(shown.median)} ({number(shown.least)}–{number(shown.most)})"
    return text if shown.complete else f"{text}, **{shown.counted} of {shown.rounds} count**"


def _reference(run: Run, figure: Figure) -> str:
    server, workload, key = figure.base
    found = spread(
        m.value(key) for m in run.measurements if (m.server, m.workload) == (server, workload)
    )
    return number(found.median) if found else "–"


def _target(figure: Figure, target: float | None) -> str:
    if target is None:
        return "–"
    return f"{'≥' if figure.more else '≤'} {target:g}{f' {figure.unit}' if figure.absolute else ''}"


def table(run: Run) -> Iterator[str]:
    """The lines of the table."""
    columns = [c for c in COLUMNS if any(m.server == c for m in run.measurements)]
    yield f"| workload | unit | Go | {' | '.join(columns)} | must | stretch | reached |"
    yield "| --- | --- | ---: |" + " ---: |" * len(columns) + " --- | --- | --- |"
    for figure in FIGURES:
        own = outcome(run.measurements, figure)
        if own is None:
            continue
        others = (outcome(run.measurements, figure, name) for name in columns)
        cells = " | ".join(_ratio(found, figure) for found in others)
        unit = f"{figure.unit} {'↑' if figure.more else '↓'}"
        targets = f"{_target(figure, figure.must)} | {_target(figure, figure.stretch)}"
        yield (
            f"| `{figure.workload}` {figure.text} | {unit} | {_reference(run, figure)} "
            f"| {cells} | {targets} | {_reached(own, figure)} |"
        )


def _reached(own: Outcome, figure: Figure) -> str:
    if figure.must is None and figure.stretch is None:
        return ""
    if own.reached(figure, figure.stretch):
        return "stretch"
    return "must" if own.reached(figure, figure.must) else "**no**"


def _costs(run: Run) -> Iterator[str]:
    """Processor time varies less than rates, and shows if the client was the limit."""
    servers = [*dict.fromkeys(m.server for m in run.measurements if m.server != "python")]
    yield f"| workload | {' | '.join(servers)} | the client, with ours |"
    yield "| --- |" + " ---: |" * (len(servers) + 1)
    for workload in WORKLOADS:
        cells = []
        for server, key in [*((s, "srv_us") for s in servers), (OURS, "cli_us")]:
            found = spread(
                m.value(key)
                for m in run.measurements
                if (m.server, m.workload) == (server, workload)
            )
            cells.append(number(found.median) if found else "–")
        if cells[0] != "–":
            yield f"| `{workload}` | {' | '.join(cells)} |"


def _page(run: Run) -> Iterator[str]:
    yield "# Results"
    yield ""
    yield "Written by `scripts/bench`; docs/performance.md explains them."
    yield ""
    for name, fact in run.facts.items():
        yield f"- {name}: {fact}"
    yield "- versions: " + ", ".join(f"{name} {version}" for name, version in run.versions.items())
    for name, why in run.skipped.items():
        yield f"- {name} is missing: {why}"
    yield ""
    yield LEGEND
    yield from table(run)
    yield ""
    yield "## Processor time"
    yield ""
    yield "Processor time of the server for a packet, row or call, in µs (medians)."
    yield ""
    yield from _costs(run)
    yield from _reasons("Measurements that do not count", [(m, m.error) for m in run.measurements])
    yield from _reasons("Repeated measurements", [(m, m.first) for m in run.measurements])
    yield from _missed(run)


def _reasons(title: str, reasons: list[tuple[Measurement, str]]) -> Iterator[str]:
    """A section with the measurements that have a reason; nothing if there are none."""
    given = [(m, reason) for m, reason in reasons if reason]
    if given:
        yield from ("", f"## {title}", "")
    for m, reason in given:
        yield f"- `{m.workload}` {m.server}, round {m.round + 1}: {reason[:300]}"


def _missed(run: Run) -> Iterator[str]:
    late = [m for m in run.measurements if not m.error and m.missed > MAX_MISSED]
    if late:
        yield ""
        yield "## Missed ticks"
        yield ""
        yield "These made fewer packets than were due, so they had less work; no packet was lost."
        yield ""
    for server, workload in dict.fromkeys((m.server, m.workload) for m in late):
        shares = [m.missed for m in late if (m.server, m.workload) == (server, workload)]
        share = f"{min(shares):.0%} to {max(shares):.0%}"
        yield f"- `{workload}` {server}: {share}, in {len(shares)} rounds"


def _medians(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for server, workload in dict.fromkeys((m.server, m.workload) for m in run.measurements):
        selected = [m for m in run.measurements if (m.server, m.workload) == (server, workload)]
        keys = dict.fromkeys(
            k for m in selected for k, v in m.seen.items() if not isinstance(v, str)
        )
        medians = {key: spread(m.value(key) for m in selected) for key in keys}
        found.setdefault(workload, {})[server] = {
            key: float(f"{value.median:.5g}") for key, value in medians.items() if value
        }
    return found


def _ratios(run: Run) -> dict[str, dict[str, list[float]]]:
    """Figure → server → [median, least, most] of the ratios."""
    servers = dict.fromkeys(m.server for m in run.measurements)
    found: dict[str, dict[str, list[float]]] = {}
    for figure in FIGURES:
        for server in servers:
            found_outcome = outcome(run.measurements, figure, server)
            if server != figure.base[0] and found_outcome and found_outcome.ratio:
                ratio = found_outcome.ratio
                three = (ratio.median, ratio.least, ratio.most)
                name = f"{figure.name} / {' '.join(figure.base)}"
                found.setdefault(name, {})[server] = [float(f"{v:.4g}") for v in three]
    return found


def write(run: Run, folder: Path) -> Path:
    """Write results.md and results.json, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "facts": dict(run.facts),
        "versions": dict(run.versions),
        "skipped": dict(run.skipped),
        "medians": _medians(run),
        "ratios": _ratios(run),
    }
    page = "\n".join(_page(run)) + "\n"
    for name, text in (
        ("results.json", json.dumps(content, indent=1) + "\n"),
        ("results.md", page),
    ):
        draft = folder / f".{name}"
        draft.write_text(text, "utf-8")
        os.replace(draft, folder / name)
    return folder / "results.md"
