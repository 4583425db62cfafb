"""A package looked at before Grafana does: what it would refuse, what its validator reports, and
what breaks a signature. Imports the rest of the room.

The rules that are Grafana's come from plugin.schema.json and pkg/plugins in its repository, and
from grafana/plugin-validator.
"""

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds.packaging.archive import EXECUTABLE
from aiostream_ds.packaging.elf import is_elf, read_elf
from aiostream_ds.packaging.findings import Finding, Level, PackagingError, megabytes
from aiostream_ds.packaging.manifest import ID, VERSION, read_manifest
from aiostream_ds.packaging.package_layout import FRONTEND
from aiostream_ds.packaging.signature import MANIFEST, changes, matches_root, read_signature

__all__ = ["LARGEST", "check_folder"]

LARGEST = 45_000_000
"""Bytes that a zip should have at most: it is held in memory where it is installed."""

_LICENCES = ("Apache License", "MIT License", "BSD", "GNU ", "Mozilla Public", "ISC License",
             "Permission is hereby granted")  # fmt: skip
_IMAGES = (".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp")
_LEFT = ("standalone.txt", "pid.txt")
_UNSAFE = re.compile(r"[\\:*?\"<>|\x00-\x1f\x7f]|[^\x00-\x7f]")


def check_folder(folder: Path, *, root_url: str = "") -> Iterator[Finding]:
    """Every finding about a package's files, the good ones too. `root_url` is that of the Grafana
    that a private signature is for."""
    try:
        manifest = read_manifest(folder / "plugin.json")
    except PackagingError as error:
        yield Finding(
            Level.ERROR, "plugin.json", str(error), "it is made by `aiostream-ds package`"
        )
        return
    yield from _told("plugin.json", _manifest(folder, manifest), f"{manifest['id']}, well formed")
    yield from _told("logos", _logos(folder, manifest), "there")
    yield from _told("frontend", _frontend(folder), "module.js and schema.json are there")
    yield from _told("texts", _texts(folder), "README, CHANGELOG and a known licence")
    yield from _told("executables", _executables(folder, manifest), "mode 0755, right machines")
    yield from _told("files", _files(folder), "plain, with names that can be signed")
    yield from _signature(folder, root_url)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield Finding(Level.OK, "size", f"{megabytes(size)} unpacked")


Found = Iterator[tuple[Level, str]]


def _told(subject: str, found: Found, good: str) -> Iterator[Finding]:
    empty = True
    for level, text in found:
        empty = False
        yield Finding(level, subject, text)
    if empty:
        yield Finding(Level.OK, subject, good)


def _manifest(folder: Path, manifest: Mapping[str, Any]) -> Found:
    identifier = manifest["id"]
    info = manifest.get("info") or {}
    if not ID.fullmatch(identifier):
        yield Level.ERROR, f"the id {identifier!r} is not ORG-NAME-datasource, in small letters"
    if folder.resolve().name != identifier:
        yield (
            Level.WARNING,
            f"the folder is {folder.resolve().name!r}; Grafana's tools expect the id",
        )
    if manifest.get("type") != "datasource":
        yield Level.ERROR, f"the type is {manifest.get('type')!r}; allowed is 'datasource'"
    for key in ("backend", "executable"):
        if not manifest.get(key):
            yield Level.ERROR, f"{key!r} is missing: Grafana would start no process"
    if not manifest.get("streaming"):
        yield Level.WARNING, "'streaming' is not true: panels are not offered live data"
    if not manifest.get("name") or manifest.get("name") == identifier:
        yield Level.ERROR, "'name' is missing or the id; it is what people read"
    if not VERSION.fullmatch(str(info.get("version"))):
        yield Level.ERROR, f"the version {info.get('version')!r} is not like 1.2.3"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(info.get("updated"))):
        yield Level.ERROR, f"'updated' is {info.get('updated')!r}, no day like 2030-01-31"
    for key in ("description", "keywords"):
        if not info.get(key):
            yield Level.ERROR, f"'info.{key}' is empty"
    if not (manifest.get("dependencies") or {}).get("grafanaDependency"):
        yield Level.ERROR, "'dependencies.grafanaDependency' is missing, for example '>=9.4.0'"


