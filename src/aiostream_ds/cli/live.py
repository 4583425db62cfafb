"""Shows live rows in a terminal: one line a row, or a plot."""

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

import anyio
import msgspec
from grpclib.exceptions import GRPCError

from aiostream_ds._frames.frame import Field, FieldType
from aiostream_ds._grafana.application import background_tasks
from aiostream_ds._routing.plan import split_exact
from aiostream_ds.cli.plot import Plot
from aiostream_ds.cli.target import CommandError
from aiostream_ds.testing.grafana import Grafana
from aiostream_ds.testing.viewer import Refused, Viewer

__all__ = ["StatusOf", "StreamStatus", "follow", "show", "until_refused"]

HEADER_INTERVAL = 40
"""Rows between two headers."""

STATUS_INTERVAL = 0.2
"""Seconds between two looks at the status of a stream."""

DRAW_INTERVAL = 0.1
"""Seconds between two drawings."""

_TIME_WIDTH = len("2026-01-31T23:59:59.999")
_CELL_LIMIT = 500
"""Characters of a cell; --json prints all."""


class StreamStatus(NamedTuple):
    """What panels show of a stream besides rows. `is_refused`: it is a permanent error."""

    text: str = ""
    is_refused: bool = False


StatusOf = Callable[[str], StreamStatus]
"""Returns the status of a path's stream; without text there is none."""


async def show(
    grafana: Grafana,
    path: str,
    *,
    count: int = 0,
    raw: bool = False,
    plot: bool = False,
    status: StatusOf | None = None,
) -> None:
    """Subscribe to `path` and print its rows: `count` of them, or until the stream ends. A status
    is a line of stderr, but not with a plot.

    Raises:
        CommandError: The subscription is refused, or the stream has a permanent error.
    """
    viewer = await follow(grafana, path)
    async with until_refused(path, status, prints=not plot):
        try:
            await (_plot_rows(viewer, count) if plot else _print_rows(viewer, count, raw))
        except anyio.EndOfStream as end:
            print(f"{end}.", file=sys.stderr)


@asynccontextmanager
async def until_refused(
    path: str, status: StatusOf | None, *, prints: bool = True
) -> AsyncGenerator[None]:
    """Cancels the block when the stream of a path has a permanent error; prints other statuses.

    Raises:
        CommandError: It has.
    """
    found = StreamStatus()

    async def watch() -> None:
        nonlocal found
        while status is not None and not found.is_refused:
            await anyio.sleep(STATUS_INTERVAL)
            before, found = found, status(path)
            if prints and found.text and found != before and not found.is_refused:
                print(f"{path}: {found.text}", file=sys.stderr, flush=True)
        if found.is_refused:
            tasks.cancel_scope.cancel()

    async with background_tasks() as tasks:
        tasks.start_soon(watch)
        yield
    if found.is_refused:
        raise CommandError(f"{path}: {found.text}")


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
    widths: list[int] = []
    while not count or shown < count:
        row = await viewer.next(timeout=None)
        if raw:
            print(msgspec.json.encode(row).decode(), flush=True)
        else:
            fields = viewer.fields
            names = [_header(field) for field in fields]
            if names != header or shown % HEADER_INTERVAL == 0:
                header = names
                widths = [_width(field, name) for field, name in zip(fields, names, strict=True)]
                print(_line(header, widths), flush=True)
            print(_line([_cell(field, row[field.name]) for field in fields], widths), flush=True)
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


def _width(field: Field, name: str) -> int:
    return max(len(name), _TIME_WIDTH if field.type is FieldType.TIME else 12)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _cell(field: Field, value: Any) -> str:
    if value is None:
        return "-"
    if field.type is FieldType.TIME:
        return datetime.fromtimestamp(value / 1000).isoformat("T", "milliseconds")
    if isinstance(value, float):
        decimal = value == 0 or 1e-3 <= abs(value) < 1e9
        return f"{value:,.3f}" if decimal else f"{value:.6g}"
    if isinstance(value, bool | str):
        return _escaped(str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return _escaped(msgspec.json.encode(value).decode())


def _escaped(text: str) -> str:
    """Text with control characters escaped: a row must not control the terminal, nor fill it."""
    if len(text) > _CELL_LIMIT:
        text = f"{text[:_CELL_LIMIT]}… ({len(text):,} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
