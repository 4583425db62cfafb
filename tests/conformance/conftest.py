"""Builds the Go programs and a package before the first test, outside of the tests' timeouts."""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..requirements import require
from .driver import BuildError, build_program, go_missing, locked

ROOT = Path(__file__).parents[2]

PROGRAMS = {
    "host_binary": "host",
    "sdk0147_binary": "sdk0147",
    "goldens": "goldens",
    "h2spec_binary": "h2spec",
}
"""The Go module of each fixture."""


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly or go_missing():
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, module in PROGRAMS.items():
        if fixture in wanted:
            with contextlib.suppress(BuildError):  # the fixture raises it again
                build_program(module)
    if "packaged" in wanted:
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            _package(_folder_of_run(session.config))


@pytest.fixture(scope="session")
def go_program() -> Callable[[str], Path]:
    """Builds a Go module of this folder, or skips the test without Go."""
    reason = go_missing()
    require("go", reason is None, reason or "")
    return build_program


@pytest.fixture(scope="session")
def host_binary(go_program: Callable[[str], Path]) -> Path:
    """The executable for ``driver.Host``."""
    return go_program("host")


@pytest.fixture(scope="session")
def sdk0147_binary(go_program: Callable[[str], Path]) -> Path:
    """Prints the protobuf declarations of Grafana 9.4's SDK."""
    return go_program("sdk0147")


@pytest.fixture(scope="session")
def h2spec_binary(go_program: Callable[[str], Path]) -> Path:
    """Runs h2spec's cases against a server."""
    return go_program("h2spec")


@pytest.fixture(scope="session")
def packaged(request: pytest.FixtureRequest) -> Path:
    """The executable in the directory that scripts/package makes, which includes Python."""
    return _package(_folder_of_run(request.config))


def _folder_of_run(config: pytest.Config) -> Path:
    """A folder of this run, which pytest removes some runs later. Its processes share it."""
    folder: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@functools.cache
def _package(folder: Path) -> Path:
    done, fresh = folder / "packaged", folder / "packaged.new"
    name = "aiostream-ds-datasource"
    with locked(folder / "packaged.lock"):
        if not done.exists():
            fresh.mkdir(exist_ok=True)  # an attempt may have failed
            environ = {**os.environ, "AIOSTREAM_DS_PYTHON": sys.executable}
            more = ["--with", "aiostream-ds[mtls]"] if find_spec("cryptography") else []
            command = [ROOT / "scripts/package", fresh / name, *more]
            subprocess.run(command, check=True, env=environ, capture_output=True)
            fresh.rename(done)
    (executable,) = (done / name).glob("gpx_aiostream_ds_*")
    return executable
