"""Units of packaging: manifests, projects, dependencies, ELF files and logs."""

import ast
import fcntl
import io
import ntpath
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

import pytest

from aiostream_ds import DataSource, Rows, stream
from aiostream_ds._installation import install_command
from aiostream_ds.packaging import foreign_python, package_code, python_runtime
from aiostream_ds.packaging.boilerplate import make_logo, make_readme
from aiostream_ds.packaging.dependencies import (
    _module_distributions,
    distributions_of,
    resolve,
)
from aiostream_ds.packaging.elf import drop_needed, is_elf, read_elf
from aiostream_ds.packaging.findings import (
    Finding,
    Level,
    PackagingError,
    Progress,
    megabytes,
    worst,
)
from aiostream_ds.packaging.grafana_logs import Clue, find_clues, tail
from aiostream_ds.packaging.launchers import start_file
from aiostream_ds.packaging.manifest import check_id, make_manifest
from aiostream_ds.packaging.project import Project, find_imports, read_project
from aiostream_ds.sources.builtin_plugin import SOURCES

pytestmark = pytest.mark.slow  # makes folders


class MqttSensors(DataSource):
    """Sensors of a plant,
    read from a broker.

    And more.
    """

    @stream("sensors/{name}")
    async def sensors(self, name: str) -> Rows:
        yield {"value": 1}


def project(folder: Path = Path(), **project: object) -> Project:
    return Project(folder, {}, project, (), {})


# -- plugin.json -----------------------------------------------------------------------------------


def test_a_manifest_is_made_from_the_class_alone():
    found = make_manifest(MqttSensors, project(), {}, "2030-01-31")
    assert found["id"] == "local-mqttsensors-datasource"
    assert found["name"] == "Mqtt Sensors"
    assert found["info"]["description"] == "Sensors of a plant, read from a broker."
    assert found["info"]["version"] == "0.1.0"
    assert found["info"]["author"] == {"name": "local"}
    assert found["info"]["updated"] == "2030-01-31"


def test_options_of_the_command_line_override_the_project_and_that_the_class():
    there = Project(
        Path(),
        {"id": "acme-a-datasource", "name": "A"},
        {"version": "2.0.0", "authors": [{"name": "Ada"}], "urls": {"Home": "https://a.example"}},
        (),
        {},
    )
    found = make_manifest(MqttSensors, there, {"name": "B"}, "2030-01-31")
    assert (found["id"], found["name"], found["info"]["version"]) == (
        "acme-a-datasource",
        "B",
        "2.0.0",
    )
    assert found["info"]["author"] == {"name": "Ada"}
    assert found["info"]["links"] == [{"name": "Home", "url": "https://a.example"}]


@pytest.mark.parametrize("good", ["acme-clock-datasource", "a1-2b-datasource"])
def test_an_id_has_an_organisation_a_name_and_the_word_datasource(good):
    assert check_id(good) == good


@pytest.mark.parametrize(
    "bad",
    ["", "clock", "acme-datasource", "Acme-clock-datasource", "a-b-c-datasource", "a-b-panel"],
)
def test_another_id_is_refused(bad):
    with pytest.raises(PackagingError, match=f"id must be ORG-NAME-datasource.*got {bad!r}"):
        check_id(bad)


def test_a_readme_and_a_logo_are_made_from_the_class():
    found = make_manifest(MqttSensors, project(), {}, "2030-01-31")
    assert "- `sensors/{name}` (query type `sensors`)" in make_readme(found, MqttSensors)
    assert ">MS</text>" in make_logo(found)
    assert make_logo(found) == make_logo(found)


# -- projects --------------------------------------------------------------------------------------


def test_requirements_come_from_the_project_and_from_the_file(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["anyio"]\n[tool.aiostream-ds]\nid = "a-b-datasource"\n'
    )
    (tmp_path / "LICENSE").write_text("MIT License")
    (tmp_path / "README.md").write_text("")
    (tmp_path / "src").mkdir()
    file = tmp_path / "src/a.py"
    file.write_text('# /// script\n# dependencies = ["msgspec>=0.1"]\n# ///\n')
    found = read_project(file)
    assert found.requires == ("anyio", "msgspec>=0.1")
    assert found.table["id"] == "a-b-datasource"
    assert found.texts == {"LICENSE": tmp_path / "LICENSE"}, "an empty README does not count"


