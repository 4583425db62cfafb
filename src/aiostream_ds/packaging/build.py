"""`build`: a folder, and a zip of it, that Grafana loads.

    <id>/  plugin.json module.js schema.json img/ README.md CHANGELOG.md LICENSE sbom.cdx.json
           gpx_<name>_<os>_<arch>   the launcher        launch.conf   what it starts
           start.py start.bin       what Python runs first
           app/  py/                author's code, packages          rt/  Python and the libc below

Made beside its place and moved there when it is whole. Imports the rest of the room.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from aiostream_ds.packaging import sbom
from aiostream_ds.packaging.archive import set_modes, write_zip
from aiostream_ds.packaging.build_config import Recipe
from aiostream_ds.packaging.bytecode import compile_all
from aiostream_ds.packaging.dependencies import Package, closure, owners
from aiostream_ds.packaging.elf import is_elf
from aiostream_ds.packaging.findings import PackagingError, Progress, megabytes
from aiostream_ds.packaging.launchers import here
from aiostream_ds.packaging.package_layout import describe, lay_common, lay_launchers
from aiostream_ds.packaging.preload import write_preload
from aiostream_ds.packaging.project import Imports, Project, find_imports, read_project
from aiostream_ds.packaging.python_runtime import Runtime, copy_libraries, copy_runtime, strip_all
from aiostream_ds.packaging.smoke_test import try_package
from aiostream_ds.packaging.start import launch_conf, start_file
from aiostream_ds.packaging.trim_pyarrow import trim_arrow

__all__ = ["Built", "build"]

OURS = "aiostream-ds"
"""This distribution's name."""

_LEFT_OUT = tuple(
    f"aiostream_ds/{folder}/"
    for folder in ("console", "static", "packaging/builtin", "packaging/launchers")
)
"""What of ourselves a running plugin has no use for."""


class Built(NamedTuple):
    """What came of it; `zip` is None when none was asked for."""

    folder: Path
    zip: Path | None
    size: int


def build(recipe: Recipe, progress: Progress) -> Built:
    """Make the package. Raises PackagingError; then what was there before is left as it was."""
    recipe = recipe.checked()
    project = None if recipe.file is None else read_project(recipe.file)
    manifest = describe(recipe, project)
    target = recipe.out / manifest["id"]
    if target.exists() and not (target / "plugin.json").is_file():
        raise PackagingError(f"{target} is there and is no plugin: remove it, or give -o")
    recipe.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=recipe.out.absolute()) as scratch:
        root = Path(scratch) / manifest["id"]
        root.mkdir()
        progress.say(f"{manifest['name']} {manifest['info']['version']} as {manifest['id']}")
        executables = _lay(root, recipe, project, manifest, progress)
        set_modes(root, executables)
        packed, size = None, sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
        progress.say(f"{megabytes(size)} laid")
        if recipe.zip:
            packed = recipe.out / _zip_name(recipe, manifest)
            size = write_zip(root, packed)
        shutil.rmtree(target, ignore_errors=True)
        root.replace(target)
    progress.say(f"done: {target}" + (f", {packed} ({megabytes(size)})" if packed else ""))
    return Built(target, packed, size)


