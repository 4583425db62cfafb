"""`dev --grafana DIR`: the plugin's folder in a Grafana's folder of plugins."""

import json
import os
import subprocess

import pytest

from aiostream_ds.cli.link import MARK, link
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
    directory = link(file, plugins)
    manifest = json.loads((directory / "plugin.json").read_text())
    assert manifest["id"] == directory.name == "aiostream-my-garden-datasource"
    assert manifest["backend"] and manifest["streaming"]
    assert (directory / "module.js").read_text().startswith("define(")
    (executable,) = directory.glob(f"{manifest['executable']}_*_amd64")
    assert os.access(executable, os.X_OK)


def test_what_grafana_starts_runs_the_file(plugins, file):
    directory = link(file, plugins)
    (executable,) = directory.glob("gpx_*_amd64")
    # without Grafana's cookie it says what it is, and how it is to be started
    run = subprocess.run([executable], capture_output=True, text=True, timeout=20)
    assert run.returncode == 1 and "plugin" in run.stderr


def test_a_plugin_json_beside_the_file_is_taken(plugins, file, tmp_path):
    own = {"type": "datasource", "id": "me-garden-datasource", "executable": "gpx_garden"}
    (tmp_path / "plugin.json").write_text(json.dumps(own))
    directory = link(f"{file}:Garden", plugins)
    assert directory.name == "me-garden-datasource"
    assert list(directory.glob("gpx_garden_*"))


def test_what_was_made_here_is_made_anew_and_another_plugin_is_left_alone(plugins, file):
    directory = link(file, plugins)
    (directory / "old").touch()
    assert link(file, plugins) == directory and not (directory / "old").exists()
    (directory / MARK).unlink()
    with pytest.raises(CommandError, match="is a plugin already"):
        link(file, plugins)


def test_without_a_folder_of_plugins_nothing_is_made(tmp_path, file):
    with pytest.raises(CommandError, match="there is no folder"):
        link(file, tmp_path / "nowhere")
