"""Imports betterproto2 without `importlib.metadata`, whose import is a tenth of a plugin's start.

betterproto2 0.10 asks importlib.metadata for its own version, to compare it with that of the
generated code; for this email, zipfile, csv and tempfile are imported. Here a substitute module,
which is in `sys.modules` during that import only, answers with the version in the name of the
`.dist-info` directory, and passes everything else to the real module. Only the start of a plugin
process does this: `import aiostream_ds` does not.
"""

import os
import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["import_betterproto2"]

_METADATA = "importlib.metadata"


def import_betterproto2() -> None:
    """Import betterproto2. Uses the real importlib.metadata when it is imported already, or when
    there is not exactly one `.dist-info` directory. Raises what the import raises."""
    version = None if _METADATA in sys.modules else _installed_version()
    if version is None:
        import_module("betterproto2")
        return
    substitute = sys.modules[_METADATA] = _Metadata(version)
    try:
        import_module("betterproto2")
    finally:
        substitute.remove()


class _Metadata(ModuleType):
    """The substitute. A module that has imported it meanwhile (pydantic, where it is installed) may
    keep it."""

    def __init__(self, version: str) -> None:
        super().__init__(_METADATA)
        self._version = version

    def version(self, package: str) -> str:
        return self._version if package == "betterproto2" else self.__getattr__("version")(package)

    def __getattr__(self, name: str) -> Any:
        self.remove()
        return getattr(import_module(_METADATA), name)

    def remove(self) -> None:
        if sys.modules.get(_METADATA) is self:
            del sys.modules[_METADATA]


def _installed_version() -> str | None:
    # every finder: a package has the modules of its start in one file, which PathFinder cannot read
    found_by = (finder.find_spec("betterproto2", None) for finder in sys.meta_path)
    spec = next((spec for spec in found_by if spec is not None), None)
    if spec is None or spec.origin is None:
        return None
    names = os.listdir(os.path.dirname(os.path.dirname(spec.origin)))
    found = (re.fullmatch(r"betterproto2-([0-9][^-]*)\.dist-info", name) for name in names)
    versions = [match[1] for match in found if match]
    return versions[0] if len(versions) == 1 else None