def _logos(folder: Path, manifest: Mapping[str, Any]) -> Found:
    logos = (manifest.get("info") or {}).get("logos") or {}
    for key in ("small", "large"):
        place = str(logos.get(key) or "")
        if not place:
            yield Level.ERROR, f"'info.logos.{key}' is missing"
        elif not (folder / place).is_file():
            yield Level.ERROR, f"{place} is not there"
        elif not place.lower().endswith(_IMAGES):
            yield Level.ERROR, f"{place} is no image; allowed: {', '.join(_IMAGES)}"
        elif place.endswith(".svg") and b"<script" in (folder / place).read_bytes().lower():
            yield Level.ERROR, f"{place} holds a script"


def _frontend(folder: Path) -> Found:
    module = folder / FRONTEND[0]
    if not module.is_file():
        yield Level.ERROR, "module.js is not there: Grafana cannot show the data source"
    elif b"define(" not in module.read_bytes():
        yield Level.ERROR, "module.js is no AMD module"
    if not (folder / FRONTEND[1]).is_file():
        yield Level.WARNING, "module.js.map is not there"
    schema = folder / "schema.json"
    try:
        document = msgspec.json.decode(schema.read_bytes())
        if not isinstance(document["version"], int) or not isinstance(document["sources"], list):
            raise ValueError("its form is not known")
        for source in document["sources"]:
            if "error" in source:
                yield Level.WARNING, f"the source {source['name']!r}: {source['error']}"
    except OSError:
        yield Level.ERROR, "schema.json is not there: settings and queries have no forms"
    except (ValueError, KeyError, TypeError) as error:
        yield Level.ERROR, f"schema.json cannot be read: {error}"


def _texts(folder: Path) -> Found:
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        path = folder / name
        if not path.is_file() or not path.read_text("utf-8", "replace").strip():
            yield Level.ERROR, f"{name} is missing or empty"
        elif name == "README.md" and "<!--" in path.read_text("utf-8", "replace"):
            yield Level.WARNING, "README.md has comments; the validator takes them for a template's"
        elif name == "LICENSE":
            text = path.read_text("utf-8", "replace")
            if not any(known in text for known in _LICENCES):
                yield Level.WARNING, "LICENSE is none that the validator knows"


def _executables(folder: Path, manifest: Mapping[str, Any]) -> Found:
    start = str(manifest.get("executable") or "gpx_")
    found = sorted(folder.glob(f"{start}_*"))
    if not found:
        yield Level.ERROR, f"there is no {start}_<os>_<arch>"
    for path in found:
        machine = path.name.removeprefix(f"{start}_").removesuffix(".exe").rpartition("_")[2]
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != EXECUTABLE:
            yield Level.ERROR, f"{path.name} has the mode {mode:04o}; it has to be 0755"
        if "_linux_" in path.name and is_elf(path) and read_elf(path).machine != machine:
            yield Level.ERROR, f"{path.name} is made for {read_elf(path).machine}"


def _files(folder: Path) -> Found:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield Level.ERROR, f"{name} is a link; the installation refuses those that lead outside"
        if name in _LEFT:
            yield Level.ERROR, f"{name} was left by a debugger: Grafana would look for it elsewhere"
        if path.name == "plugin.json" and path.parent != folder:
            yield Level.ERROR, f"{name}: Grafana would take it for a second plugin"
        if _UNSAFE.search(name):
            yield Level.ERROR, f"{name!r} has signs that a manifest signed on Windows spoils"
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH:
            yield Level.WARNING, f"{name} can be written by everyone"


def _signature(folder: Path, root_url: str) -> Iterator[Finding]:
    subject = "signature"
    try:
        signed = read_signature(folder)
    except PackagingError as error:
        yield Finding(Level.ERROR, subject, str(error), "sign it again, or remove it")
        return
    if signed is None:
        text = f"no {MANIFEST}: Grafana loads it only where unsigned plugins are allowed"
        yield Finding(Level.OK, subject, text)
        return
    wrong = list(changes(folder, signed))
    for text in wrong[:10]:
        yield Finding(Level.ERROR, subject, text, "unpack the signed zip again")
    if any("\\" in name for name in signed["files"]):
        text = f"{MANIFEST} lists paths with \\, as signing on Windows writes them"
        yield Finding(Level.ERROR, subject, text, "sign on Linux or macOS")
    if root_url and signed.get("signatureType") == "private" and not matches_root(signed, root_url):
        text = f"it is for {signed.get('rootUrls')}, this Grafana is {root_url}"
        yield Finding(Level.ERROR, subject, text, "sign with --rootUrls of exactly this text")
    if not wrong:
        yield Finding(Level.OK, subject, "every file is as it was signed; the key is not looked at")
