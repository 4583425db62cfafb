"""Checks the files of a package: what Grafana would refuse, what its validator reports, and what
breaks a signature.

The rules are those of plugin.schema.json and pkg/plugins in Grafana's repository, and of
grafana/plugin-validator.
"""

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiostream_ds.packaging.archive import EXECUTABLE
from aiostream_ds.packaging.costs import describe_costs, describe_large
from aiostream_ds.packaging.elf import is_elf, read_elf
from aiostream_ds.packaging.findings import Finding, Level, PackagingError, megabytes
from aiostream_ds.packaging.manifest import ID, VERSION, read_manifest
from aiostream_ds.packaging.package_layout import FRONTEND
from aiostream_ds.packaging.schema_file import read_schema
from aiostream_ds.packaging.signature import MANIFEST, changes, matches_root, read_signature

__all__ = ["check_folder"]

_LICENSES = (
    "Apache License",
    "MIT License",
    "BSD",
    "GNU ",
    "Mozilla Public",
    "ISC License",
    "Permission is hereby granted",
)
_IMAGES = (".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp")
_DEBUG_FILES = ("standalone.txt", "standalone.sock", "pid.txt")
_UNSAFE = re.compile(r"[\\:*?\"<>|\x00-\x1f\x7f]|[^\x00-\x7f]")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")

Problems = Iterator[tuple[Level, str]]


def check_folder(folder: Path, *, root_url: str = "") -> Iterator[Finding]:
    """All findings about the files of a package, with those that are OK.

    `root_url` is that of the Grafana that a private signature is for.
    """
    try:
        manifest = read_manifest(folder / "plugin.json")
    except PackagingError as error:
        cure = "make the package with `aiostream-ds package`"
        yield Finding(Level.ERROR, "plugin.json", str(error), cure)
        return
    yield from _report("plugin.json", _check_manifest(folder, manifest), f"{manifest['id']}, valid")
    yield from _report("logos", _check_logos(folder, manifest), "they exist")
    yield from _report("frontend", _check_frontend(folder), "module.js and schema.json are valid")
    yield from _report("texts", _check_texts(folder), "README, CHANGELOG and a known licence")
    executables = _check_executables(folder, manifest)
    yield from _report("executables", executables, "mode 0755, for the right machines")
    yield from _report("files", _check_files(folder), "regular, with names that can be signed")
    yield from _check_signature(folder, root_url)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    total = megabytes(sum(sizes.values()))
    yield Finding(Level.OK, "size", f"{total} unpacked: {describe_costs(sizes)}")
    for text, cure in describe_large(folder, sizes):
        yield Finding(Level.OK, "size", text, cure)


def _report(subject: str, problems: Problems, ok: str) -> Iterator[Finding]:
    """One finding a problem, also for a file that cannot be read, or one that is OK."""
    empty = True
    try:
        for level, text in problems:
            empty = False
            yield Finding(level, subject, text)
    except OSError as error:
        empty = False
        yield Finding(Level.ERROR, subject, f"{error.filename}: {error.strerror}")
    if empty:
        yield Finding(Level.OK, subject, ok)


def _check_manifest(folder: Path, manifest: Mapping[str, Any]) -> Problems:
    identifier = manifest["id"]
    info = manifest.get("info") or {}
    if not ID.fullmatch(identifier):
        yield Level.ERROR, f"id must be ORG-NAME-datasource in lower case, got {identifier!r}"
    name = folder.resolve().name
    if name != identifier:
        yield Level.WARNING, f"the folder's name must be the id for Grafana's tools, got {name!r}"
    if manifest.get("type") != "datasource":
        yield Level.ERROR, f"type must be 'datasource', got {manifest.get('type')!r}"
    for key in ("backend", "executable"):
        if not manifest.get(key):
            yield Level.ERROR, f"{key!r} is missing: Grafana would start no process"
    if not manifest.get("streaming"):
        yield Level.WARNING, "'streaming' is not true: panels offer no live data"
    if not manifest.get("name") or manifest.get("name") == identifier:
        yield Level.ERROR, f"name must be a title that is not the id, got {manifest.get('name')!r}"
    if not VERSION.fullmatch(str(info.get("version"))):
        yield Level.ERROR, f"info.version must be like 1.2.3, got {info.get('version')!r}"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(info.get("updated"))):
        yield Level.ERROR, f"info.updated must be like 2030-01-31, got {info.get('updated')!r}"
    for key in ("description", "keywords"):
        if not info.get(key):
            yield Level.ERROR, f"'info.{key}' is empty"
    if not (manifest.get("dependencies") or {}).get("grafanaDependency"):
        yield Level.ERROR, "'dependencies.grafanaDependency' is missing; use for example '>=9.4.0'"


