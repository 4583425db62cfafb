"""Describes the contents of a package with its own Python: the SBOM, the licences of system
libraries, and warnings of old versions.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from aiostream_ds.packaging.dependencies import Package
from aiostream_ds.packaging.known_faults import find_faults
from aiostream_ds.packaging.linked_libraries import (
    Library,
    PythonLibraries,
    find_declared,
    find_linked,
    python_libraries,
)
from aiostream_ds.packaging.python_files import PythonFiles
from aiostream_ds.packaging.python_runtime import Runtime
from aiostream_ds.packaging.sbom import Sbom
from aiostream_ds.packaging.system_packages import SystemPackage, system_packages

__all__ = ["describe_contents"]


def describe_contents(
    sbom: Sbom,
    root: Path,
    runtime: Runtime,
    python: PythonFiles,
    packages: Iterable[Package],
    libraries: Iterable[Path],
) -> list[str]:
    """Add everything but the launcher to the SBOM and write the licences of system libraries;
    returns warnings of old versions.

    `libraries` are the shared libraries in `rt`, where they are installed.

    Raises:
        PackagingError: The packaged Python does not run.
    """
    of_python = python_libraries(root, runtime)
    owner = python.owner_of(python.program)
    component = sbom.add_python(python.version, owner)
    for library in of_python.linked:
        sbom.add_library(library, component)
    for package in packages:
        _describe_package(sbom, root / "py", package, of_python)
    unmaintained = {library.name: library.version for library in of_python.linked}
    for one in system_packages(libraries, python.owner_of):
        if one.version:
            sbom.add_system_package(one)
            _copy_licenses(one, root / "licenses")
        elif not one.name.startswith("libpython"):  # nobody installed it: built here, like Python
            library = of_python.shared.get(one.name, Library(one.name))
            sbom.add_library(library, component)
            unmaintained[library.name] = library.version
    return list(find_faults("" if owner else python.version, unmaintained))


def _describe_package(sbom: Sbom, py: Path, package: Package, of_python: PythonLibraries) -> None:
    component = sbom.add_package(package.name, package.version, package.license)
    found = find_declared(py / name for name in package.files if "/sboms/" in name)
    for path in (py / name for name in package.files if ".so" in name):
        if path.is_file():
            found |= find_linked(path)
    if package.name == "uvloop" and of_python.event_loop is not None:
        found.add(of_python.event_loop)
    for library in sorted(found):
        sbom.add_library(library, component)


def _copy_licenses(package: SystemPackage, folder: Path) -> None:
    if package.copyright:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(Path(package.copyright).resolve(), folder / f"{package.name}.txt")
