"""`aiostream-ds check [FILE.py[:Class] | FOLDER | ZIP]`: what would go wrong with a plugin.

One line a finding. Exit status: 0 nothing or warnings only, 1 an error.
"""

import argparse
import contextlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from aiostream_ds._grafana import forms
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._routing.plan import Plan
from aiostream_ds.cli.arguments import add_settings
from aiostream_ds.cli.target import CommandError, find_target, pairs
from aiostream_ds.packaging.contract_check import (
    Channel,
    channels_of,
    document_of,
    not_started,
    try_over_the_wire,
)
from aiostream_ds.packaging.findings import Finding, Level, PackagingError, megabytes, worst
from aiostream_ds.packaging.launchers import here
from aiostream_ds.packaging.manifest import read_manifest
from aiostream_ds.packaging.package_check import LARGEST, check_folder
from aiostream_ds.packaging.package_layout import executable
from aiostream_ds.packaging.unpack import unpack
from aiostream_ds.testing.process import NotStarted

__all__ = ["arguments", "run"]

_RUN = "import sys; from aiostream_ds.cli import main; sys.exit(main(['run', *sys.argv[1:]]))"


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "what", nargs="?", metavar="FILE.py[:Class] | FOLDER | ZIP",
        help="an author's file, or a package; default: the built-in plugin",
    )  # fmt: skip
    command.add_argument(
        "--path", action="append", default=[], help="a path to follow; may be repeated"
    )
    command.add_argument(
        "--root-url", default="", metavar="URL", help="the Grafana that a private signature is for"
    )
    command.add_argument("--no-start", action="store_true", help="look at the files only")
    command.add_argument("--quiet", action="store_true", help="print only what is not well")
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the findings."""
    findings = []
    try:
        for finding in _findings(parsed):
            findings.append(finding)
            if not parsed.quiet or finding.level is not Level.OK:
                print(finding, flush=True)
    except PackagingError as error:
        raise CommandError(str(error)) from None
    return 1 if worst(findings) is Level.ERROR else 0


def _findings(parsed: argparse.Namespace) -> Iterator[Finding]:
    settings, secrets = pairs(parsed.settings), pairs(parsed.secret, plain=True)
    if parsed.what is None or parsed.what.partition(":")[0].endswith(".py"):
        yield from _check_class(parsed, settings, secrets)
        return
    with _folder(Path(parsed.what)) as (folder, first):
        yield from first
        yield from check_folder(folder, root_url=parsed.root_url)
        if not parsed.no_start and (folder / "plugin.json").is_file():
            before = _listing(folder)
            program = str(folder / executable(read_manifest(folder / "plugin.json"), here()))
            asked = [Channel(path) for path in parsed.path]
            channels = asked or channels_of(document_of(folder), settings)
            yield from _wire([program], channels, settings, secrets)
            new = sorted(_listing(folder) ^ before)
            text = f"changed while it ran: {new[:5]}" if new else "nothing was written while it ran"
            yield Finding(Level.ERROR if new else Level.OK, "folder", text)


def _check_class(
    parsed: argparse.Namespace, settings: dict[str, Any], secrets: dict[str, str]
) -> Iterator[Finding]:
    target, by = find_target(parsed.what)
    document = forms.describe(Catalog(target, by))
    plan = Catalog(target, by).pick(msgspec.json.encode(settings))._plan
    yield Finding(Level.OK, "class", "it is loaded, and its forms are described")
    if parsed.no_start:
        return
    command = [sys.executable, "-IBXutf8", "-c", _RUN]
    if parsed.what is not None:
        file, colon, name = parsed.what.partition(":")
        command.append(f"{Path(file).resolve()}{colon}{name}")
    asked = [_asked(plan, path) for path in parsed.path]
    yield from _wire(command, asked or channels_of(document, settings), settings, secrets)


def _asked(plan: Plan, path: str) -> Channel:
    """The channel of a path, with the query that leads to it."""
    stream, arguments = plan.match(path)
    fields = msgspec.structs.fields(stream.query_type)
    found = {f.encode_name: arguments[f.name] for f in fields if f.name in arguments}
    return Channel(path, {"queryType": stream.name, **found})


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {(str(path), about.st_size, about.st_mtime_ns) for path, about in found}


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[tuple[Path, Sequence[Finding]]]:
    """The package's folder; a zip is unpacked as Grafana does."""
    if path.is_dir():
        yield path.resolve(), ()
        return
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise CommandError(f"{str(path)!r} is no .py file, no folder and no zip")
    size = path.stat().st_size
    level = Level.WARNING if size > LARGEST else Level.OK
    text = f"{megabytes(size)} packed, of {megabytes(LARGEST)} at most"
    with tempfile.TemporaryDirectory(prefix="aiostream-ds-") as scratch:
        yield unpack(path, Path(scratch)), (Finding(level, "zip", text),)


def _wire(
    command: Sequence[str],
    channels: Sequence[Channel],
    settings: dict[str, Any],
    secrets: dict[str, str],
) -> Iterator[Finding]:
    async def collect() -> list[Finding]:
        try:
            found = try_over_the_wire(command, channels, settings, secrets)
            return [finding async for finding in found]
        except NotStarted as error:
            return [not_started(error)]

    yield from anyio.run(collect)
