"""Writes the table of sizes in docs/packaging.md, from packages that it makes."""

import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from aiostream_ds.packaging.costs import parts

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/packaging.md"

CLOCK = "examples/clock.py"

PACKAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("A small class (`examples/clock.py`)", (CLOCK,)),
    ("The same with `--small`", (CLOCK, "--small")),
    ("The same for arm64", (CLOCK, "--platform", "linux/arm64")),
    ("The built-in plugin, with the clients of all sources", ()),
    ("The same with `--small`", ("--small",)),
)
"""Rows of the table: what is packaged, and the arguments of `package`."""

COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pyarrow", ("pyarrow",)),
    ("Python and libraries", ("Python, libc and system libraries",)),
    ("standard library", ("standard library", "modules of the start")),
    ("aiostream_ds", ("aiostream_ds",)),
)
"""Columns: the parts of a package that they add up. Modules of the start are of all packages, most
of the standard library and aiostream_ds."""

_TABLE = re.compile(r"(<!-- sizes -->\n).*?(<!-- end -->)", re.S)

_MAIN = "import sys; from aiostream_ds.cli import main; sys.exit(main())"


def compressed(arguments: Sequence[str]) -> dict[str, int]:
    """Make a package; returns the compressed bytes of its zip by part, and of all as "zip"."""
    with tempfile.TemporaryDirectory() as folder:
        if CLOCK in arguments:
            # outside of this project, whose dependencies are not those of a class
            shutil.copy(ROOT / CLOCK, folder)
        words = [Path(word).name if word == CLOCK else word for word in arguments]
        command = [sys.executable, "-c", _MAIN, "package", *words, "-o", "out"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        (path,) = Path(folder, "out").glob("*.zip")
        with zipfile.ZipFile(path) as archive:
            sizes = {
                entry.filename.partition("/")[2]: entry.compress_size
                for entry in archive.infolist()
            }
        return {**dict(parts(sizes)), "zip": path.stat().st_size}


def table() -> str:
    """The table, and with what it was made."""
    titles = [title for title, _ in COLUMNS]
    lines = [f"| MB | zip | {' | '.join(titles)} | others |"]
    lines.append("| --- |" + " ---: |" * (len(titles) + 2))
    for title, arguments in PACKAGES:
        found = compressed(arguments)
        cells = [sum(found.get(part, 0) for part in named) for _, named in COLUMNS]
        numbers = [found["zip"], *cells, found["zip"] - sum(cells)]
        lines.append(f"| {title} | {' | '.join(f'{number / 1e6:.1f}' for number in numbers)} |")
        print(lines[-1])
    made = (
        f"Made by `scripts/sizes` on {platform.machine()} with Python "
        f"{platform.python_version()}, pyarrow {version('pyarrow')} and libdeflate."
    )
    return "\n".join(["", *lines, "", made, ""]) + "\n"


def main() -> int:
    """The command; returns its exit status."""
    page = PAGE.read_text()
    if not _TABLE.search(page):
        print(f"expected <!-- sizes --> and <!-- end --> in {PAGE}", file=sys.stderr)
        return 1
    text = table()
    PAGE.write_text(_TABLE.sub(lambda found: found[1] + text + found[2], page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
