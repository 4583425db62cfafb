"""The launchers for six platforms, built from one source, in the wheel. Only those for linux/amd64
run (in other tests); the others are cross-compiled, and their headers are checked.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from aiostream_ds.packaging.elf import read_elf
from aiostream_ds.packaging.launchers import PLATFORMS

from ..conformance.driver import Host
from ..requirements import require
from .conftest import MAIN, ROOT, launcher_in
from .test_package import use

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]

MAGIC = {"linux": b"\x7fELF", "darwin": b"\xcf\xfa\xed\xfe", "windows": b"MZ"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built where Go is."""
    require("package", shutil.which("go") is not None, "no Go toolchain for the launchers")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            out,
            ROOT,
        ],
        check=True,
        env={**os.environ, "AIOSTREAM_DS_REQUIRE": "go"},
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_wheel_has_both_launchers_of_each_platform(
    wheel: Path, platform: str, tmp_path: Path
) -> None:
    system, _, machine = platform.partition("/")
    for kind in ("launch", "bridge"):
        name = f"aiostream_ds/packaging/launchers/{kind}_{system}_{machine}"
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(name, tmp_path))
        assert path.read_bytes().startswith(MAGIC[system])
        output = subprocess.run(
            ["go", "version", "-m", path], capture_output=True, text=True, check=True
        ).stdout
        assert f"GOOS={system}\n" in output and f"GOARCH={machine}\n" in output
        assert "CGO_ENABLED=0" in output
        if system == "linux":
            elf = read_elf(path)
            assert (elf.machine, elf.interpreter, elf.needed) == (machine, "", {}), "static"


def test_the_same_source_gives_the_same_launcher(tmp_path: Path) -> None:
    require("package", shutil.which("go") is not None, "no Go toolchain for the launchers")
    found = []
    for name in ("one", "two"):
        builder = ROOT / "launcher/build.py"
        command = [sys.executable, builder, tmp_path / name, "launch_linux_amd64"]
        subprocess.run(command, check=True, capture_output=True)
        found.append((tmp_path / name / "launch_linux_amd64").read_bytes())
    assert found[0] == found[1]


def test_an_installed_wheel_packages_without_go_and_checkout(
    wheel: Path, author: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
    )
    environ = {"PATH": "/nowhere", "PYTHONPATH": str(site)}
    words = [
        "package",
        author,
        "-o",
        tmp_path / "out",
        "--runtime",
        "host",
        "--include",
        author.parent / "data",
    ]
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, words)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out/local-plant-datasource"
    assert (folder / "module.js").read_bytes().startswith(b"define(")
    assert len(list(folder.glob("gpx_*"))) == len(PLATFORMS)
    builtin = subprocess.run(
        [
            sys.executable,
            "-c",
            MAIN,
            "package",
            "-o",
            str(tmp_path / "builtin"),
            "--runtime",
            "host",
        ],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert builtin.returncode == 0, builtin.stderr
    made = tmp_path / "builtin/aiostream-ds-datasource"
    assert (made / "img/logo.svg").is_file() and (made / "dashboards/host.json").is_file()


async def test_a_fresh_clone_packages_with_one_command(host_binary: Path, tmp_path: Path) -> None:
    require("package", shutil.which("go") is not None, "no Go toolchain for the launcher")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("AIOSTREAM")
    }
    done = subprocess.run(
        [clone / "scripts/package"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = clone / "dist/aiostream-ds-datasource"
    checked = subprocess.run(
        [sys.executable, "-c", MAIN, "check", folder], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    assert len(list((clone / "dist").glob("aiostream-ds-datasource-*.zip"))) == 1
    async with Host(host_binary) as host:
        await host.start(launcher_in(folder), env="empty")
        await use(host, "walk/10/1", "walk", hz=10, seed=1)
