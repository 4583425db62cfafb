"""A running Grafana attached to a process under a debugger, by two small files.

The standalone process writes `standalone.txt` (its address) and `pid.txt` beside the plugin's
executable. Grafana's own copy of the plugin, when it finds them, only hands that address on and
idles. The same layout as the Go SDK's, so the same habits work.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

__all__ = ["address_variable", "announced", "elsewhere", "plugin_id"]

ADDRESS_FILE, PID_FILE = "standalone.txt", "pid.txt"


def plugin_id(directory: Path) -> str:
    """The id in the directory's plugin.json; "" when there is none."""
    try:
        manifest = msgspec.json.decode((directory / "plugin.json").read_bytes())
        return str(manifest["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def address_variable(identifier: str) -> str:
    """The environment variable that names a standalone process' address."""
    return "GF_PLUGIN_GRPC_ADDRESS_" + identifier.upper().replace("-", "_")


def elsewhere(environ: Mapping[str, str], directory: Path) -> str:
    """The address of the standalone process that stands in for this one; "" for none."""
    identifier = plugin_id(directory)
    named = environ.get(address_variable(identifier), "") if identifier else ""
    if named:
        return named
    try:
        address = (directory / ADDRESS_FILE).read_text("utf-8").strip()
    except OSError:
        return ""
    pid = _pid(directory)
    return "" if pid is not None and not _lives(pid) else address


def _pid(directory: Path) -> int | None:
    try:
        return int((directory / PID_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def announced(directory: Path, address: str) -> Iterator[None]:
    """The two files, while the block runs; Grafana's running copy is ended so that it restarts."""
    for name, text in ((ADDRESS_FILE, address), (PID_FILE, str(os.getpid()))):
        path = directory / name
        path.write_text(text, "utf-8")
        path.chmod(0o600)
    _end_managed_copy(directory)
    try:
        yield
    finally:
        if _pid(directory) == os.getpid():
            for name in (ADDRESS_FILE, PID_FILE):
                (directory / name).unlink(missing_ok=True)


def _end_managed_copy(directory: Path) -> None:
    """Linux only: elsewhere Grafana has to be restarted once by hand."""
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
