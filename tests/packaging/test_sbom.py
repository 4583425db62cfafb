"""The bill of materials: what is found in a package's files, and the rules of CycloneDX."""

import json
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds.packaging.go_build_info import read_go_build_info
from aiostream_ds.packaging.known_faults import find_faults
from aiostream_ds.packaging.launchers import current_platform, launcher
from aiostream_ds.packaging.linked_libraries import Library, find_declared, find_linked
from aiostream_ds.packaging.sbom import Sbom
from aiostream_ds.packaging.system_packages import SystemPackage, owner_of, system_packages

from ..requirements import require

pytestmark = pytest.mark.slow  # reads whole packages


def check_rules(document: dict[str, Any]) -> None:
    """The rules of bom-1.5.schema.json and of purls that a scanner depends on."""
    assert document["bomFormat"] == "CycloneDX" and document["specVersion"] == "1.5"
    assert uuid.UUID(document["serialNumber"].removeprefix("urn:uuid:")).version == 5
    everything = [document["metadata"]["component"], *document["components"]]
    refs = [component["bom-ref"] for component in everything]
    assert len(set(refs)) == len(refs), "a bom-ref is unique"
    for component in everything:
        assert component["type"] in ("application", "library")
        assert component["name"] and component.get("version") != ""
        assert re.fullmatch(r"pkg:[a-z]+/[!-~]+", component.get("purl", "pkg:a/a")), component
        assert re.fullmatch(r"cpe:2\.3:a(:[\w.-]+){3}(:\*){7}", component.get("cpe", CPE))
        for license in component.get("licenses", ()):
            assert license.keys() in ({"expression"}, {"license"})
    contents = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert len(contents) == len(document["dependencies"])
    assert contents.keys() | {ref for some in contents.values() for ref in some} <= set(refs)
    reached = set(contents[refs[0]])
    assert reached | {ref for one in reached for ref in contents.get(one, ())} == set(refs[1:])


CPE = "cpe:2.3:a:a:a:1:*:*:*:*:*:*:*"


@pytest.fixture
def sbom() -> Sbom:
    return Sbom("acme-plant-datasource", "1.0.0")


def components(sbom: Sbom) -> dict[str, dict[str, Any]]:
    document = json.loads(sbom.encode())
    check_rules(document)
    return {component["name"]: component for component in document["components"]}


def test_a_library_in_two_components_is_listed_once_and_belongs_to_both(sbom: Sbom) -> None:
    python = sbom.add_python("3.11.7", None)
    arrow = sbom.add_package("pyarrow", "26.0.1", "Apache-2.0")
    for parent in (python, arrow):
        sbom.add_library(Library("zlib", "1.3.2"), parent)
        sbom.add_library(Library("zstd"), parent)
    document = json.loads(sbom.encode())
    check_rules(document)
    names = [component["name"] for component in document["components"]]
    assert sorted(names) == ["pyarrow", "python", "zlib", "zstd", "zstd"]
    (zlib,) = (one for one in document["components"] if one["name"] == "zlib")
    assert zlib["cpe"] == "cpe:2.3:a:zlib:zlib:1.3.2:*:*:*:*:*:*:*"


def test_a_license_is_an_expression_or_the_stated_name(sbom: Sbom) -> None:
    sbom.add_package("a", "1", "MIT OR Apache-2.0")
    sbom.add_package("b", "1", "MIT License")
    sbom.add_package("c", "1", "")
    found = components(sbom)
    assert found["a"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert found["b"]["licenses"] == [{"license": {"name": "MIT License"}}]
    assert "licenses" not in found["c"]


def test_characters_of_versions_are_encoded_in_purls(sbom: Sbom) -> None:
    package = SystemPackage("libstdc++6", "1:12.2.0-14+deb12u1", "amd64", "gcc-12")
    sbom.add_system_package(package)
    sbom.add_package("mine", "1.0+local", "")
    found = components(sbom)
    assert re.fullmatch(
        r"pkg:deb/\w+/libstdc%2B%2B6@1:12\.2\.0-14%2Bdeb12u1"
        r"\?arch=amd64&distro=[\w.-]+&upstream=gcc-12",
        found["libstdc++6"]["purl"],
    )
    assert found["mine"]["purl"] == "pkg:pypi/mine@1.0%2Blocal"


def test_a_python_of_the_system_is_its_package_with_its_fixes(sbom: Sbom) -> None:
    owner = SystemPackage("python3.11-minimal", "3.11.2-6+deb12u6", "amd64", "python3.11")
    sbom.add_python("3.11.2", owner)
    python = components(sbom)["python"]
    assert "cpe" not in python, "the upstream version has faults that the package has not"
    assert "python3.11-minimal@3.11.2-6%2Bdeb12u6" in python["purl"]


def test_equal_contents_give_equal_bytes() -> None:
    def make() -> bytes:
        sbom = Sbom("a-b-datasource", "1")
        sbom.add_library(Library("zlib", "1"), sbom.add_python("3.11.7", None))
        return sbom.encode()

    assert make() == make()


# -- programs and libraries ------------------------------------------------------------------------


def test_the_launcher_states_its_go_and_modules(sbom: Sbom) -> None:
    require("go", shutil.which("go") is not None, "no Go toolchain for the launcher")
    path = launcher(current_platform(), bridge=True)
    printed = subprocess.check_output(["go", "version", "-m", path], text=True)
    found = read_go_build_info(path)
    assert f": go{found.go}\n" in printed
    lines = [line.split("\t") for line in printed.splitlines()]
    assert found.modules == {line[2]: line[3] for line in lines if line[1:2] == ["dep"]}
    sbom.add_launcher(path, "0.1.0")
    assert components(sbom)["stdlib"]["purl"] == f"pkg:golang/stdlib@{found.go}"


def go_program(version: str, lines: str, *, flags: int = 2) -> bytes:
    def text(data: bytes) -> bytes:
        length, head = len(data), b""
        while length >= 0x80:
            head += bytes([length & 0x7F | 0x80])
            length >>= 7
        return head + bytes([length]) + data

    head = b"\xff Go buildinf:" + bytes([8, flags]) + bytes(16)
    decoy = b"---\xff Go buildinf:"  # not aligned
    body = text(version.encode()) + text(b"<" * 16 + lines.encode() + b">" * 16)
    return decoy.ljust(32, b"-") + head + body


def test_modules_are_read_with_their_replacements(tmp_path: Path) -> None:
    path = tmp_path / "gpx"
    lines = (
        "path\tacme/plugin\nmod\tacme/plugin\t(devel)\t\n"
        "dep\tgolang.org/x/net\tv0.40.0\th1:x=\n"
        "dep\tacme/old\tv1.0.0\n=>\tacme/new\tv1.0.1\th1:y=\nbuild\t-compiler=gc\n"
    )
    path.write_bytes(go_program("go1.26.8 X:exp", lines + "build\t-x=" + "y" * 200))
    found = read_go_build_info(path)
    assert found.go == "1.26.8"
    assert found.modules == {"golang.org/x/net": "v0.40.0", "acme/new": "v1.0.1"}


@pytest.mark.parametrize("data", [b"", b"\x7fELF" + bytes(100), go_program("go1.17", "", flags=0)])
def test_a_program_that_is_not_of_go_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "gpx"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"expected a program made by Go 1\.18 or newer"):
        read_go_build_info(path)


