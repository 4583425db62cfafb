"""Builds the launchers: build.py FOLDER [NAME …]. Names are launch_<os>_<arch>, and with TLS
bridge_<os>_<arch>; default: all. Standard library only, because the build of a wheel uses it.

Equal sources and versions of Go give equal bytes; a launcher that is up to date is not built again.
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
    """Build these programs.

    Raises:
        ValueError: A name is wrong.
        CalledProcessError: Go failed; its output is on stderr.
    """
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
        raise ValueError(f"expected one of {', '.join(NAMES)}, got {target.name!r}")
    stamp_file = target.with_name(target.name + ".stamp")
    if target.is_file() and stamp_file.is_file() and stamp_file.read_text() == stamp:
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
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-tags", kind]
    subprocess.run([*command, "-o", str(unfinished), "."], cwd=HERE, env=environ, check=True)
    unfinished.replace(target)
    stamp_file.write_text(stamp)
    return target


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for path in build(Path(folder).resolve(), tuple(names) or NAMES):
        sys.stdout.write(f"{path}\n")
