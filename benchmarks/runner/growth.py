"""Measures and draws the cost of a packet and of opening a channel by the number of channels.

The rate is always 500 packets a second in total, so that only the number of channels differs. The
picture is SVG with colours for light and dark pages.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import log10
from pathlib import Path
from statistics import median

from .figures import OURS, REFERENCE
from .programs import Bench
from .ratios import Measurement
from .report import number
from .rounds import rounds

__all__ = ["CHANNELS", "Series", "axis_end", "draw", "grow"]

CHANNELS = (1, 100, 1000, 10_000)

PANELS = (("packet_us", "CPU of a packet, µs"), ("open_us", "CPU of an open, µs"))

WIDTH, HEIGHT = 760, 330
PLOT_WIDTH, PLOT_HEIGHT, PLOT_TOP = 285, 210, 60

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .grid { stroke: #8b949e; stroke-opacity: .35 }
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  .ours { stroke: #1f6feb; fill: #1f6feb } .go { stroke: #bc4c00; fill: #bc4c00 }
  text.ours, text.go { stroke: none }
  path.line { fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #c9d1d9 }
    .ours { stroke: #58a6ff; fill: #58a6ff } .go { stroke: #f0883e; fill: #f0883e }
  }
"""

Series = Mapping[str, Mapping[str, Sequence[float | None]]]
"""Key of PANELS → server → a value for each of CHANNELS; None if it does not count."""


def grow(bench: Bench, count: int, scale: float, out: Path, picture: Path) -> Path:
    """Measure, draw `picture` and write growth.json to the folder `out`."""
    names = (OURS, REFERENCE)
    bench.programs = {name: bench.programs[name] for name in names}
    measured = [*rounds(bench, [f"g{n}" for n in CHANNELS], count, scale)]
    series = {
        key: {name: [_median(measured, name, f"g{n}", key) for n in CHANNELS] for name in names}
        for key, _ in PANELS
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"channels": CHANNELS, **series}, indent=1) + "\n"
    (out / "growth.json").write_text(text, "utf-8")
    picture.write_text(draw(series), "utf-8")
    return picture


def _median(measured: Sequence[Measurement], server: str, workload: str, key: str) -> float | None:
    """The median; None unless every round counts."""
    values = [m.value(key) for m in measured if (m.server, m.workload) == (server, workload)]
    if not values or None in values:
        return None
    return round(median(v for v in values if v is not None), 2)


def axis_end(value: float) -> float:
    """The next number of 1, 2, 2.5, 4, 5 or 8 times a power of ten."""
    if value <= 0:
        return 1
    power: float = 10 ** int(log10(value) // 1)
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if value <= step * power)


def draw(series: Series) -> str:
    """The picture as SVG text."""
    return "\n".join(_picture(series)) + "\n"


def _picture(series: Series) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    yield "<title>CPU of a packet and of an open at 1 to 10,000 channels, ours and Go's</title>"
    yield f"<style>{STYLE}</style>"
    for index, (key, title) in enumerate(PANELS):
        yield from _panel(60 + index * 375, title, series[key])
    yield "</svg>"


def _panel(left: int, title: str, lines: Mapping[str, Sequence[float | None]]) -> Iterator[str]:
    highest = axis_end(
        max((v for line in lines.values() for v in line if v is not None), default=1)
    )
    bottom = PLOT_TOP + PLOT_HEIGHT

    def x(channels: int) -> float:
        return left + PLOT_WIDTH * log10(channels) / log10(CHANNELS[-1])

    def y(value: float) -> float:
        return bottom - PLOT_HEIGHT * value / highest

    yield f'<text class="title" x="{left}" y="24">{title}</text>'
    for step in range(5):
        value = highest * step / 4
        yield f'<path class="grid" d="M{left} {y(value):.1f}h{PLOT_WIDTH}"/>'
        label = number(value)
        yield f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>'
    for channels in (1, 10, 100, 1000, 10_000):
        yield f'<path class="grid" d="M{x(channels):.1f} {bottom}v5"/>'
        text = f"{channels:,}"
        yield f'<text x="{x(channels):.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>'
    middle = left + PLOT_WIDTH / 2
    yield f'<text x="{middle:.1f}" y="{bottom + 42}" text-anchor="middle">channels</text>'
    for index, (name, line) in enumerate(lines.items()):
        points = [(x(c), y(v)) for c, v in zip(CHANNELS, line, strict=True) if v is not None]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        if points:
            yield f'<path class="line {name}" d="M{path}"/>'
        yield from (
            f'<circle class="{name}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"/>' for px, py in points
        )
        at = left + index * 60
        yield f'<circle class="{name}" cx="{at + 5}" cy="40" r="4"/>'
        label = {OURS: "ours", REFERENCE: "Go"}.get(name, name)
        yield f'<text class="{name}" x="{at + 14}" y="44">{label}</text>'
