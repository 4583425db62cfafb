"""The command `aiostream-ds`: one module a subcommand, imported when it is called.

Exit status: 0 success, 1 failure (with a sentence on stderr), 2 wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from aiostream_ds.cli.command_errors import CommandError, UsageError
from aiostream_ds.errors import PluginError

__all__ = ["main"]

_COMMANDS = {
    "new": "create the project of a data source",
    "dev": "serve a data source for development and show it in the console",
    "tail": "print the live rows of a path",
    "push": "push rows from a program or a file into panels",
    "record": "write the live packets of a path to a file",
    "cluster": "show the servers and channels of a cluster",
    "package": "make a folder and a zip that Grafana loads",
    "deploy": "print configuration that brings a package into Grafana",
    "check": "check a class or a package for errors",
    "doctor": "find out why a plugin does not start",
    "run": "run the plugin process that Grafana starts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    # a misspelled option is an error, not another option that begins with its letters
    parser = argparse.ArgumentParser(
        prog="aiostream-ds",
        description="Python classes as Grafana streaming data sources.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", nargs=0, action=_Version, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name, text in _COMMANDS.items():
        about = f"{text[0].upper()}{text[1:]}."
        command = commands.add_parser(name, help=text, description=about, allow_abbrev=False)
        if name in words[:1]:
            _find_command(parser, name).arguments(command)
    parsed = parser.parse_args(words)
    try:
        status: int = import_module(f"aiostream_ds.cli.{parsed.command}").run(parsed)
    except (CommandError, PluginError) as error:
        print(f"aiostream-ds {parsed.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # for example `… | head`; without this Python reports the closed pipe again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    return status


def _find_command(parser: argparse.ArgumentParser, name: str) -> Any:
    """The module of a subcommand. Packages do not have all of them."""
    module = f"aiostream_ds.cli.{name}"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        parser.error(
            f"the command {name!r} is not in packages; run it where aiostream-ds is installed"
        )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # slow to import: a tenth of a plugin's start

        print(version("aiostream-ds"))
        parser.exit()
