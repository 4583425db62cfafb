"""Makes a development plugin in Grafana's plugin folder: it runs the author's file."""

import re
import shlex
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana.forms import static
from aiostream_ds._process.standalone import plugin_id
from aiostream_ds.cli.target import CommandError, file_of

__all__ = ["STAMP", "make_dev_folder"]

STAMP = "aiostream-ds-dev.txt"
"""The file that shows that `make_dev_folder` made the folder."""


def make_dev_folder(file: str | None, plugins: Path) -> Path:
    """Make, or replace, the plugin's folder in `plugins`; returns it.

    It has the plugin.json next to the author's file, or one with the file's name. Grafana starts
    its executable, which runs the file or connects Grafana to the process of `dev`.

    Raises:
        CommandError: `plugins` does not exist, another plugin has the folder, it is a link, or it
            cannot be written.
    """
    if not plugins.is_dir():
        raise CommandError(f"expected Grafana's plugin folder, got {str(plugins)!r}")
    source = file_of(file) if file else None
    manifest = _manifest(source)
    identifier = str(manifest["id"])
    directory = plugins / identifier
    if directory.is_symlink():
        raise CommandError(
            f"{str(directory)!r} must be a folder, got a symbolic link to "
            f"{str(directory.readlink())!r}; remove it"
        )
    if directory.exists() and not (directory / STAMP).is_file():
        raise CommandError(
            f"{str(directory)!r} is another plugin, which `dev` did not make; "
            "use it with --plugin-dir, or remove it"
        )
    try:
        _write(directory, manifest, file)
    except OSError as error:
        raise CommandError(f"{str(directory)!r} cannot be written: {error}") from error
    return directory


def _write(directory: Path, manifest: dict[str, Any], file: str | None) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / STAMP).write_text("Made by `aiostream-ds dev --grafana`. You can delete it.\n")
    (directory / "plugin.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    shutil.copyfile(static("module.js"), directory / "module.js")
    _write_executables(directory, manifest["executable"], file)


def _manifest(source: Path | None) -> dict[str, Any]:
    folder = source.parent if source is not None else Path()
    if plugin_id(folder):
        found: dict[str, Any] = msgspec.json.decode((folder / "plugin.json").read_bytes())
        found.setdefault("executable", "gpx_dev")
        return found
    name = source.stem if source is not None else "aiostream"
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "dev"
    return {
        "type": "datasource",
        "name": f"{name} (development)",
        "id": f"aiostream-{word}-datasource",
        "backend": True,
        "executable": "gpx_dev",
        "streaming": True,
        "alerting": True,
        "metrics": True,
        "info": {
            "version": "0.0.0",
            "author": {"name": "you"},
            "logos": {"small": "", "large": ""},
        },
        "dependencies": {"grafanaDependency": ">=9.4.0", "plugins": []},
    }


def _write_executables(directory: Path, name: str, file: str | None) -> None:
    """Write one script an architecture: Grafana selects it by its suffix."""
    system = "darwin" if sys.platform == "darwin" else "linux"
    words = ["run"] if file is None else ["run", str(Path(file).resolve())]
    text = (
        f"{_first_lines(sys.executable)}"
        "import sys\n\n"
        "from aiostream_ds.cli import main\n\n"
        f"sys.exit(main({words!r}))\n"
    )
    for architecture in ("amd64", "arm64", "arm"):
        path = directory / f"{name}_{system}_{architecture}"
        path.write_text(text, "utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


_LONGEST_LINE = 127
"""Characters of a script's first line that every system reads."""


def _first_lines(interpreter: str) -> str:
    """How a script names its interpreter. The first line has no place for a space or a long path:
    a shell starts Python then, for which the line with `exec` is a text."""
    if " " not in interpreter and len(interpreter) < _LONGEST_LINE - 2:
        return f"#!{interpreter}\n"
    return f"#!/bin/sh\n'''exec' {shlex.quote(interpreter)} \"$0\" \"$@\"\n' '''\n"
