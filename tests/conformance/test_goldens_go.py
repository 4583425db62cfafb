"""Frames encoded here are decoded by Grafana's SDK and compared with the SDK's own frames.

The Go program in goldens/ defines the frames.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aiostream_ds._frames import arrow, json

pytestmark = pytest.mark.go

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.fixture(scope="session")
def goldens(go_program: Callable[[str], Path]) -> Path:
    """The compiled program of goldens/."""
    return go_program("goldens")


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


@pytest.mark.parametrize("crossed", [False, True], ids=["same_format", "formats_crossed"])
def test_the_sdk_decodes_our_frames_to_its_own(
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
