"""Python and packages for another processor than this machine's: Python and its libraries from the
packages of this machine's distribution (apt), the binary packages from their wheels (pip).

What is fetched is kept in the user's cache folder. apt and pip check it by signatures and hashes.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path

from aiostream_ds.packaging.cache import cache_folder
from aiostream_ds.packaging.dependencies import Package, package_of
from aiostream_ds.packaging.findings import PackagingError, Progress
from aiostream_ds.packaging.python_files import PythonFiles
from aiostream_ds.packaging.system_packages import SystemPackage

__all__ = ["FOREIGN", "fetch_python", "fetch_wheels", "machine_name"]

FOREIGN = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
"""Platforms that can be packaged on another one → the kernel's name of the processor."""

_WHEELS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")
"""The systems whose wheels are taken, which Debian 12 and newer can run."""


def machine_name(platform: str) -> str:
    """The kernel's name of a platform's processor.

    Raises:
        PackagingError: Packages for it can be made on such a machine only.
    """
    if platform not in FOREIGN:
        raise PackagingError(
            f"platform must be {' or '.join(FOREIGN)} or this machine's, got {platform!r}"
        )
    return FOREIGN[platform]


def fetch_python(platform: str, into: Path, progress: Progress) -> PythonFiles:
    """Fetch this version of Python for a platform, and unpack it into the folder `into`.

    Raises:
        PackagingError: A program is missing on this machine, or the distribution does not have it.
    """
    processor, architecture = machine_name(platform), platform.partition("/")[2]
    emulator = _program(f"qemu-{processor}-static", f"qemu-{processor}", package="qemu-user-static")
    for tool in ("apt-get", "dpkg-deb"):
        _program(tool, package=tool)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    owners: dict[Path, SystemPackage] = {}
    with _alone(_cache(platform) / "apt") as folder:
        debs = _download_debs(architecture, [name, "libstdc++6"], folder)
        progress.log(f"{name} for {platform}: {len(debs)} packages of the distribution")
        for deb in debs:
            owners |= _unpack(deb, into)
    folders = tuple(into / top / f"{processor}-linux-gnu" for top in ("usr/lib", "lib"))
    loader = next(
        path
        for folder in (*folders, into / "lib", into / "lib64", into / "usr/lib", into / "usr/lib64")
        for path in sorted(folder.glob("ld-linux*.so.*"))
    )
    program, standard = into / "usr/bin" / name, into / "usr/lib" / name
    version = owners[program].version.partition("-")[0].rpartition(":")[2]
    return PythonFiles(
        platform=platform,
        version=version,
        program=program,
        loader=loader,
        standard=standard,
        compiled=standard / "lib-dynload",
        library_folders=folders,
        owner_of=lambda path: owners.get(path) or owners.get(path.resolve()),
        emulator=emulator,
        strip=f"{processor}-linux-gnu-strip",
    )


def fetch_wheels(packages: Iterable[Package], platform: str, progress: Progress) -> list[Package]:
    """The packages for another platform: those with binaries from wheels of the same version.

    Raises:
        PackagingError: There is no such wheel.
    """
    packages = list(packages)
    binary = [one for one in packages if any(".so" in path.name for path in one.files.values())]
    wanted = [f"{one.name}=={one.version}" for one in binary]
    with _alone(_cache(platform) / "wheels") as folder:
        wheels = _download_wheels(wanted, platform, folder)
        for wheel in wheels:
            if not (folder / wheel.stem).is_dir():
                _unpack_wheel(wheel, folder / wheel.stem)
    progress.log(f"{len(wheels)} packages with binaries for {platform}")
    found = {}
    for wheel in wheels:
        unpacked = folder / wheel.stem
        (metadata,) = unpacked.glob("*.dist-info")
        package = package_of(Distribution.at(metadata))
        found[package.name] = package
    return [found.get(one.name, one) for one in packages]


def _program(*names: str, package: str) -> str:
    """The path of the first of these programs that is installed."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise PackagingError(
        f"expected the program {names[0]} to package for another processor; on Debian: "
        f"apt-get install {package}"
    )


def _cache(platform: str) -> Path:
    return cache_folder(platform.replace("/", "_"))


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """A folder of the cache, which no other process uses until the block ends."""
    import fcntl  # not on Windows

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def _download_debs(architecture: str, names: list[str], root: Path) -> list[Path]:
    """These packages and what they depend on, in the folder `root`.

    By an apt with state of its own: nothing is installed, and no root is needed.
    """
    for folder in ("lists/partial", "archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "status").write_bytes(b"")  # nothing is installed there: all dependencies are wanted
    options: Mapping[str, object] = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
        "Dir::State": root,
        "Dir::State::status": root / "status",
        "Dir::State::lists": root / "lists",
        "Dir::Cache": root,
        "Dir::Cache::archives": root / "archives",
        "Dir::Log": root,
    }
    command = ["apt-get", "-q", "-y"]
    command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run([*command, "update"])
    for old in (root / "archives").glob("*.deb"):
        old.unlink()  # of an older release
    _run([*command, "install", "--download-only", "--no-install-recommends", *names])
    return sorted((root / "archives").glob("*.deb"))


def _download_wheels(wanted: list[str], platform: str, folder: Path) -> list[Path]:
    processor = machine_name(platform)
    minor = f"{sys.version_info[0]}{sys.version_info[1]}"
    options = [f"--platform={system}_{processor}" for system in _WHEELS]
    options += [f"--abi={abi}" for abi in (f"cp{minor}", "abi3", "none")]
    found = []
    for one in wanted:
        to = folder / one
        if not any(to.glob("*.whl")):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--disable-pip-version-check", "--only-binary=:all:", "--implementation=cp"]
            _run([*command, f"--python-version={minor}", *options, "--dest", str(to), one])
        found += sorted(to.glob("*.whl"))
    return found


def _unpack(deb: Path, into: Path) -> dict[Path, SystemPackage]:
    """Unpack a package of the distribution; returns its files."""
    fields = "Package", "Version", "Architecture", "Source"
    text = _run(["dpkg-deb", "-f", str(deb), *fields])
    about = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    name = about["Package"]
    source = about.get("Source", name).partition(" ")[0]
    copyright = into / "usr/share/doc" / name / "copyright"
    package = SystemPackage(name, about["Version"], about["Architecture"], source, str(copyright))
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True)
    tar = into / "data.tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    tar.write_bytes(done.stdout)
    with tarfile.open(tar) as archive:
        archive.extractall(into, filter="tar")
        names = archive.getnames()
    tar.unlink()
    return {into / name.removeprefix("./"): package for name in names}


def _unpack_wheel(wheel: Path, into: Path) -> None:
    unfinished = into.with_name(f"{into.name}.{os.getpid()}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unfinished)
    for folder in sorted(unfinished.glob("*.data/*lib")):
        shutil.copytree(folder, unfinished, dirs_exist_ok=True)
    unfinished.replace(into)


def _run(command: list[str]) -> str:
    environ = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PackagingError(f"{command[0]} failed: {' '.join(lines[-2:])}")
    return done.stdout
