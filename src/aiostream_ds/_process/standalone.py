"""Standalone mode: attaches a running Grafana to a process under a debugger, with two files.

The standalone process writes `standalone.txt` (its address) and `pid.txt` into the directory of the
plugin's executable. When the process that Grafana starts finds them, it only announces that address
and idles. The files are those of the Go SDK.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from aiostream_ds.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["address_variable", "announced", "plugin_id", "standalone_address"]

ADDRESS_FILE, PID_FILE = "standalone.txt", "pid.txt"


def plugin_id(directory: "str | Path") -> str:
    """The id in the directory's plugin.json; "" when there is none."""
    try:
        with open(os.path.join(directory, "plugin.json"), "rb") as file:
            return str(msgspec.json.decode(file.read())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def address_variable(identifier: str) -> str:
    """The environment variable with the address of a plugin's standalone process."""
    return "GF_PLUGIN_GRPC_ADDRESS_" + identifier.upper().replace("-", "_")


def standalone_address(environ: Mapping[str, str], directory: "str | Path") -> str:
    """The address of the plugin's standalone process; "" when none runs."""
    identifier = plugin_id(directory)
    configured = environ.get(address_variable(identifier), "") if identifier else ""
    if configured:
        return configured
    try:
        with open(os.path.join(directory, ADDRESS_FILE), encoding="utf-8") as file:
            address = file.read().strip()
    except OSError:
        return ""
    pid = _read_pid(directory)
    return "" if pid is not None and not _is_running(pid) else address


def _read_pid(directory: "str | Path") -> int | None:
    try:
        with open(os.path.join(directory, PID_FILE), encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def announced(directory: "Path", address: str) -> Iterator[None]:
    """Write the two files, and remove them at the end. Stops the process that Grafana has started,
    so that Grafana starts it again and it finds them.

    Raises ConfigError when a file cannot be written."""
    for name, text in ((ADDRESS_FILE, address), (PID_FILE, str(os.getpid()))):
        _replace(directory / name, text)
    _stop_managed_process(directory)
    try:
        yield
    finally:
        if _read_pid(directory) == os.getpid():
            for name in (ADDRESS_FILE, PID_FILE):
                (directory / name).unlink(missing_ok=True)


def _replace(path: "Path", text: str) -> None:
    """Write a new file with mode 0600, and never to where a link points.

    Raises ConfigError for a link or a directory, or when the file cannot be written.
    """
    try:
        if path.is_symlink():
            target = os.readlink(path)
            raise ConfigError(f"{path} must be a file, got a link to {target!r}; remove it")
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} must be writable, got: {error.strerror}") from error


def _stop_managed_process(directory: "Path") -> None:
    """Linux only: on other systems restart Grafana once."""
    from pathlib import Path  # a start under Grafana does without it

    programs = {str(path.resolve()) for path in (*directory.glob("gpx_*"), directory / "start.py")}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        ours = any(os.path.realpath(os.fsdecode(a)) in programs for a in arguments if a)
        if ours and b"grafana_plugin_type=" in environment and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(int(entry.name), signal.SIGTERM)
