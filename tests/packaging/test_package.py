"""A package as Grafana uses it: installed from its zip, started by go-plugin, used, killed."""

import decimal
import json
import marshal
import os
import platform
import pyexpat
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import uvloop

from aiostream_ds import errors
from aiostream_ds.packaging.findings import Level
from aiostream_ds.packaging.known_faults import find_faults
from aiostream_ds.packaging.package_check import check_folder
from aiostream_ds.packaging.python_files import interpreter_path
from aiostream_ds.packaging.system_packages import owner_of

from ..conformance.driver import Host, HostError
from ..conformance.test_packaged import KILL_MS
from .conftest import ROOT, Package, launcher_in, listing, unpack
from .test_sbom import check_rules

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]


async def use(host: Host, path: str, query_type: str, **fields: Any) -> None:
    """Health, a query in Arrow and three packets."""
    assert (await host.call("health"))["status"] == "OK"
    query = {"refId": "A", "queryType": query_type, "json": {"queryType": query_type, **fields}}
    answer = (await host.call("query", queries=[query]))["responses"]["A"]
    assert answer["status"] == 200, answer
    assert answer["frames"][0]["meta"]["channel"].endswith(path)
    assert (await host.call("subscribe", path=path))["status"] == "OK"
    await host.call("run", path=path, run="run")
    assert len(await host.frames("run", 3)) >= 3


async def test_an_authors_class_runs_with_the_files_that_it_needs(
    host_binary: Path, plant: Path
) -> None:
    before = listing(plant)
    async with Host(host_binary) as host:
        await host.start(launcher_in(plant), env="empty")
        await use(host, "numbers/1", "numbers")
        frame = (await host.frames("run", 4))[0]
        assert frame["fields"][-1]["values"][0] >= 102
        assert (await host.call("shutdown"))["ms"] < KILL_MS
    assert listing(plant) == before, "a new file makes a signed plugin invalid"


async def test_grafana_notices_a_killed_plugin_and_starts_it_again(
    host_binary: Path, plant: Path
) -> None:
    async with Host(host_binary) as host:
        started = await host.start(launcher_in(plant), env="empty")
        await use(host, "numbers/1", "numbers")
        os.kill(started["pid"], signal.SIGKILL)
        assert (await host.call("exited", timeout_ms=2_000))["exited"]
        await host.start(launcher_in(plant), env="empty")
        assert (await host.call("health"))["status"] == "OK"


