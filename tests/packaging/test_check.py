"""`aiostream-ds check`: each fault that is made in a package is found, and none in a good one."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest

from aiostream_ds import DataSource, Rows, stream
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds.cli import main
from aiostream_ds.packaging.contract_check import default_channels
from aiostream_ds.packaging.findings import Finding, Level, PackagingError
from aiostream_ds.packaging.package_check import check_folder

from .conftest import MAIN, ROOT, Package, launcher_in

pytestmark = pytest.mark.slow  # starts plugins

IDENTIFIER = "local-plant-datasource"
SEVEN = UUID(int=7)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a package, with a launcher that does not run."""
    folder = tmp_path_factory.mktemp("good") / IDENTIFIER
    folder.mkdir()
    manifest = json.loads((ROOT / "plugin.json").read_text())
    (folder / "plugin.json").write_text(json.dumps({**manifest, "id": IDENTIFIER}))
    for name in ("module.js", "module.js.map"):
        shutil.copy(ROOT / "src/aiostream_ds/static" / name, folder)
    (folder / "schema.json").write_text('{"version": 1, "sourceSetting": null, "sources": []}')
    for name in ("CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "README.md").write_text("# Plant\n")
    (folder / "img").mkdir()
    shutil.copy(ROOT / "builtin/img/logo.svg", folder / "img")
    (folder / "gpx_aiostream_ds_linux_amd64").write_text("#!/bin/sh\n")
    (folder / "gpx_aiostream_ds_linux_amd64").chmod(0o755)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / IDENTIFIER)


def faults(folder: Path, **options: str) -> list[Finding]:
    return [f for f in check_folder(folder, **options) if f.level is not Level.OK]


def test_a_good_package_has_no_fault(folder: Path) -> None:
    assert faults(folder) == []


