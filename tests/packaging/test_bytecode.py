"""What the bytecode of a package keeps of its sources."""

import marshal
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from aiostream_ds.packaging.bytecode import compile_all
from aiostream_ds.packaging.module_archives import PYC_HEADER

pytestmark = pytest.mark.slow  # starts interpreters

SOURCE = '"""A rose."""\n\ndef price(of):\n    return of.price + 1\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A package with one module of each kind."""
    for name in ("rt/lib/json.py", "py/plants/rose.py", "py/aiostream_ds/rose.py", "app/rose.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE)
    return tmp_path


def positions(path: Path) -> Iterator[tuple[int | None, int | None]]:
    """Line and column of the instructions of a compiled file and its functions."""
    codes: list[CodeType] = [marshal.loads(path.read_bytes()[PYC_HEADER:])]
    for code in codes:  # the list grows
        codes += [one for one in code.co_consts if isinstance(one, CodeType)]
        for line, _, column, _ in code.co_positions():
            yield line, column


@pytest.mark.parametrize("small", [False, True])
def test_only_bytecode_with_a_source_has_columns_and_all_has_lines(root: Path, small: bool) -> None:
    assert compile_all(root, "rt/lib", small=small) == 4
    compiled = {path: list(positions(path)) for path in root.rglob("*.pyc")}
    with_source = {path for path in compiled if path.parent.name == "__pycache__"}
    kept = {"app"} if small else {"app", "aiostream_ds"}
    assert {path.parts[-3] for path in with_source} == kept
    assert len(compiled) == 4
    for path, found in compiled.items():
        lines, columns = (
            {one for one in kind if one is not None} for kind in zip(*found, strict=True)
        )
        assert {3, 4} <= lines
        assert bool(columns) == (path in with_source), path
