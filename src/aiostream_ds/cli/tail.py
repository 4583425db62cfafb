"""`aiostream-ds tail [FILE.py[:Class]] PATH`: the live rows of one path, in the terminal."""

import argparse

from aiostream_ds.cli.arguments import add_count, add_settings, add_words, split_words
from aiostream_ds.cli.live import show
from aiostream_ds.cli.opened import open_target, run_loop

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add_words(command, "PATH")
    add_count(command)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object a row")
    how.add_argument("--plot", action="store_true", help="draw the columns of numbers")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Follow until interrupted."""
    file, (path,) = split_words(parsed)
    opened = open_target(file, parsed)

    async def follow() -> None:
        async with opened.grafana() as grafana:
            await show(grafana, path, count=parsed.count, raw=parsed.json, plot=parsed.plot)

    run_loop(follow)
    return 0
