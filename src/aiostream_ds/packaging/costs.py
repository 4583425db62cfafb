"""What the parts of a package cost: bytes by part, from bytes by file."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

from aiostream_ds.packaging.findings import megabytes

__all__ = ["describe_costs", "describe_large", "part_of", "parts"]

_LARGE = 10_000_000
"""Bytes, unpacked, from which a package of Python is large."""

_NOTABLE = 100  # a part below a hundredth of the whole is not listed


def part_of(name: str) -> str:
    """The part that a file belongs to, by its path in the package."""
    top, _, rest = name.partition("/")
    if top == "py":
        folder = rest.partition("/")[0]
        return "packages' metadata" if folder.endswith(".dist-info") else _package(folder)
    if top == "rt":
        is_module = rest.partition("/")[2].startswith("python") and "/" in rest.partition("/")[2]
        return "standard library" if is_module else "Python, libc and system libraries"
    if top.startswith("gpx_"):
        return "launcher"
    if name == "start.bin":
        return "modules of the start"
    return "your files" if top == "app" else "frontend, texts, dashboards, licences"


def _package(folder: str) -> str:
    return folder.partition(".")[0]


def parts(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """Part and bytes, the largest first; `sizes` is path in the package → bytes."""
    found: Counter[str] = Counter()
    for name, size in sizes.items():
        found[part_of(name)] += size
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def describe_costs(sizes: Mapping[str, int]) -> str:
    """One line: the parts that are at least a hundredth of the whole, and the others together."""
    found = parts(sizes)
    least = sum(sizes.values()) // _NOTABLE
    named = [(name, size) for name, size in found if size >= least]
    rest = sum(size for _, size in found) - sum(size for _, size in named)
    texts = [f"{name} {megabytes(size)}" for name, size in named]
    return ", ".join([*texts, f"others {megabytes(rest)}"] if rest else texts)


def describe_large(folder: Path, sizes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Each large package in the unpacked package `folder`, with what would leave it out.

    `sizes` is path in the package → bytes.
    """
    packages = Counter({part_of(name): 0 for name in sizes if name.startswith("py/")})
    for name, size in sizes.items():
        if name.startswith("py/"):
            packages[part_of(name)] += size
    needed_by = _needed_by(folder)
    for name, size in packages.most_common():
        if size < _LARGE:
            break
        if name == "pyarrow":
            if any((folder / "py/pyarrow").glob("_compute.*")):
                yield (
                    f"pyarrow takes {megabytes(size)}, with its parts for computing and files",
                    "mention pyarrow in no file of yours, and use no package that does (pandas); "
                    "without --whole-arrow it then takes 45 MB",
                )
            continue
        by = ", ".join(needed_by.get(canonicalize_name(name), ())) or "your files or --with"
        yield (
            f"{name} takes {megabytes(size)}, needed by {by}",
            "leave it out, or run the plugin in a container of its own, with --address",
        )


_REQUIREMENT = re.compile(r"^Requires-Dist: ([\w.-]+)(?!.*\bextra\b)", re.M)


def _needed_by(folder: Path) -> dict[str, list[str]]:
    """Package → the packages that require it, from the metadata of all."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "py").glob("*.dist-info/METADATA")):
        name = path.parent.name.partition("-")[0]
        for required in _REQUIREMENT.findall(path.read_text("utf-8", "replace")):
            found.setdefault(canonicalize_name(required), []).append(name)
    return found
