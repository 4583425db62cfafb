"""`aiostream-ds tail [FILE.py[:Class]] PATH`: the live rows of one path, in the terminal."""

import argparse
import asyncio
import sys

from aiostream_ds import telemetry
from aiostream_ds.cli.live import show
from aiostream_ds.cli.target import add_settings, find_target, pairs
from aiostream_ds.grafana.application import open_application
from aiostream_ds.plugin.catalog import Catalog

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "words", nargs="+", metavar="[FILE.py[:Class]] PATH",
        help="an author's file (default: the built-in plugin) and the path to follow",
    )  # fmt: skip
    command.add_argument("--count", type=int, default=0, help="end after so many rows")
    command.add_argument("--json", action="store_true", help="one JSON object a row")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Follow until interrupted."""
    if len(parsed.words) > 2:
        print(f"aiostream-ds tail: too many words: {parsed.words}", file=sys.stderr)
        return 2
    file = parsed.words[0] if len(parsed.words) == 2 else None
    target, by = find_target(file)
    telemetry.configure(text=True)
    catalog = Catalog(target, by)
    settings, secure = pairs(parsed.settings), pairs(parsed.secret, plain=True)

    async def follow() -> None:
        async with open_application(catalog) as application:
            await show(
                application, parsed.words[-1], settings, secure,
                count=parsed.count, raw=parsed.json,
            )  # fmt: skip

    asyncio.run(follow())
    return 0
