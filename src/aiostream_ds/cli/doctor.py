"""`aiostream-ds doctor [FOLDER]`: why a plugin does not start, one line a cause, one line a cure.

Exit status: 0 no cause found, 1 a cause. On a machine without Python the package itself is the
command: `gpx_…_linux_amd64 doctor`.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio

from aiostream_ds.cli.arguments import add_settings
from aiostream_ds.cli.target import CommandError, pairs
from aiostream_ds.packaging.contract_check import (
    Channel,
    channels_of,
    document_of,
    try_over_the_wire,
)
from aiostream_ds.packaging.diagnosis import Patient, diagnose, explain
from aiostream_ds.packaging.findings import Finding, Level, PackagingError
from aiostream_ds.packaging.grafana_logs import Clue, clues
from aiostream_ds.packaging.host_checks import reader_of
from aiostream_ds.packaging.launchers import here
from aiostream_ds.packaging.manifest import read_manifest
from aiostream_ds.packaging.package_layout import executable
from aiostream_ds.testing.process import NotStarted

__all__ = ["arguments", "run"]

_LOGS = (Path("/var/log/grafana/grafana.log"),)
_CONFIGS = (Path("/etc/grafana/grafana.ini"),)


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER",
        help="the plugin's folder; default: the one of this command, or this directory",
    )  # fmt: skip
    command.add_argument(
        "--log", type=Path, help="Grafana's log; default: /var/log/grafana/grafana.log if there"
    )
    command.add_argument(
        "--config", type=Path, help="grafana.ini; default: /etc/grafana/grafana.ini if there"
    )
    command.add_argument(
        "--user", metavar="USER",
        help="the user that Grafana runs as, a name or a number; default: who asks",
    )  # fmt: skip
    command.add_argument(
        "--start", action="store_true",
        help="also start the plugin as Grafana does: handshake, health, first row",
    )  # fmt: skip
    command.add_argument("--path", action="append", default=[], help="with --start: what to follow")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the causes, or that there is none."""
    folder = (parsed.folder or _own_folder()).resolve()
    try:
        patient = Patient(
            folder,
            reader=reader_of(str(parsed.user or os.getuid())),
            config=parsed.config or _first(_CONFIGS),
            log=parsed.log or _first(_LOGS),
        )
        status = 0
        for finding in _findings(patient, parsed):
            print(finding, flush=True)
            status |= finding.level is Level.ERROR
    except PackagingError as error:
        raise CommandError(str(error)) from None
    return status


def _own_folder() -> Path:
    """Where the package is whose Python runs this; else the current directory."""
    beside = Path(sys.argv[0]).resolve().parent
    return beside if (beside / "plugin.json").is_file() else Path(".")


def _first(places: tuple[Path, ...]) -> Path | None:
    return next((path for path in places if os.access(path, os.R_OK)), None)


def _findings(patient: Patient, parsed: argparse.Namespace) -> Iterator[Finding]:
    yield from diagnose(patient)
    if parsed.start:
        yield from anyio.run(_started, patient, parsed)


async def _started(patient: Patient, parsed: argparse.Namespace) -> list[Finding]:
    settings, secrets = pairs(parsed.settings), pairs(parsed.secret, plain=True)
    program = patient.folder / executable(read_manifest(patient.folder / "plugin.json"), here())
    paths = [Channel(path) for path in parsed.path]
    channels = paths or channels_of(document_of(patient.folder), settings)
    try:
        environ = patient.settings()
        trying = try_over_the_wire([str(program)], channels, settings, secrets, environ)
        return [finding async for finding in trying]
    except NotStarted as error:
        text = f"{error}\n{error.said}"
        named = next(
            clues(text.replace("\n", f" {patient.identifier}\n"), patient.identifier), None
        )
        found = [explain(named or Clue("ended", str(error)), patient.identifier)]
        if error.said.strip():
            found.append(Finding(Level.WARNING, "log", f"it said:\n{error.said.strip()}"))
        return found
