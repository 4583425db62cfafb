"""`aiostream-ds new`: each project that it writes runs at once, and its own tests pass."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aiostream_ds
from aiostream_ds import _telemetry as telemetry
from aiostream_ds.cli import main
from aiostream_ds.cli.new import KINDS, files

PACKAGE = Path(aiostream_ds.__file__).parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(telemetry, "configure", lambda *_, **__: None)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


def new(name, reads):
    assert main(["new", name, "--reads", reads]) == 0


@pytest.mark.parametrize("reads", KINDS)
def test_a_project_has_all_that_one_needs(here, reads):
    new("garden-weather", reads)
    found = {
        p.relative_to(here / "garden-weather").as_posix() for p in here.rglob("*") if p.is_file()
    }
    assert found >= {
        "garden_weather.py", "test_garden_weather.py", "pyproject.toml", "README.md", ".gitignore",
        ".github/workflows/tests.yml",
    }  # fmt: skip
    for path in here.rglob("*.*"):
        assert not path.is_file() or "{{" not in path.read_text().replace("${{ matrix", "")
    assert "class GardenWeather(" in (here / "garden-weather/garden_weather.py").read_text()


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("reads", KINDS)
def test_its_own_tests_pass(here, reads):
    new("weather", reads)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], capture_output=True, text=True,
        cwd=here / "weather", env={**os.environ, "PYTHONPATH": str(here / "weather")},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(not (PACKAGE / "cli/package.py").exists(), reason="there is no `package` yet")
@pytest.mark.parametrize("reads", KINDS)
def test_it_becomes_a_plugin_that_grafana_loads(here, reads, monkeypatch):
    new("weather", reads)
    monkeypatch.chdir(here / "weather")
    assert main(["package", "weather.py", "--runtime", "host", "--no-zip", "--quiet"]) == 0
    assert list((here / "weather/dist").glob("*/plugin.json"))
    sys.modules.pop("weather", None)


@pytest.mark.parametrize("reads", ["code", "file"])
def test_its_rows_come_at_once(here, reads, capsys):
    new("weather", reads)
    capsys.readouterr()
    os.chdir(here / "weather")
    path = {"code": "values/first", "file": "lines"}[reads]
    assert main(["tail", "weather.py", path, "--count", "2", "--json"]) == 0
    assert capsys.readouterr().out.count('"value"') == 2
    sys.modules.pop("weather", None)


@pytest.mark.parametrize("reads", KINDS)
def test_its_code_is_formatted_and_without_a_finding(here, reads):
    new("weather", reads)
    for words in (["format", "--check"], ["check", "--select", "E,F,W,I,B,UP,C4"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "100", "."],
            cwd="weather",
            capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_class_that_an_author_begins_with_has_twelve_lines():
    text = files(["weather"], "code")["weather.py"]
    (kind,) = [n for n in ast.parse(text).body if getattr(n, "name", "") == "Weather"]
    assert kind.end_lineno - kind.lineno + 1 <= 12


def test_it_asks_for_what_the_line_does_not_say(here, monkeypatch, capsys):
    answers = iter(["json", "3d", "weather", "7", "2"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert main(["new"]) == 0
    said = capsys.readouterr().out
    assert "'json' is a module of Python's" in said and "'3d' can name no project" in said
    assert "'7' is none of 1, 2, 3" in said
    assert (here / "weather/weather.ndjson").is_file()


def test_a_folder_that_is_there_is_left_alone(here, capsys):
    (here / "weather").mkdir()
    assert main(["new", "weather", "--reads", "code"]) == 1
    assert "'weather' is there already" in capsys.readouterr().err
    assert not any((here / "weather").iterdir())


@pytest.mark.parametrize("name", ["", "a b", "ü", "1st", "../x", "class", "random", "anyio"])
def test_a_name_that_cannot_be_is_refused_with_what_can(name, capsys):
    assert main(["new", name, "--reads", "code"]) == 1 if name else True
    if name:
        assert "give" in capsys.readouterr().err
