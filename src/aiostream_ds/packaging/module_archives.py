"""Puts the bytecode that a start does not import into one file for each package and one for the
standard library: a zip compresses them better together, and has fewer files.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.python_runtime import Runtime

__all__ = ["PYC_HEADER", "Archived", "ArchivePlace", "archive_modules", "archive_sources"]

ARCHIVE, SOURCES = "modules.bin", "sources.bin"
"""The names of such files. start.bin has the place of each module in them."""

PYC_HEADER = 16
"""Bytes of a .pyc file before the code."""

_BLOCK = 1 << 20
"""Bytes that are compressed together. The first import from a block unpacks all of it."""

_FOUND_EARLY = "encodings"
"""Python imports encodings from their files before start.py, depending on the locale."""

_DISCOVERS = re.compile(rb"iter_modules|walk_packages")
_LISTS = re.compile(rb"listdir|scandir|iterdir|glob")
_OWN_FOLDER = re.compile(rb"__file__|__path__")
"""In packages that look for modules in their own folders."""


class ArchivePlace(NamedTuple):
    """Where the content of a file is.

    Attributes:
        archive: The path of the archive in the plugin's folder.
        place, size: In the archive, or in its unpacked block.
        block, block_size: Of the block in the archive; 0 if it is not compressed.
    """

    archive: str
    place: int
    size: int
    block: int
    block_size: int


class Archived(NamedTuple):
    """Where the code of a module is; `path` is that of its file, which may be only a name."""

    is_package: bool
    path: str
    archive: str
    place: int
    size: int
    block: int
    block_size: int


class _Module(NamedTuple):
    name: str
    is_package: bool
    origin: Path
    compiled: Path


def archive_modules(
    root: Path,
    runtime: Runtime,
    kept: Collection[str],
    packages: Collection[str],
    *,
    compressed: bool,
) -> dict[str, Archived]:
    """Move bytecode into archives; returns the places of the modules by their names.

    Files of authors, the modules `kept`, and packages that look for modules in their folders stay;
    all packages, if a file of the author looks for modules: it may be in theirs. `packages` are
    those whose code is in start.bin.
    """
    library, py = root / runtime.library, root / "py"
    found: dict[str, Archived] = {}
    tops = [path for path in sorted(library.iterdir()) if path.name != _FOUND_EARLY]
    modules = [module for top in tops for module in _modules(library, top)]
    found |= _write(root, library, _importable(modules, packages, kept), compressed)
    shadowed = {path.name.partition(".")[0] for path in (*tops, *(root / "app").glob("*"))}
    shadowed |= {path.name.partition(".")[0] for path in (library / "lib-dynload").glob("*")}
    files = (path.read_bytes() for path in (root / "app").rglob("*.py"))
    is_any_searched = any(_DISCOVERS.search(content) for content in files)
    for top in sorted(py.iterdir()):
        modules = _modules(py, top) if top.is_dir() and top.name not in shadowed else []
        is_searched = is_any_searched or _looks_for_modules(modules)
        if top.name == "aiostream_ds" or not is_searched:
            known = _importable(modules, packages, kept, top.name)
            found |= _write(root, top, known, compressed)
    return found


def archive_sources(root: Path, top: Path) -> dict[str, ArchivePlace]:
    """Move the sources below `top`, a package in py/, into an archive; returns their places by the
    names of modules. Only tracebacks read them."""
    found: dict[str, ArchivePlace] = {}
    archive = _Archive(root, top / SOURCES, compressed=True)
    for path in sorted(top.rglob("*.py")):
        names = path.relative_to(root / "py").with_suffix("").parts
        name = ".".join(names[:-1] if names[-1] == "__init__" else names)
        archive.add(path, 0, functools.partial(found.__setitem__, name))
    archive.close()
    return found


def _modules(base: Path, top: Path) -> list[_Module]:
    """The modules of a file or a folder in the folder `base` of sys.path."""
    found = []
    files = sorted(top.rglob("*.pyc")) if top.is_dir() else [top] if top.suffix == ".pyc" else []
    for compiled in files:
        folder, stem, origin = compiled.parent, compiled.name.partition(".")[0], compiled
        if folder.name == "__pycache__":
            folder = folder.parent
            origin = folder / f"{stem}.py"
        names = (*folder.relative_to(base).parts, stem)
        if origin.is_file() and all(name.isidentifier() for name in names):
            is_package = stem == "__init__"
            name = ".".join(names[:-1] if is_package else names)
            found.append(_Module(name, is_package, origin, compiled))
    return found


def _importable(
    modules: list[_Module], packages: Collection[str], kept: Collection[str], *top: str
) -> list[_Module]:
    """The modules but those of folders without a module of their own, which Python has to see; the
    folder of an archive exists."""
    known = {*packages, *(module.name for module in modules if module.is_package), "", *top}
    return [
        module
        for module in modules
        if module.name not in kept and known.issuperset(_parents(module.name))
    ]


def _parents(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def _looks_for_modules(modules: Iterable[_Module]) -> bool:
    for module in modules:
        code = module.compiled.read_bytes()
        if _DISCOVERS.search(code) or (_LISTS.search(code) and _OWN_FOLDER.search(code)):
            return True
    return False


def _write(
    root: Path, folder: Path, modules: list[_Module], compressed: bool
) -> dict[str, Archived]:
    """Write the archive of these modules into `folder`, and remove their files."""
    found: dict[str, Archived] = {}
    archive = _Archive(root, folder / ARCHIVE, compressed=compressed)
    for module in modules:
        origin = module.origin.relative_to(root).as_posix()

        def keep(place: ArchivePlace, module: _Module = module, origin: str = origin) -> None:
            found[module.name] = Archived(module.is_package, origin, *place)

        archive.add(module.compiled, PYC_HEADER, keep)
    archive.close()
    return found


class _Archive:
    """Writes a file of many files, which it removes."""

    def __init__(self, root: Path, path: Path, *, compressed: bool) -> None:
        self._path = path
        self._name = path.relative_to(root).as_posix()
        self._compressed = compressed
        self._written = self._block = b""
        self._waiting: list[tuple[int, int, Callable[[ArchivePlace], None]]] = []

    def add(self, path: Path, head: int, keep: Callable[[ArchivePlace], None]) -> None:
        """Add a file without its first `head` bytes; `keep` gets the place."""
        content = path.read_bytes()[head:]
        self._waiting.append((len(self._block), len(content), keep))
        self._block += content
        path.unlink()
        _remove_empty(path.parent, self._path.parent)
        if len(self._block) >= _BLOCK:
            self._end_block()

    def close(self) -> None:
        """Write the archive, if it has a file."""
        self._end_block()
        if self._written:
            self._path.write_bytes(self._written)

    def _end_block(self) -> None:
        at = len(self._written)
        packed = _packed(self._block) if self._compressed else self._block
        for place, size, keep in self._waiting:
            where = (place, size, at, len(packed)) if self._compressed else (at + place, size, 0, 0)
            keep(ArchivePlace(self._name, *where))
        self._written += packed if self._waiting else b""
        self._block = b""
        self._waiting.clear()


def _packed(block: bytes) -> bytes:
    import lzma  # some Pythons do not have it

    return lzma.compress(block, check=lzma.CHECK_CRC32, preset=9)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
