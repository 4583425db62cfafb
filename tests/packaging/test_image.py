"""Container images of packages, read by skopeo and umoci (packages of Debian)."""

import hashlib
import json
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds.packaging.archive import unpack
from aiostream_ds.packaging.image import write_image

from ..requirements import require
from .conftest import Package

pytestmark = [pytest.mark.package, pytest.mark.timeout(300)]

MANIFEST = {
    "id": "acme-plant-datasource",
    "name": "Plant",
    "executable": "gpx_acme_plant",
    "info": {"version": "1.2.3"},
}
BOTH = ("linux/amd64", "linux/arm64")


def tool(name: str) -> str:
    """The path of a program of the container tools."""
    found = shutil.which(name)
    require("images", found is not None, f"{name} is not installed: scripts/roots")
    assert found is not None
    return found


def skopeo(*words: object) -> str:
    command = [tool("skopeo"), "--insecure-policy", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file."""
    return {
        path.relative_to(folder).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Folders of two platforms."""
    found = {}
    for platform in BOTH:
        root = tmp_path / platform.replace("/", "_") / MANIFEST["id"]
        (root / "rt").mkdir(parents=True)
        (root / "plugin.json").write_text(json.dumps(MANIFEST))
        program = root / f"gpx_acme_plant_{platform.replace('/', '_')}"
        program.write_text(platform)
        program.chmod(0o755)
        (root / "rt" / f"{'long' * 40}.txt").write_text("a name that old tars cannot have")
        found[platform] = root
    return found


def test_the_same_files_give_the_same_image(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "one.tar", roots, MANIFEST)
    for root in roots.values():
        (root / "plugin.json").touch()
    write_image(tmp_path / "two.tar", roots, MANIFEST)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write_image(tmp_path / "three.tar", roots, MANIFEST)
    assert (tmp_path / "one.tar").read_bytes() != (tmp_path / "three.tar").read_bytes()


def test_every_blob_has_the_digest_of_its_name_and_the_size_of_its_descriptor(
    roots: dict[str, Path], tmp_path: Path
) -> None:
    write_image(tmp_path / "image.tar", roots, MANIFEST)
    with tarfile.open(tmp_path / "image.tar") as archive:
        archive.extractall(tmp_path / "layout", filter="data")
    for blob in (tmp_path / "layout/blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name

    def read(descriptor: dict[str, Any]) -> bytes:
        name = descriptor["digest"].replace(":", "/")
        data = (tmp_path / "layout/blobs" / name).read_bytes()
        assert len(data) == descriptor["size"]
        return data

    (outer,) = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    inner = json.loads(read(outer))["manifests"]
    assert [f"{p['platform']['os']}/{p['platform']['architecture']}" for p in inner] == list(BOTH)
    for platform in inner:
        manifest = json.loads(read(platform))
        config = json.loads(read(manifest["config"]))
        assert config["architecture"] == platform["platform"]["architecture"]
        (layer,) = manifest["layers"]
        unpacked = subprocess.run(
            ["gzip", "-dc"], input=read(layer), capture_output=True, check=True
        )
        digest = hashlib.sha256(unpacked.stdout).hexdigest()
        assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_skopeo_takes_each_platform_out_of_the_index(
    roots: dict[str, Path], tmp_path: Path, machine: str
) -> None:
    image = tmp_path / "image.tar"
    write_image(image, roots, MANIFEST)
    words = ("--override-os", "linux", "--override-arch", machine)
    skopeo(*words, "copy", f"oci-archive:{image}", f"oci:{tmp_path}/{machine}:tag")
    described = json.loads(skopeo("inspect", "--config", f"oci:{tmp_path}/{machine}:tag"))
    assert described["architecture"] == machine
    assert described["config"]["Entrypoint"] == [f"/gpx_acme_plant_linux_{machine}"]
    command = [tool("umoci"), "unpack", "--rootless", "--image", f"{tmp_path}/{machine}:tag"]
    subprocess.run([*command, tmp_path / "bundle"], check=True, capture_output=True)
    assert content(tmp_path / "bundle/rootfs") == content(roots[f"linux/{machine}"])


def test_a_copy_of_the_whole_index_has_both_platforms(
    roots: dict[str, Path], tmp_path: Path
) -> None:
    write_image(tmp_path / "image.tar", roots, MANIFEST)
    skopeo("copy", "--all", f"oci-archive:{tmp_path}/image.tar", f"dir:{tmp_path}/copy")
    copied = json.loads((tmp_path / "copy/manifest.json").read_bytes())
    assert [one["platform"]["architecture"] for one in copied["manifests"]] == ["amd64", "arm64"]


def test_docker_load_gets_the_first_platform_with_its_name(
    roots: dict[str, Path], tmp_path: Path
) -> None:
    image = tmp_path / "image.tar"
    write_image(image, roots, MANIFEST)
    name = "acme-plant-datasource:1.2.3"
    skopeo("copy", f"docker-archive:{image}:{name}", f"dir:{tmp_path}/copy")
    config = json.loads((tmp_path / "copy/manifest.json").read_bytes())["config"]["digest"]
    described = json.loads((tmp_path / "copy" / config.partition(":")[2]).read_bytes())
    assert described["architecture"] == "amd64"


def test_an_image_of_the_authors_plugin_has_the_files_of_its_zip(
    plant_zip: Path, tmp_path: Path
) -> None:
    plugin = unpack(plant_zip, tmp_path / "zip")
    manifest = json.loads((plugin / "plugin.json").read_text())
    write_image(tmp_path / "image.tar", {"linux/amd64": plugin}, manifest)
    skopeo("copy", f"oci-archive:{tmp_path}/image.tar", f"oci:{tmp_path}/layout:tag")
    command = [tool("umoci"), "unpack", "--rootless", "--image", f"{tmp_path}/layout:tag"]
    subprocess.run([*command, tmp_path / "bundle"], check=True, capture_output=True)
    assert content(tmp_path / "bundle/rootfs") == content(plugin)


def test_package_writes_one_image_for_both_processors_without_a_python(
    package: Package, author: Path, tmp_path: Path
) -> None:
    image = tmp_path / "images/plant.tar"
    words = (author, "-o", tmp_path / "out", "--include", author.parent / "data", "--oci", image)
    done = package(*words, "--runtime", "host")
    assert done.stdout.splitlines()[-1] == str(image)
    skopeo("copy", "--all", f"oci-archive:{image}", f"dir:{tmp_path}/copy")
    copied = json.loads((tmp_path / "copy/manifest.json").read_bytes())
    assert [one["platform"]["architecture"] for one in copied["manifests"]] == ["amd64", "arm64"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--platform", "linux/riscv64"), "platform must be linux/amd64, linux/arm64, linux/arm"),
        (
            ("--platform", "linux/arm64", "--runtime", "host"),
            "--platform needs --runtime bundled or --oci, got 'host'",
        ),
        (
            ("--platform", "linux/arm64", "--platform", "linux/arm64"),
            "platforms must differ, got linux/arm64, linux/arm64",
        ),
    ],
)
def test_platforms_that_cannot_be_packaged_are_named(
    package: Package, author: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = package(author, "-o", tmp_path, *words, check=False)
    assert done.returncode == 1
    assert message in done.stderr
