"""A development plugin in a Grafana's folder of plugins: it runs the author's file."""

import re
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana.forms import static
from aiostream_ds._process.standalone import plugin_id
from aiostream_ds.cli.target import CommandError

__all__ = ["link"]

MARK = "aiostream-ds-dev.txt"
"""The file by which a folder that was made here is known again."""


def link(file: str | None, plugins: Path) -> Path:
    """Make the plugin's folder in `plugins`; its directory.

    A plugin.json beside the author's file is taken as it is; without one, there is one with the
    file's name. The executable that Grafana starts runs the file, or hands on the process that
    `dev` is. Raises CommandError when there is no such folder, or another plugin lies in it.
    """
    if not plugins.is_dir():
        raise CommandError(f"there is no folder {str(plugins)!r}; give a Grafana's plugin folder")
    source = Path(file.partition(":")[0] if ".py:" in file else file) if file else None
    own = source.parent if source is not None else Path()
    manifest = _manifest(own, source)
    identifier = str(manifest["id"])
    directory = plugins / identifier
    if directory.exists() and not (directory / MARK).is_file():
        raise CommandError(
            f"{str(directory)!r} is a plugin already, and not one that `dev` has made;"
            " attach it with --plugin-dir, or remove it"
        )
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / MARK).write_text("Made by `aiostream-ds dev --grafana`; it may be deleted.\n")
    (directory / "plugin.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    shutil.copyfile(static("module.js"), directory / "module.js")
    _write_executables(directory, manifest["executable"], file)
    return directory


def _manifest(own: Path, source: Path | None) -> dict[str, Any]:
    if plugin_id(own):
        found: dict[str, Any] = msgspec.json.decode((own / "plugin.json").read_bytes())
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
    """One for each processor of this system: Grafana picks it by its suffix."""
    system = "darwin" if sys.platform == "darwin" else "linux"
    words = ["run"] if file is None else ["run", str(Path(file).resolve())]
    text = (
        f"#!{sys.executable}\n"
        "import sys\n\n"
        "from aiostream_ds.cli import main\n\n"
        f"sys.exit(main({words!r}))\n"
    )
    for processor in ("amd64", "arm64", "arm"):
        path = directory / f"{name}_{system}_{processor}"
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
