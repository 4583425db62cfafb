"""Copies code into a package: the author's files to app/, installed packages to py/."""

import os
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import metadata
from pathlib import Path

from aiostream_ds._installation import install_command
from aiostream_ds.packaging.build_config import BuildConfig
from aiostream_ds.packaging.dependencies import Package, distributions_of, resolve
from aiostream_ds.packaging.elf import is_elf
from aiostream_ds.packaging.findings import PackagingError, Progress
from aiostream_ds.packaging.project import Imports, Project
from aiostream_ds.sources.builtin_plugin import FURTHER_EXTRAS, SOURCES

__all__ = [
    "DISTRIBUTION",
    "binaries_of",
    "copy_packages",
    "required_packages",
    "write_author_files",
]

DISTRIBUTION = "aiostream-ds"
"""The name of this distribution."""

_UNUSED = (
    *(
        f"aiostream_ds/{folder}/"
        for folder in (
            "cli/templates",
            "console",
            "packaging/builtin",
            "packaging/launcher",
            "static",
        )
    ),
    *(
        f"aiostream_ds/cli/{module}.py"
        for module in """
        check deploy dev dev_folder new package push push_lines push_rows push_signals record run
        tail
        """.split()
    ),
    *(
        f"aiostream_ds/packaging/{module}.py"
        for module in """
        archive arrow_trimming boilerplate build build_config bytecode compression contents costs
        dependencies deployment elf_library elf_sections foreign_python go_build_info image
        known_faults linked_libraries module_archives package_check package_code package_layout
        python_files python_runtime sbom secret_check smoke_test strip system_packages
        unreachable_code unused_modules unwind_tables
        """.split()
    ),
)
"""What neither a running plugin nor the command `doctor` of its launcher uses of this distribution.
"""


def required_packages(
    config: BuildConfig,
    project: Project | None,
    imports: Imports | None,
    processor: str,
    progress: Progress,
) -> list[Package]:
    """The packages that the plugin needs; without a project those of the built-in plugin.

    `processor` is that of another machine, as for `resolve`.

    Raises:
        PackagingError: One is not installed, or its version does not match.
    """
    wanted = [DISTRIBUTION, *config.requires]
    if project is None or imports is None:
        wanted += _requirements_of_sources(progress)
    else:
        wanted += project.requires
        wanted += [str(text) for text in project.table.get("with", ())]
        wanted += sorted(distributions_of(imports.packages))
    return resolve(wanted, processor)


def _requirements_of_sources(progress: Progress) -> Iterator[str]:
    """This distribution with the extras of each source: that of its name, if there is one, and
    others that it uses."""
    extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    for source in SOURCES:
        for extra in (source, *FURTHER_EXTRAS.get(source, ())):
            if extra not in extras:
                continue
            wanted = f"{DISTRIBUTION}[{extra}]"
            try:
                resolve([wanted])
            except PackagingError:
                what = "the source" if extra == source else "a part of the source"
                command = install_command(extra)
                progress.warn(f"{what} {source!r} will not work; first run: {command}")
            else:
                yield wanted


def write_author_files(app: Path, file: Path, imports: Imports, include: Iterable[Path]) -> None:
    """Copy the author's file, what it imports from its folder, and what `include` names, with
    their paths relative to that folder.

    Raises:
        PackagingError: A path to include is outside of the folder, or a file cannot be packaged.
    """
    folder = file.resolve().parent
    for path in imports.own:
        _copy(path, app / path.relative_to(folder))
    for path in include:
        resolved = path.resolve()
        if not resolved.is_relative_to(folder):
            raise PackagingError(f"--include must be a path below {folder}, got {path}")
        try:
            _copy(resolved, app / resolved.relative_to(folder))
        except OSError as error:
            raise PackagingError(f"--include {path} cannot be copied: {_reason(error)}") from None
    for path in app.rglob("*"):
        name = os.fsencode(path.name)
        if name.decode(errors="ignore") != path.name:
            raise PackagingError(f"names of files must be UTF-8, got {name!r}; rename it")


def _reason(error: OSError) -> str:
    """The first of the reasons of a copy of a folder, with its file."""
    if isinstance(error, shutil.Error):
        source, _, reason = error.args[0][0]
        return f"{source}: {reason}"
    return str(error)


def copy_packages(root: Path, packages: Iterable[Package]) -> None:
    """Copy packages to py/, except what a running plugin does not use."""
    for package in packages:
        for name, path in package.files.items():
            if not name.startswith(_UNUSED):
                _copy(path, root / "py" / name)
            if name.endswith(".dist-info/METADATA"):
                _cut_description(root / "py" / name)


def _cut_description(path: Path) -> None:
    """Remove the text of the project's page from a METADATA file: only its fields are read."""
    fields, _, _ = path.read_bytes().partition(b"\n\n")
    path.write_bytes(fields + b"\n\n")


def binaries_of(package: Package) -> list[Path]:
    """The programs and libraries of a package, where they are installed."""
    return [path for path in package.files.values() if ".so" in path.name and is_elf(path)]


def _copy(path: Path, to: Path) -> None:
    """Copy a file or a folder, without the folder in it that the copy is written to."""
    to.parent.mkdir(parents=True, exist_ok=True)
    target = to.resolve()

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n == "__pycache__" or target.is_relative_to(Path(folder, n))]

    if path.is_dir():
        shutil.copytree(path, to, ignore=left_out, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, to)