def test_a_broken_pyproject_toml_is_an_error(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[")
    (tmp_path / "a.py").touch()
    with pytest.raises(PackagingError, match="expected TOML metadata"):
        read_project(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("project = 5", "project: expected object, got 5"),
        ("[project]\nversion = 1", "project.version: expected str | null, got 1"),
        ('[project]\nauthors = ["me"]', "project.authors[0]: expected object, got 'me'"),
        ('[project]\nkeywords = "a"', "project.keywords: expected array, got 'a'"),
        ('[project]\nurls = ["a"]', "project.urls: expected object, got ['a']"),
        ('[project]\ndependencies = "anyio"', "project.dependencies: expected array, got 'anyio'"),
        ("tool = 5", "tool: expected object, got 5"),
        ("[tool]\naiostream-ds = 5", "tool.aiostream-ds: expected object, got "),
        ("[tool.aiostream-ds]\nid = 5", "tool.aiostream-ds.id: expected str | null, got "),
        ("[tool.aiostream-ds]\nwith = 5", "tool.aiostream-ds.with: expected array, got "),
    ],
)
def test_a_value_of_another_type_in_pyproject_toml_is_named(tmp_path, text, message):
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "a.py").touch()
    expected = re.escape(f"{tmp_path / 'pyproject.toml'}: {message}")
    with pytest.raises(PackagingError, match=expected):
        read_project(tmp_path / "a.py")


def test_a_value_of_another_type_in_the_metadata_of_a_file_is_named(tmp_path):
    (tmp_path / "a.py").write_text('# /// script\n# dependencies = "anyio"\n# ///\n')
    expected = r"a\.py: dependencies: expected array, got 'anyio'"
    with pytest.raises(PackagingError, match=expected):
        read_project(tmp_path / "a.py")


def test_imports_are_those_of_the_file_not_of_this_process(tmp_path):
    (tmp_path / "mine.py").write_text("import anyio, inner.more\nprint('aloud')\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/__init__.py").touch()
    (tmp_path / "inner/more.py").touch()
    (tmp_path / "other.py").touch()
    found = find_imports(tmp_path / "mine.py")
    names = [path.relative_to(tmp_path).as_posix() for path in found.own]
    assert names == ["inner/__init__.py", "inner/more.py", "mine.py"]
    assert "anyio" in found.packages and "pytest" not in found.packages


def test_what_a_file_and_its_programs_print_is_not_read_as_its_imports(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import atexit, os\n"
        "os.system('echo aloud')\n"
        "atexit.register(lambda: (os.write(1, b'\\xff later'), os.write(2, b'\\xff')))\n"
    )
    assert find_imports(tmp_path / "mine.py").own == (tmp_path / "mine.py",)


def test_a_file_that_cannot_be_imported_is_one_sentence(tmp_path):
    (tmp_path / "mine.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(PackagingError, match="No module named 'no_such_module_at_all'"):
        find_imports(tmp_path / "mine.py")


def test_dependencies_are_resolved_and_extras_only_if_requested():
    names = {package.name for package in resolve(["aiostream-ds"])}
    assert {"aiostream-ds", "grpclib", "h2", "hpack", "multidict"} <= names
    assert not {"psutil", "cryptography", "pytest"} & names
    assert "psutil" in {package.name for package in resolve(["aiostream-ds[host]"])}
    assert distributions_of(["msgspec"]) == {"msgspec"}


def test_a_packaged_source_brings_its_extras(monkeypatch):
    progress = Progress(io.StringIO())
    extras = [name for name in SOURCES if name not in ("demo", "file", "recorded")]
    extras.insert(extras.index("push") + 1, "otlp")
    wanted = [f"aiostream-ds[{extra}]" for extra in extras]
    assert list(package_code._requirements_of_sources(progress)) == wanted
    assert not progress.warnings
    monkeypatch.setattr(
        package_code, "SOURCES", dict.fromkeys(("demo", "console", "testing"), "a:A")
    )
    monkeypatch.setattr(package_code, "FURTHER_EXTRAS", {"console": ("otlp",)})
    monkeypatch.setattr(package_code, "resolve", not_installed)
    assert not list(package_code._requirements_of_sources(progress))
    assert progress.warnings == [
        f"{what} will not work; first run: {install_command(extra)}"
        for what, extra in (
            ("the source 'console'", "console"),
            ("a part of the source 'console'", "otlp"),
            ("the source 'testing'", "testing"),
        )
    ]


def not_installed(wanted):
    raise PackagingError("not installed")


def test_what_is_left_out_of_packages_is_imported_by_nothing_that_is_in_them():
    source = Path(package_code.__file__).parents[1]
    names = {path: path.relative_to(source.parent).as_posix() for path in source.rglob("*.py")}
    unused = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in names.values()
        if name.startswith(package_code._UNUSED)
    }
    assert "aiostream_ds.packaging.build" in unused
    lists = [name for name in package_code._UNUSED if name.endswith(".py")]
    assert set(lists) <= set(names.values())
    for path, name in names.items():
        if not name.startswith(package_code._UNUSED):
            found = {
                node.module
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.ImportFrom)
            }
            assert not found & unused, name


