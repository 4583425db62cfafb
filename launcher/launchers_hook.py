"""The build hook for hatch of aiostream-ds-launchers: builds the programs with Go."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Launchers(BuildHookInterface):
    """Adds the programs to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from build import build

        for path in build(Path(self.root).parent / "build/launchers"):
            build_data["force_include"][str(path)] = f"aiostream_ds_launchers/programs/{path.name}"
