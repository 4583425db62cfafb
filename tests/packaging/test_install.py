"""The launcher's mode `install DIR`: for init containers, and plugin folders of other media."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..requirements import require
from .conftest import Package, launcher_in

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def packaged(package: Package, author: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package, for the machine's Python."""
    out = tmp_path_factory.mktemp("packaged")
    words = (author, "-o", out, "--id", "acme-plant-datasource", "--runtime", "host")
    package(*words, "--no-zip", "--include", author.parent / "data")
    return out / "acme-plant-datasource"


@pytest.fixture
def source(packaged: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(packaged, tmp_path / "source"))


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    return tmp_path / "plugins"


def install(folder: Path, *words: object, umask: int = 0o077) -> subprocess.CompletedProcess[str]:
    command = [launcher_in(folder), "install", *map(str, words)]
    return subprocess.run(command, env={}, umask=umask, capture_output=True, text=True, check=False)


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mode,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in folder.rglob("*")
    }


def test_it_copies_the_package_with_its_modes(source: Path, plugins: Path) -> None:
    done = install(source, plugins)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{plugins}/acme-plant-datasource\n"
    assert content(plugins / "acme-plant-datasource") == content(source)
    assert [path.name for path in plugins.iterdir()] == ["acme-plant-datasource"]
    assert (plugins / "acme-plant-datasource").stat().st_mode & 0o777 == 0o755


def test_it_replaces_an_older_version_and_its_files(source: Path, plugins: Path) -> None:
    install(source, plugins)
    (plugins / "acme-plant-datasource/old.txt").write_text("")
    manifest = json.loads((source / "plugin.json").read_text())
    manifest["info"]["version"] = "2.0.0"
    (source / "plugin.json").write_text(json.dumps(manifest))
    assert install(source, plugins).returncode == 0
    assert content(plugins / "acme-plant-datasource") == content(source)


def test_it_does_not_copy_what_is_next_to_the_package(source: Path, plugins: Path) -> None:
    (source / "proc").mkdir()
    (source / "etc").mkdir()
    (source / "etc/hosts").write_text("of a container")
    assert install(source, plugins).returncode == 0
    names = {path.name for path in (plugins / "acme-plant-datasource").iterdir()}
    assert "plugin.json" in names and not {"proc", "etc"} & names


def test_it_runs_in_a_container_that_has_only_the_package(source: Path, tmp_path: Path) -> None:
    require("roots", os.geteuid() == 0, "only root can chroot")
    (source / "target").mkdir()
    command = ["/usr/sbin/chroot", source, f"/{launcher_in(source).name}", "install", "/target"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    copied = content(source / "target/acme-plant-datasource")
    shutil.rmtree(source / "target")
    assert copied == content(source)


def test_media_that_do_not_execute_programs_are_refused(source: Path, plugins: Path) -> None:
    require("roots", os.geteuid() == 0 and sys.platform == "linux", "only root can mount")
    script = (
        'mount -t tmpfs -o noexec none "$2" && "$1" install "$2"; status=$?; '
        'ls -A "$2"; exit $status'
    )
    command = ["unshare", "-m", "sh", "-c", script, "sh", launcher_in(source), plugins]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), "nothing is left"
    assert f"programs in {plugins} cannot be started: " in done.stderr
    assert done.stderr.endswith("permission denied; use a folder that is not mounted with noexec\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected the plugin folder, got 0 arguments: gpx_acme_plant_linux_amd64 install DIR"),
        (("/nowhere",), 'expected an existing folder, got "/nowhere"'),
        (("{source}/..",), "exists and is not a plugin; remove it"),
    ],
)
def test_a_wrong_folder_is_one_sentence(
    source: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    require("package", os.uname().machine == "x86_64", "the message names the program for amd64")
    (tmp_path / "acme-plant-datasource").mkdir()
    done = install(source, *(word.format(source=source) for word in words))
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1
