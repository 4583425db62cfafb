"""`aiostream-ds new`: each created project runs, and its tests pass."""

import ast
import os
import subprocess
import sys

import pytest
import yaml

from aiostream_ds import _telemetry as telemetry
from aiostream_ds.cli import main
from aiostream_ds.cli import new as cli_new
from aiostream_ds.cli.new import KINDS, make_files
from tests.servers import Postgres, Redis

pytestmark = pytest.mark.slow  # makes projects


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(telemetry, "configure", lambda *_, **__: None)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


def new(name, reads):
    assert main(["new", name, "--reads", reads]) == 0


@pytest.mark.parametrize("reads", KINDS)
def test_a_project_has_all_files(here, reads):
    new("garden-weather", reads)
    found = {
        p.relative_to(here / "garden-weather").as_posix() for p in here.rglob("*") if p.is_file()
    }
    assert found >= {
        "garden_weather.py",
        "test_garden_weather.py",
        "pyproject.toml",
        "README.md",
        "AGENTS.md",
        ".gitignore",
        ".github/workflows/tests.yml",
    }
    for path in here.rglob("*.*"):
        assert not path.is_file() or "{{" not in path.read_text().replace("${{ matrix", "")
    assert "class GardenWeather(" in (here / "garden-weather/garden_weather.py").read_text()


def test_a_link_to_nowhere_is_not_written_through(here, capsys):
    (here / "weather").symlink_to(here / "elsewhere")
    assert main(["new", "weather", "--reads", "code"]) == 1
    assert "'weather' exists; use another name" in capsys.readouterr().err
    assert not (here / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(here, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    assert main(["new", "weather", "--reads", "code"]) == 1
    text = capsys.readouterr().err
    assert text == "aiostream-ds new: 'weather' cannot be made: No space left on device\n"


def run_tests(folder, **variables):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **variables},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
    assert "Warning" not in run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("reads", KINDS)
def test_its_own_tests_pass(here, reads):
    new("weather", reads)
    run_tests(here / "weather")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "reads, kind, variable, address",
    [
        ("redis", Redis, "REDIS_URL", "redis://:{0.password}@127.0.0.1:{0.port}"),
        (
            "postgres",
            Postgres,
            "DATABASE_URL",
            "postgresql://{0.login}:{0.password}@127.0.0.1:{0.port}/{0.database}",
        ),
    ],
)
def test_its_own_tests_pass_with_a_server(here, reads, kind, variable, address):
    new("weather", reads)
    with kind() as server:
        output = run_tests(here / "weather", **{variable: address.format(server)})
    assert "skipped" not in output


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("reads", KINDS)
def test_it_can_be_packaged(here, reads, monkeypatch):
    new("weather", reads)
    monkeypatch.chdir(here / "weather")
    assert main(["package", "weather.py", "--runtime", "host", "--no-zip", "--quiet"]) == 0
    assert list((here / "weather/dist").glob("*/plugin.json"))
    sys.modules.pop("weather", None)


@pytest.mark.parametrize("reads", ["code", "file"])
def test_its_first_rows_arrive(here, reads, capsys):
    new("weather", reads)
    capsys.readouterr()
    os.chdir(here / "weather")
    path = {"code": "values/first", "file": "lines"}[reads]
    assert main(["tail", "weather.py", path, "--count", "2", "--json"]) == 0
    assert capsys.readouterr().out.count('"value"') == 2
    sys.modules.pop("weather", None)


