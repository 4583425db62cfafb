"""The packages of the operating system that installed files (dpkg)."""

import platform
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

__all__ = ["SystemPackage", "owner_of", "system_packages"]


class SystemPackage(msgspec.Struct, frozen=True, order=True):
    """A package of the operating system, or a file that none installed: only `name` is known then.

    Attributes:
        name: The package's name, or the file's.
        version, architecture, source: As dpkg states them; `source` is the source package.
        copyright: The path of its licences.
    """

    name: str
    version: str = ""
    architecture: str = ""
    source: str = ""
    copyright: str = ""

    @property
    def distribution(self) -> str:
        """The distribution's name in lower case: `debian`."""
        return _os_release().get("ID", "debian")

    @property
    def release(self) -> str:
        """The distribution and its release: `debian-12`."""
        release = _os_release()
        return "-".join(filter(None, (self.distribution, release.get("VERSION_ID", ""))))


def system_packages(
    libraries: Iterable[Path], owner: Callable[[Path], "SystemPackage | None"]
) -> list[SystemPackage]:
    """The packages that installed these libraries; an unknown library has its own name.

    `owner` is `owner_of`, or finds the packages of another machine.
    """
    return sorted({owner(path) or SystemPackage(path.name) for path in libraries})


def owner_of(path: Path) -> SystemPackage | None:
    """The package that installed a file; None if there is none, or no dpkg."""
    real = str(path.resolve())
    for name in (real, real.removeprefix("/usr"), str(path)):
        owner = _run("dpkg-query", "-S", name).partition(": ")[0]
        if owner and "," not in owner:
            wanted = "-f=${Version}\t${Architecture}\t${source:Package}"
            version, architecture, source = _run("dpkg-query", "-W", wanted, owner).split("\t")
            bare = owner.partition(":")[0]
            copyright = Path("/usr/share/doc", bare, "copyright")
            found = str(copyright) if copyright.is_file() else ""
            return SystemPackage(bare, version, architecture, source, found)
    return None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
