"""Line plots in a terminal, of Braille characters with two columns and four rows of dots each."""

import math
import os
import shutil
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from aiostream_ds._frames.frame import Field, FieldType

__all__ = ["Plot", "chart"]

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800
_COLOURS = ("36", "33", "35", "32", "34", "31")
_LABEL_WIDTH = 10
_MIN_WIDTH = 20


class Plot:
    """A plot of the newest values of each numeric column, which redraws itself in place."""

    def __init__(self, *, colour: bool | None = None) -> None:
        self._series: dict[str, deque[float]] = {}
        self._colour = "NO_COLOR" not in os.environ if colour is None else colour
        self._drawn = 0  # lines

    def add(self, fields: Sequence[Field], row: dict[str, Any]) -> None:
        """Add a row."""
        columns = shutil.get_terminal_size().columns
        width = 2 * max(_MIN_WIDTH, columns - _LABEL_WIDTH - 3)
        for field in fields:
            value = row.get(field.name)
            if field.type is FieldType.TIME or isinstance(value, bool | str) or _is_hidden(field):
                continue
            known = self._series.get(field.name)
            if known is None or known.maxlen != width:
                known = self._series[field.name] = deque(known or (), width)
            number = isinstance(value, int | float) and math.isfinite(value)
            known.append(float(value) if number and value is not None else math.nan)

    def draw(self, title: str) -> str:
        """The plot, after control codes that move the cursor to the start of the last one."""
        size = shutil.get_terminal_size()
        names = list(self._series)[: max(1, (size.lines - 2) // 5)]
        height = max(2, min(12, (size.lines - 2 - len(names)) // max(1, len(names))))
        lines = [title]
        for number, name in enumerate(names):
            values = self._series[name]
            newest = f"{values[-1]:,.4g}" if values else ""
            lines.append(self._in_colour(f"{name}  {newest}", number))
            for label, dots in chart(
                values, max(_MIN_WIDTH, size.columns - _LABEL_WIDTH - 3), height
            ):
                lines.append(label.rjust(_LABEL_WIDTH) + " ┤" + self._in_colour(dots, number))
        if len(names) < len(self._series):
            lines.append(f"(and {len(self._series) - len(names)} more columns)")
        back = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._drawn = len(lines)
        return back + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"

    def _in_colour(self, text: str, number: int) -> str:
        colour = _COLOURS[number % len(_COLOURS)]
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _is_hidden(field: Field) -> bool:
    custom = (field.config and field.config.custom) or {}
    return bool(custom.get("hideFrom", {}).get("viz"))


def chart(values: Iterable[float], width: int, height: int) -> list[tuple[str, str]]:
    """`height` lines, each with its axis label and `width` characters.

    The newest value is at the right. A value that is not finite leaves a gap.
    """
    points = list(values)[-2 * width :]
    finite = [value for value in points if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = (high - low) or abs(high) or 1.0
    if high == low:
        low, high = low - span / 2, high + span / 2
    cells = [[_BLANK] * width for _ in range(height)]
    bottom = 4 * height - 1
    previous: int | None = None
    for x, value in enumerate(points, 2 * width - len(points)):
        if not math.isfinite(value):
            previous = None
            continue
        y = round((high - value) / (high - low) * bottom)
        first, last = sorted((y, y if previous is None else previous))
        for dot in range(first, last + 1):
            cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        previous = y
    labels = {0: f"{high:,.4g}", height - 1: f"{low:,.4g}"}
    return [(labels.get(n, ""), "".join(map(chr, line))) for n, line in enumerate(cells)]