def test_an_editable_package_has_its_files():
    (found,) = (package for package in resolve(["aiostream-ds"]) if package.name == "aiostream-ds")
    assert "aiostream_ds/_process/runtime.py" in found.files
    assert not any("__pycache__" in name for name in found.files)


def write_distribution(folder: Path, origin: str, *names: str) -> None:
    """A distribution `acme` whose module is in `folder`, and its `.dist-info` with these files."""
    (folder / "acme_lib.py").write_text("")
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("acme_lib\n")
    (info / "direct_url.json").write_text(origin)
    files = ["METADATA", "RECORD", "top_level.txt", "direct_url.json", *names]
    for name in names:
        (info / name).write_text("")
    (info / "RECORD").write_text("".join(f"{info.name}/{name},,\n" for name in files))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder with installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    _module_distributions.cache_clear()
    yield tmp_path
    _module_distributions.cache_clear()


@pytest.mark.parametrize(
    "origin",
    [
        '{"url": "file:///acme", "dir_info": {"editable": true}}',
        '{"url":"file:///acme","dir_info":{"editable":true}}',
    ],
)
def test_an_editable_package_is_recognised_however_its_json_is_written(installed, origin):
    write_distribution(installed, origin)
    (found,) = resolve(["acme"])
    assert set(found.files) == {"acme_lib.py", "acme-1.0.dist-info/METADATA"}


def test_licenses_are_copied_whatever_follows_in_their_names(installed):
    names = "LICENSE", "LICENSE-MIT", "LICENSE-APACHE.txt", "NOTICE.md", "entry_points.txt"
    write_distribution(installed, '{"url": "file:///acme", "dir_info": {}}', *names, "INSTALLER")
    (found,) = resolve(["acme"])
    assert {Path(name).name for name in found.files} == {"METADATA", *names}


def write_package(folder: Path, *names: str, main: str = "") -> None:
    """A distribution `acme` with the package `acme` of these files."""
    write_distribution(folder, '{"url": "file:///acme", "dir_info": {}}')
    for name in ("acme/__init__.py", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "acme/__init__.py").write_text(main)
    lines = [f"{name},,\n" for name in (*names, "acme/__init__.py", "acme-1.0.dist-info/METADATA")]
    (folder / "acme-1.0.dist-info/RECORD").write_text("".join(lines))


TESTS = ("acme/inner/tests/__init__.py", "acme/inner/tests/data/x.csv")
TEST_MODULE = "acme/inner/tests/deep/test_a.py"


def names_of(package):
    return {name for name in package.files if not name.startswith("acme-")}


def test_folders_of_tests_are_not_packaged(installed):
    write_package(installed, "acme/testing/base.py", "acme/contest/a.py", *TESTS, TEST_MODULE)
    (found,) = resolve(["acme"])
    assert names_of(found) == {"acme/__init__.py", "acme/testing/base.py", "acme/contest/a.py"}


