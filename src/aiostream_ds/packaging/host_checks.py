"""Checks of the machine, as the user that Grafana runs as: whether the executable can run, its
parts exist, and a remote plugin answers.
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
from aiostream_ds.packaging.launchers import current_platform

__all__ = [
    "ProcessUser",
    "check_address_file",
    "check_executable",
    "check_port",
    "find_user",
    "read_launch_conf",
]

CONNECT_TIMEOUT = 2.0
"""Seconds for a connection to a remote plugin."""


class ProcessUser(NamedTuple):
    """The user that Grafana runs as."""

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


def find_user(text: str) -> ProcessUser:
    """The user with this number or name.

    Raises:
        PackagingError: There is no user with this name.
    """
    if text.isdecimal():
        # 472 is the user of Grafana's images
        return ProcessUser(int(text), frozenset({0} if text == "472" else ()))
    import grp
    import pwd

    try:
        found = pwd.getpwnam(text)
    except KeyError:
        raise PackagingError(
            f"user must be a number or the name of a user of this machine, got {text!r}"
        ) from None
    groups = {group.gr_gid for group in grp.getgrall() if text in group.gr_mem}
    return ProcessUser(found.pw_uid, frozenset({found.pw_gid, *groups}))


def read_launch_conf(folder: Path) -> dict[str, str]:
    """launch.conf of a package; empty if it does not exist."""
    try:
        lines = (folder / "launch.conf").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def check_executable(folder: Path, prefix: str, user: ProcessUser) -> Iterator[Clue]:
    """Why the executable cannot run: another machine, a missing loader, missing permissions."""
    platform = current_platform()
    path = folder / f"{prefix}_{platform.replace('/', '_')}"
    if not path.is_file():
        others = ", ".join(sorted(p.name for p in folder.glob(f"{prefix}_*"))) or "none"
        yield Clue("architecture", f"expected {path.name}, got {others}")
        return
    try:
        yield from _check_permissions(path, folder, user)
        yield from _check_program(path)
        conf = read_launch_conf(folder)
        if conf.get("runtime") == "bundled":
            loader = folder / conf.get("loader", "rt")
            if not loader.is_file():
                yield Clue("incomplete", f"{conf.get('loader')} does not exist")
            else:
                yield from _check_permissions(loader, folder, user)
                yield from _check_program(loader)
            if conf.get("platform") != platform:
                text = f"the package's Python is for {conf.get('platform')}, this is {platform}"
                yield Clue("architecture", text)
    except PermissionError as error:
        yield Clue("permissions", f"{error.filename} is not readable for this command")


def _check_permissions(path: Path, root: Path, user: ProcessUser) -> Iterator[Clue]:
    for folder in reversed(path.parents):
        if not user.may(folder, os.X_OK):
            yield Clue("permissions", f"user {user.uid} may not enter {folder}")
            return
    mode = stat.S_IMODE(path.stat().st_mode)
    if not user.may(path, os.R_OK | os.X_OK):
        name = path.relative_to(root)
        yield Clue("permissions", f"user {user.uid} may not run {name}, its mode is {mode:04o}")
    elif hasattr(os, "statvfs") and os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 8):
        yield Clue("permissions", f"the file system of {path} is mounted with noexec")


def _check_program(path: Path) -> Iterator[Clue]:
    if not is_elf(path):
        yield from _check_script(path)
        return
    try:
        elf = read_elf(path)
    except ValueError as error:
        yield Clue("incomplete", str(error))
        return
    machine = current_platform().rpartition("/")[2]
    if elf.machine != machine:
        yield Clue("architecture", f"{path.name} is for {elf.machine}, this machine is {machine}")
    elif elf.interpreter and not Path(elf.interpreter).exists():
        yield Clue("libc", f"{path.name} needs the loader {elf.interpreter}, which does not exist")


def _check_script(path: Path) -> Iterator[Clue]:
    with path.open("rb") as file:
        first = file.readline(512).decode("utf-8", "replace").strip()
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        yield Clue("architecture", f"{path.name} is not a program for Linux")
    elif not Path(words[0]).exists():
        yield Clue("python", f"{path.name} needs {words[0]}, which does not exist")
    elif words[0].endswith("/env"):
        yield Clue("python", f"{path.name} needs {first}: newer versions of Grafana pass no PATH")


def check_address_file(folder: Path) -> Iterator[Clue]:
    """Whether a debugger has left its address here: Grafana would connect to it."""
    path = folder / ADDRESS_FILE
    if not path.is_file():
        return
    address = path.read_text("utf-8", "replace").strip()
    why = ""
    try:
        pid = int((folder / PID_FILE).read_text("utf-8"))
        os.kill(pid, 0)
    except ProcessLookupError:
        why = "the process in pid.txt has ended"
    except (FileNotFoundError, ValueError, OverflowError):  # the launcher does without it, too
        why = _connect_error(address)
    except PermissionError:
        why = ""
    if why:
        yield Clue("address file", f"{ADDRESS_FILE} has the address {address}, but {why}")


def check_port(folder: Path, identifier: str, environ: Mapping[str, str]) -> Iterator[Clue]:
    """Whether a remote plugin answers at the address in the package or the environment."""
    variable = "GF_PLUGIN_GRPC_ADDRESS_" + identifier.upper().replace("-", "_")
    configured = environ.get(variable) or environ.get("GF_PLUGIN_ADDRESS")
    address = configured or read_launch_conf(folder).get("address", "")
    why = _connect_error(address) if address else ""
    if why:
        yield Clue("port", f"the plugin's address is {address}, but {why}")


def _connect_error(address: str) -> str:
    """Why a connection fails; "" if it succeeds."""
    host, _, port = address.rpartition(":")
    try:
        if os.path.isabs(address):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(CONNECT_TIMEOUT)
                connection.connect(address)
                return ""
        number = int(port)
        with socket.create_connection((host.strip("[]"), number), CONNECT_TIMEOUT):
            return ""
    except ValueError:
        return f"address must be HOST:PORT, got {address!r}"
    except (OSError, OverflowError) as error:
        return f"nothing answers there ({error})"