def _zip_name(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    where = f".{here().replace('/', '_')}" if recipe.runtime == "bundled" else ""
    return f"{manifest['id']}-{manifest['info']['version']}{where}.zip"


def _lay(
    root: Path, recipe: Recipe, project: Project | None, manifest: Mapping[str, Any],
    progress: Progress,
) -> set[str]:  # fmt: skip
    lay_common(root, recipe, project, manifest, progress)
    conf = {"id": manifest["id"], "runtime": recipe.runtime}
    if recipe.runtime == "address":
        conf |= {"address": recipe.address, "tls": "true" if recipe.tls or recipe.ca else ""}
        if recipe.ca is not None:
            shutil.copyfile(recipe.ca, root / "ca.pem")
            conf["ca"] = "ca.pem"
        (root / "launch.conf").write_text(launch_conf(conf), "utf-8")
        _write_bill(root, manifest, [], [], python=False)
        return lay_launchers(root, manifest, bridge=True)
    imports = None if recipe.file is None else find_imports(recipe.file)
    packages = _packages(recipe, project, imports, progress)
    _lay_code(root, recipe, imports)
    if recipe.runtime == "host":
        (root / "launch.conf").write_text(launch_conf(conf), "utf-8")
        return _lay_for_host(root, manifest, packages, progress)
    return _lay_bundle(root, recipe, manifest, conf, packages, progress)


def _packages(
    recipe: Recipe, project: Project | None, imports: Imports | None, progress: Progress
) -> list[Package]:
    wanted = [OURS, *recipe.requires]
    if imports is None and find_spec("psutil") is not None:
        wanted.append(f"{OURS}[host]")
    elif imports is None:
        progress.warn(f"the source `host` will not work: pip install '{OURS}[host]' first")
    if project is not None and imports is not None:
        wanted += project.requires
        wanted += [str(text) for text in project.table.get("with", ())]
        wanted += sorted(owners(imports.packages))
    return closure(wanted)


def _lay_code(root: Path, recipe: Recipe, imports: Imports | None) -> None:
    """The author's files in app/, as they lie beside each other, and start.py."""
    target = None
    if recipe.file is not None and imports is not None:
        kind = recipe.target
        assert isinstance(kind, type)
        target = recipe.file.stem, kind.__name__
        base = recipe.file.resolve().parent
        for path in imports.own:
            _copy(path, root / "app" / path.relative_to(base))
        for path in recipe.include:
            whole = path.resolve()
            if not whole.is_relative_to(base):
                raise PackagingError(f"--include {path}: only what lies below {base} can go along")
            _copy(whole, root / "app" / whole.relative_to(base))
    (root / "start.py").write_text(start_file(recipe.runtime, target), "utf-8")


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copyfile(path, to)


def _lay_packages(root: Path, packages: Sequence[Package]) -> list[Path]:
    """Copy packages into py/; returns the compiled files, where they are installed."""
    compiled = []
    for package in packages:
        for place, path in package.files.items():
            if not place.startswith(_LEFT_OUT):
                _copy(path, root / "py" / place)
                if ".so" in path.name and is_elf(path):
                    compiled.append(path)
    return compiled


def _lay_for_host(
    root: Path, manifest: Mapping[str, Any], packages: Sequence[Package], progress: Progress
) -> set[str]:
    ours = [package for package in packages if package.name == OURS]
    others = [package for package in packages if package.name != OURS]
    _lay_packages(root, ours)
    lines = [f"{package.name}=={package.version}\n" for package in others]
    (root / "requirements.txt").write_text("".join(lines), "utf-8")
    compile_all(root, [], ["app", "py"])
    _write_bill(root, manifest, ours, [], python=False)
    progress.say("the machine's Python needs what requirements.txt names")
    return lay_launchers(root, manifest)


def _lay_bundle(
    root: Path, recipe: Recipe, manifest: Mapping[str, Any], conf: dict[str, str],
    packages: Sequence[Package], progress: Progress,
) -> set[str]:  # fmt: skip
    progress.say(f"the packages {', '.join(f'{p.name} {p.version}' for p in packages)}")
    compiled = _lay_packages(root, packages)
    runtime = copy_runtime(root)
    libraries = copy_libraries(root, runtime, compiled)
    progress.say(f"Python and {len(libraries)} shared libraries, the libc among them")
    _write_bill(root, manifest, packages, libraries, python=True)
    conf |= {"platform": here(), "loader": runtime.loader, "loader_flags": runtime.loader_flags,
             "interpreter": runtime.interpreter, "libraries": runtime.libraries}  # fmt: skip
    (root / "launch.conf").write_text(launch_conf(conf), "utf-8")
    whole = recipe.whole_arrow or _uses_arrow(root, packages)
    if not whole and not _arrow_trimmed(root, runtime):
        progress.warn("this pyarrow cannot be made smaller: the whole of it goes along")
        (arrow,) = (package for package in packages if package.name == "pyarrow")
        shutil.rmtree(root / "py/pyarrow")
        _lay_packages(root, [arrow])
    if not strip_all(root):
        progress.warn("the tool `strip` is not here: the package is larger than it could be")
    count = compile_all(root, [runtime.library], ["app", "py"])
    progress.say(f"{count} files compiled")
    count = write_preload(root, runtime)
    try_package(root, runtime)
    progress.say(f"tried: it imports ({count} modules at the start), writes and reads a frame")
    return {runtime.loader, runtime.interpreter, *lay_launchers(root, manifest, (here(),))}


def _uses_arrow(root: Path, packages: Sequence[Package]) -> bool:
    """Whether the author's files, or a package of theirs, may use more of pyarrow than we do."""
    ours = {OURS, "pyarrow"}
    texts = list((root / "app").rglob("*.py"))
    texts += [
        path
        for package in packages
        for path in package.files.values()
        if package.name not in ours and path.suffix == ".py"
    ]
    return any(b"pyarrow" in path.read_bytes() for path in texts)


def _arrow_trimmed(root: Path, runtime: Runtime) -> bool:
    trim_arrow(root / "py/pyarrow")
    try:
        try_package(root, runtime, only_arrow=True)
    except PackagingError:
        return False
    return True


def _write_bill(
    root: Path, manifest: Mapping[str, Any], packages: Sequence[Package],
    libraries: Sequence[Path], *, python: bool,
) -> None:  # fmt: skip
    system = sbom.system_packages(libraries)
    version = manifest["info"]["version"]
    text = sbom.bill(manifest["id"], version, packages, system, python=python)
    (root / sbom.SBOM_FILE).write_bytes(text)
    for one in system:
        if one.copyright:
            _copy(Path(one.copyright).resolve(), root / "licenses" / f"{one.name}.txt")
