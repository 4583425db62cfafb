"""The plugin `shared` of a version with another format of entries."""

import runpy
from pathlib import Path

from aiostream_ds._cluster import entries

entries.PROTOCOL -= 1
runpy.run_path(str(Path(__file__).with_name("shared.py")), run_name="__main__")
