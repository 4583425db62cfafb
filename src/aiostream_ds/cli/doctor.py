"""`aiostream-ds doctor [FOLDER]`: finds out why a plugin does not start.

Prints one line a cause and one a cure. Exit status: 0 no cause found, 1 a cause. On a machine
without Python the package's executable runs this command: `gpx_…_linux_amd64 doctor`.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio

from aiostream_ds.cli.arguments import add_settings
from aiostream_ds.cli.setting_names import check_names_in_document
from aiostream_ds.cli.target import CommandError, parse_pairs
from aiostream_ds.packaging.contract_check import (
    CheckedChannel,
    check_over_grpc,
    default_channels,
)
from aiostream_ds.packaging.diagnosis import Installation, diagnose, explain
from aiostream_ds.packaging.findings import Finding, Level, PackagingError
from aiostream_ds.packaging.grafana_logs import Clue, find_clues
from aiostream_ds.packaging.host_checks import find_user
from aiostream_ds.packaging.launchers import current_platform, executable_name
from aiostream_ds.packaging.schema_file import find_schema
from aiostream_ds.testing.process import NotStarted

__all__ = ["arguments", "run"]

_DEFAULT_LOG = Path("/var/log/grafana/grafana.log")
_DEFAULT_CONFIG = Path("/etc/grafana/grafana.ini")


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="the plugin's folder; default: that of this executable, or the current directory",
    )
    command.add_argument("--log", type=Path, help=f"Grafana's log; default: {_DEFAULT_LOG}")
    command.add_argument("--config", type=Path, help=f"grafana.ini; default: {_DEFAULT_CONFIG}")
    command.add_argument(
        "--user",
        metavar="USER",
        help="name or number of the user that Grafana runs as; default: the current user",
    )
    command.add_argument(
        "--start",
        action="store_true",
        help="also start the plugin as Grafana does: handshake, health, first row",
    )
    command.add_argument(
        "--path", action="append", default=[], help="with --start: a path to subscribe to"
    )
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the causes, or that there are none."""
    folder = (parsed.folder or _own_folder()).resolve()
    try:
        installation = Installation(
            folder,
            user=find_user(str(parsed.user or os.getuid())),
            config=parsed.config or _readable(_DEFAULT_CONFIG),
            log=parsed.log or _readable(_DEFAULT_LOG),
        )
        status = 0
        for finding in _findings(installation, parsed):
            print(finding, flush=True)
            status |= finding.level is Level.ERROR
    except PackagingError as error:
        raise CommandError(str(error)) from None
    except BrokenPipeError:
        raise  # see `main`
    except OSError as error:  # a file that may not be read
        raise CommandError(f"the diagnosis cannot go on: {error}") from error
    return status


def _own_folder() -> Path:
    """The package whose Python runs this command, or the current directory."""
    folder = Path(sys.argv[0]).resolve().parent
    return folder if (folder / "plugin.json").is_file() else Path(".")


def _readable(path: Path) -> Path | None:
    return path if os.access(path, os.R_OK) else None


def _findings(installation: Installation, parsed: argparse.Namespace) -> Iterator[Finding]:
    yield from diagnose(installation)
    if parsed.start:
        yield from anyio.run(_start, installation, parsed)


async def _start(installation: Installation, parsed: argparse.Namespace) -> list[Finding]:
    settings, secrets = parse_pairs(parsed.settings), parse_pairs(parsed.secret, json=False)
    folder, identifier = installation.folder, installation.identifier
    program = folder / executable_name({"executable": installation.executable}, current_platform())
    schema = find_schema(folder)
    check_names_in_document(schema, settings, secrets)
    channels = [CheckedChannel(path) for path in parsed.path] or default_channels(schema, settings)
    environ = installation.plugin_environ()
    try:
        found = check_over_grpc([str(program)], channels, settings, secrets, environ)
        return [finding async for finding in found]
    except NotStarted as error:
        # log entries count only if they name the plugin
        log = f"{error}\n{error.stderr}".replace("\n", f" {identifier}\n")
        clue = next(find_clues(log, identifier), Clue("ended", str(error)))
        findings = [explain(clue, identifier)]
        if error.stderr.strip():
            findings.append(Finding(Level.WARNING, "log", f"its output:\n{error.stderr.strip()}"))
        return findings