def manifest(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "plugin.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def info(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "plugin.json"
        found = json.loads(path.read_text())
        found["info"] |= changes
        path.write_text(json.dumps(found))

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def mode(name: str, mode: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).chmod(mode)


def default(kind: str, **described: object) -> Callable[[Path], None]:
    """A stream whose path has one field of this kind."""
    properties = {"n": described}
    stream = {"name": "numbers", "kind": "stream", "pattern": f"numbers/{{n:{kind}}}"}
    stream |= {"fields": {"n": kind}, "schema": {"properties": properties}}
    document = {"version": 1, "sourceSetting": None, "sources": [{"name": "", "queries": [stream]}]}
    return write("schema.json", json.dumps(document))


def signed(**content: object) -> Callable[[Path], None]:
    start, end = "-----BEGIN PGP SIGNED MESSAGE-----\n\n", "\n-----BEGIN PGP SIGNATURE-----"
    return write("MANIFEST.txt", f"{start}{json.dumps(content)}{end}")


FAULTS = {
    "no manifest": (remove("plugin.json"), "plugin.json", "No such file"),
    "broken manifest": (write("plugin.json", "{"), "plugin.json", "expected JSON"),
    "bad id": (
        manifest(id="Plant"),
        "plugin.json",
        "id must be ORG-NAME-datasource in lower case, got 'Plant'",
    ),
    "two parts": (manifest(id="plant-datasource"), "plugin.json", "id must be ORG-NAME-datasource"),
    "other type": (manifest(type="panel"), "plugin.json", "type must be 'datasource', got 'panel'"),
    "no backend": (manifest(backend=False), "plugin.json", "'backend' is missing"),
    "no streaming": (manifest(streaming=False), "plugin.json", "'streaming' is not true"),
    "name is id": (manifest(name=IDENTIFIER), "plugin.json", "name must be a title"),
    "bad version": (info(version="1.0"), "plugin.json", "version must be like 1.2.3, got '1.0'"),
    "no date": (
        info(updated="today"),
        "plugin.json",
        "updated must be like 2030-01-31, got 'today'",
    ),
    "no keywords": (info(keywords=[]), "plugin.json", "'info.keywords' is empty"),
    "no dependency": (manifest(dependencies={}), "plugin.json", "grafanaDependency"),
    "no logo": (remove("img/logo.svg"), "logos", "img/logo.svg does not exist"),
    "logo is text": (
        info(logos={"small": "LICENSE", "large": "LICENSE"}),
        "logos",
        "expected an image (.svg, .png, .jpg, .jpeg, .gif, .webp), got LICENSE",
    ),
    "script in logo": (write("img/logo.svg", "<svg><script/></svg>"), "logos", "contains a script"),
    "no module": (remove("module.js"), "frontend", "module.js does not exist"),
    "other module": (write("module.js", "export {}"), "frontend", "must be an AMD module"),
    "no schema": (remove("schema.json"), "frontend", "schema.json: No such file or directory"),
    "bad schema": (write("schema.json", "[]"), "frontend", "schema.json: expected object, got []"),
    "other schema": (
        write("schema.json", '{"version": 2, "sourceSetting": null, "sources": []}'),
        "frontend",
        "schema.json: version: expected one of 1, got 2",
    ),
    "bad source": (
        write("schema.json", '{"version": 1, "sourceSetting": null, "sources": [{"name": 5}]}'),
        "frontend",
        "schema.json: sources[0].name: expected str, got 5",
    ),
    "deep schema": (write("schema.json", "[" * 100_000), "frontend", "schema.json: "),
    "schema is a folder": (
        lambda f: ((f / "schema.json").unlink(), (f / "schema.json").mkdir()),
        "frontend",
        "schema.json: Is a directory",
    ),
    "default of another type": (
        default("int", default="x"),
        "frontend",
        "numbers: the default of 'n' in numbers/{n:int} must be an integer, got 'x'",
    ),
    "default without a place in a path": (
        default("segment", default="a/b"),
        "frontend",
        "must be of letters, digits and the characters _ - = ., and not '', '.' or '..', got 'a/b'",
    ),
    "default that is not a date": (
        default("date", default="today"),
        "frontend",
        "must be of the form of 2000-01-01, got 'today'",
    ),
    "default that is not allowed": (
        default("int", default=5, enum=[1, 10]),
        "frontend",
        "the default of 'n' in numbers/{n:int} must be one of [1, 10], got 5",
    ),
    "bad info": (manifest(info=[]), "plugin.json", "info: expected object | null, got []"),
    "bad logos": (info(logos=5), "plugin.json", "info.logos: expected object | null, got 5"),
    "broken source": (
        write(
            "schema.json",
            '{"version": 1, "sourceSetting": "source",'
            ' "sources": [{"name": "s", "error": "needs x"}]}',
        ),
        "frontend",
        "the source 's': needs x",
    ),
    "no readme": (remove("README.md"), "texts", "README.md is missing or empty"),
    "comment": (write("README.md", "<!-- x -->"), "texts", "README.md has comments"),
    "dead image": (
        write("README.md", "![A panel](docs/img/panel.png) [site](https://example.org) [up](#top)"),
        "texts",
        "expected complete URLs, got docs/img/panel.png",
    ),
    "dead link": (
        write("CHANGELOG.md", "`[code](a.md)`, [more](docs/more.md#new)"),
        "texts",
        "CHANGELOG.md is shown on the plugin's page in Grafana",
    ),
    "unknown licence": (
        write("LICENSE", "do what you want"),
        "texts",
        "not one that the validator knows",
    ),
    "no executable": (
        remove("gpx_aiostream_ds_linux_amd64"),
        "executables",
        "expected an executable gpx_",
    ),
    "wrong mode": (
        mode("gpx_aiostream_ds_linux_amd64", 0o775),
        "executables",
        "must be 0755, got 0775",
    ),
    "cut program": (
        lambda f: (f / "gpx_aiostream_ds_linux_amd64").write_bytes(b"\x7fELF" + bytes(20)),
        "executables",
        "expected a little-endian ELF file, got ",
    ),
    "absolute executable": (
        manifest(executable="/usr/bin/gpx"),
        "plugin.json",
        "executable must be the name of a file in the package, got '/usr/bin/gpx'",
    ),
    "folder as an executable": (
        lambda f: (f / "gpx_aiostream_ds_linux_arm64").mkdir(0o755),
        "executables",
        "gpx_aiostream_ds_linux_arm64 must be a file, got a folder",
    ),
    "executable that cannot be read": (
        lambda f: (f / "gpx_aiostream_ds_linux_arm64").symlink_to("nowhere"),
        "executables",
        "gpx_aiostream_ds_linux_arm64: No such file or directory",
    ),
    "debugger": (write("standalone.txt", "x"), "files", "standalone.txt is left from a debugger"),
    "second plugin": (write("app/plugin.json", "{}"), "files", "as a second plugin"),
    "backslash": (write("app\\x.py", ""), "files", "characters that signing on Windows breaks"),
    "writable": (mode("module.js", 0o666), "files", "module.js is writable by everybody"),
    "link": (lambda f: (f / "x").symlink_to("LICENSE"), "files", "x is a symbolic link"),
    "no signature": (write("MANIFEST.txt", "x"), "signature", "expected a signed manifest"),
    "signed without files": (signed(files=[]), "signature", "files: expected object, got []"),
    "signed for a number": (signed(files={}, rootUrls=5), "signature", "rootUrls: expected array"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(folder: Path, name: str) -> None:
    make_fault, subject, text = FAULTS[name]
    make_fault(folder)
    found = faults(folder)
    assert any(f.subject == subject and text in f.text for f in found), found


def test_a_link_with_a_broken_address_is_not_a_link_to_a_file(folder: Path) -> None:
    write("README.md", "[Open](http://[YOUR-HOST:3000/)")(folder)
    assert faults(folder) == []


def test_a_manifest_signed_on_windows_is_an_error(folder: Path) -> None:
    body = json.dumps({"files": {"img\\logo.svg": ""}, "signatureType": "private", "rootUrls": []})
    (folder / "MANIFEST.txt").write_text(
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{body}\n-----BEGIN PGP SIGNATURE-----"
    )
    found = faults(folder, root_url="http://localhost:3000/")
    assert any("as signing on Windows writes them" in f.text for f in found)
    assert any("expected a signature for http://localhost:3000/" in f.text for f in found)


@pytest.mark.parametrize("names", [["a/x", "b/x"], ["a/../../x"]])
def test_a_zip_that_grafana_would_refuse_is_refused(tmp_path: Path, names: list[str]) -> None:
    from aiostream_ds.packaging.archive import unpack

    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    with pytest.raises(PackagingError):
        unpack(path, tmp_path / "out")


def check(*words: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "check", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_package_without_an_executable_is_not_started(folder: Path) -> None:
    manifest(executable="")(folder)
    status, output = check(folder)
    assert status == 1
    assert "'executable' is missing: Grafana would start no process" in output


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PermissionError(13, "Permission denied", "a"), 1, "[Errno 13] Permission denied: 'a'\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys, error, status: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("aiostream_ds.cli.check.check_folder", fail)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert main(["check", str(folder)]) == status
    text = capsys.readouterr().err
    assert text == (message and f"aiostream-ds check: the check cannot go on: {message}")


def test_a_class_is_checked_over_grpc() -> None:
    status, text = check(ROOT / "examples/clock.py", "--path", "ticks/10")
    assert status == 0, text
    for line in (
        "start: handshake",
        "health",
        "unknown path: refused",
        "query ticks/10",
        "stream ticks/10: first row",
        "metrics",
        "end: the process ended",
    ):
        assert f"ok       {line}" in text


@pytest.mark.slow
def test_a_class_that_fails_is_an_error_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from aiostream_ds import DataSource, Health, Rows, stream\n"
        "class Bad(DataSource):\n"
        "    async def health(self): return Health(ok=False, message='no broker')\n"
        "    @stream('rows')\n"
        "    async def rows(self) -> Rows:\n"
        "        raise RuntimeError('a bug')\n"
        "        yield {}\n"
    )
    status, text = check(tmp_path / "bad.py", "--quiet")
    assert status == 1
    assert "error    health: 'no broker'" in text
    (line,) = (line for line in text.splitlines() if line.startswith("error    stream rows"))
    assert "stream failed: RuntimeError: a bug" in line
    assert "ok " not in text


@pytest.mark.package
@pytest.mark.timeout(300)
def test_a_package_is_checked_as_installed(
    package: Package, author: Path, plant_zip: Path, tmp_path: Path
) -> None:
    status, text = check(plant_zip, "--set", "offset=5")
    assert status == 0, text
    assert "ok       folder: unchanged while it ran" in text
    with zipfile.ZipFile(plant_zip) as archive:
        archive.extractall(tmp_path)  # without the modes
    broken = tmp_path / "acme-plant-datasource"
    status, text = check(broken)
    assert status == 1
    assert f"the mode of {launcher_in(broken).name} must be 0755, got 0644" in text
    assert "error    start: fork/exec" in text


def test_a_default_text_is_encoded_in_the_path_that_is_checked():
    # `net/{nic:any}` with the default "all"
    query = {
        "kind": "stream",
        "name": "net",
        "pattern": "net/{nic:any}/{n:int}",
        "fields": {"nic": "any", "n": "int"},
        "schema": {"properties": {"nic": {"default": "all"}, "n": {"default": 1}}},
    }
    (channel,) = default_channels({"sources": [{"name": "", "queries": [query]}]}, {})
    assert channel.path == "net/YWxs/1"


def test_defaults_of_every_kind_are_written_as_in_a_path() -> None:
    class Defaults(DataSource):
        @stream
        async def all(
            self,
            day: date = date(2026, 1, 31),
            id: UUID = SEVEN,
            side: Literal["a/b", "c"] = "a/b",
            fast: bool = False,
            limit: float = 1,
            host: str | None = None,
        ) -> Rows:
            yield {"v": 1}

        @stream("mail/{login:user}")
        async def mail(self, login: str) -> Rows:
            yield {"v": 1}

        @stream
        async def needs(self, host: str) -> Rows:
            yield {"v": 1}

    (channel,) = default_channels(describe(Catalog(Defaults)), {})
    assert channel.path == "all/2026-01-31/00000000-0000-0000-0000-000000000007/YS9i/false/1.0/-"
    assert Defaults._ds_plan.match(channel.path)[0].name == "all"
