"""`aiostream-ds run FILE.py[:Class]`: what an executable calls to be the plugin process."""

import argparse

from aiostream_ds.cli.target import find_target
from aiostream_ds.grafana.runtime import serve_loaded
from aiostream_ds.plugin.catalog import Catalog

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "file", nargs="?", metavar="FILE.py[:Class]",
        help="an author's file; default: the built-in plugin",
    )  # fmt: skip
    command.add_argument(
        "-standalone", "--standalone", action="store_true",
        help="serve on a port of this machine, for a debugger",
    )  # fmt: skip


def run(parsed: argparse.Namespace) -> int:
    """Never returns: the process ends in `serve`."""
    serve_loaded(lambda: Catalog(*find_target(parsed.file)))
