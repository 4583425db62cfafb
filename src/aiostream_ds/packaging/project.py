"""Reads an author's project: pyproject.toml, README and similar files, the requirements in the
author's file, and its imports.
"""

import json
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.settings import convert

__all__ = ["Imports", "Project", "find_imports", "read_project"]

_SCRIPT = re.compile(r"(?m)^# /// script\s*$\s(?P<content>(?:^#(?:| .*)$\s)+)^# ///\s*$")
"""Inline script metadata (packaging.python.org)."""

_TEXTS = {
    "README": ("README.md", "readme.md"),
    "CHANGELOG": ("CHANGELOG.md", "changelog.md"),
    "LICENSE": ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"),
}


class Project(NamedTuple):
    """A project.

    Attributes:
        folder: The folder of pyproject.toml, or of the author's file.
        table: [tool.aiostream-ds] of pyproject.toml.
        project: [project] of pyproject.toml.
        requires: The requirements in pyproject.toml and in the file.
        texts: The existing files among README, CHANGELOG and LICENSE.
    """

    folder: Path
    table: Mapping[str, Any]
    project: Mapping[str, Any]
    requires: tuple[str, ...]
    texts: Mapping[str, Path]

    def option(self, key: str, given: Any = None) -> Any:
        """The option from the command line, [tool.aiostream-ds] or [project]; None without one."""
        for value in (given, self.table.get(key), self.project.get(key)):
            if value is not None:
                return value
        return None


class _Author(msgspec.Struct, frozen=True):
    name: str | None = None


class _ProjectTable(msgspec.Struct, frozen=True):
    version: str | None = None
    description: str | None = None
    authors: list[_Author] = []
    keywords: list[str] = []
    urls: dict[str, str] = {}
    dependencies: list[str] = []


class _OwnTable(msgspec.Struct, frozen=True):
    id: str | None = None
    name: str | None = None
    version: str | None = None
    author: str | None = None
    description: str | None = None
    keywords: list[str] = []
    requires: list[str] = msgspec.field(default_factory=list, name="with")


class _ToolTable(msgspec.Struct, frozen=True):
    own: _OwnTable = msgspec.field(default_factory=_OwnTable, name="aiostream-ds")


class _Pyproject(msgspec.Struct, frozen=True):
    """A pyproject.toml, as far as it is read here."""

    project: _ProjectTable = _ProjectTable()
    tool: _ToolTable = _ToolTable()


class _Script(msgspec.Struct, frozen=True):
    dependencies: list[str] = []


def read_project(file: Path) -> Project:
    """Read the project of a file: its nearest parent folder with a pyproject.toml, or its own.

    Raises:
        PackagingError: pyproject.toml or the file's inline metadata is not TOML, or a value in it
            has another type.
    """
    file = file.resolve()
    found = next((p for p in file.parents if (p / "pyproject.toml").is_file()), None)
    folder = found or file.parent
    pyproject = _pyproject(found / "pyproject.toml") if found else {}
    project = pyproject.get("project", {})
    requires = [*project.get("dependencies", ()), *_script_requires(file)]
    texts: dict[str, Path] = {}
    for name, candidates in _TEXTS.items():
        for candidate in (parent / text for parent in (file.parent, folder) for text in candidates):
            if candidate.is_file() and candidate.stat().st_size:
                texts.setdefault(name, candidate)
    table = pyproject.get("tool", {}).get("aiostream-ds", {})
    return Project(folder, table, project, tuple(requires), texts)


def _pyproject(file: Path) -> dict[str, Any]:
    try:
        return _toml(file.read_text("utf-8"), file, _Pyproject)
    except UnicodeDecodeError as error:
        raise PackagingError(f"{file}: expected UTF-8: {error}") from None


def _toml(text: str, where: Path, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """TOML with values of the types of `kind`."""
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PackagingError(f"{where}: expected TOML metadata: {error}") from None
    try:
        convert(found, kind)
    except ValueError as error:
        raise PackagingError(f"{where}: {error}") from None
    return found


def _script_requires(file: Path) -> list[str]:
    with tokenize.open(file) as source:  # in the encoding that the file declares
        match = _SCRIPT.search(source.read())
    if match is None:
        return []
    lines = match["content"].splitlines()
    text = "\n".join(line[2:] if line[1:2] == " " else line[1:] for line in lines)
    requires: list[str] = _toml(text, file, _Script).get("dependencies", [])
    return requires


class Imports(NamedTuple):
    """What a file imports: files of its own folder, and installed top-level modules."""

    own: tuple[Path, ...]
    packages: frozenset[str]


# Runs in a new process: this one has loaded modules that the file does not need.
_PROBE = """
import importlib.util, json, os, sys
before = set(sys.modules)
file = sys.argv[1]
sys.path.insert(0, os.path.dirname(file))
spec = importlib.util.spec_from_file_location(os.path.basename(file)[:-3], file)
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
out = os.dup(1)
os.dup2(2, 1)  # for what the file, and programs that it starts, print
spec.loader.exec_module(module)
found = {n: getattr(m, "__file__", None) for n, m in sys.modules.items() if n not in before}
with open(out, "w") as file:
    json.dump({n: f for n, f in found.items() if f}, file)
"""


def find_imports(file: Path) -> Imports:
    """Load the file in a new process and list its imports.

    Raises:
        PackagingError: Loading fails; the message has the last line of the traceback.
    """
    file = file.resolve()
    if file.stem in sys.stdlib_module_names:
        raise PackagingError(
            f"the file's name must not be that of a standard library module, got {file.name}; "
            "rename it"
        )
    command = [sys.executable, "-IBXutf8", "-c", _PROBE, str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, cwd=file.parent
    )
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise PackagingError(f"{file} cannot be imported: {last}")
    own, packages = {file}, set()
    for name, origin in json.loads(done.stdout).items():
        path = Path(origin)
        if path.is_relative_to(file.parent) and "site-packages" not in path.parts:
            own.add(path)
        elif "site-packages" in path.parts or "dist-packages" in path.parts:
            packages.add(name.partition(".")[0])
    return Imports(tuple(sorted(own)), frozenset(packages))
