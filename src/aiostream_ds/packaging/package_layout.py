"""Writes the common files: plugin.json, frontend, schema.json, README, logo and launchers."""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana import forms
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.datasource import DataSource
from aiostream_ds.packaging import boilerplate
from aiostream_ds.packaging.archive import given_date
from aiostream_ds.packaging.build_config import BuildConfig
from aiostream_ds.packaging.findings import PackagingError, Progress
from aiostream_ds.packaging.launchers import PLATFORMS, executable_name, launcher
from aiostream_ds.packaging.manifest import (
    check_id,
    make_manifest,
    read_complete_manifest,
    read_manifest,
)
from aiostream_ds.packaging.project import Project

__all__ = [
    "FRONTEND",
    "importable_dashboards",
    "package_manifest",
    "write_common",
    "write_launchers",
]

FRONTEND = ("module.js", "module.js.map")
"""The frontend that packages share, unless the author has one."""

_INSTALLED = Path(__file__).parent / "builtin"
_CHECKOUT = Path(__file__).parents[3]

_DATA_SOURCE_INPUT = "DS_AIOSTREAM"

GENERATED = ("plugin.json", "schema.json", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.txt")
"""Files that the package writes itself, and does not copy from a folder with an author's frontend.
"""


def package_manifest(
    config: BuildConfig, project: Project | None, progress: Progress
) -> dict[str, Any]:
    """The package's plugin.json: the built-in plugin's, the one next to the author's file, or made
    from the class."""
    if project is None or config.file is None:
        found = read_manifest(_builtin_file("plugin.json"))
        for key, value in config.given.items():
            if value is not None and key in ("id", "name"):
                found[key] = value
        check_id(found["id"])
        return found
    own = config.file.resolve().parent / "plugin.json"
    given = [f"--{name}" for name, value in config.given.items() if value]
    if own.is_file() and not given:
        return read_complete_manifest(own)
    if own.is_file():
        progress.warn(f"{own} is not used, because of {', '.join(given)}; write the value into it")
    return make_manifest(_author_class(config), project, config.given, _date(config.file))


def _date(file: Path) -> str:
    given = given_date()
    seconds = file.stat().st_mtime if given is None else given
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _author_class(config: BuildConfig) -> type[DataSource[Any]]:
    assert isinstance(config.target, type)
    return config.target


def write_common(
    root: Path,
    config: BuildConfig,
    project: Project | None,
    manifest: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Write all files but the code and the launchers."""
    _write_frontend(root, config.frontend, progress)
    document = forms.describe(Catalog(config.target, config.by))
    _write(root / "schema.json", msgspec.json.encode(document))
    _write(root / "plugin.json", msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    if project is None or config.file is None:
        _write_builtin(root)
        return
    _write_texts(root, project, manifest, _author_class(config), progress)
    author_folder = config.file.resolve().parent
    _write_logos(root, author_folder, project.folder, manifest, progress)
    _write_includes(root, author_folder, manifest)


def _write_builtin(root: Path) -> None:
    for name, source in (("README.md", "plugin-readme.md"), ("CHANGELOG.md", "CHANGELOG.md")):
        _write(root / name, boilerplate.read_markdown(_builtin_file(source)))
    for name in ("LICENSE", "img/logo.svg"):
        _write(root / name, _builtin_file(name).read_bytes())
    shutil.copytree(_builtin_folder("provisioning"), root / "provisioning")
    for path, content in importable_dashboards().items():
        _write(root / path, content)


def _write_frontend(root: Path, folder: Path | None, progress: Progress) -> None:
    if folder is None:
        for name in FRONTEND:
            shutil.copyfile(forms.static(name), root / name)
        return
    for path in sorted(folder.rglob("*")):
        name_in_package = path.relative_to(folder)
        if str(name_in_package) in GENERATED or path.name.startswith("gpx_"):
            progress.log(f"{path} is left out: the package has its own")
        elif path.is_file():
            _write(root / name_in_package, path.read_bytes())


def _write_texts(
    root: Path,
    project: Project,
    manifest: Mapping[str, Any],
    kind: type[DataSource[Any]],
    progress: Progress,
) -> None:
    found = {n: boilerplate.read_markdown(p) for n, p in project.texts.items() if n != "LICENSE"}
    _write(root / "README.md", found.get("README") or boilerplate.make_readme(manifest, kind))
    _write(root / "CHANGELOG.md", found.get("CHANGELOG") or boilerplate.make_changelog(manifest))
    if "LICENSE" in project.texts:
        shutil.copyfile(project.texts["LICENSE"], root / "LICENSE")
    else:
        progress.warn(f"{project.folder} has no LICENSE; the package grants no rights")
        _write(root / "LICENSE", boilerplate.make_missing_license(manifest))


def _write_logos(
    root: Path, author_folder: Path, folder: Path, manifest: Mapping[str, Any], progress: Progress
) -> None:
    for name in sorted(set(manifest["info"]["logos"].values())):
        own = next((d / name for d in (author_folder, folder) if (d / name).is_file()), None)
        if own is not None:
            _write(root / name, own.read_bytes())
        else:
            progress.log(f"{name} does not exist: a logo is made from the name")
            _write(root / name, boilerplate.make_logo(manifest))


def _write_includes(root: Path, author_folder: Path, manifest: Mapping[str, Any]) -> None:
    """Copy the dashboards that an author's plugin.json includes."""
    for name in [one["path"] for one in manifest.get("includes", ()) if "path" in one]:
        if not (author_folder / name).is_file():
            raise PackagingError(f"plugin.json includes {name!r}, which is not in {author_folder}")
        _write(root / name, (author_folder / name).read_bytes())


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_launchers(
    root: Path,
    manifest: Mapping[str, Any],
    *platforms: str,
    bridge: bool = False,
) -> set[str]:
    """Copy the launchers, by default those of all platforms; returns their names, which must be
    executable."""
    names = {one: executable_name(manifest, one) for one in platforms or PLATFORMS}
    for platform, name in names.items():
        shutil.copyfile(launcher(platform, bridge=bridge), root / name)
    return set(names.values())


def _builtin_folder(name: str) -> Path:
    """A folder, for example `provisioning`.

    Raises:
        PackagingError: This installation does not have it.
    """
    return _find(name, Path.is_dir)


def _builtin_file(name: str) -> Path:
    """`plugin.json`, `plugin-readme.md`, `CHANGELOG.md`, `LICENSE` or `img/logo.svg`.

    Raises:
        PackagingError: This installation does not have it.
    """
    return _find(name, Path.is_file)


def importable_dashboards() -> dict[str, bytes]:
    """The dashboards for the tab Dashboards of a data source (plugin.json `includes`), by path.

    They are made from the provisioned ones. Grafana inserts the data source of the tab. They have
    no uid, so that a provisioned and an imported copy are two dashboards.
    """
    found = {}
    plugin: dict[str, Any] = msgspec.json.decode(_builtin_file("plugin.json").read_bytes())
    for path in sorted(_builtin_folder("provisioning/dashboards/aiostream").glob("*.json")):
        model = msgspec.json.decode(path.read_bytes())
        del model["uid"]
        value = f"${{{_DATA_SOURCE_INPUT}}}"
        model["templating"]["list"][0]["current"] = {"text": value, "value": value}
        needed = {
            "name": _DATA_SOURCE_INPUT,
            "label": plugin["name"],
            "type": "datasource",
            "pluginId": plugin["id"],
            "pluginName": plugin["name"],
        }
        text = msgspec.json.format(msgspec.json.encode({"__inputs": [needed], **model}))
        found[f"dashboards/{path.name}"] = text + b"\n"
    return found


def _find(name: str, exists: Callable[[Path], bool]) -> Path:
    for folder in (_INSTALLED, _CHECKOUT, _CHECKOUT / "builtin"):
        if exists(folder / name):
            return folder / name
    raise PackagingError(f"expected {name} in this installation of aiostream-ds; install it again")
