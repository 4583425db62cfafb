"""pyarrow made small: of 170 MB a plugin uses three libraries; the rest is Parquet, S3, SQL.

What is left can still be wrong for another release of pyarrow, so `build.py` tries it and takes the
whole package when it does not work. Imports `elf`.
"""

import shutil
from pathlib import Path

from aiostream_ds.packaging.elf import drop_needed, read_elf

__all__ = ["trim_arrow"]

_UNUSED = ("libarrow_substrait.", "libarrow_dataset.", "libarrow_acero.", "libparquet.")
"""Libraries that pyarrow's core is linked with and takes no symbol from."""

_FOLDERS = ("include", "includes", "src", "tests", "vendored/tests")


def trim_arrow(folder: Path) -> None:
    """Leave in pyarrow's folder what reading and writing frames takes."""
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    libraries = {path.name: path for path in folder.iterdir() if ".so" in path.name}
    unused = {name for name in libraries if name.startswith(_UNUSED)}
    reached = [name for name in libraries if name.startswith("lib.")]
    for name in reached:  # grows while it is walked
        drop_needed(libraries[name], unused)
        needed = read_elf(libraries[name]).needed
        reached += [n for n in needed if n in libraries and n not in reached]
    for name in libraries.keys() - set(reached):
        libraries[name].unlink()
