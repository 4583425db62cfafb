"""The installed packages that a plugin needs, and their files.

They are copied from the current environment; nothing is downloaded.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["Package", "distributions_of", "package_of", "resolve"]

_METADATA = ("METADATA", "entry_points.txt", "LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")
"""How the names of the needed files in a `.dist-info` folder start. Libraries look up entry points
when they run."""

_LICENSE_NAME_LIMIT = 80
"""Characters from which the field `License` is not a name but a text: older packages have the whole
license there, sometimes on one line."""

_DEVELOPMENT = {".pyx", ".pxd", ".pxi", ".pyi", ".a", ".h", ".hpp"}
"""Suffixes of files that only compilers and type checkers read."""


_NOT_IN_PACKAGES = {("aiostream-ds", "packaging")}
"""Who requires what only to make packages."""

_TEST_MODULE = re.compile(r"(.+?/tests?/)(?:.*/)?(?:test_\w+|\w+_test|conftest)\.py$")

_IMPORTS_TESTS = re.compile(rb"(?m)^\s*(?:from|import)\s[\w.]*\btests?\b")


class Package(NamedTuple):
    """An installed distribution. `files`: path below `py/` → installed file."""

    name: str
    version: str
    license: str
    files: dict[str, Path]


def resolve(wanted: Iterable[str], processor: str = "") -> list[Package]:
    """The packages for these requirements (which may have extras) and their dependencies, sorted.

    `processor` is the kernel's name of that of another machine; "" for this one.

    Raises:
        PackagingError: One is not installed, or its version does not match.
    """
    installed: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(_parse(text), "") for text in wanted]
    environment = {"platform_machine": processor} if processor else {}
    while queue:
        requirement, required_by = queue.pop()
        name = canonicalize_name(requirement.name)
        if name not in installed:
            installed[name] = _find_installed(requirement, required_by)
        _check_version(requirement, installed[name], required_by)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in installed[name].requires or ():
                inner = _parse(text)
                if (name, canonicalize_name(inner.name)) in _NOT_IN_PACKAGES:
                    continue
                if inner.marker is None or inner.marker.evaluate(environment | {"extra": extra}):
                    queue.append((inner, name))
    return [package_of(installed[name]) for name in sorted(installed)]


def _parse(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise PackagingError(f"expected a requirement, got {text!r}: {error}") from None


def _find_installed(requirement: Requirement, required_by: str) -> metadata.Distribution:
    try:
        return metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        raise PackagingError(
            f"the package {requirement.name!r}{_required(required_by)} is not installed; "
            f"use pip install {str(requirement)!r}"
        ) from None


def _check_version(
    requirement: Requirement, distribution: metadata.Distribution, required_by: str
) -> None:
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        raise PackagingError(
            f"the package {requirement.name!r}{_required(required_by)} must be version "
            f"{requirement.specifier}, got {distribution.version}"
        )


def _required(required_by: str) -> str:
    return f" (required by {required_by})" if required_by else ""


@cache
def _module_distributions() -> dict[str, list[str]]:
    return {module: list(names) for module, names in metadata.packages_distributions().items()}


def distributions_of(modules: Iterable[str]) -> set[str]:
    """The names of the distributions that contain these top-level modules."""
    by_module = _module_distributions()
    return {name for module in modules for name in by_module.get(module, ())}


def package_of(distribution: metadata.Distribution) -> Package:
    """The package that a distribution is."""
    name = canonicalize_name(distribution.metadata["Name"])
    about = distribution.metadata
    license = (about.get_all("License-Expression") or about.get_all("License") or [""])[0]
    classified = [
        c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if "License" in c
    ]
    if not license or "\n" in license or len(license) >= _LICENSE_NAME_LIMIT:
        license = ", ".join(classified)
    files = _without_tests(dict(_files(name, distribution)))
    return Package(name, distribution.version, license, files)


def _without_tests(files: dict[str, Path]) -> dict[str, Path]:
    """Leave out folders `tests` that have test modules, unless another module imports from one."""
    folders = {
        found[1]
        for name in files
        if (found := _TEST_MODULE.match(name)) and found[1].count("/") > 1
    }
    if not folders:
        return files
    kept = {name: path for name, path in files.items() if not name.startswith(tuple(folders))}
    sources = (path for path in kept.values() if path.suffix == ".py")
    if any(_IMPORTS_TESTS.search(path.read_bytes()) for path in sources):
        return files
    return kept


def _files(name: str, distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    if _is_editable(distribution):
        yield from _editable_files(name, distribution)
        return
    if distribution.files is None:
        raise PackagingError(
            f"the package {name!r} has no RECORD of its files; install it with pip"
        )
    for file in distribution.files:
        name_in_py, path = file.as_posix(), Path(str(distribution.locate_file(file)))
        if name_in_py.startswith("../") or not _is_needed(path, name_in_py):
            continue  # scripts and manuals are outside of site-packages
        yield name_in_py, path


def _is_editable(distribution: metadata.Distribution) -> bool:
    """Whether it was installed with `pip install -e`: see the specification of direct_url.json,
    https://packaging.python.org/en/latest/specifications/direct-url/."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable", False))


def _editable_files(name: str, distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    tops = [
        top
        for top, names in _module_distributions().items()
        if name in [str(canonicalize_name(one)) for one in names]
    ]
    for top in tops or [name.replace("-", "_")]:
        spec = find_spec(top)
        if spec is None or spec.origin is None:
            raise PackagingError(
                f"the source of the editable package {name!r} is not found; install it again"
            )
        origin = Path(spec.origin)
        if not spec.submodule_search_locations:
            yield origin.name, origin
            continue
        for path in sorted(origin.parent.rglob("*")):
            name_in_py = path.relative_to(origin.parents[1]).as_posix()
            if path.is_file() and _is_needed(path, name_in_py):
                yield name_in_py, path
    for file in distribution.files or ():
        if file.name == "METADATA":
            yield file.as_posix(), Path(str(distribution.locate_file(file)))


def _is_needed(path: Path, name_in_py: str) -> bool:
    parts = name_in_py.split("/")
    if "__pycache__" in parts or path.suffix in (".pyc", ".pth"):
        return False
    if parts[0].endswith(".dist-info"):
        return parts[1] in ("licenses", "sboms") or path.name.startswith(_METADATA)
    return path.suffix not in _DEVELOPMENT and path.is_file()
