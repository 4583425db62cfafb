"""The build hook for hatch: adds the files of the built-in plugin to a wheel, and the sources of
the launchers, which `aiostream-ds package` builds where Go is installed. The distribution
aiostream-ds-launchers has them built (pyproject.toml in this folder).
"""

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


class BuiltinFiles(BuildHookInterface):
    """Adds the files; an editable installation finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        include = build_data["force_include"]
        for source, target in BUILTIN.items():
            include[str(root / source)] = f"{PACKAGE}/builtin/{target}"
        for path in (*(root / "launcher").glob("*.go"), root / "launcher/go.mod"):
            include[str(path)] = f"{PACKAGE}/launcher/{path.name}"
        include[str(root / "launcher/build.py")] = f"{PACKAGE}/launcher/build.py"
