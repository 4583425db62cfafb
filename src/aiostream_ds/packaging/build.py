"""Builds a package: a folder, and a zip of it, that Grafana loads.

    <id>/  plugin.json module.js schema.json img/ README.md CHANGELOG.md LICENSE sbom.cdx.json
           gpx_<name>_<os>_<arch>   the launcher        launch.conf   what it starts
           start.py start.bin       what Python runs first
           app/  py/                author's code, packages          rt/  Python and the libc

It is built in a temporary folder and moved when it is complete.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, NamedTuple

from aiostream_ds.packaging.archive import set_modes, write_zip
from aiostream_ds.packaging.build_config import BuildConfig
from aiostream_ds.packaging.dependencies import Package, distributions_of, resolve
from aiostream_ds.packaging.elf import is_elf
from aiostream_ds.packaging.findings import PackagingError, Progress, megabytes
from aiostream_ds.packaging.launchers import current_platform, launch_conf, start_file
from aiostream_ds.packaging.optimize import compile_all, strip_all, trim_arrow, write_preload
from aiostream_ds.packaging.package_layout import (
    package_manifest,
    write_common,
    write_launchers,
)
from aiostream_ds.packaging.project import Imports, Project, find_imports, read_project
from aiostream_ds.packaging.python_runtime import Runtime, copy_libraries, copy_runtime
from aiostream_ds.packaging.sbom import SBOM_FILE, make_sbom, system_packages
from aiostream_ds.packaging.smoke_test import smoke_test
from aiostream_ds.sources.builtin_plugin import SOURCES

__all__ = ["Built", "build"]

OURS = "aiostream-ds"
"""The name of this distribution."""

_UNUSED = tuple(
    f"aiostream_ds/{folder}/"
    for folder in ("console", "static", "packaging/builtin", "packaging/launchers")
)
"""What a running plugin does not use of this distribution."""


class Built(NamedTuple):
    """A finished package; `zip` is None if none was requested, `size` is in bytes."""

    folder: Path
    zip: Path | None
    size: int


def build(config: BuildConfig, progress: Progress) -> Built:
    """Build the package.

    Raises:
        PackagingError: It cannot be built; an existing package stays unchanged.
    """
    config = config.validated()
    project = None if config.file is None else read_project(config.file)
    manifest = package_manifest(config, project)
    target = config.out / manifest["id"]
    if target.exists() and not (target / "plugin.json").is_file():
        raise PackagingError(f"{target} exists and is not a plugin; remove it, or use -o")
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=config.out.absolute()) as scratch:
        root = Path(scratch) / manifest["id"]
        root.mkdir()
        progress.log(f"{manifest['name']} {manifest['info']['version']} as {manifest['id']}")
        executables = _write_package(root, config, project, manifest, progress)
        set_modes(root, executables)
        packed, size = None, sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
        progress.log(f"{megabytes(size)} unpacked")
        if config.zip:
            packed = config.out / _zip_name(config, manifest)
            size = write_zip(root, packed)
        shutil.rmtree(target, ignore_errors=True)
        root.replace(target)
    progress.log(f"done: {target}" + (f", {packed} ({megabytes(size)})" if packed else ""))
    return Built(target, packed, size)


def _zip_name(config: BuildConfig, manifest: Mapping[str, Any]) -> str:
    bundled = config.runtime == "bundled"
    platform = f".{current_platform().replace('/', '_')}" if bundled else ""
    return f"{manifest['id']}-{manifest['info']['version']}{platform}.zip"


def _write_package(
    root: Path,
    config: BuildConfig,
    project: Project | None,
    manifest: Mapping[str, Any],
    progress: Progress,
) -> set[str]:
    """Write all files; returns the paths of the executables."""
    write_common(root, config, project, manifest, progress)
    conf = {"id": manifest["id"], "runtime": config.runtime}
    if config.runtime == "address":
        conf |= {"address": config.address, "tls": "true" if config.tls or config.ca else ""}
        if config.ca is not None:
            shutil.copyfile(config.ca, root / "ca.pem")
            conf["ca"] = "ca.pem"
        (root / "launch.conf").write_text(launch_conf(conf), "utf-8")
        _write_sbom(root, manifest, [], [], python=False)
        return write_launchers(root, manifest, bridge=True)
    imports = None if config.file is None else find_imports(config.file)
    packages = _packages(config, project, imports, progress)
    _write_code(root, config, imports)
    if config.runtime == "host":
        (root / "launch.conf").write_text(launch_conf(conf), "utf-8")
        return _write_host(root, manifest, packages, progress)
    return _write_bundle(root, config, manifest, conf, packages, progress)


def _packages(
    config: BuildConfig, project: Project | None, imports: Imports | None, progress: Progress
) -> list[Package]:
    wanted = [OURS, *config.requires]
    if imports is None:
        wanted += _requirements_of_sources(progress)
    if project is not None and imports is not None:
        wanted += project.requires
        wanted += [str(text) for text in project.table.get("with", ())]
        wanted += sorted(distributions_of(imports.packages))
    return resolve(wanted)


def _requirements_of_sources(progress: Progress) -> Iterator[str]:
    """This distribution with the extra of each source that has one: the extra of its name."""
    extras = metadata(OURS).get_all("Provides-Extra") or ()
    for source in SOURCES:
        if source not in extras:
            continue
        wanted = f"{OURS}[{source}]"
        try:
            resolve([wanted])
        except PackagingError:
            progress.warn(f"the source {source!r} will not work; use pip install {wanted!r} first")
        else:
            yield wanted


def _write_code(root: Path, config: BuildConfig, imports: Imports | None) -> None:
    """Write the author's files to app/, with their relative paths, and start.py."""
    target = None
    if config.file is not None and imports is not None:
        assert isinstance(config.target, type)
        target = config.file.stem, config.target.__name__
        base = config.file.resolve().parent
        for path in imports.own:
            _copy(path, root / "app" / path.relative_to(base))
        for path in config.include:
            resolved = path.resolve()
            if not resolved.is_relative_to(base):
                raise PackagingError(f"--include must be a path below {base}, got {path}")
            _copy(resolved, root / "app" / resolved.relative_to(base))
    (root / "start.py").write_text(start_file(config.runtime, target), "utf-8")


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copyfile(path, to)


