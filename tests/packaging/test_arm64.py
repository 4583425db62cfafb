"""A package for arm64 that was made on another processor, started under qemu as Grafana starts it.

Needs the packages qemu-user-static and binutils-aarch64-linux-gnu of Debian.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostream_ds.packaging.archive import unpack
from aiostream_ds.packaging.elf import is_elf, read_elf
from aiostream_ds.packaging.findings import Level, worst
from aiostream_ds.packaging.package_check import check_folder

from ..conformance.driver import Host
from ..requirements import require
from .conftest import Package, listing
from .emulation import arm64_command
from .test_package import use
from .test_sbom import check_rules

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def built(
    package: Package, author: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The author's plugin for arm64: its zip."""
    require("arm64", os.uname().machine == "x86_64", "it is made on x86-64")
    arm64_command()
    out = tmp_path_factory.mktemp("arm64")
    words = (author, "-o", out, "--id", "acme-plant-datasource", "--platform", "linux/arm64")
    done = package(*words, "--include", author.parent / "data")
    assert "is not installed" not in done.stderr, "the strip of arm64"
    (found,) = out.glob("*.linux_arm64.zip")
    yield found


@pytest.fixture
def plugin(built: Path, tmp_path: Path) -> Path:
    return unpack(built, tmp_path)


async def test_it_starts_answers_queries_and_streams(host_binary: Path, plugin: Path) -> None:
    before = listing(plugin)
    async with Host(host_binary) as host:
        program = plugin / "gpx_acme_plant_linux_arm64"
        await host.start(*arm64_command(), program, env="empty")
        await use(host, "numbers/1", "numbers")
        assert (await host.frames("run", 4))[0]["fields"][-1]["values"][0] >= 102
        await host.call("shutdown")
    assert listing(plugin) == before


def test_every_program_and_library_is_for_arm64(plugin: Path) -> None:
    binaries = [path for path in plugin.rglob("*") if path.is_file() and is_elf(path)]
    assert len(binaries) > 30
    assert {read_elf(path).machine for path in binaries} == {"arm64"}


def test_check_finds_no_error_in_it(plugin: Path) -> None:
    findings = list(check_folder(plugin))
    assert worst(findings) is not Level.ERROR, [str(one) for one in findings]


def test_its_sbom_and_licences_are_those_of_the_packages_for_arm64(plugin: Path) -> None:
    bill = json.loads((plugin / "sbom.cdx.json").read_text())
    check_rules(bill)
    purls = [component.get("purl", "") for component in bill["components"]]
    system = [purl for purl in purls if purl.startswith("pkg:deb/")]
    assert system and all("arch=arm64" in purl for purl in system)
    names = {component["name"] for component in bill["components"]}
    assert {"python", "libc6", "libssl3", "pyarrow", "uvloop", "libuv", "stdlib"} <= names
    assert "GNU Lesser General Public" in (plugin / "licenses/libc6.txt").read_text()


def test_it_is_below_36_mb(built: Path) -> None:
    assert built.stat().st_size < 36_000_000
