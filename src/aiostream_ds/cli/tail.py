"""`aiostream-ds tail [FILE.py[:Class]] PATH`: the live rows of one path, in the terminal."""

import argparse
import asyncio
import sys

from aiostream_ds import telemetry
from aiostream_ds.cli.live import show
from aiostream_ds.cli.target import (
    CommandError,
    add_settings,
    find_target,
    pairs,
    patterns,
    positive,
)
from aiostream_ds.grafana.application import background_tasks, open_application
from aiostream_ds.grafana.watchdog import watch_loop
from aiostream_ds.plugin.catalog import Catalog

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "words", nargs="+", metavar="[FILE.py[:Class]] PATH",
        help="an author's file (default: the built-in plugin) and the path to follow",
    )  # fmt: skip
    command.add_argument("--count", type=positive, default=0, help="end after so many rows")
    command.add_argument("--json", action="store_true", help="one JSON object a row")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Follow until interrupted."""
    if len(parsed.words) > 2:
        print(f"aiostream-ds tail: too many words: {parsed.words}", file=sys.stderr)
        return 2
    file, path = parsed.words if len(parsed.words) == 2 else (None, parsed.words[0])
    if file is None and path.partition(":")[0].endswith(".py"):
        target, by = find_target(path)
        raise CommandError(f"give a path after {path}; it has: {patterns(target, by, {})}")
    target, by = find_target(file)
    telemetry.configure(text=True)
    catalog = Catalog(target, by)
    settings, secure = pairs(parsed.settings), pairs(parsed.secret, plain=True)

    async def follow() -> None:
        async with background_tasks() as tasks, open_application(catalog) as application:
            tasks.start_soon(watch_loop)
            await show(application, path, settings, secure, count=parsed.count, raw=parsed.json)

    asyncio.run(follow())
    return 0
