"""What cannot be packaged, unpacked or checked is one sentence with the bad value."""

import io
import os
import re
import struct
import zipfile
from pathlib import Path

import pytest

from aiostream_ds.cli.target import CommandError, parse_pairs
from aiostream_ds.packaging import archive
from aiostream_ds.packaging.archive import build_time, unpack, write_zip
from aiostream_ds.packaging.boilerplate import read_markdown
from aiostream_ds.packaging.build_config import BuildConfig
from aiostream_ds.packaging.diagnosis import Installation
from aiostream_ds.packaging.findings import PackagingError, Progress
from aiostream_ds.packaging.host_checks import ProcessUser, read_launch_conf
from aiostream_ds.packaging.manifest import read_complete_manifest, read_manifest
from aiostream_ds.packaging.package_code import write_author_files
from aiostream_ds.packaging.package_layout import package_manifest
from aiostream_ds.packaging.project import Imports, Project, read_project
from aiostream_ds.packaging.signature import matches_root
from tests.kinds import Kinds

from .conftest import Package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]  # makes folders and packages


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


# -- zips ------------------------------------------------------------------------------------------


def test_a_zip_has_at_most_as_many_files_as_its_format_can_count(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    folder.mkdir()
    for number in range(65_536):
        (folder / str(number)).touch()
    with pytest.raises(PackagingError, match=r"at most 65,535 files, got 65,536 files"):
        write_zip(folder, tmp_path / "plugin.zip")


@pytest.mark.parametrize(
    ("limit", "got"), [(1, r"got 4 bytes in .*plugin/a/b1;"), (50, r"got more, up to .*a/b1;")]
)
def test_a_zip_has_at_most_as_many_bytes_as_its_format_can_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, got: str
) -> None:
    monkeypatch.setattr(archive, "_LIMIT", limit)
    folder = files(tmp_path / "plugin", "a/b1", "a/b2", "a/b3")
    with pytest.raises(PackagingError, match=f"a zip must be below 4 GB .*{got}"):
        write_zip(folder, tmp_path / "plugin.zip")


def damaged(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("plugin/plugin.json", "{}" * 100)
    data = bytearray(path.read_bytes())
    start = 30 + len("plugin/plugin.json")
    data[start : start + 4] = bytes(4)
    path.write_bytes(data)


def wrong_sum(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("plugin/plugin.json", "{}")
    path.write_bytes(path.read_bytes().replace(b"{}", b"[]"))


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("plugin/plugin.json", "{}")
    data = bytearray(path.read_bytes())
    for place in (6, data.index(b"PK\1\2") + 8):
        (flags,) = struct.unpack_from("<H", data, place)
        struct.pack_into("<H", data, place, flags | 1)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(b"no zip"), damaged, wrong_sum, encrypted]
)
def test_a_zip_that_cannot_be_unpacked_is_an_error(tmp_path: Path, make) -> None:
    make(tmp_path / "plugin.zip")
    with pytest.raises(PackagingError, match=r"plugin\.zip: expected a zip that can be unpacked: "):
        unpack(tmp_path / "plugin.zip", tmp_path / "out")


def test_a_zip_whose_folder_is_a_file_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "plugin.zip", "w") as written:
        written.writestr("plugin", "")
        written.writestr("plugin/plugin.json", "{}")
    with pytest.raises(PackagingError, match=r"plugin\.zip: expected a zip that can be unpacked: "):
        unpack(tmp_path / "plugin.zip", tmp_path / "out")


