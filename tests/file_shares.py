"""Divides the test files among the processes of pytest-xdist: with `--split-files` each of them
imports and runs its own. Otherwise each imports all files, which takes a third of the fast loop."""

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

__all__ = ["find_files", "is_of_another_process", "shares"]

_OVERHEAD = 3_000  # bytes that a file counts for besides its own


@cache
def find_files(folder: Path) -> list[Path]:
    """The test files in a folder. `rglob` would visit each package of the frontends."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "node_modules" and name[0] not in "._"]
        found += [Path(parent, name) for name in names if fnmatch(name, "test_*.py")]
    return found


def is_of_another_process(file: Path, folder: Path) -> bool:
    """Whether another process runs the tests of this file, of those in `folder`."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return False
    found = _shares_of_files(folder, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    return file not in found[int(worker.removeprefix("gw")) % len(found)]


@cache
def _shares_of_files(folder: Path, count: int) -> list[set[Path]]:
    sizes = {file: file.stat().st_size + _OVERHEAD for file in find_files(folder)}
    return shares(sizes.items(), count)


def shares(sizes: Iterable[tuple[Path, int]], count: int) -> list[set[Path]]:
    """The files in `count` sets of nearly equal size: the same ones in each process."""
    found: list[set[Path]] = [set() for _ in range(count)]
    totals = [0] * count
    for file, size in sorted(sizes, key=lambda each: (-each[1], each[0])):
        smallest = totals.index(min(totals))
        found[smallest].add(file)
        totals[smallest] += size
    return found
