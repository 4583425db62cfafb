"""Which modules of a package are moved into archives."""

from pathlib import Path

import pytest

from aiostream_ds.packaging.module_archives import archive_modules
from aiostream_ds.packaging.python_runtime import Runtime

CODE = b"x" * 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("rt/lib/json/tool", "py/plants/rose", "py/plants/__init__"):
        path = tmp_path / f"{name}.pyc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CODE)
    (tmp_path / "app").mkdir()
    return tmp_path


def archived(root: Path) -> set[str]:
    runtime = Runtime("", "", "", "", "rt/lib")
    return set(archive_modules(root, runtime, (), {"json"}, compressed=False))


def test_the_modules_of_packages_and_of_the_standard_library_are_moved(root: Path) -> None:
    (root / "app/plant.py").write_text("import plants.rose\n")
    assert archived(root) == {"json.tool", "plants", "plants.rose"}
    assert not list(root.rglob("*.pyc"))


def test_packages_in_which_the_author_looks_for_modules_keep_their_files(root: Path) -> None:
    source = "import pkgutil, plants\nNAMES = [*pkgutil.iter_modules(plants.__path__)]\n"
    (root / "app/plant.py").write_text(source)
    assert archived(root) == {"json.tool"}
    assert (root / "py/plants/rose.pyc").read_bytes() == CODE
