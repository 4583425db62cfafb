"""What a wheel gets beside the Python: launchers for every platform, built where Go is, so that
who installs it needs none; and the files of the built-in plugin. Called by hatch.

AIOSTREAM_DS_REQUIRE with the word `go` makes a wheel without launchers a failure.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILTIN = (
    "plugin.json", "README.md", "CHANGELOG.md", "LICENSE", "img/logo.svg",
    "dashboards", "provisioning",
)  # fmt: skip
ROOM = "aiostream_ds/packaging"


class Launchers(BuildHookInterface):
    """Adds the files; an editable installation finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        wanted = build_data["force_include"]
        for name in BUILTIN:
            wanted[str(root / name)] = f"{ROOM}/builtin/{name}"
        if shutil.which("go") is None:
            if "go" in os.environ.get("AIOSTREAM_DS_REQUIRE", "").split(","):
                raise RuntimeError("the launchers need Go, which is not on PATH")
            self.app.display_warning(
                "no Go: this wheel cannot package plugins, for want of launchers"
            )
            return
        for path in _builder(root).build(root / "build/launchers"):
            wanted[str(path)] = f"{ROOM}/launchers/{path.name}"


def _builder(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("launchers", root / "launcher/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
