"""The machine, looked at with the eyes of the Grafana that is to start a package: may it be run, is
everything there that it needs, does somebody listen where it says. Imports `words`, `elf`.
"""

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from aiostream_ds._process.standalone import ADDRESS_FILE, PID_FILE
from aiostream_ds.packaging.elf import is_elf, read_elf
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.grafana_logs import Clue
from aiostream_ds.packaging.launchers import here

__all__ = ["Reader", "conf_of", "look_at_address_file", "look_at_executable", "look_at_port"]

CONNECT_TIMEOUT = 2.0
"""Seconds for a connection to a plugin elsewhere."""


class Reader(NamedTuple):
    """The user that Grafana runs as; root may do everything."""

    uid: int
    groups: frozenset[int]

    def may(self, path: Path, right: int) -> bool:
        """Whether the file's mode allows it; `right` is os.R_OK, os.X_OK or both."""
        about = path.stat()
        if self.uid == 0:
            return not right & os.X_OK or path.is_dir() or bool(about.st_mode & 0o111)
        if about.st_uid == self.uid:
            bits = about.st_mode >> 6
        else:
            bits = about.st_mode >> 3 if about.st_gid in self.groups else about.st_mode
        return bits & right == right


def conf_of(folder: Path) -> dict[str, str]:
    """launch.conf of a package; empty when it has none."""
    try:
        lines = (folder / "launch.conf").read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def look_at_executable(folder: Path, start: str, reader: Reader) -> Iterator[Clue]:
    """Why the system would not run it: the wrong machine, a missing loader, no right."""
    path = folder / f"{start}_{here().replace('/', '_')}"
    if not path.is_file():
        others = ", ".join(sorted(p.name for p in folder.glob(f"{start}_*"))) or "none"
        yield Clue("architecture", f"{path.name} is not there; there are: {others}")
        return
    try:
        yield from _may_run(path, folder, reader)
        yield from _fits(path)
        conf = conf_of(folder)
        if conf.get("runtime") == "bundled":
            loader = folder / conf.get("loader", "rt")
            if not loader.is_file():
                yield Clue("not whole", f"{conf.get('loader')} is not there")
            else:
                yield from _may_run(loader, folder, reader)
                yield from _fits(loader)
            if conf.get("platform") != here():
                yield Clue(
                    "architecture",
                    f"the Python inside is for {conf.get('platform')}, this machine is {here()}",
                )
    except PermissionError as error:
        yield Clue("permissions", f"{error.filename} cannot even be read by who asks")


def _may_run(path: Path, top: Path, reader: Reader) -> Iterator[Clue]:
    for folder in reversed(path.parents):
        if not reader.may(folder, os.X_OK):
            yield Clue("permissions", f"user {reader.uid} may not enter {folder}")
            return
    mode = stat.S_IMODE(path.stat().st_mode)
    if not reader.may(path, os.R_OK | os.X_OK):
        name = path.relative_to(top)
        yield Clue("permissions", f"user {reader.uid} may not run {name}, its mode is {mode:04o}")
    elif hasattr(os, "statvfs") and os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 8):
        yield Clue("permissions", f"nothing can be run in the file system of {path}: noexec")


def _fits(path: Path) -> Iterator[Clue]:
    if not is_elf(path):
        yield from _script_fits(path)
        return
    try:
        elf = read_elf(path)
    except ValueError as error:
        yield Clue("not whole", str(error))
        return
    machine = here().rpartition("/")[2]
    if elf.machine != machine:
        yield Clue("architecture", f"{path.name} is made for {elf.machine}, this is {machine}")
    elif elf.interpreter and not Path(elf.interpreter).exists():
        yield Clue("libc", f"{path.name} needs the loader {elf.interpreter}, which is not there")


def _script_fits(path: Path) -> Iterator[Clue]:
    with path.open("rb") as file:
        first = file.readline(512).decode("utf-8", "replace").strip()
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        yield Clue("architecture", f"{path.name} is no program for Linux")
    elif not Path(words[0]).exists():
        yield Clue("python", f"{path.name} asks for {words[0]}, which is not there")
    elif words[0].endswith("/env"):
        yield Clue("python", f"{path.name} asks for {first}: newer Grafanas pass no PATH")


def look_at_address_file(folder: Path) -> Iterator[Clue]:
    """Whether a debugger left its address here: Grafana talks to nobody then."""
    path = folder / ADDRESS_FILE
    if not path.is_file():
        return
    address = path.read_text("utf-8", "replace").strip()
    why = ""
    try:
        pid = int((folder / PID_FILE).read_text("utf-8"))
        os.kill(pid, 0)
    except FileNotFoundError:
        why = _refused(address)
    except ProcessLookupError:
        why = "the process of pid.txt is gone"
    except (PermissionError, ValueError):
        why = ""
    if why:
        yield Clue("address file", f"{ADDRESS_FILE} names {address}, but {why}")


def look_at_port(folder: Path, identifier: str, environ: Mapping[str, str]) -> Iterator[Clue]:
    """Whether the plugin answers where the package, or this environment, says that it is."""
    variable = "GF_PLUGIN_GRPC_ADDRESS_" + identifier.upper().replace("-", "_")
    named = environ.get(variable) or environ.get("GF_PLUGIN_ADDRESS")
    address = named or conf_of(folder).get("address", "")
    why = _refused(address) if address else ""
    if why:
        yield Clue("port", f"the plugin is said to be at {address}, but {why}")


def _refused(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        number = int(port)
        with socket.create_connection((host.strip("[]"), number), CONNECT_TIMEOUT):
            return ""
    except ValueError:
        return f"{address!r} is not HOST:PORT"
    except (OSError, OverflowError) as error:
        return f"there nobody answers ({error})"


def reader_of(text: str) -> Reader:
    """The user of this number or name. Raises PackagingError when there is none."""
    if text.isdecimal():
        return Reader(int(text), frozenset({0} if text == "472" else ()))
    import grp
    import pwd

    try:
        found = pwd.getpwnam(text)
    except KeyError:
        raise PackagingError(f"there is no user {text!r} here; give a number or a name") from None
    groups = {group.gr_gid for group in grp.getgrall() if text in group.gr_mem}
    return Reader(found.pw_uid, frozenset({found.pw_gid, *groups}))
