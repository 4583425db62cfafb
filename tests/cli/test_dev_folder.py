"""`dev --grafana DIR`: the plugin's folder in Grafana's plugin folder."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from aiostream_ds.cli.dev_folder import STAMP, make_dev_folder
from aiostream_ds.cli.target import CommandError


@pytest.fixture
def plugins(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_garden.py"
    path.write_text("from aiostream_ds import DataSource\nclass Garden(DataSource): pass\n")
    return str(path)


def test_the_folder_is_a_plugin_with_the_files_name(plugins, file):
    directory = make_dev_folder(file, plugins)
    manifest = json.loads((directory / "plugin.json").read_text())
    assert manifest["id"] == directory.name == "aiostream-my-garden-datasource"
    assert manifest["backend"] and manifest["streaming"]
    assert (directory / "module.js").read_text().startswith("define(")
    (executable,) = directory.glob(f"{manifest['executable']}_*_amd64")
    assert os.access(executable, os.X_OK)


@pytest.mark.slow
def test_what_grafana_starts_runs_the_file(plugins, file):
    directory = make_dev_folder(file, plugins)
    (executable,) = directory.glob("gpx_*_amd64")
    # without Grafana's cookie it explains what it is and exits
    run = subprocess.run([executable], capture_output=True, text=True, timeout=20)
    assert run.returncode == 1 and "plugin" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's a folder", "long" * 40])
def test_what_grafana_starts_runs_a_python_of_any_path(plugins, file, tmp_path, monkeypatch, name):
    python = tmp_path / name / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    directory = make_dev_folder(file, plugins)
    (executable,) = directory.glob("gpx_*_amd64")
    run = subprocess.run([executable], capture_output=True, text=True, timeout=20)
    assert run.returncode == 1 and "plugin" in run.stderr


def test_a_plugin_json_next_to_the_file_is_used(plugins, file, tmp_path):
    own = {"type": "datasource", "id": "me-garden-datasource", "executable": "gpx_garden"}
    (tmp_path / "plugin.json").write_text(json.dumps(own))
    directory = make_dev_folder(f"{file}:Garden", plugins)
    assert directory.name == "me-garden-datasource"
    assert list(directory.glob("gpx_garden_*"))


def test_its_own_folder_is_replaced_and_another_plugin_is_not_changed(plugins, file):
    directory = make_dev_folder(file, plugins)
    (directory / "old").touch()
    assert make_dev_folder(file, plugins) == directory and not (directory / "old").exists()
    (directory / STAMP).unlink()
    with pytest.raises(CommandError, match="is another plugin"):
        make_dev_folder(file, plugins)


def test_the_plugin_folder_must_exist(tmp_path, file):
    with pytest.raises(CommandError, match="expected Grafana's plugin folder, got .*nowhere"):
        make_dev_folder(file, tmp_path / "nowhere")


@pytest.mark.parametrize("target", ["missing", "elsewhere"])
def test_a_planted_link_is_refused(plugins, file, tmp_path, target):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / STAMP).write_text("precious")
    (plugins / "aiostream-my-garden-datasource").symlink_to(tmp_path / target)
    with pytest.raises(CommandError, match="must be a folder, got a symbolic link to"):
        make_dev_folder(file, plugins)
    assert (elsewhere / STAMP).read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_one_sentence(plugins, file):
    (plugins / "aiostream-my-garden-datasource").mkdir()
    (plugins / "aiostream-my-garden-datasource" / STAMP).write_text("")
    (plugins / "aiostream-my-garden-datasource" / "gpx_dev_linux_amd64").mkdir()
    assert make_dev_folder(file, plugins).is_dir()  # its own folder is replaced with everything
    shutil.rmtree(plugins / "aiostream-my-garden-datasource")
    (plugins / "aiostream-my-garden-datasource").write_text("a file")
    with pytest.raises(CommandError):
        make_dev_folder(file, plugins)
