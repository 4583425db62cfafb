"""Builds the launchers: build.py FOLDER [NAME …]. Names are launch_<os>_<arch> and, with the code
that carries TLS, bridge_<os>_<arch>; default: all. Standard library only: wheels are built by it.

The same source and Go give the same bytes; what was built of both already stays.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLATFORMS = (
    "linux_amd64",
    "linux_arm64",
    "linux_arm",
    "darwin_amd64",
    "darwin_arm64",
    "windows_amd64",
)
NAMES = tuple(f"{kind}_{platform}" for kind in ("launch", "bridge") for platform in PLATFORMS)


def build(folder: Path, names: tuple[str, ...] = NAMES) -> list[Path]:
    """Build these programs. Raises ValueError for a name that is none, CalledProcessError with
    what Go said."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = _stamp()
    return [_build(folder / name, stamp) for name in names]


def _stamp() -> str:
    digest = hashlib.sha256(subprocess.check_output(["go", "version"]))
    for path in sorted([*HERE.glob("*.go"), HERE / "go.mod"]):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _build(target: Path, stamp: str) -> Path:
    if target.name not in NAMES:
        raise ValueError(f"{target.name!r} is no launcher; allowed: {', '.join(NAMES)}")
    mark = target.with_name(target.name + ".stamp")
    if target.is_file() and mark.is_file() and mark.read_text() == stamp:
        return target
    kind, system, machine = target.name.split("_")
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOARCH": machine,
        "GOARM": "6",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOOS": system,
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-tags", kind]
    subprocess.run([*command, "-o", str(fresh), "."], cwd=HERE, env=environ, check=True)
    fresh.replace(target)
    mark.write_text(stamp)
    return target


if __name__ == "__main__":
    where, *wanted = sys.argv[1:]
    for path in build(Path(where).resolve(), tuple(wanted) or NAMES):
        sys.stdout.write(f"{path}\n")
