"""The static programs that Grafana starts (launcher/ in the repository): from the wheel, or in a
checkout built with Go.
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["PLATFORMS", "current_platform", "launcher"]

PLATFORMS = (
    "linux/amd64",
    "linux/arm64",
    "linux/arm",
    "darwin/amd64",
    "darwin/arm64",
    "windows/amd64",
)
"""The platforms of launchers. Only linux/amd64 is tested; the others are cross-compiled."""

_PREBUILT = Path(__file__).parent / "launchers"
_CHECKOUT = Path(__file__).parents[3]


def launcher(system: str, *, bridge: bool = False) -> Path:
    """The launcher for a platform; with `bridge` it can also connect to a remote plugin over TLS.

    Raises:
        PackagingError: This installation does not have it and cannot build it.
    """
    if system not in PLATFORMS:
        raise PackagingError(f"platform must be {', '.join(PLATFORMS)}, got {system!r}")
    name = f"{'bridge' if bridge else 'launch'}_{system.replace('/', '_')}"
    prebuilt = _PREBUILT / name
    if prebuilt.is_file():
        return prebuilt
    builder = _CHECKOUT / "launcher/build.py"
    if not builder.is_file() or shutil.which("go") is None:
        raise PackagingError(
            f"this installation has no launcher for {system}; install a wheel of aiostream-ds that "
            "has one, or use a checkout with go on PATH"
        )
    folder = _CHECKOUT / "build/launchers"
    done = subprocess.run(
        [sys.executable, builder, folder, name], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PackagingError(f"the launcher for {system} cannot be built: {done.stderr.strip()}")
    return folder / name


def current_platform() -> str:
    """The platform of this machine, as Go names it: `linux/amd64`."""
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    system = {"win32": "windows", "darwin": "darwin"}.get(sys.platform, "linux")
    return f"{system}/{known.get(machine, 'arm' if machine.startswith('arm') else machine)}"