@pytest.mark.parametrize(
    ("names", "main"),
    [
        (TESTS, ""),  # a part of the product that has this name
        ((*TESTS, TEST_MODULE), "from acme.inner.tests import data\n"),
        ((*TESTS, TEST_MODULE), "def f():\n    import acme.inner.tests\n"),
        (("tests/test_a.py",), ""),  # a top-level package
    ],
)
def test_a_folder_of_tests_that_may_be_used_is_packaged(installed, names, main):
    write_package(installed, *names, main=main)
    (found,) = resolve(["acme"])
    assert names_of(found) == {"acme/__init__.py", *names}


# -- the start of a package ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "file", "folder"),
    [(ntpath, r"C:\plugins\acme\start.py", r"C:\plugins\acme"), (posixpath, "start.py", ".")],
)
def test_the_machines_python_finds_the_folder_of_the_package(monkeypatch, paths, file, folder):
    text = start_file("host", ("clock", "Clock"), "gpx_acme_clock_windows_amd64.exe")
    monkeypatch.setattr(sys, "path", ["other"])
    with monkeypatch.context() as patched:
        patched.setattr(os, "path", paths)
        exec(text.partition("def fail")[0].replace("gc.disable()", ""), {"__file__": file})
    assert sys.path == [f"{folder}/app", f"{folder}/py", "other"]


# -- ELF files -------------------------------------------------------------------------------------

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="programs are not ELF here")


@LINUX
def test_two_builds_for_another_processor_do_not_use_the_cache_at_one_time(tmp_path):
    folder = tmp_path / "apt"
    with foreign_python._alone(folder), (folder / "lock").open("w") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with foreign_python._alone(folder):
        pass


def test_a_packaged_python_that_does_not_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(python_runtime, "_TRIAL", 0.1)
    loader = tmp_path / "loader"
    loader.write_text("#!/bin/sh\nexec sleep 60\n")
    runtime = python_runtime.Runtime("loader", "", "python", "lib", "library")
    with pytest.raises(PackagingError, match=r"does not end within 0\.1 s when it is tried"):
        python_runtime.run_python(tmp_path, runtime, "")


def test_a_dropped_library_is_no_longer_needed(tmp_path):
    import msgspec._core

    path = tmp_path / "lib.so"
    shutil.copy(msgspec._core.__file__, path)
    before = read_elf(path)
    name = next(iter(before.needed))
    assert drop_needed(path, {name, "libnothing.so"}) == {name}
    after = read_elf(path)
    assert list(after.needed) == [n for n in before.needed if n != name]
    assert path.stat().st_size == Path(msgspec._core.__file__).stat().st_size


@LINUX
def test_a_program_has_a_machine_and_a_loader():
    found = read_elf(Path(sys.executable).resolve())
    assert found.machine in ("amd64", "arm64")
    assert Path(found.interpreter).exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\x7fELF\x02\x01" + bytes(60))
    assert is_elf(path)
    path.write_text("#!/bin/sh")
    assert not is_elf(path)
    with pytest.raises(ValueError, match="expected a little-endian ELF file"):
        read_elf(path)


# -- logs ------------------------------------------------------------------------------------------

ID = "acme-clock-datasource"
HANDSHAKE = "src/aiostream_ds/_process/handshake.py"
GO_PLUGIN = (
    'logger=plugin.loader t=2024-04-15T18:49:38Z level=error msg="Could not start plugin" '
    f'pluginId={ID} err="Unrecognized remote plugin message: \n'
    "This usually means\n  the plugin was not compiled for this architecture,\n"
    "Additional notes about plugin:\n  Path: /var/lib/grafana/plugins/x\n"
    '  ELF architecture: EM_AARCH64 (current architecture: amd64)\n"\n'
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f'pluginId={ID} err="fork/exec /a/b: permission denied"', "permissions"),
        (f'pluginId={ID} err="fork/exec /a/b: exec format error"', "architecture"),
        (f'pluginId={ID} err="fork/exec /a/b: no such file or directory"', "missing file"),
        (f'logger=plugin.{ID} msg="error while loading shared libraries: libz.so.1: x"', "libc"),
        (f'logger=plugin.{ID} msg="/lib/libc.so.6: version `GLIBC_2.38\' not found"', "libc"),
        (f"pluginID={ID} status=modified", "modified"),
        (f"pluginId={ID} error=\"plugin '{ID}' has an modified signature\"", "modified"),
        (f"pluginId={ID} error=\"plugin '{ID}' has no signature\"", "unsigned"),
        (
            f'plugin={ID} msg="Could not find root URL that matches running application URL"',
            "root url",
        ),
        (f'logger=plugin.{ID} msg="dial tcp 10.0.0.1:1: connection refused"', "port"),
        (f'logger=plugin.{ID} msg="This program is a Grafana data source plugin"', "cookie"),
        (f'pluginId={ID} error="timeout while waiting for plugin to start"', "timeout"),
        (GO_PLUGIN, "architecture"),
    ],
)
def test_a_log_names_the_cause(text, cause):
    assert next(find_clues(text, ID)).cause == cause


