"""The software bill of materials (CycloneDX 1.5): every package, library and program in a package,
so that an admin knows what to update.
"""

import platform
import subprocess
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds.packaging.dependencies import Package

__all__ = ["SBOM_FILE", "SystemPackage", "make_sbom", "system_packages"]

SBOM_FILE = "sbom.cdx.json"
"""The file's name in a package."""

_NAMESPACE = uuid.UUID("6f4fa3ab-5a0e-5f3c-9d8e-3f5c6f0f3c11")  # for the serial numbers; arbitrary


class SystemPackage(msgspec.Struct, frozen=True, order=True):
    """A package of the operating system; `version` and `copyright` (a path) are "" if unknown."""

    name: str
    version: str = ""
    copyright: str = ""


def system_packages(libraries: Iterable[Path]) -> list[SystemPackage]:
    """The packages that installed these libraries (dpkg); an unknown library has its own name."""
    found = set()
    for path in libraries:
        found.add(_dpkg(path) or SystemPackage(path.name))
    return sorted(found)


def _dpkg(path: Path) -> SystemPackage | None:
    real = str(path.resolve())
    for name in (real, real.removeprefix("/usr"), str(path)):
        owner = _run("dpkg-query", "-S", name).partition(": ")[0]
        if owner and "," not in owner:
            version = _run("dpkg-query", "-W", "-f=${Version}", owner)
            bare = owner.partition(":")[0]
            copyright = Path("/usr/share/doc", bare, "copyright")
            return SystemPackage(bare, version, str(copyright) if copyright.is_file() else "")
    return None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def make_sbom(
    identifier: str,
    version: str,
    packages: Iterable[Package],
    system: Iterable[SystemPackage],
    *,
    python: bool,
) -> bytes:
    """The document. It has no date: the same package gives the same bytes."""
    components: list[dict[str, Any]] = [_pypi(package) for package in packages]
    if python:
        number = platform.python_version()
        components.append(
            _component("application", "python", number, f"pkg:generic/python@{number}", "PSF-2.0")
        )
    for one in system:
        purl = f"pkg:deb/debian/{one.name}@{one.version}" if one.version else ""
        components.append(_component("library", one.name, one.version, purl, ""))
    main = _component("application", identifier, version, "", "")
    text = msgspec.json.encode([main, components])
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.5",
                "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, text.decode())}",
                "version": 1,
                "metadata": {"component": main},
                "components": components,
            }
        )
    )


def _pypi(package: Package) -> dict[str, Any]:
    purl = f"pkg:pypi/{package.name}@{package.version}"
    return _component("library", package.name, package.version, purl, package.license)


def _component(kind: str, name: str, version: str, purl: str, license: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "name": name}
    if version:
        found["version"] = version
    if purl:
        found["purl"] = found["bom-ref"] = purl
    if license:
        found["licenses"] = [{"license": {"name": license}}]
    return found
