"""`aiostream-ds check [FILE.py[:Class] | FOLDER | ZIP]`: checks a class or a package.

Prints one line a finding. Exit status: 0 nothing or only warnings, 1 an error.
"""

import argparse
import contextlib
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from aiostream_ds._grafana import forms
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._routing.plan import Plan
from aiostream_ds.cli.arguments import add_settings
from aiostream_ds.cli.setting_names import (
    check_names,
    check_names_in_document,
    missing_options,
)
from aiostream_ds.cli.target import CommandError, find_target, parse_pairs
from aiostream_ds.packaging.archive import unpack
from aiostream_ds.packaging.contract_check import (
    CheckedChannel,
    check_over_grpc,
    check_start,
    default_channels,
    not_started,
)
from aiostream_ds.packaging.findings import Finding, Level, PackagingError, megabytes, worst
from aiostream_ds.packaging.launchers import current_platform, executable_name
from aiostream_ds.packaging.manifest import read_manifest
from aiostream_ds.packaging.package_check import check_folder
from aiostream_ds.packaging.schema_file import find_schema
from aiostream_ds.testing.problems import health_problem
from aiostream_ds.testing.process import NotStarted

__all__ = ["arguments", "run"]

Report = Callable[[Finding], None]

_RUN = "import sys; from aiostream_ds.cli import main; sys.exit(main(['run', *sys.argv[1:]]))"


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument(
        "what",
        nargs="?",
        metavar="FILE.py[:Class] | FOLDER | ZIP",
        help="an author's file, or a package; default: the built-in plugin",
    )
    command.add_argument(
        "--path", action="append", default=[], help="a path to subscribe to; may be repeated"
    )
    command.add_argument(
        "--root-url", default="", metavar="URL", help="the Grafana that a private signature is for"
    )
    command.add_argument("--no-start", action="store_true", help="check only the files")
    command.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the findings, each when it is found."""
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not parsed.quiet or finding.level is not Level.OK:
            print(finding, flush=True)

    try:
        _check(parsed, report)
    except PackagingError as error:
        raise CommandError(str(error)) from None
    except BrokenPipeError:
        raise  # see `main`
    except OSError as error:  # a file that may not be read
        raise CommandError(f"the check cannot go on: {error}") from error
    return 1 if worst(findings) is Level.ERROR else 0


def _check(parsed: argparse.Namespace, report: Report) -> None:
    settings, secrets = parse_pairs(parsed.settings), parse_pairs(parsed.secret, json=False)
    if parsed.what is None or parsed.what.partition(":")[0].endswith(".py"):
        return _check_class(parsed, settings, secrets, report)
    with _open_package(Path(parsed.what), report) as folder:
        for finding in check_folder(folder, root_url=parsed.root_url):
            report(finding)
        if not parsed.no_start and (folder / "plugin.json").is_file():
            _check_start(folder, parsed.path, settings, secrets, report)


def _check_start(
    folder: Path,
    paths: Sequence[str],
    settings: dict[str, Any],
    secrets: dict[str, str],
    report: Report,
) -> None:
    """Start the package, and check that it writes nothing into its folder."""
    manifest = read_manifest(folder / "plugin.json")
    if not manifest.get("executable"):
        return  # reported as a fault of plugin.json
    before = _listing(folder)
    name = executable_name(manifest, current_platform())
    schema = find_schema(folder)
    check_names_in_document(schema, settings, secrets)
    channels = [CheckedChannel(path) for path in paths] or default_channels(schema, settings)
    missing = missing_options(schema, settings, secrets)
    _check_process([str(folder / name)], channels, settings, secrets, missing, report)
    changed = sorted(_listing(folder) ^ before)
    text = f"changed while it ran: {changed[:5]}" if changed else "unchanged while it ran"
    report(Finding(Level.ERROR if changed else Level.OK, "folder", text))


def _check_class(
    parsed: argparse.Namespace,
    settings: dict[str, Any],
    secrets: dict[str, str],
    report: Report,
) -> None:
    catalog = Catalog(*find_target(parsed.what))
    check_names(catalog, settings, secrets)
    schema = forms.describe(catalog)
    kind = catalog.pick(msgspec.json.encode(settings))
    plan = kind._ds_plan
    report(Finding(Level.OK, "class", "it can be loaded, and its forms can be made"))
    if parsed.no_start:
        return
    problem = health_problem(kind)
    if problem is not None:
        report(Finding(Level.WARNING, "health", problem.text, problem.cure))
    command = [sys.executable, "-IBXutf8", "-c", _RUN]
    if parsed.what is not None:
        file, colon, name = parsed.what.partition(":")
        command.append(f"{Path(file).resolve()}{colon}{name}")
    channels = [_channel(plan, path) for path in parsed.path] or default_channels(schema, settings)
    python_names = {f.name: f.encode_name for f in msgspec.structs.fields(plan.settings)}
    given = {python_names.get(name, name): value for name, value in settings.items()}
    missing = missing_options(schema, given, secrets)
    _check_process(command, channels, settings, secrets, missing, report)


def _channel(plan: Plan, path: str) -> CheckedChannel:
    """The channel of a path, with its query."""
    path = plan.spell(path)
    return CheckedChannel(path, plan.query_of(path))


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {(str(path), about.st_size, about.st_mtime_ns) for path, about in found}


@contextlib.contextmanager
def _open_package(path: Path, report: Report) -> Iterator[Path]:
    """The package's folder; a zip is unpacked."""
    if path.is_dir():
        yield path.resolve()
        return
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise CommandError(f"expected FILE.py[:Class], a folder or a zip, got {str(path)!r}")
    text = f"{megabytes(path.stat().st_size)} packed; Grafana has no limit"
    with tempfile.TemporaryDirectory(prefix="aiostream-ds-") as scratch:
        folder = unpack(path, Path(scratch))
        report(Finding(Level.OK, "zip", text))
        yield folder


def _check_process(
    command: Sequence[str],
    channels: Sequence[CheckedChannel],
    settings: dict[str, Any],
    secrets: dict[str, str],
    missing: Sequence[str],
    report: Report,
) -> None:
    """Start the process and call it; with missing settings, only start and stop it."""

    async def check() -> None:
        found = check_over_grpc(command, channels, settings, secrets)
        try:
            async for finding in check_start(command) if missing else found:
                report(finding)
        except NotStarted as error:
            report(not_started(error))

    anyio.run(check)
    if missing:
        text = "calls are not checked: it has settings without a default"
        report(Finding(Level.WARNING, "settings", text, f"use {' '.join(missing)}"))