def test_a_start_reads_one_file_with_all_modules_and_names_it_if_it_is_missing(
    plant: Path,
) -> None:
    modules, *_ = marshal.loads((plant / "start.bin").read_bytes())
    assert {"asyncio", "aiostream_ds._process.runtime", "plant", "helper"} <= modules.keys()
    (plant / "start.bin").write_bytes(b"")
    done = subprocess.run([launcher_in(plant)], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["@level"] == "error"
    assert "start.bin cannot be read (EOFError); unpack it again" in line["@message"]


def test_a_packaged_start_imports_from_that_file_only(plant: Path) -> None:
    code = (
        "from aiostream_ds._process.entry import load_runtime; load_runtime(); import marshal, sys;"
        " modules = marshal.load(open(sys.argv[1], 'rb'))[0].keys();"
        " others = set(sys.modules) - modules - set(sys.argv[2].split());"
        " files = {n: getattr(sys.modules[n], '__file__', None) or '' for n in others};"
        " print(sorted(n for n, file in files.items() if file.endswith(('.py', '.pyc'))))"
    )
    known = subprocess.run(
        [launcher_in(plant), "-c", "import runpy, sys; print(*sys.modules)"],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    done = subprocess.run(
        [launcher_in(plant), "-c", code, plant / "start.bin", known.stdout],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_every_module_in_an_archive_is_found_and_has_its_code(plant: Path) -> None:
    code = (
        "import marshal, sys; from importlib.util import find_spec;"
        " _, archived, _ = marshal.load(open(sys.argv[1], 'rb'));"
        " tops = sorted(name for name in archived if '.' not in name and name != 'antigravity');"
        " specs = [find_spec(name) for name in tops];"
        " assert all(spec.loader.get_code(spec.name) for spec in specs);"
        " import argparse, html.parser, unittest.mock, xml.dom.minidom, aiostream_ds.access;"
        " print(len(archived), argparse.__file__)"
    )
    done = subprocess.run(
        [launcher_in(plant), "-c", code, plant / "start.bin"],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    count, file = done.stdout.split()
    assert int(count) > 500
    assert file.startswith(str(plant / "rt")), "paths are those of the files that were there"


def test_the_lines_of_this_distribution_are_found_for_tracebacks(plant: Path) -> None:
    code = (
        "import linecache, aiostream_ds.errors as module;"
        " print(*linecache.getlines(module.__file__, vars(module)), sep='')"
    )
    done = subprocess.run(
        [launcher_in(plant), "-c", code], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip("\n") == Path(errors.__file__).read_text().rstrip("\n")


CHILD = """
import multiprocessing, os, sys
from math import factorial
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(pool.map(factorial, [5]), os.path.basename(sys.executable))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing_have_the_packaged_python(plant: Path, method: str) -> None:
    done = subprocess.run(
        [launcher_in(plant), "-c", CHILD, method],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[120] gpx_acme_plant_linux_")


def test_the_launcher_runs_modules_and_files_as_python_does(plant: Path, tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("import sys, asyncio\nprint(__name__, sys.argv[1:], asyncio.__name__)\n")
    (plant / "app/module.py").write_text(file.read_text())
    for words in ([file, "a"], ["-m", "module", "a"], ["-I", "-X", "dev", "-m", "module", "a"]):
        done = subprocess.run(
            [launcher_in(plant), *words], env={}, capture_output=True, text=True, check=False
        )
        assert (done.stderr, done.stdout) == ("", "__main__ ['a'] asyncio\n")


def test_a_package_is_made_in_the_current_directory(author: Path, tmp_path: Path) -> None:
    from .conftest import MAIN

    words = ["package", f"{author}:Plant", "--include", str(author.parent / "data"), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    folder, packed = (Path(line) for line in done.stdout.splitlines())
    assert folder == Path("dist/local-plant-datasource")
    assert (tmp_path / packed).is_file() and (tmp_path / folder / "plugin.json").is_file()
    left = [path.name for path in (tmp_path / "dist").iterdir()]
    assert sorted(left) == sorted([folder.name, packed.name])


def test_a_package_contains_the_imported_files_and_nothing_else(plant: Path) -> None:
    app = sorted(p.relative_to(plant / "app").as_posix() for p in (plant / "app").rglob("*.*"))
    sources = [name for name in app if not name.endswith(".pyc")]
    assert sources == ["data/start.txt", "helper.py", "plant.py"]
    packages = {path.name.partition("-")[0] for path in (plant / "py").iterdir()}
    assert {"aiostream_ds", "pyarrow", "uvloop"} <= packages
    assert not {"pip", "pytest", "numpy", "psutil", "mypy"} & packages


def test_plugin_json_is_made_from_the_class(plant: Path) -> None:
    manifest = json.loads((plant / "plugin.json").read_text())
    assert (manifest["id"], manifest["name"]) == ("acme-plant-datasource", "Plant")
    assert manifest["info"]["description"] == "Numbers of a plant, from a file."
    assert manifest["executable"] == "gpx_acme_plant"
    assert manifest["streaming"] and manifest["backend"]
    assert "- `numbers/{step:int}`" in (plant / "README.md").read_text()
    assert (plant / "LICENSE").read_text() == "MIT License\n"
    assert b"<svg" in (plant / "img/logo.svg").read_bytes()
    schema = json.loads((plant / "schema.json").read_text())
    assert schema["sources"][0]["queries"][0]["pattern"] == "numbers/{step:int}"


def test_the_built_in_package_has_the_dashboards_it_offers(
    builtin_zip: Path, tmp_path: Path
) -> None:
    folder = unpack(builtin_zip, tmp_path)
    includes = json.loads((folder / "plugin.json").read_text())["includes"]
    packaged = list((folder / "provisioning/dashboards/aiostream").glob("*.json"))
    assert len(includes) == len(packaged) > 3
    assert all((folder / one["path"]).is_file() for one in includes)
    assert (folder / "provisioning/datasources/aiostream.yaml").is_file()


def test_the_check_finds_nothing_in_the_built_in_package(builtin_zip: Path, tmp_path: Path) -> None:
    findings = check_folder(unpack(builtin_zip, tmp_path))
    assert [one for one in findings if one.level is not Level.OK] == []


def test_the_dashboards_of_an_authors_plugin_json_are_packaged(
    package: Package, author: Path, tmp_path: Path
) -> None:
    near = tmp_path / "author"
    shutil.copytree(author.parent, near)
    manifest = json.loads((ROOT / "plugin.json").read_text())
    include = {"type": "dashboard", "name": "Plant", "path": "dashboards/plant.json"}
    manifest |= {"id": "acme-plant-datasource", "includes": [include]}
    (near / "plugin.json").write_text(json.dumps(manifest))
    words = (
        near / "plant.py",
        "-o",
        tmp_path / "out",
        "--runtime",
        "host",
        "--include",
        near / "data",
    )
    refused = package(*words, check=False)
    assert refused.returncode != 0
    assert f"includes 'dashboards/plant.json', which is not in {near}" in refused.stderr
    (near / "dashboards").mkdir()
    (near / "dashboards/plant.json").write_text("{}")
    package(*words)
    assert (tmp_path / "out/acme-plant-datasource/dashboards/plant.json").read_text() == "{}"


def test_an_authors_frontend_replaces_ours(package: Package, author: Path, tmp_path: Path) -> None:
    frontend = tmp_path / "dist"
    (frontend / "img").mkdir(parents=True)
    (frontend / "module.js").write_text("no module")
    words = (author, "-o", tmp_path / "out", "--runtime", "host", "--frontend", frontend)
    refused = package(*words, check=False)
    assert refused.returncode == 1
    assert "module.js' must be an AMD module" in refused.stderr
    (frontend / "module.js").write_text("define([], () => ({}))")
    (frontend / "chunk.js").write_text("1")
    (frontend / "img/back.svg").write_text("<svg/>")
    (frontend / "plugin.json").write_text("{}")
    done = package(*words)
    assert f"{frontend / 'plugin.json'} is left out: the package has its own" in done.stderr
    (folder,) = (tmp_path / "out").glob("*-datasource")
    for name in ("module.js", "chunk.js", "img/back.svg"):
        assert (folder / name).read_text() == (frontend / name).read_text()
    assert json.loads((folder / "plugin.json").read_text())["id"] == folder.name
    assert not (folder / "module.js.map").exists()


def test_the_sbom_lists_every_package_library_and_program(plant: Path) -> None:
    bill = json.loads((plant / "sbom.cdx.json").read_text())
    check_rules(bill)
    components = {component["name"]: component for component in bill["components"]}
    expected = {"aiostream-ds", "grpclib", "pyarrow", "python", "uvloop", "libuv", "stdlib"}
    expected |= {"aiostream-ds-launcher", "openssl", "curl", "protobuf", "zstd"}  # Arrow's, too
    assert expected <= components.keys()
    assert any("libc" in name for name in components)
    own = {  # what this Python states of the libraries that may be linked into it
        "expat": pyexpat.EXPAT_VERSION.removeprefix("expat_"),
        "libmpdec": decimal.__libmpdec_version__,
    }
    files = [path.name for path in (plant / "rt/lib").iterdir()]
    for name, version in own.items():
        if not any(file.startswith((f"{name}.", f"lib{name}.")) for file in files):
            assert components[name]["version"] == version
    libuv = components["libuv"]["version"]
    assert int.from_bytes(bytes(map(int, libuv.split(".")))) == uvloop.loop.libuv_get_version()
    without = {name for name, component in components.items() if "version" not in component}
    linked = {ref for one in bill["dependencies"] for ref in one["dependsOn"] if "#" in ref}
    assert {components[name]["bom-ref"] for name in without} <= linked, "they state no version"


def test_old_versions_are_a_warning(package: Package, author: Path, tmp_path: Path) -> None:
    data = author.parent / "data"
    done = package(author, "-o", tmp_path, "--no-zip", "--quiet", "--include", data)
    owner = owner_of(interpreter_path())
    for text in find_faults("" if owner else platform.python_version(), {}):
        assert f"warning: {text}" in done.stderr.splitlines()


def test_every_file_has_one_of_two_modes_and_its_bytecode(plant_zip: Path) -> None:
    with zipfile.ZipFile(plant_zip) as archive:
        names = set(archive.namelist())
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
        modules, archived, sources = marshal.loads(archive.read("acme-plant-datasource/start.bin"))
    executables = {name for name, mode in modes.items() if stat.S_IMODE(mode) == 0o755}
    assert {stat.S_IMODE(mode) for mode in modes.values()} == {0o644, 0o755}
    assert len(executables) == 3  # launcher, loader, interpreter
    root, tag = "acme-plant-datasource/", sys.implementation.cache_tag
    assert all(name.startswith(root) for name in names)
    loaded_at_start = {root + path for _, path, _ in modules.values()}
    files = {root + path for _, path, *_ in archived.values()}  # of sources, if these are kept
    compiled = {path for path in files if path.endswith(".pyc")}
    compiled |= {f"{Path(path).parent}/__pycache__/{Path(path).stem}.{tag}.pyc" for path in files}
    assert not modules.keys() & archived.keys()
    assert not names & compiled, "bytecode exactly once"
    ours = {name for name in (*modules, *archived) if name.partition(".")[0] == "aiostream_ds"}
    assert ours == sources.keys(), "tracebacks show all lines of this distribution"
    twice = names & {path for path in loaded_at_start if path.endswith(".pyc")}
    assert root + "py/grpclib/server.py" not in names, "packages have bytecode only"
    assert {Path(path).stem for path in twice} <= BEFORE_START | {"__init__"}


BEFORE_START = {"aliases", "utf_8", "os"}
"""Modules of the standard library that Python needs before it runs start.py."""


def test_the_sizes_of_packages(plant_zip: Path, builtin_zip: Path) -> None:
    assert plant_zip.stat().st_size < 29_000_000
    assert builtin_zip.stat().st_size < 33_000_000, "with the clients of all sources"


def test_two_builds_have_equal_bytes(
    package: Package, author: Path, plant_zip: Path, tmp_path: Path
) -> None:
    data = author.parent / "data"
    package(author, "-o", tmp_path, "--id", "acme-plant-datasource", "--include", data)
    (again,) = tmp_path.glob("*.zip")
    if again.read_bytes() != plant_zip.read_bytes():
        with zipfile.ZipFile(again) as one, zipfile.ZipFile(plant_zip) as two:
            assert one.namelist() == two.namelist()
            names = [name for name in one.namelist() if one.read(name) != two.read(name)]
        pytest.fail(f"{len(names)} files differ: {names[:10]}")


async def test_the_machines_python_serves_a_package_with_runtime_host(
    host_binary: Path, package: Package, author: Path, tmp_path: Path
) -> None:
    data = author.parent / "data"
    package(author, "-o", tmp_path, "--runtime", "host", "--include", data)
    folder = tmp_path / "local-plant-datasource"
    (packed,) = tmp_path.glob("*.zip")
    assert packed.stat().st_size < 9_000_000
    assert len(list(folder.glob("gpx_local_plant_*"))) == 6
    environ = {"GF_PLUGIN_PYTHON": sys.executable}
    before = listing(folder)
    async with Host(host_binary) as host:
        await host.start(launcher_in(folder), env=environ)
        await use(host, "numbers/1", "numbers")
    assert listing(folder) == before
    bare = subprocess.run(
        [launcher_in(folder)],
        env={"GF_PLUGIN_PYTHON": "/usr/bin/python3", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if "lacks the package" in bare.stderr:  # the system's Python without our packages
        assert "-m pip install -r" in json.loads(bare.stderr)["@message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--id", "Plant"],
            "id must be ORG-NAME-datasource in lower case letters and digits, got 'Plant'",
        ),
        (["--version", "one"], "version must be like 1.2.3, got 'one'"),
        (["--address", "here"], "address must be HOST:PORT, got 'here'"),
        (["--tls"], "TLS needs the runtime 'address', got 'bundled'; use --address HOST:PORT"),
        (["--include", "/nowhere"], "expected an existing file or folder, got '/nowhere'"),
        (["--frontend", "/nowhere"], "expected an existing file, got '/nowhere/module.js'"),
        (["--with", "no-such-thing"], "the package 'no-such-thing' is not installed"),
        (["--with", "msgspec>99"], "the package 'msgspec' must be version >99, got "),
    ],
)
def test_a_failed_build_is_one_sentence_and_leaves_no_files(
    package: Package, author: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = package(author, "-o", tmp_path / "out", *words, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("aiostream-ds package: ")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_the_smoke_test_imports_the_class_whatever_the_name_of_its_file(
    package: Package, author: Path, tmp_path: Path
) -> None:
    near = tmp_path / "author"
    shutil.copytree(author.parent, near)
    (near / "plant.py").rename(near / "my-plant.py")
    done = package(near / "my-plant.py", "-o", tmp_path / "out", check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("\nadd files that the code reads with --include PATH\n")


def test_planted_links_in_the_output_folder_are_not_written_through(
    package: Package, author: Path, tmp_path: Path
) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    out.mkdir()
    (victim / "plugin.json").write_text("{}")
    words = (author, "-o", out, "--runtime", "host", "--include", author.parent / "data")
    (out / "local-plant-datasource").symlink_to(victim)
    refused = package(*words, check=False)
    assert refused.returncode == 1
    assert f"must be a folder, got a link to {str(victim)!r}; remove it" in refused.stderr
    (out / "local-plant-datasource").unlink()
    for suffix in ("zip", "part"):
        (out / f"local-plant-datasource-0.1.0.{suffix}").symlink_to(victim / "plugin.json")
    package(*words)
    assert (victim / "plugin.json").read_text() == "{}"
    assert zipfile.is_zipfile(out / "local-plant-datasource-0.1.0.zip")


def test_an_output_folder_that_cannot_be_made_is_one_sentence(
    package: Package, author: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    refused = package(author, "-o", tmp_path / "file/out", check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith("file/out cannot be made: Not a directory")


def test_a_file_with_the_name_of_a_standard_library_module_is_refused(
    package: Package, author: Path, tmp_path: Path
) -> None:
    near = tmp_path / "author"
    shutil.copytree(author.parent, near)
    (near / "plant.py").rename(near / "queue.py")
    done = package(near / "queue.py", "-o", tmp_path / "out", check=False)
    assert done.returncode == 1
    assert (
        "must not have the name of a module that Python or the runtime imports, got 'queue.py'"
        in (done.stderr)
    )


async def test_a_launcher_for_another_machine_logs_it(host_binary: Path, plant: Path) -> None:
    conf = plant / "launch.conf"
    conf.write_text(conf.read_text().replace("linux/amd64", "linux/riscv64"))
    async with Host(host_binary) as host:
        with pytest.raises(HostError):
            await host.start(launcher_in(plant), env="empty")
        log = (await host.call("logs"))["stderr"]
    assert "the package has a Python for linux/riscv64, this machine is linux/amd64" in log
