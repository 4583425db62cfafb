"""The built-in plugin's zip in root file systems without Python, like those of Grafana's images: as
another user, with an empty environment, with a real go-plugin host.

Needs root for chroot, and Debian's package musl.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiostream_ds.packaging.archive import unpack

from ..conformance.driver import Host
from ..conformance.test_packaged import KILL_MS
from ..requirements import require
from .conftest import launcher_in, listing
from .test_package import use

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]

GRAFANA = 472  # the user of its images

SLIM = ["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libresolv.so.2"]
MORE = ["libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"]
MUSL = Path("/lib/ld-musl-x86_64.so.1")
LIBRARIES = Path("/lib/x86_64-linux-gnu")
LOADER = Path("/lib64/ld-linux-x86-64.so.2")

ROOTS = {
    "static": (),  # gcr.io/distroless/static
    "slim-glibc": ("glibc",),  # what Alpine images have in addition to musl
    "musl": ("musl",),
    "musl-with-glibc": ("musl", "glibc"),  # grafana/grafana, Alpine on x86-64
    "ubuntu": ("glibc", "more"),  # grafana/grafana-oss:…-ubuntu
}


@pytest.fixture(params=ROOTS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A root file system without Python, with the libraries of an image."""
    require("roots", sys.platform.startswith("linux") and os.geteuid() == 0, "only root can chroot")
    require("roots", os.uname().machine == "x86_64", "the roots are made for x86-64")
    parts = ROOTS[request.param]
    require("roots", "musl" not in parts or MUSL.exists(), "musl is not installed: scripts/roots")
    for name in ("tmp", "lib", "lib64", "etc", "plugins"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "etc/passwd").write_text(f"grafana:x:{GRAFANA}:0::/:/bin/false\n")
    names = [*(SLIM if "glibc" in parts else []), *(MORE if "more" in parts else [])]
    for name in names:
        shutil.copyfile(LIBRARIES / name, tmp_path / "lib" / name)
    if "glibc" in parts:
        shutil.copy(LOADER, tmp_path / "lib64" / LOADER.name)
    if "musl" in parts:
        shutil.copy(MUSL, tmp_path / "lib" / MUSL.name)
    for path in tmp_path.parents:  # another user must be able to enter
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def sockets(root: Path) -> Iterator[Path]:
    """A folder with the same path inside and outside of the root."""
    name = f"aiostream-{os.getpid()}"
    inside = root / "tmp" / name
    inside.mkdir()
    os.chown(inside, GRAFANA, 0)
    outside = Path("/tmp", name)
    outside.symlink_to(inside)
    yield outside
    outside.unlink()


async def test_it_starts_answers_and_streams_without_an_installed_python(
    host_binary: Path, builtin_zip: Path, root: Path, sockets: Path
) -> None:
    plugin = unpack(builtin_zip, root / "plugins")
    before = listing(plugin)
    program = Path("/") / launcher_in(plugin).relative_to(root)
    chroot = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert chroot is not None
    async with Host(host_binary) as host:
        started = await host.start(
            chroot,
            f"--userspec={GRAFANA}:0",
            root,
            program,
            env={"PLUGIN_UNIX_SOCKET_DIR": str(sockets)},
        )
        owner = Path(f"/proc/{started['pid']}").stat()
        assert owner.st_uid == GRAFANA
        loaded = Path(f"/proc/{started['pid']}/maps").read_text()
        libraries = {line.split()[-1] for line in loaded.splitlines() if ".so" in line}
        assert all(str(plugin) in name for name in libraries), "a library of the machine is used"
        await use(host, "walk/10/1", "walk", hz=10, seed=1)
        assert (await host.call("shutdown"))["ms"] < KILL_MS
    assert listing(plugin) == before