LINKED = {
    b"OpenSSL 3.6.5 29 Sep 2026": Library("openssl", "3.6.5"),
    b"OpenSSL 1.1.1w  11 Sep 2023": Library("openssl", "1.1.1w"),
    b"libcurl/8.23.0": Library("curl", "8.23.0"),
    b" inflate 1.3.2 Copyright 1995-2026 ": Library("zlib", "1.3.2"),
    b" deflate 1.2.13 Copyright 1995-2022": Library("zlib", "1.2.13"),
    b"1.0.8, 13-Jul-2019": Library("bzip2", "1.0.8"),
    b"/opt/vcpkg/buildtrees/curl/src/url-8_23_0-7ec8cad9a3.clean/lib/x.c": Library(
        "curl", "8.23.0"
    ),
    b"/opt/vcpkg/buildtrees/re2/src/86bb745f55-648e6b982e.clean/re2.cc": Library("re2"),
    b"/opt/vcpkg/buildtrees/protobuf/src/v36.2-e8871f8b83.clean/a.cc": Library("protobuf", "36.2"),
    b"ZSTD_compress": Library("zstd"),
}


@pytest.mark.parametrize("text", LINKED)
def test_a_linked_library_is_found_by_its_text(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(b"\x7fELF\0" + text + b"\0")
    assert find_linked(path) == {LINKED[text]}


@pytest.mark.parametrize(
    "text", [b"OpenSSL 3.x", b"needs OpenSSL 3.0.0 or newer", b"1.0.8, yesterday", b"zlib/%s"]
)
def test_a_mention_of_a_library_is_not_the_library(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(text)
    assert find_linked(path) == set()


def test_components_that_a_wheel_declares_are_taken_over(tmp_path: Path) -> None:
    good = {
        "bomFormat": "CycloneDX",
        "components": [
            {
                "name": "openssl",
                "version": "4.0.3",
                "purl": "pkg:generic/openssl@4.0.3?download_url=https://x",
                "components": [{"name": "inner"}],
            },
            {"name": "cc", "version": "1", "licenses": [{"expression": "MIT"}]},
        ],
    }
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / "spdx.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    (tmp_path / "broken.json").write_text("{")
    assert find_declared(sorted(tmp_path.iterdir())) == {
        Library("openssl", "4.0.3", "pkg:generic/openssl@4.0.3"),
        Library("inner"),
        Library("cc", "1", "", "MIT"),
    }


def test_a_library_that_nobody_installed_has_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "libmine.so.1"
    path.touch()
    assert owner_of(path) is None
    assert system_packages([path, path], owner_of) == [SystemPackage("libmine.so.1")]


# -- known faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("python", "libraries", "expected"),
    [
        ("3.11.7", {}, ["Python 3.11.7"]),
        ("3.14.0rc2", {}, ["Python 3.14.0rc2"]),
        ("3.11.16", {}, []),
        ("3.14.5", {}, []),
        ("3.15.0", {"expat": "2.8.4"}, []),
        ("", {"expat": "2.8.3"}, ["expat 2.8.3"]),
        ("3.12.1", {"expat": "2.5.0", "zlib": "1.2"}, ["Python 3.12.1", "expat 2.5.0"]),
        ("", {"openssl": "1.1.1", "sqlite": ""}, ["openssl 1.1.1"]),
        ("", {}, []),
    ],
)
def test_old_versions_with_known_faults_are_named(
    python: str, libraries: dict[str, str], expected: list[str]
) -> None:
    found = list(find_faults(python, libraries))
    assert len(found) == len(expected)
    for text, name in zip(found, expected, strict=True):
        assert text.startswith(f"the package contains {name}")
        assert re.search(r"known faults such as CVE-\d{4}-\d+; package with a? ?Python", text)