PERMITTED = [
    f'logger=plugin.signature.validator level=warn msg="{words}" pluginId={ID}{more}'
    for words in ("Permitting unsigned plugin. This is not recommended",)
    + ("Permitting unsigned plugin. It is unsigned.",)
    for more in ("", " status=unsigned")
]
REGISTERED = f'logger=plugins.registration level=info msg="Plugin registered" pluginId={ID}'


@pytest.mark.parametrize("line", PERMITTED)
def test_a_plugin_that_grafana_permits_is_not_reported_as_unsigned(line):
    assert not list(find_clues(line, ID))


@pytest.mark.parametrize("line", [f"level=debug msg=x pluginId={ID} status=unsigned", *PERMITTED])
def test_a_registered_plugin_has_no_cause_in_its_signature_but_may_have_others(line):
    assert not list(find_clues(f"{line}\n{REGISTERED}", ID))
    refused = f'logger=plugin.{ID} level=error msg="connection refused"'
    clues = find_clues(f"{line}\n{REGISTERED}\n{refused}", ID)
    assert [clue.cause for clue in clues] == ["port"]


def test_a_log_of_another_plugin_has_no_clue():
    assert not list(find_clues("pluginId=other-one-datasource status=modified", ID))


def test_guesses_of_go_plugin_count_only_without_a_better_clue():
    assert [clue.cause for clue in find_clues(GO_PLUGIN, ID)] == ["architecture"]
    same = GO_PLUGIN.replace("EM_AARCH64", "EM_X86_64")
    assert [clue.cause for clue in find_clues(same, ID)] == ["handshake"]


def test_a_log_is_read_from_the_last_start(tmp_path):
    path = tmp_path / "grafana.log"
    path.write_text(f'pluginId={ID} status=modified\nmsg="Starting Grafana"\nlevel=info\n')
    assert not list(find_clues(tail(path), ID))
    with pytest.raises(PackagingError, match="No such file"):
        tail(tmp_path / "none")


def test_findings_are_lines_and_the_worst_counts():
    bad = Finding(Level.ERROR, "port", "no answer", "start it")
    assert str(bad).splitlines() == ["error    port: no answer", "         cure: start it"]
    assert worst([Finding(Level.OK, "a", "b"), bad]) is Level.ERROR
    assert worst([]) is Level.OK
    assert Clue("a", "b").cause == "a"
    assert (megabytes(1_500_000), megabytes(1500)) == ("1.5 MB", "1.5 kB")


@pytest.mark.parametrize(
    ("file", "start", "rest", "cause"),
    [
        (
            "launcher/conf.go",
            "the package has a Python for ",
            "a/b, this machine is c/d",
            "architecture",
        ),
        ("launcher/conf.go", "this machine has no Python in ", "/usr/bin", "python"),
        ("launcher/bridge.go", "the plugin at ", "h:1 cannot be reached: refused", "port"),
        (HANDSHAKE, "cannot bind a UNIX socket: ", "read-only", "permissions"),
        (HANDSHAKE, "This program is a Grafana data source plugin", "", "cookie"),
    ],
)
def test_messages_of_the_launcher_and_the_plugin_are_recognized(file, start, rest, cause):
    assert start in (Path(__file__).parents[2] / file).read_text("utf-8")
    assert next(find_clues(f'pluginId={ID} msg="{start}{rest}"', ID)).cause == cause
