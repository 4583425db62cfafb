"""Versions of Python and of the libraries in it that have known faults, for a warning: the
author of a package ships them.

The versions are those of November 2026. Those of a distribution are not compared: it adds fixes to
old versions.
"""

from collections.abc import Iterator, Mapping

from packaging.version import InvalidVersion, Version

__all__ = ["find_faults"]

_PYTHON_FAULT = "CVE-2026-6100"
_PYTHON = {"3.11": "3.11.16", "3.12": "3.12.14", "3.13": "3.13.14", "3.14": "3.14.5"}
"""Minor version → the first release that fixes _PYTHON_FAULT."""

_LIBRARIES = {
    "expat": ("2.8.4", "CVE-2026-76641"),
    "openssl": ("3.0.15", "CVE-2024-5535"),
    "sqlite": ("3.50.2", "CVE-2025-6965"),
}
"""Library → the first version that fixes a fault, and that fault."""


def find_faults(python: str, libraries: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each old version. `python` is "" if a distribution maintains it, and
    `libraries` are those that no distribution maintains: name → version, "" if unknown."""
    minor = ".".join(python.split(".")[:2])
    if _is_older(python, _PYTHON.get(minor, "")):
        yield (
            f"the package contains Python {python}, which has known faults such as "
            f"{_PYTHON_FAULT}; package with Python {_PYTHON[minor]} or newer"
        )
    for name, (fixed, fault) in _LIBRARIES.items():
        version = libraries.get(name, "")
        if _is_older(version, fixed):
            yield (
                f"the package contains {name} {version} in its Python, which has known faults such "
                f"as {fault}; package with a Python that has {name} {fixed} or newer"
            )


def _is_older(version: str, fixed: str) -> bool:
    try:
        return Version(version) < Version(fixed)
    except InvalidVersion:
        return False
