"""The launchers for six platforms, built from one source, in a wheel of their own. Only those for
linux/amd64 run (in other tests); the others are cross-compiled, and their headers are checked.
"""

import os
import shutil
import subprocess
import sys
import tomllib
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


def make_wheel(project: Path, out: Path) -> Path:
    """Build a wheel of a project in this checkout."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, project], check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    return make_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def launchers_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with all launchers."""
    require("package", shutil.which("go") is not None, "no Go toolchain for the launchers")
    return make_wheel(ROOT / "launcher", tmp_path_factory.mktemp("launchers"))


def test_the_wheel_is_small_and_has_the_sources_of_the_launcher(wheel: Path) -> None:
    assert wheel.stat().st_size < 2_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.name for path in (ROOT / "launcher").glob("*.go")}
    folder = "aiostream_ds/packaging/launcher"
    assert {f"{folder}/{name}" for name in (*sources, "go.mod", "build.py")} <= names


def test_both_distributions_have_one_version() -> None:
    versions = [
        tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"]["version"]
        for name in (".", "launcher")
    ]
    assert versions[0] == versions[1]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_wheel_has_both_launchers_of_each_platform(
    launchers_wheel: Path, platform: str, tmp_path: Path
) -> None:
    system, _, machine = platform.partition("/")
    for kind in ("launch", "bridge"):
        name = f"aiostream_ds_launchers/programs/{kind}_{system}_{machine}"
        with zipfile.ZipFile(launchers_wheel) as archive:
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


def install(site: Path, *wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
    subprocess.run([*command, *wheels], check=True)


def test_the_installed_wheel_builds_a_launcher_where_go_is(
    wheel: Path, author: Path, tmp_path: Path
) -> None:
    require("package", shutil.which("go") is not None, "no Go toolchain for the launcher")
    install(tmp_path / "site", wheel)
    code = "from aiostream_ds.packaging.launchers import launcher; print(launcher('linux/amd64'))"
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": os.environ["HOME"]}
    environ = {**cache, "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "cache/aiostream-ds/launchers/launch_linux_amd64"
    environ["PATH"] = "/nowhere"
    shutil.rmtree(tmp_path / "cache")
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, cwd="/"
    )
    assert "use pip install aiostream-ds-launchers==" in done.stderr


def test_launchers_of_another_version_are_refused(
    launchers_wheel: Path, wheel: Path, tmp_path: Path
) -> None:
    install(tmp_path / "site", wheel, launchers_wheel)
    (metadata,) = (tmp_path / "site").glob("aiostream_ds_launchers-*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("\nVersion: ", "\nVersion: 9"))
    code = "from aiostream_ds.packaging.launchers import launcher; launcher('linux/amd64')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert "aiostream-ds-launchers must be version 0." in done.stderr


def test_the_installed_wheels_package_without_go_and_checkout(
    wheel: Path, launchers_wheel: Path, author: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install(site, wheel, launchers_wheel)
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
