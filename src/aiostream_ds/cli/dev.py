"""`aiostream-ds dev [FILE.py[:Class]]`: serve a data source here, and watch one of its paths.

It listens on a port of this machine as the plugin process does, so that a Grafana can be attached
(--plugin-dir), and plays the viewer of one path meanwhile.
"""

import argparse
import asyncio
from pathlib import Path

from aiostream_ds import telemetry
from aiostream_ds.cli.live import show
from aiostream_ds.cli.target import (
    CommandError,
    add_settings,
    find_target,
    first_path,
    pairs,
    positive,
)
from aiostream_ds.grafana.application import Application
from aiostream_ds.grafana.runtime import serve_standalone
from aiostream_ds.grafana.standalone import plugin_id
from aiostream_ds.plugin.catalog import Catalog

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "file", nargs="?", metavar="FILE.py[:Class]",
        help="an author's file; default: the built-in plugin",
    )  # fmt: skip
    command.add_argument("--path", help="the path to watch; default: the first that needs nothing")
    command.add_argument(
        "--plugin-dir", type=Path, metavar="DIR",
        help="an installed plugin's directory: its running Grafana is attached to this process",
    )  # fmt: skip
    command.add_argument("--count", type=positive, default=0, help="end after so many rows")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Serve and show until interrupted."""
    target, by = find_target(parsed.file)
    telemetry.configure(text=True)
    settings, secure = pairs(parsed.settings), pairs(parsed.secret, plain=True)
    path = parsed.path or first_path(target, by, settings)

    here = Path(".")
    directory = parsed.plugin_dir or (here if plugin_id(here) else None)
    if directory is not None and not plugin_id(directory):
        raise CommandError(f"there is no plugin.json with an id in {str(directory)!r}")

    async def ready(application: Application, address: str) -> None:
        if parsed.plugin_dir is not None:
            print(f"A Grafana that runs the plugin in {directory} attaches to this process.")
        print(f"Serving {parsed.file or 'the built-in plugin'} on {address}; Ctrl-C ends it.")
        print(f"Live rows of {path}:", flush=True)
        await show(application, path, settings, secure, count=parsed.count)

    asyncio.run(serve_standalone(Catalog(target, by), directory, ready))
    return 0
