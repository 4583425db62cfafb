"""The public API under strict mypy and pyright: right uses pass, wrong uses are errors."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.requirements import require

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
FILES = ["good.py", "tables.py", "wrong.py"]
Report = dict[tuple[str, int], str]
"""The error of a type checker for each file and line."""


def mypy(folder: Path) -> Report:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", ""),
            *("--cache-dir", str(folder), "--no-error-summary", "--hide-error-context"),
            *("--no-pretty", *FILES),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and not run.stderr, run.stdout + run.stderr
    found = re.finditer(r"^(\w+\.py):(\d+): error: (.*)$", run.stdout, re.M)
    return {(each[1], int(each[2])): each[3] for each in found}


def pyright(folder: Path) -> Report:
    (folder / "pyrightconfig.json").write_text(json.dumps({"include": FILES}))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--project", str(folder)),
            *("--pythonpath", sys.executable, "--outputjson"),
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
        for each in json.loads(run.stdout)["generalDiagnostics"]
        if each["severity"] == "error"
    }


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    check: Callable[[Path], Report] = request.param
    folder = tmp_path_factory.mktemp("typing")
    for name in FILES:
        shutil.copy(HERE / name, folder)
    return check(folder)


def test_right_uses_pass(report: Report) -> None:
    assert {line: text for (name, line), text in report.items() if name == "good.py"} == {}


def test_tables_of_libraries_with_types_pass(report: Report) -> None:
    for library in ("polars", "duckdb"):
        require(library, find_spec(library) is not None, f"{library} is not installed")
    assert {line: text for (name, line), text in report.items() if name == "tables.py"} == {}


def test_exactly_the_lines_with_a_wrong_use_are_errors(report: Report) -> None:
    lines = (HERE / "wrong.py").read_text().splitlines()
    wrong = {number: line for number, line in enumerate(lines, 1) if "# wrong: " in line}
    errors = {line: text for (name, line), text in report.items() if name == "wrong.py"}
    missing = {line: text for line, text in wrong.items() if line not in errors}
    unexpected = {line: text for line, text in errors.items() if line not in wrong}
    assert (missing, unexpected) == ({}, {})
    assert len(wrong) >= 40
