"""The build hook for hatch: adds to a wheel the launchers for every platform, built where Go is
installed, and the files of the built-in plugin. Users of the wheel do not need Go.

If AIOSTREAM_DS_REQUIRE contains `go`, a build without Go fails.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "aiostream_ds/packaging"

BUILTIN = {
    "plugin.json": "plugin.json",
    "builtin/plugin-readme.md": "plugin-readme.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "builtin/img/logo.svg": "img/logo.svg",
    "builtin/provisioning": "provisioning",
}
"""Path in the repository → path below `packaging/builtin` in the wheel."""


class Launchers(BuildHookInterface):
    """Adds the files; an editable installation finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        include = build_data["force_include"]
        for source, target in BUILTIN.items():
            include[str(root / source)] = f"{PACKAGE}/builtin/{target}"
        if shutil.which("go") is None:
            if "go" in os.environ.get("AIOSTREAM_DS_REQUIRE", "").split(","):
                raise RuntimeError("expected go on PATH to build the launchers; install Go")
            self.app.display_warning(
                "Go is not installed: this wheel has no launchers and cannot package plugins"
            )
            return
        for path in _load_builder(root).build(root / "build/launchers"):
            include[str(path)] = f"{PACKAGE}/launchers/{path.name}"


def _load_builder(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("launchers", root / "launcher/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
