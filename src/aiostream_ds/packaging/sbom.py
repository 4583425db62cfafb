"""The software bill of materials (CycloneDX 1.5): every package, library and program in a package,
so that an admin knows what to update.

Components are one flat list, which every scanner reads; `dependencies` states what contains what.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from aiostream_ds.packaging.go_build_info import read_go_build_info
from aiostream_ds.packaging.linked_libraries import Library
from aiostream_ds.packaging.system_packages import SystemPackage

__all__ = ["SBOM_FILE", "Component", "Sbom"]

SBOM_FILE = "sbom.cdx.json"
"""The file's name in a package."""

_NAMESPACE = uuid.UUID("6f4fa3ab-5a0e-5f3c-9d8e-3f5c6f0f3c11")  # for the serial numbers; arbitrary

_CPE = {
    "abseil": "abseil:common_libraries",
    "bzip2": "bzip:bzip2",
    "curl": "haxx:curl",
    "expat": "libexpat_project:libexpat",
    "grpc": "grpc:grpc",
    "libuv": "libuv:libuv",
    "libxml2": "xmlsoft:libxml2",
    "openssl": "openssl:openssl",
    "protobuf": "google:protobuf",
    "python": "python:python",
    "sqlite": "sqlite:sqlite",
    "zlib": "zlib:zlib",
}
"""Name → vendor and product, by which scanners look up the faults of C libraries."""


class Component(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A component of the document; `ref` is unique in it."""

    type: str
    name: str
    ref: str = msgspec.field(name="bom-ref")
    version: str = ""
    purl: str = ""
    cpe: str = ""
    licenses: tuple[Mapping[str, Any], ...] = ()


class Sbom:
    """Collects the components of one package.

    `identifier` and `version` are the plugin's.
    """

    def __init__(self, identifier: str, version: str) -> None:
        self._main = Component("application", identifier, identifier, version)
        self._components: dict[str, Component] = {}
        self._contents: dict[str, list[str]] = {identifier: []}

    def add(self, component: Component, *, inside: Component | None = None) -> Component:
        """Add a component of the plugin, or of another component; returns it.

        Equal components are listed once.
        """
        self._components.setdefault(component.ref, component)
        self._contents.setdefault(component.ref, [])
        contents = self._contents[(inside or self._main).ref]
        if component.ref not in contents and component.ref != (inside or self._main).ref:
            contents.append(component.ref)
        return component

    def add_package(self, name: str, version: str, license: str) -> Component:
        """Add a Python distribution."""
        purl = f"pkg:pypi/{name}@{quote(version)}"
        return self.add(Component("library", name, purl, version, purl, "", _licenses(license)))

    def add_python(self, version: str, owner: SystemPackage | None) -> Component:
        """Add the Python of the package; `owner` is the system's package that installed it."""
        purl = f"pkg:generic/python@{quote(version)}" if owner is None else _deb(owner)
        cpe = _cpe("python", version) if owner is None else ""
        licenses = _licenses("Python-2.0.1")
        return self.add(Component("application", "python", purl, version, purl, cpe, licenses))

    def add_system_package(self, package: SystemPackage) -> Component:
        """Add a package of the operating system."""
        purl = _deb(package)
        return self.add(Component("library", package.name, purl, package.version, purl))

    def add_library(self, library: Library, inside: Component) -> Component:
        """Add a library that is linked into another component."""
        name, version, purl, license = library
        purl = purl or (f"pkg:generic/{quote(name)}@{quote(version)}" if version else "")
        ref = purl or f"{inside.ref}#{name}"
        cpe = _cpe(name, version)
        component = Component("library", name, ref, version, purl, cpe, _licenses(license))
        return self.add(component, inside=inside)

    def add_launcher(self, path: Path, version: str) -> None:
        """Add a launcher: a Go program, Go's standard library, and its modules."""
        built = read_go_build_info(path)
        name = "aiostream-ds-launcher"
        launcher = self.add(Component("application", name, f"{name}@{version}", version))
        for module, release in {"stdlib": built.go, **built.modules}.items():
            purl = f"pkg:golang/{quote(module)}@{quote(release)}"
            self.add(Component("library", module, purl, release, purl), inside=launcher)

    def encode(self) -> bytes:
        """The document. It has no date: the same package gives the same bytes."""
        components = list(self._components.values())
        contents = [{"ref": ref, "dependsOn": refs} for ref, refs in self._contents.items() if refs]
        text = msgspec.json.encode([self._main, components, contents])
        document = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, text.decode())}",
            "version": 1,
            "metadata": {"component": self._main},
            "components": components,
            "dependencies": contents,
        }
        return msgspec.json.format(msgspec.json.encode(document))


def _deb(package: SystemPackage) -> str:
    """The purl of a package of the operating system."""
    values = {"arch": package.architecture, "distro": package.release}
    if package.source != package.name:
        values["upstream"] = package.source
    qualifiers = "&".join(f"{key}={quote(value)}" for key, value in sorted(values.items()))
    path = f"{package.distribution}/{quote(package.name)}@{quote(package.version, safe=':~')}"
    return f"pkg:deb/{path}?{qualifiers}"


def _cpe(name: str, version: str) -> str:
    if not version or name not in _CPE:
        return ""
    return f"cpe:2.3:a:{_CPE[name]}:{version}:*:*:*:*:*:*:*"


def _licenses(license: str) -> tuple[Mapping[str, Any], ...]:
    """An SPDX expression, or the name that a package states instead of one."""
    if not license:
        return ()
    try:
        return ({"expression": canonicalize_license_expression(license)},)
    except InvalidLicenseExpression:
        return ({"license": {"name": license}},)
