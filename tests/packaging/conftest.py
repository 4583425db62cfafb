"""Packages that are made once for all tests: the built-in plugin and an author's, as zips."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiostream_ds.packaging.archive import unpack

from ..conformance.conftest import go_program, host_binary  # noqa: F401  (fixtures)
from ..requirements import require

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from aiostream_ds.cli import main; sys.exit(main())"

AUTHOR = '''
"""A plant's sensors, with a helper module and a file that it reads."""

# /// script
# dependencies = ["msgspec"]
# ///

from pathlib import Path

import anyio

from aiostream_ds import DataSource, Row, Rows, Settings, stream
from helper import doubled

START = int((Path(__file__).parent / "data" / "start.txt").read_text())


class Place(Settings):
    offset: int = 0


class Reading(Row):
    value: int


class Plant(DataSource[Place]):
    """Numbers of a plant, from a file.

    This is not part of the description.
    """

    @stream("numbers/{step:int}")
    async def numbers(self, step: int = 1) -> Rows[Reading]:
        value = START + self.settings.offset
        while True:
            value += doubled(step)
            yield Reading(value=value)
            await anyio.sleep(0.05)
'''

Package = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def author(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An author's file, in a folder with the files that it needs."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "plant.py").write_text(AUTHOR)
    (folder / "helper.py").write_text("def doubled(n):\n    return 2 * n\n")
    (folder / "unused.py").write_text("raise RuntimeError\n")
    (folder / "data").mkdir()
    (folder / "data/start.txt").write_text("100")
    (folder / "LICENSE").write_text("MIT License\n")
    return folder / "plant.py"


@pytest.fixture(scope="session")
def package() -> Package:
    """Runs `aiostream-ds package`; skips the test if it cannot work."""
    linux = sys.platform.startswith("linux")
    require("package", linux, "packages with their own Python are made on Linux")
    require("package", shutil.which("go") is not None, "no Go toolchain for the launcher")

    def run(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "package", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def plant_zip(package: Package, author: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The author's plugin, packaged."""
    out = tmp_path_factory.mktemp("plant")
    package(author, "-o", out, "--id", "acme-plant-datasource", "--include", author.parent / "data")
    (found,) = out.glob("*.zip")
    return found


@pytest.fixture(scope="session")
def builtin_zip(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in plugin, packaged."""
    out = tmp_path_factory.mktemp("builtin")
    package("-o", out)
    (found,) = out.glob("*.zip")
    return found


@pytest.fixture
def plant(plant_zip: Path, tmp_path: Path) -> Path:
    """The author's plugin, installed in this test's folder."""
    return unpack(plant_zip, tmp_path)


def launcher_in(folder: Path) -> Path:
    """The executable that Grafana would start here."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    (found,) = folder.glob(f"gpx_*_linux_{machine}")
    return found


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The size, mode and modification time of every file."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(p): (about.st_size, about.st_mode, about.st_mtime_ns) for p, about in found}
