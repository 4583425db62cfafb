"""The installed packages that a plugin needs, and their files: what was tested is what is packed,
so nothing is downloaded. Imports `words`; reads the environment that runs the command.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["Package", "closure", "owners"]

_NEVER = ("__pycache__",)
_METADATA = {"METADATA", "LICENSE", "COPYING", "NOTICE", "AUTHORS", "entry_points.txt"}
_DEVELOPERS = {".pyx", ".pxd", ".pxi", ".pyi", ".a", ".h", ".hpp"}
"""Endings of files that only compilers and type checkers read."""


class Package(NamedTuple):
    """An installed distribution. `files` are its files by where they go below `py/`."""

    name: str
    version: str
    license: str
    files: dict[str, Path]


def closure(wanted: Iterable[str]) -> list[Package]:
    """These requirements, with extras if they name any, and all that they need, by name.

    Raises PackagingError for one that is not installed, or in a version that is not asked for.
    """
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(requirement(text), "") for text in wanted]
    while queue:
        need, asked_by = queue.pop()
        name = canonicalize_name(need.name)
        if name not in found:
            found[name] = _installed(need, asked_by)
        _check_version(need, found[name], asked_by)
        for extra in ("", *need.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in found[name].requires or ():
                inner = requirement(text)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    queue.append((inner, name))
    return [_package(name, found[name]) for name in sorted(found)]


def requirement(text: str) -> Requirement:
    """One requirement. Raises PackagingError when it is none."""
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise PackagingError(f"{text!r} is no requirement: {error}") from None


def _installed(need: Requirement, asked_by: str) -> metadata.Distribution:
    try:
        return metadata.distribution(need.name)
    except metadata.PackageNotFoundError:
        raise PackagingError(
            f"the package {need.name!r}{_why(asked_by)} is not installed here: "
            f"pip install {str(need)!r}"
        ) from None


def _check_version(need: Requirement, found: metadata.Distribution, asked_by: str) -> None:
    if not need.specifier.contains(found.version, prereleases=True):
        raise PackagingError(
            f"the package {need.name!r}{_why(asked_by)} is installed as {found.version}, "
            f"not {need.specifier}"
        )


def _why(asked_by: str) -> str:
    return f", which {asked_by} needs," if asked_by else ""


@cache
def _by_module() -> dict[str, list[str]]:
    return {name: list(owner) for name, owner in metadata.packages_distributions().items()}


def owners(modules: Iterable[str]) -> set[str]:
    """The distributions that installed these top-level modules."""
    return {owner for name in modules for owner in _by_module().get(name, ())}


def _package(name: str, found: metadata.Distribution) -> Package:
    about = found.metadata
    named = (about.get_all("License-Expression") or about.get_all("License") or [""])[0]
    classified = [
        c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if "License" in c
    ]
    said = named if named and "\n" not in named and len(named) < 80 else ", ".join(classified)
    return Package(name, found.version, said, dict(_files(name, found)))


def _files(name: str, found: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    if (found.read_text("direct_url.json") or "").find('"editable": true') >= 0:
        yield from _editable(name, found)
        return
    if found.files is None:
        raise PackagingError(f"the package {name!r} has no list of its files: install it with pip")
    for file in found.files:
        place, path = file.as_posix(), Path(str(found.locate_file(file)))
        if place.startswith("../") or not _wanted(path, place):
            continue  # programs and manuals, which lie outside
        yield place, path


def _editable(name: str, found: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    tops = [
        top
        for top, owner in _by_module().items()
        if name in [str(canonicalize_name(one)) for one in owner]
    ]
    for top in tops or [name.replace("-", "_")]:
        spec = find_spec(top)
        if spec is None or spec.origin is None:
            raise PackagingError(f"the package {name!r} is installed editable, and cannot be found")
        origin = Path(spec.origin)
        if not spec.submodule_search_locations:
            yield origin.name, origin
            continue
        for path in sorted(origin.parent.rglob("*")):
            place = path.relative_to(origin.parents[1]).as_posix()
            if path.is_file() and _wanted(path, place):
                yield place, path
    for file in found.files or ():
        if file.name == "METADATA":
            yield file.as_posix(), Path(str(found.locate_file(file)))


def _wanted(path: Path, place: str) -> bool:
    parts = place.split("/")
    if any(part in _NEVER for part in parts) or path.suffix in (".pyc", ".pth"):
        return False
    if parts[0].endswith(".dist-info"):
        return "licenses" in parts or path.name.partition(".")[0] in {
            name.partition(".")[0] for name in _METADATA
        }
    return path.suffix not in _DEVELOPERS and path.is_file()