def _write_packages(root: Path, packages: Sequence[Package]) -> list[Path]:
    """Copy packages to py/; returns their binaries, where they are installed."""
    binaries = []
    for package in packages:
        for name, path in package.files.items():
            if not name.startswith(_UNUSED):
                _copy(path, root / "py" / name)
                if ".so" in path.name and is_elf(path):
                    binaries.append(path)
    return binaries


def _write_host(
    root: Path, manifest: Mapping[str, Any], packages: Sequence[Package], progress: Progress
) -> set[str]:
    """Write a package that uses the machine's Python."""
    ours = [package for package in packages if package.name == OURS]
    others = [package for package in packages if package.name != OURS]
    _write_packages(root, ours)
    lines = [f"{package.name}=={package.version}\n" for package in others]
    (root / "requirements.txt").write_text("".join(lines), "utf-8")
    compile_all(root, [], ["app", "py"])
    _write_sbom(root, manifest, ours, [], python=False)
    progress.log("install requirements.txt in the Python that will serve the plugin")
    return write_launchers(root, manifest)


def _write_bundle(
    root: Path,
    config: BuildConfig,
    manifest: Mapping[str, Any],
    conf: dict[str, str],
    packages: Sequence[Package],
    progress: Progress,
) -> set[str]:
    """Write a package with its own Python."""
    progress.log(f"packages: {', '.join(f'{p.name} {p.version}' for p in packages)}")
    binaries = _write_packages(root, packages)
    runtime = copy_runtime(root)
    libraries = copy_libraries(root, runtime, binaries)
    progress.log(f"Python and {len(libraries)} shared libraries, with the libc")
    _write_sbom(root, manifest, packages, libraries, python=True)
    conf |= {
        "platform": current_platform(),
        "loader": runtime.loader,
        "loader_flags": runtime.loader_flags,
        "interpreter": runtime.interpreter,
        "libraries": runtime.libraries,
    }
    (root / "launch.conf").write_text(launch_conf(conf), "utf-8")
    keep_arrow = config.whole_arrow or _uses_arrow(root, packages)
    if not keep_arrow and not _try_trimmed_arrow(root, runtime):
        progress.warn("this release of pyarrow cannot be trimmed; all of it is packaged")
        (arrow,) = (package for package in packages if package.name == "pyarrow")
        shutil.rmtree(root / "py/pyarrow")
        _write_packages(root, [arrow])
    if not strip_all(root):
        progress.warn("the tool `strip` is not installed; the package is larger than necessary")
    count = compile_all(root, [runtime.library], ["app", "py"])
    progress.log(f"{count} files compiled")
    count = write_preload(root, runtime)
    smoke_test(root, runtime)
    progress.log(f"smoke test passed: it imports ({count} modules at the start), encodes a frame")
    launchers = write_launchers(root, manifest, (current_platform(),))
    return {runtime.loader, runtime.interpreter, *launchers}


def _uses_arrow(root: Path, packages: Sequence[Package]) -> bool:
    """Whether the author's files or another package may use pyarrow."""
    ours = {OURS, "pyarrow"}
    sources = list((root / "app").rglob("*.py"))
    sources += [
        path
        for package in packages
        for path in package.files.values()
        if package.name not in ours and path.suffix == ".py"
    ]
    return any(b"pyarrow" in path.read_bytes() for path in sources)


def _try_trimmed_arrow(root: Path, runtime: Runtime) -> bool:
    trim_arrow(root / "py/pyarrow")
    try:
        smoke_test(root, runtime, only_arrow=True)
    except PackagingError:
        return False
    return True


def _write_sbom(
    root: Path,
    manifest: Mapping[str, Any],
    packages: Sequence[Package],
    libraries: Sequence[Path],
    *,
    python: bool,
) -> None:
    system = system_packages(libraries)
    version = manifest["info"]["version"]
    document = make_sbom(manifest["id"], version, packages, system, python=python)
    (root / SBOM_FILE).write_bytes(document)
    for one in system:
        if one.copyright:
            _copy(Path(one.copyright).resolve(), root / "licenses" / f"{one.name}.txt")
