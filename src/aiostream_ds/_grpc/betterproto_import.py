"""Imports betterproto2 without `importlib.metadata`, a tenth of the time in which a plugin starts.

betterproto2 0.10 asks importlib.metadata for one text, its own version, to compare it with that of
the generated code; for this email, zipfile, csv and tempfile are loaded. Here a stand-in knows that
version from the name of the directory that the installer left beside the package, and hands every
other question to the real one. Where there is not just one such directory, betterproto2 is imported
as ever. The room's `__init__` asks for it, before a message class is imported.
Imports nothing of the project.
"""

import os
import re
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

__all__ = ["import_betterproto2"]

_METADATA = "importlib.metadata"


def import_betterproto2() -> None:
    """Import it now. Raises what its import raises."""
    version = None if _METADATA in sys.modules else _installed_version()
    if version is None:
        import_module("betterproto2")
        return
    stand_in = sys.modules[_METADATA] = _Metadata(version)
    try:
        import_module("betterproto2")
    finally:
        stand_in.leave()


class _Metadata(ModuleType):
    """Who has imported it meanwhile (pydantic, where it is installed) may keep it."""

    def __init__(self, version: str) -> None:
        super().__init__(_METADATA)
        self._version = version

    def version(self, package: str) -> str:
        return self._version if package == "betterproto2" else self.__getattr__("version")(package)

    def __getattr__(self, name: str) -> Any:
        self.leave()
        return getattr(import_module(_METADATA), name)

    def leave(self) -> None:
        if sys.modules.get(_METADATA) is self:
            del sys.modules[_METADATA]


def _installed_version() -> str | None:
    spec = PathFinder.find_spec("betterproto2")
    if spec is None or spec.origin is None:
        return None
    beside = os.listdir(os.path.dirname(os.path.dirname(spec.origin)))
    found = (re.fullmatch(r"betterproto2-([0-9][^-]*)\.dist-info", name) for name in beside)
    versions = [match[1] for match in found if match]
    return versions[0] if len(versions) == 1 else None