def _check_logos(folder: Path, manifest: Mapping[str, Any]) -> Problems:
    logos = (manifest.get("info") or {}).get("logos") or {}
    for key in ("small", "large"):
        name = str(logos.get(key) or "")
        if not name:
            yield Level.ERROR, f"'info.logos.{key}' is missing"
        elif not (folder / name).is_file():
            yield Level.ERROR, f"{name} does not exist"
        elif not name.lower().endswith(_IMAGES):
            yield Level.ERROR, f"expected an image ({', '.join(_IMAGES)}), got {name}"
        elif name.endswith(".svg") and b"<script" in (folder / name).read_bytes().lower():
            yield Level.ERROR, f"{name} contains a script"


def _check_frontend(folder: Path) -> Problems:
    module = folder / FRONTEND[0]
    if not module.is_file():
        yield Level.ERROR, "module.js does not exist: Grafana cannot show the data source"
    elif b"define(" not in module.read_bytes():
        yield Level.ERROR, "module.js must be an AMD module, got a file without define(...)"
    if not (folder / FRONTEND[1]).is_file():
        yield Level.WARNING, "module.js.map does not exist"
    try:
        document = read_schema(folder)
    except PackagingError as error:
        yield Level.ERROR, f"the forms of settings and queries cannot be read: {error}"
        return
    for source in document["sources"]:
        if "error" in source:
            yield Level.WARNING, f"the source {source['name']!r}: {source['error']}"


def _check_texts(folder: Path) -> Problems:
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        path = folder / name
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        if not text.strip():
            yield Level.ERROR, f"{name} is missing or empty"
        elif name != "LICENSE":
            yield from _check_page(name, text)
        elif not any(known in text for known in _LICENSES):
            yield Level.WARNING, "LICENSE is not one that the validator knows"


def _check_page(name: str, text: str) -> Problems:
    """Grafana shows the file on the plugin's page, at an address where nothing relative exists."""
    if name == "README.md" and "<!--" in text:
        yield (
            Level.WARNING,
            "README.md has comments; the validator takes it for an unfinished template",
        )
    dead = sorted({target for target in _LINK.findall(_CODE.sub("", text)) if _is_relative(target)})
    if dead:
        yield (
            Level.WARNING,
            f"{name} is shown on the plugin's page in Grafana, where links and images to files are "
            f"dead; expected complete URLs, got {', '.join(dead)}",
        )


def _is_relative(target: str) -> bool:
    try:
        return not target.startswith("#") and not urlsplit(target).scheme
    except ValueError:  # http://[HOST]
        return False


def _check_executables(folder: Path, manifest: Mapping[str, Any]) -> Problems:
    prefix = str(manifest.get("executable") or "gpx_")
    found = sorted(folder.glob(f"{prefix}_*"))
    if not found:
        yield Level.ERROR, f"expected an executable {prefix}_<os>_<arch>, got none"
    for path in found:
        machine = path.name.removeprefix(f"{prefix}_").removesuffix(".exe").rpartition("_")[2]
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            yield Level.ERROR, f"{path.name} must be a file, got a folder"
        elif mode != EXECUTABLE:
            yield Level.ERROR, f"the mode of {path.name} must be 0755, got {mode:04o}"
        if path.is_file() and "_linux_" in path.name and is_elf(path):
            yield from _check_machine(path, machine)


def _check_machine(path: Path, machine: str) -> Problems:
    try:
        found = read_elf(path).machine
    except ValueError as error:
        yield Level.ERROR, str(error)
        return
    if found != machine:
        yield Level.ERROR, f"{path.name} must be for {machine}, got {found}"


def _check_files(folder: Path) -> Problems:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield Level.ERROR, f"{name} is a symbolic link; Grafana refuses those to other folders"
        if name in _DEBUG_FILES:
            yield Level.ERROR, f"{name} is left from a debugger: Grafana would connect to it"
        if path.name == "plugin.json" and path.parent != folder:
            yield Level.ERROR, f"{name}: Grafana would load it as a second plugin"
        if _UNSAFE.search(name):
            yield Level.ERROR, f"{name!r} has characters that signing on Windows breaks"
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH:
            yield Level.WARNING, f"{name} is writable by everybody"


def _check_signature(folder: Path, root_url: str) -> Iterator[Finding]:
    subject = "signature"
    try:
        signed = read_signature(folder)
    except PackagingError as error:
        yield Finding(Level.ERROR, subject, str(error), "sign it again, or remove it")
        return
    if signed is None:
        text = f"no {MANIFEST}: Grafana loads it only if unsigned plugins are allowed"
        yield Finding(Level.OK, subject, text)
        return
    wrong = list(changes(folder, signed))
    for text in wrong[:10]:
        yield Finding(Level.ERROR, subject, text, "unpack the signed zip again")
    if any("\\" in name for name in signed["files"]):
        text = f"{MANIFEST} has paths with \\, as signing on Windows writes them"
        yield Finding(Level.ERROR, subject, text, "sign on Linux or macOS")
    if root_url and signed.get("signatureType") == "private" and not matches_root(signed, root_url):
        text = f"expected a signature for {root_url}, got {signed.get('rootUrls')}"
        yield Finding(Level.ERROR, subject, text, "sign with --rootUrls of exactly this URL")
    if not wrong:
        yield Finding(Level.OK, subject, "all files are as signed; the key is not verified")
