"""Shows live rows in a terminal: one line a row, or a plot."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import anyio
import msgspec
from grpclib.exceptions import GRPCError

from aiostream_ds._frames.frame import Field, FieldType
from aiostream_ds._routing.plan import split_exact
from aiostream_ds.cli.plot import Plot
from aiostream_ds.cli.target import CommandError
from aiostream_ds.testing.grafana import Grafana
from aiostream_ds.testing.viewer import Refused, Viewer

__all__ = ["follow", "show"]

HEADER_INTERVAL = 40
"""Rows between two headers."""

DRAW_INTERVAL = 0.1
"""Seconds between two drawings."""


async def show(
    grafana: Grafana, path: str, *, count: int = 0, raw: bool = False, plot: bool = False
) -> None:
    """Subscribe to `path` and print its rows: `count` of them, or until the stream ends.

    Raises:
        CommandError: The subscription is refused.
    """
    viewer = await follow(grafana, path)
    try:
        await (_plot_rows(viewer, count) if plot else _print_rows(viewer, count, raw))
    except anyio.EndOfStream as end:
        print(f"{end}.", file=sys.stderr)


async def follow(grafana: Grafana, path: str) -> Viewer:
    """Subscribe to a path.

    Raises:
        CommandError: The subscription is refused.
    """
    exact, plain = split_exact(path)
    if exact:
        raise CommandError(f"{path} is an exact channel, which only panels can use; use {plain}")
    try:
        return await grafana.follow(path)
    except (Refused, GRPCError) as error:
        text = error.message if isinstance(error, GRPCError) else error
        raise CommandError(f"{path}: refused ({text}); the log has the reason") from None


async def _print_rows(viewer: Viewer, count: int, raw: bool) -> None:
    shown = 0
    header: list[str] = []
    while not count or shown < count:
        row = await viewer.next(timeout=None)
        if raw:
            print(msgspec.json.encode(row).decode(), flush=True)
        else:
            fields = viewer.fields
            names = [_header(field) for field in fields]
            if names != header or shown % HEADER_INTERVAL == 0:
                header = names
                print(_line(header, header), flush=True)
            print(_line([_cell(field, row[field.name]) for field in fields], header), flush=True)
        viewer.forget()
        shown += 1


async def _plot_rows(viewer: Viewer, count: int) -> None:
    plot, shown = Plot(), 0
    while not count or shown < count:
        await viewer.next(timeout=None)
        available = len(viewer.rows) if not count else min(len(viewer.rows), count - shown)
        await viewer.take(available - 1)
        for row in viewer.rows[:available]:
            plot.add(viewer.fields, row)
        viewer.forget()
        shown += available
        print(plot.draw(f"{_escaped(viewer.path)}  {shown:,} rows"), end="", flush=True)
        await anyio.sleep(DRAW_INTERVAL)


def _header(field: Field) -> str:
    unit = field.config.unit if field.config is not None else ""
    return f"{field.name} [{unit}]" if unit else field.name


def _line(cells: Sequence[str], header: Sequence[str]) -> str:
    widths = (max(len(name), 12) for name in header)
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _cell(field: Field, value: Any) -> str:
    if value is None:
        return "-"
    if field.type is FieldType.TIME:
        return datetime.fromtimestamp(value / 1000).strftime("%H:%M:%S.%f")[:-3]
    if isinstance(value, float):
        decimal = value == 0 or 1e-3 <= abs(value) < 1e9
        return f"{value:,.3f}" if decimal else f"{value:.6g}"
    if isinstance(value, bool | str):
        return _escaped(str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return _escaped(msgspec.json.encode(value).decode())


def _escaped(text: str) -> str:
    """Text with control characters escaped: a row must not control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