@pytest.mark.parametrize("bad", ["yesterday", "-1", "1e9", "4354819200"])
def test_a_date_that_a_zip_cannot_have_is_an_error(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", bad)
    message = f"SOURCE_DATE_EPOCH must be seconds since 1970, at most 4354819199, got {bad!r}"
    with pytest.raises(PackagingError, match=re.escape(message)):
        build_time()


# -- files of an author ----------------------------------------------------------------------------


def include(folder: Path, path: Path, app: Path) -> set[str]:
    """The packaged files of a folder with a.py, with `path` included."""
    file = files(folder, "a.py") / "a.py"
    write_author_files(app, file, Imports((file,), frozenset()), [path])
    return {p.relative_to(app).as_posix() for p in app.rglob("*") if p.is_file()}


@pytest.mark.parametrize("out", ["dist/.package-1/acme-a-datasource", ".package-1/a"])
def test_an_included_folder_may_have_the_package_that_is_made(tmp_path: Path, out: str) -> None:
    files(tmp_path, "data/one.txt", "dist/old.zip")
    found = include(tmp_path, tmp_path, tmp_path / out / "app")
    expected = {"a.py", "data/one.txt"}
    assert found == (expected if out.startswith("dist") else {*expected, "dist/old.zip"})


def test_a_file_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    folder = files(tmp_path / "author", "data/one.txt")
    (folder / "data/two.txt").symlink_to("nowhere")
    with pytest.raises(PackagingError, match=r"--include .*data cannot be copied: .*two\.txt: "):
        include(folder, folder / "data", tmp_path / "app")


def test_a_name_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    folder = files(tmp_path / "author", "data/one.txt")
    try:
        (folder / "data" / os.fsdecode(b"gr\xf6\xdfe")).touch()
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    with pytest.raises(PackagingError, match=r"names of files must be UTF-8, got b'gr\\xf6\\xdfe'"):
        include(folder, folder / "data", tmp_path / "app")


def test_names_of_all_languages_are_packaged(tmp_path: Path) -> None:
    folder = files(tmp_path / "author", "data/größe.txt", "data/温度.txt")
    assert include(folder, folder / "data", tmp_path / "app") >= {"data/größe.txt", "data/温度.txt"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_requirements_are_found_whatever_the_encoding_of_the_file(
    tmp_path: Path, encoding: str
) -> None:
    text = '# /// script\n# dependencies = ["anyio"]\n# ///\nSIZE = "größe"\n'
    if encoding == "latin-1":
        text = f"# -*- coding: latin-1 -*-\n{text}"
    (tmp_path / "a.py").write_text(text, encoding)
    assert read_project(tmp_path / "a.py").requires == ("anyio",)


def test_texts_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Größe", "latin-1")
    with pytest.raises(PackagingError, match=r"README\.md: expected UTF-8: .*0xf6"):
        read_markdown(tmp_path / "README.md")
    (tmp_path / "pyproject.toml").write_text("# Größe", "latin-1")
    (tmp_path / "a.py").touch()
    with pytest.raises(PackagingError, match=r"pyproject\.toml: expected UTF-8: .*0xf6"):
        read_project(tmp_path / "a.py")


COMPLETE = """
{"id": "acme-a-datasource", "name": "A", "executable": "gpx_a",
 "info": {"version": "1.0.0", "description": "d", "author": {"name": "me"}, "logos": {}}}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"executable": "gpx_a",', "", "executable is missing"),
        ('"id": "acme-a-datasource",', "", "id is missing"),
        ('"acme-a-datasource"', "5", "id: expected str, got 5"),
        ('"version": "1.0.0",', "", "info.version is missing"),
        ('"version": "1.0.0"', '"version": 1', "info.version: expected str | null, got 1"),
        ('"logos": {}', '"logos": ["a.svg"]', "info.logos: expected object | null, got ['a.svg']"),
        ('"gpx_a",', '"gpx_a", "includes": [5],', "includes[0]: expected object, got 5"),
        (
            '"acme-a-datasource"',
            '"../a"',
            "id must be ORG-NAME-datasource in lower case letters and digits, got '../a'",
        ),
        (
            '"1.0.0"',
            '"%VERSION%"',
            "info: version must be like 1.2.3, got '%VERSION%'",
        ),
    ],
)
def test_an_authors_plugin_json_has_what_a_package_is_made_from(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "plugin.json"
    path.write_text(COMPLETE)
    assert read_complete_manifest(path)["name"] == "A"
    path.write_text(COMPLETE.replace(old, new))
    with pytest.raises(PackagingError, match=re.escape(f"{path}: {message}")):
        read_complete_manifest(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected object, got []"),
        ("{}", "id is missing"),
        pytest.param("[" * 100_000, "expected JSON: ", id="deep"),
        ("\xff", "expected JSON: "),
        (
            '{"id": "a", "executable": "/usr/bin/gpx_a"}',
            "executable must be the name of a file in the package, got '/usr/bin/gpx_a'",
        ),
    ],
)
def test_any_plugin_json_is_read_or_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plugin.json"
    path.write_text(text, "latin-1")
    with pytest.raises(PackagingError, match=re.escape(f"{path}: {message}")):
        read_manifest(path)


def test_the_built_in_plugin_is_packaged_with_an_id_that_grafana_accepts() -> None:
    config = BuildConfig(target=Kinds, given={"id": "Plant"})
    with pytest.raises(PackagingError, match="id must be ORG-NAME-datasource .* got 'Plant'"):
        package_manifest(config, None, Progress(io.StringIO()))


@pytest.mark.parametrize("given", [{}, {"version": "2.0.0"}, {"id": None, "name": ""}])
def test_an_authors_plugin_json_that_an_option_replaces_is_a_warning(
    tmp_path: Path, given: dict[str, str | None]
) -> None:
    file = files(tmp_path, "a.py") / "a.py"
    (tmp_path / "plugin.json").write_text(COMPLETE)
    progress = Progress(io.StringIO())
    config = BuildConfig(target=Kinds, file=file, given=given)
    found = package_manifest(config, Project(tmp_path, {}, {}, (), {}), progress)
    if "version" in given:
        warning = f"{tmp_path}/plugin.json is not used, because of --version; write the value"
        assert progress.warnings[0].startswith(warning)
        assert found["info"]["version"] == "2.0.0"
    else:
        assert (found["id"], progress.warnings) == ("acme-a-datasource", [])


# -- options ---------------------------------------------------------------------------------------


def test_a_folder_is_no_file_of_certificates(tmp_path: Path) -> None:
    config = BuildConfig(target=Kinds, runtime="address", address="a:1", ca=tmp_path)
    with pytest.raises(PackagingError, match=f"expected an existing file, got {str(tmp_path)!r}"):
        config.validated()


@pytest.mark.package
def test_a_folder_is_no_archive_of_an_image(package: Package, author: Path, tmp_path: Path) -> None:
    done = package(author, "-o", tmp_path / "out", "--oci", tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(f"--oci must name a file, got the folder {str(tmp_path)!r}\n")


@pytest.mark.package
def test_a_file_that_cannot_be_replaced_is_named_and_the_package_stays(
    package: Package, author: Path, tmp_path: Path
) -> None:
    words = (author, "-o", tmp_path, "--address", "plugin:10000", "--tls")
    folder = tmp_path / "local-plant-datasource"
    package(*words, "--no-zip")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (tmp_path / "local-plant-datasource-0.1.0.zip").mkdir()
    done = package(*words, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(
        r"the package cannot be written: .*local-plant-datasource-0\.1\.0\.zip'$", last
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("urls", [None, [], ["http://[localhost"]])
def test_a_signature_without_root_urls_is_for_none(urls: list[str] | None) -> None:
    assert not matches_root({"rootUrls": urls}, "http://localhost:3000/")
    assert not matches_root({"rootUrls": urls}, "http://[other")


# -- files of an installation ----------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_grafana_ini_is_read_whatever_its_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "plugin.json").write_text('{"id": "a"}')
    config = tmp_path / "grafana.ini"
    config.write_text("[server]\nroot_url = http://a/\n# Größe\n[b]\n", encoding)
    user = ProcessUser(0, frozenset())
    found = Installation(tmp_path, user=user, config=config, environ={})
    assert found.grafana_setting("server", "root_url") == "http://a/"


def test_a_launch_conf_is_read_whatever_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "launch.conf").write_text("# Größe\nruntime = bundled\n", "latin-1")
    assert read_launch_conf(tmp_path) == {"runtime": "bundled"}


# -- settings of the command line ------------------------------------------------------------------


def test_a_setting_is_utf_8_and_a_deep_one_is_a_text() -> None:
    assert parse_pairs(["a=" + "[" * 100_000]) == {"a": "[" * 100_000}
    with pytest.raises(CommandError, match=r"expected KEY=VALUE in UTF-8, got 'a=gr\\udcf6"):
        parse_pairs([os.fsdecode(b"a=gr\xf6\xdfe")])
