"""Frames that Python encoded, read by Grafana's SDK and compared with the SDK's own frames.

The Go program in goldens/ knows the frames; it is built once and kept in the cache directory
(AIOSTREAM_DS_CACHE, or tests/.cache), under the hash of its sources.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aiostream_ds.frames import arrow, json

from ..requirements import require

# The first build may have to download the SDK.
pytestmark = [pytest.mark.go, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
SOURCES = HERE / "goldens"
GOLDEN = HERE / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The program of goldens/, built."""
    require("go", shutil.which("go") is not None, "no Go toolchain: `go` is not on PATH")
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    cache = Path(os.environ.get("AIOSTREAM_DS_CACHE") or HERE.parent / ".cache")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    binary = cache / f"goldens-{digest.hexdigest()[:20]}"
    if not binary.exists():
        fresh = cache / f"{binary.name}.{os.getpid()}"
        subprocess.run(
            ["go", "build", "-trimpath", "-o", fresh, "."],
            cwd=SOURCES,
            env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"},
            check=True,
        )
        fresh.rename(binary)
    return binary


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def write_pairs(folder: Path, crossed: bool = False) -> None:
    for name in NAMES:
        frame = json.decode((GOLDEN / f"{name}.json").read_bytes())
        other = arrow.decode((GOLDEN / f"{name}.arrow").read_bytes())
        if crossed:
            frame, other = other, frame
        (folder / f"{name}.json").write_bytes(json.encode(frame))
        (folder / f"{name}.arrow").write_bytes(arrow.encode(other))


@pytest.mark.parametrize("crossed", [False, True], ids=["each_its_own_form", "forms_crossed"])
def test_the_sdk_reads_in_our_frames_what_it_wrote_in_its_own(
    goldens: Path, tmp_path: Path, crossed: bool
) -> None:
    write_pairs(tmp_path, crossed)
    checked = run(goldens, "check", tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.splitlines() == [f"{name}: ok" for name in NAMES]


def test_a_difference_in_one_value_is_reported(goldens: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    changed = tmp_path / "floats.json"
    text = changed.read_bytes()
    assert b"-2.5" in text
    changed.write_bytes(text.replace(b"-2.5", b"-2.25"))
    checked = run(goldens, "check", tmp_path)
    assert checked.returncode == 1
    assert "floats: JSON differs" in checked.stdout
    assert "floats_special: ok" in checked.stdout


def test_the_goldens_are_what_the_program_writes(goldens: Path, tmp_path: Path) -> None:
    assert run(goldens, tmp_path).returncode == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in GOLDEN.iterdir()}
