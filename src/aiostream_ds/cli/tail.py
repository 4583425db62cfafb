"""`aiostream-ds tail [FILE.py[:Class]] PATH`: prints the live rows of a path."""

import argparse

from aiostream_ds.cli.arguments import add_count, add_operands, add_settings, split_operands
from aiostream_ds.cli.live import show
from aiostream_ds.cli.local_plugin import load_plugin, run_async

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_operands(command, "PATH")
    add_count(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a row")
    form.add_argument("--plot", action="store_true", help="draw the numeric columns")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Print rows until Ctrl-C."""
    file, (path,) = split_operands(parsed)
    plugin = load_plugin(file, parsed)

    async def follow() -> None:
        async with plugin.grafana() as (grafana, status):
            await show(
                grafana,
                plugin.path(path),
                count=parsed.count,
                raw=parsed.json,
                plot=parsed.plot,
                status=status,
            )

    run_async(follow)
    return 0
