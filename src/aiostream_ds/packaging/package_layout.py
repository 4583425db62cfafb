"""What every package has: plugin.json, the frontend, its schema, texts and logo, the launchers.
Imports the rest of the room but `build`.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana import forms
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.datasource import DataSource
from aiostream_ds.packaging import boilerplate as texts
from aiostream_ds.packaging.build_config import Recipe
from aiostream_ds.packaging.builtin_files import (
    builtin_file,
    builtin_folder,
    importable_dashboards,
)
from aiostream_ds.packaging.findings import PackagingError, Progress
from aiostream_ds.packaging.launchers import PLATFORMS, launcher
from aiostream_ds.packaging.manifest import make_manifest, read_manifest
from aiostream_ds.packaging.project import Project

__all__ = ["describe", "executable", "lay_common", "lay_launchers"]

FRONTEND = ("module.js", "module.js.map")
"""The built files that Grafana's browser side loads; the same in every package that has no own."""

OURS = ("plugin.json", "schema.json", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.txt")
"""What a folder with an author's frontend may hold and the package writes itself."""


def describe(recipe: Recipe, project: Project | None) -> dict[str, Any]:
    """The package's plugin.json."""
    if project is None or recipe.file is None:
        found = read_manifest(builtin_file("plugin.json"))
        for key, value in recipe.given.items():
            if value is not None and key in ("id", "name"):
                found[key] = value
        return found
    beside = recipe.file.resolve().parent / "plugin.json"
    if beside.is_file() and not any(recipe.given.values()):
        return read_manifest(beside)
    return make_manifest(_kind(recipe), project, recipe.given, _day(recipe.file))


def _day(file: Path) -> str:
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or file.stat().st_mtime)
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _kind(recipe: Recipe) -> type[DataSource[Any]]:
    kind = recipe.target
    assert isinstance(kind, type)
    return kind


def lay_common(
    root: Path, recipe: Recipe, project: Project | None, manifest: Mapping[str, Any],
    progress: Progress,
) -> None:  # fmt: skip
    """Write the files that Grafana and its users read."""
    _lay_frontend(root, recipe.frontend, progress)
    document = forms.describe(Catalog(recipe.target, recipe.by))
    _write(root / "schema.json", msgspec.json.encode(document))
    _write(root / "plugin.json", msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    if project is None or recipe.file is None:
        for name in ("README.md", "CHANGELOG.md"):
            _write(root / name, texts.plain_markdown(builtin_file(name)))
        shutil.copyfile(builtin_file("LICENSE"), root / "LICENSE")
        (root / "img").mkdir()
        shutil.copyfile(builtin_file("img/logo.svg"), root / "img/logo.svg")
        shutil.copytree(builtin_folder("provisioning"), root / "provisioning")
        for path, content in importable_dashboards().items():
            _write(root / path, content)
        return
    _lay_texts(root, project, manifest, _kind(recipe), progress)
    near = recipe.file.resolve().parent
    _lay_logos(root, near, project.folder, manifest, progress)
    _lay_includes(root, near, manifest)


def _lay_frontend(root: Path, folder: Path | None, progress: Progress) -> None:
    if folder is None:
        for name in FRONTEND:
            shutil.copyfile(forms.static(name), root / name)
        return
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if str(place) in OURS or place.name.startswith("gpx_"):
            progress.say(f"{path} is left out: the package has its own")
        elif path.is_file():
            _write(root / place, path.read_bytes())


def _lay_texts(
    root: Path, project: Project, manifest: Mapping[str, Any], kind: type[DataSource[Any]],
    progress: Progress,
) -> None:  # fmt: skip
    found = {n: texts.plain_markdown(p) for n, p in project.texts.items() if n != "LICENSE"}
    _write(root / "README.md", found.get("README") or texts.readme(manifest, kind))
    _write(root / "CHANGELOG.md", found.get("CHANGELOG") or texts.changelog(manifest))
    if "LICENSE" in project.texts:
        shutil.copyfile(project.texts["LICENSE"], root / "LICENSE")
    else:
        progress.warn(f"there is no LICENSE in {project.folder}; the package says that it has none")
        _write(root / "LICENSE", texts.no_licence(manifest))


def _lay_logos(
    root: Path, near: Path, folder: Path, manifest: Mapping[str, Any], progress: Progress
) -> None:
    for place in sorted(set(manifest["info"]["logos"].values())):
        theirs = next((d / place for d in (near, folder) if (d / place).is_file()), None)
        if theirs is not None:
            _write(root / place, theirs.read_bytes())
        else:
            progress.say(f"there is no {place}: a logo is made from the name")
            _write(root / place, texts.logo(manifest))


def _lay_includes(root: Path, near: Path, manifest: Mapping[str, Any]) -> None:
    """The dashboards that an author's plugin.json offers for import."""
    for place in [one["path"] for one in manifest.get("includes", ()) if "path" in one]:
        if not (near / place).is_file():
            raise PackagingError(f"plugin.json includes {place!r}, which is not in {near}")
        _write(root / place, (near / place).read_bytes())


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def executable(manifest: Mapping[str, Any], platform: str) -> str:
    """The name of the file that Grafana starts on a platform."""
    end = ".exe" if platform.startswith("windows") else ""
    return f"{manifest['executable']}_{platform.replace('/', '_')}{end}"


def lay_launchers(
    root: Path, manifest: Mapping[str, Any], platforms: tuple[str, ...] = PLATFORMS, *,
    bridge: bool = False,
) -> set[str]:  # fmt: skip
    """Copy the launchers; returns their names, which have to be executable."""
    names = {platform: executable(manifest, platform) for platform in platforms}
    for platform, name in names.items():
        shutil.copyfile(launcher(platform, bridge=bridge), root / name)
    return set(names.values())
