"""The wheels in a new environment: a project is made, served and packaged without this checkout."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from importlib.metadata import distributions
from pathlib import Path

import pytest

from ..requirements import require
from .conftest import ROOT
from .test_launchers import make_wheel

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with both wheels and the versions of this one."""
    require("package", shutil.which("go") is not None, "no Go toolchain for the launchers")
    folder = tmp_path_factory.mktemp("fresh")
    wheels = [
        make_wheel(ROOT, folder / "wheel"),
        make_wheel(ROOT / "launcher", folder / "launchers"),
    ]
    skipped = ("aiostream-ds", "aiostream-ds-launchers")
    pins = {one.metadata["Name"]: one.version for one in distributions()}
    lines = [f"{name}=={version}\n" for name, version in pins.items() if name not in skipped]
    (folder / "constraints.txt").write_text("".join(lines))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv/bin"
    command = [programs / "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", folder / "constraints.txt"]
    subprocess.run([*command, f"{wheels[0]}[console,package,testing]", wheels[1]], check=True)
    return programs


def run(environment: Path, folder: Path, *words: object) -> str:
    done = subprocess.run(
        [environment / "aiostream-ds", *map(str, words)],
        cwd=folder,
        env={"PATH": "/nowhere", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_project_is_made_served_and_packaged(environment: Path, tmp_path: Path) -> None:
    run(environment, tmp_path, "new", "my-source", "--reads", "code")
    project = tmp_path / "my-source"
    served = subprocess.Popen(
        [environment / "aiostream-ds", "dev", "--no-browser", "my_source.py"],
        cwd=project,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert served.stdout is not None
        lines = []
        for line in served.stdout:
            lines.append(line)
            found = re.search(r"Console\s+(http://\S+)", line)
            if found:
                break
        assert found, "".join(lines)
        with urllib.request.urlopen(found[1], timeout=30) as page:
            assert page.status == 200
            assert b"<html" in page.read().lower()
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    printed = run(environment, project, "package", "my_source.py", "--runtime", "host", "-o", "out")
    folder, packed = printed.splitlines()
    assert (project / packed).is_file()
    assert len(list((project / folder).glob("gpx_*"))) == 6
    run(environment, project, "deploy", "compose", folder, "--folder", folder)