@pytest.mark.parametrize("reads", KINDS)
def test_its_code_is_formatted_and_passes_ruff(here, reads):
    new("weather", reads)
    for words in (["format", "--check"], ["check", "--select", "E,F,W,I,B,UP,C4"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "100", "."],
            cwd="weather",
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_created_class_has_at_most_twelve_lines():
    text = make_files(["weather"], "code")["weather.py"]
    (kind,) = [n for n in ast.parse(text).body if getattr(n, "name", "") == "Weather"]
    assert kind.end_lineno - kind.lineno + 1 <= 12


def test_it_asks_for_missing_arguments(here, monkeypatch, capsys):
    answers = iter(["json", "3d", "weather", "9", "2"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert main(["new"]) == 0
    output = capsys.readouterr().out
    assert "must not be that of a module that projects import, got 'json'" in output
    assert "with a letter first, got '3d'" in output
    assert "expected a number from 1 to 7, got '9'" in output
    assert (here / "weather/weather.ndjson").is_file()


def test_an_existing_folder_is_not_changed(here, capsys):
    (here / "weather").mkdir()
    assert main(["new", "weather", "--reads", "code"]) == 1
    assert "'weather' exists" in capsys.readouterr().err
    assert not any((here / "weather").iterdir())


@pytest.mark.parametrize("reads", [name for name, kind in KINDS.items() if kind.client])
def test_a_project_names_its_client_library(here, reads, capsys, monkeypatch):
    requirement = KINDS[reads].requirement
    monkeypatch.setattr(cli_new, "find_spec", lambda name: name != KINDS[reads].client or None)
    new("weather", reads)
    assert f'"{requirement}"' in capsys.readouterr().out
    for file in ("pyproject.toml", "README.md", ".github/workflows/tests.yml"):
        assert f'"{requirement}"' in (here / "weather" / file).read_text()
    workflow = yaml.safe_load((here / "weather/.github/workflows/tests.yml").read_text())
    assert set(workflow["jobs"]["test"].get("services", ())) <= {reads}


@pytest.mark.parametrize("name", ["aiomqtt", "websockets", "redis", "asyncpg", "msgspec", "paho"])
def test_a_name_of_an_imported_library_is_refused(name, capsys):
    assert main(["new", name, "--reads", "code"]) == 1
    assert f"got {name!r}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "a b", "ü", "1st", "../x", "class", "random", "anyio"])
def test_a_wrong_name_is_refused(name, capsys):
    assert main(["new", name, "--reads", "code"]) == 1 if name else True
    if name:
        assert f"got {name!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "origin, command",
    [
        (None, 'pip install "aiostream-ds[console,testing]"'),
        (
            '{"url": "file:///a%20b", "dir_info": {"editable": true}}',
            'pip install -e "/a b[console,testing]"',
        ),
        (
            '{"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "1f"}}',
            'pip install "aiostream-ds[console,testing] @ git+https://example.org/a.git@1f"',
        ),
        (
            '{"url": "file:///w/a.whl", "archive_info": {}}',
            'pip install "aiostream-ds[console,testing] @ file:///w/a.whl"',
        ),
    ],
)
def test_the_printed_commands_work_where_aiostream_ds_was_installed_from(
    here, capsys, monkeypatch, origin, command
):
    class Installed:
        def read_text(self, name):
            return origin if name == "direct_url.json" else None

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    monkeypatch.setattr(cli_new, "find_spec", lambda name: None)
    monkeypatch.setattr(cli_new, "which", lambda name: f"/usr/bin/{name}")
    new("weather", "code")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[-3:] == ["cd weather", command, "aiostream-ds dev weather.py"]
    assert command in (here / "weather/README.md").read_text()
    monkeypatch.setattr(cli_new, "find_spec", lambda name: name)
    new("rain", "code")
    assert "pip" not in capsys.readouterr().out  # the console is there


def test_without_an_active_environment_the_commands_name_its_programs(
    here, capsys, monkeypatch, tmp_path
):
    programs = tmp_path / "my venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "aiostream-ds").touch()
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(cli_new, "which", lambda name: None)
    monkeypatch.setattr(cli_new, "find_spec", lambda name: None)
    new("weather", "code")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == f"'{programs}/aiostream-ds' dev weather.py"
    assert lines[-2].startswith(f"'{programs}/python' -m pip install ")


def test_packages_that_only_tests_need_are_named_after_the_commands(here, capsys, monkeypatch):
    monkeypatch.setattr(cli_new, "find_spec", lambda name: name if "pytest" not in name else None)
    monkeypatch.setattr(cli_new, "which", lambda name: f"/usr/bin/{name}")
    new("weather", "code")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[-3:-1] == ["aiostream-ds dev weather.py", ""]
    assert lines[-1].startswith("Its tests need further packages: pip install ")
