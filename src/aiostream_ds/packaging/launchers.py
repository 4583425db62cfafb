"""The static programs that Grafana starts (launcher/ in the repository): those that came with the
wheel, or in a checkout those that Go makes now. Imports `words`.
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["PLATFORMS", "here", "launcher"]

PLATFORMS = (
    "linux/amd64", "linux/arm64", "linux/arm", "darwin/amd64", "darwin/arm64", "windows/amd64",
)  # fmt: skip
"""What launchers are made for. They were tried on linux/amd64; the others are cross-compiled and
untested."""

_PREBUILT = Path(__file__).parent / "launchers"
_CHECKOUT = Path(__file__).parents[3]


def launcher(system: str, *, bridge: bool = False) -> Path:
    """The program for a platform; with `bridge` it can also carry TLS to a plugin elsewhere.

    Raises PackagingError when it did not come with the installation and cannot be built.
    """
    if system not in PLATFORMS:
        raise PackagingError(f"there is no launcher for {system}; allowed: {', '.join(PLATFORMS)}")
    name = f"{'bridge' if bridge else 'launch'}_{system.replace('/', '_')}"
    prebuilt = _PREBUILT / name
    if prebuilt.is_file():
        return prebuilt
    builder = _CHECKOUT / "launcher/build.py"
    if not builder.is_file() or shutil.which("go") is None:
        raise PackagingError(
            f"the launcher for {system} did not come with this installation: install a wheel of "
            "aiostream-ds that has it, or work in a checkout with Go on PATH"
        )
    folder = _CHECKOUT / "build/launchers"
    done = subprocess.run(
        [sys.executable, builder, folder, name], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PackagingError(f"the launcher for {system} cannot be built: {done.stderr.strip()}")
    return folder / name


def here() -> str:
    """The platform of this environment, as Go names it."""
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    system = {"win32": "windows", "darwin": "darwin"}.get(sys.platform, "linux")
    return f"{system}/{known.get(machine, 'arm' if machine.startswith('arm') else machine)}"
