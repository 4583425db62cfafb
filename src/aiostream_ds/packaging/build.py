"""Builds a package: a folder, and a zip of it, that Grafana loads.

    <id>/  plugin.json module.js schema.json img/ README.md CHANGELOG.md LICENSE sbom.cdx.json
           gpx_<name>_<os>_<arch>   the launcher        launch.conf   what it starts
           start.py start.bin       what Python runs first
           app/  py/                author's code, packages          rt/  Python and the libc

It is built in a temporary folder and moved when it is complete.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from aiostream_ds.packaging.archive import set_modes, write_zip
from aiostream_ds.packaging.arrow_trimming import (
    remove_unreachable_code,
    replace_compute,
    trim_arrow,
    trim_optional_arrow,
)
from aiostream_ds.packaging.build_config import BuildConfig
from aiostream_ds.packaging.bytecode import compile_all, write_preload
from aiostream_ds.packaging.contents import describe_contents
from aiostream_ds.packaging.costs import describe_costs
from aiostream_ds.packaging.dependencies import Package
from aiostream_ds.packaging.findings import PackagingError, Progress, megabytes
from aiostream_ds.packaging.foreign_python import fetch_python, fetch_wheels, machine_name
from aiostream_ds.packaging.image import IMAGE_PLATFORMS, image_name, write_image
from aiostream_ds.packaging.launchers import (
    current_platform,
    executable_name,
    launch_conf,
    start_file,
)
from aiostream_ds.packaging.package_code import (
    DISTRIBUTION,
    binaries_of,
    copy_packages,
    required_packages,
    write_author_files,
)
from aiostream_ds.packaging.package_layout import (
    package_manifest,
    write_common,
    write_launchers,
)
from aiostream_ds.packaging.project import Imports, Project, find_imports, read_project
from aiostream_ds.packaging.python_files import installed_python
from aiostream_ds.packaging.python_runtime import Runtime, copy_libraries, copy_runtime
from aiostream_ds.packaging.sbom import SBOM_FILE, Sbom
from aiostream_ds.packaging.secret_check import find_secrets
from aiostream_ds.packaging.smoke_test import smoke_test
from aiostream_ds.packaging.strip import strip_all
from aiostream_ds.packaging.unused_modules import remove_unused_modules

__all__ = ["Built", "build"]


class Built(NamedTuple):
    """A finished package.

    Attributes:
        folder: That of this machine's platform, or of the first one.
        zips: One for each platform; empty if none was requested.
        image: The archive with the container image, or None.
    """

    folder: Path
    zips: list[Path]
    image: Path | None


def build(config: BuildConfig, progress: Progress) -> Built:
    """Build the package, once for each platform.

    Raises:
        PackagingError: It cannot be built; an existing package stays unchanged.
    """
    config = config.validated()
    project = None if config.file is None else read_project(config.file)
    manifest = package_manifest(config, project, progress)
    target = config.out / manifest["id"]
    _check_target(target)
    if config.image is not None:
        _check_image(config.image)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=config.out.absolute()) as scratch:
        progress.log(f"{manifest['name']} {manifest['info']['version']} as {manifest['id']}")
        roots, zips = {}, []
        for platform in _platforms(config):
            root = Path(scratch) / platform.replace("/", "_") / manifest["id"]
            root.mkdir(parents=True)
            roots[platform] = root
            python = Path(scratch) / "python"
            executables = _Builder(
                root, config, project, manifest, platform, python, progress
            ).write()
            set_modes(root, executables)
            shutil.rmtree(python, ignore_errors=True)
            size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
            progress.log(f"{megabytes(size)} unpacked")
            if config.zip:
                zips.append(_write_zip(root, config, manifest, platform, progress))
        image = _write_image(roots, config, manifest, progress)
        finished = [path.replace(config.out / path.name) for path in zips]
        if image is not None and config.image is not None:
            shutil.move(image, config.image)
        shutil.rmtree(target, ignore_errors=True)
        roots.get(current_platform(), next(iter(roots.values()))).replace(target)
    progress.log(f"done: {target}")
    return Built(target, finished, config.image)


def _platforms(config: BuildConfig) -> tuple[str, ...]:
    """The platforms that differ: a package without Python is one for all."""
    bundled = config.runtime == "bundled"
    return (config.platforms or (current_platform(),)) if bundled else (current_platform(),)


def _write_zip(
    root: Path, config: BuildConfig, manifest: Mapping[str, Any], platform: str, progress: Progress
) -> Path:
    name = f"{manifest['id']}-{manifest['info']['version']}"
    if config.runtime == "bundled":
        name += f".{platform.replace('/', '_')}"
    path = root.parent / f"{name}.zip"
    sizes = write_zip(root, path)
    progress.log(f"{path.name}: {megabytes(path.stat().st_size)}: {describe_costs(sizes)}")
    return path


def _write_image(
    roots: Mapping[str, Path], config: BuildConfig, manifest: Mapping[str, Any], progress: Progress
) -> Path | None:
    if config.image is None:
        return None
    if config.runtime != "bundled":  # the same files for all of them
        (root,) = roots.values()
        roots = dict.fromkeys(config.platforms or IMAGE_PLATFORMS, root)
    path = next(iter(roots.values())).parent / "image.tar"
    write_image(path, roots, manifest)
    size = megabytes(path.stat().st_size)
    progress.log(f"image {image_name(manifest)} for {', '.join(roots)}: {size}")
    return path


def _check_target(target: Path) -> None:
    """Make the folder that `target` is written to.

    Raises:
        PackagingError: `target` is not a plugin that can be replaced, or nothing can be written.
    """
    if target.is_symlink():
        link = str(target.readlink())
        raise PackagingError(f"{target} must be a folder, got a link to {link!r}; remove it")
    if target.exists() and not (target / "plugin.json").is_file():
        raise PackagingError(f"{target} exists and is not a plugin; remove it, or use -o")
    _check_folder(target.parent)


def _check_image(image: Path) -> None:
    """Make the folder of an image's archive.

    Raises:
        PackagingError: The archive cannot be written there.
    """
    if image.is_dir():
        raise PackagingError(f"--oci must name a file, got the folder {str(image)!r}")
    _check_folder(image.parent)


def _check_folder(folder: Path) -> None:
    """Make a folder.

    Raises:
        PackagingError: It cannot be made, or nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackagingError(f"{folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PackagingError(f"{folder} must be writable; write to another folder")


class _Builder:
    """Writes the files of one package into the folder `root`.

    `config.runtime` is one of three kinds of packages: with a Python of its own (`bundled`), for
    the machine's Python (`host`), and for a plugin that runs elsewhere (`address`). A Python for
    another platform is unpacked into the folder `python`.
    """

    def __init__(
        self,
        root: Path,
        config: BuildConfig,
        project: Project | None,
        manifest: Mapping[str, Any],
        platform: str,
        python: Path,
        progress: Progress,
    ) -> None:
        self._root = root
        self._platform = platform
        self._python = python
        self._config = config
        self._project = project
        self._manifest = manifest
        self._progress = progress
        self._launch_conf = {"id": manifest["id"], "runtime": config.runtime}
        self._sbom = Sbom(manifest["id"], manifest["info"]["version"])

    def write(self) -> set[str]:
        """Write all files; returns the paths of the executables."""
        write_common(self._root, self._config, self._project, self._manifest, self._progress)
        if self._config.runtime == "address":
            executables = self._write_for_remote_plugin()
        else:
            file = self._config.file
            imports = None if file is None else find_imports(file)
            packages = required_packages(
                self._config, self._project, imports, self._processor(), self._progress
            )
            self._write_code(imports)
            self._warn_of_secrets()
            if self._config.runtime == "host":
                executables = self._write_for_host_python(packages)
            else:
                executables = self._write_with_own_python(packages)
        (self._root / SBOM_FILE).write_bytes(self._sbom.encode())
        conf = self._root / "launch.conf"
        names = sorted({conf.name, *(path.name for path in self._root.iterdir())})
        self._launch_conf["contents"] = "/".join(names)  # no name has a slash
        conf.write_text(launch_conf(self._launch_conf), "utf-8")
        return executables

    def _is_foreign(self) -> bool:
        return self._config.runtime == "bundled" and self._platform != current_platform()

    def _processor(self) -> str:
        return machine_name(self._platform) if self._is_foreign() else ""

    def _write_for_remote_plugin(self) -> set[str]:
        config = self._config
        tls = "true" if config.tls or config.ca else ""
        self._launch_conf |= {"address": config.address, "tls": tls}
        if config.ca is not None:
            shutil.copyfile(config.ca, self._root / "ca.pem")
            self._launch_conf["ca"] = "ca.pem"
        return self._write_launchers(bridge=True)

    def _write_code(self, imports: Imports | None) -> None:
        """Write the author's files and start.py."""
        config, served = self._config, None
        if config.file is not None and imports is not None:
            assert isinstance(config.target, type)
            served = config.file.stem, config.target.__name__
            write_author_files(self._root / "app", config.file, imports, config.include)
        executable = executable_name(self._manifest, self._platform)
        text = start_file(config.runtime, served, executable)
        (self._root / "start.py").write_text(text, "utf-8")

    def _warn_of_secrets(self) -> None:
        """Warn of secrets among the author's files, including those of the frontend."""
        if self._config.file is None:
            return
        for text in find_secrets(self._root, self._config.file.resolve().parent, os.environ):
            self._progress.warn(text)

    def _write_for_host_python(self, packages: Sequence[Package]) -> set[str]:
        ours = [package for package in packages if package.name == DISTRIBUTION]
        others = [package for package in packages if package.name != DISTRIBUTION]
        copy_packages(self._root, ours)
        lines = [f"{package.name}=={package.version}\n" for package in others]
        (self._root / "requirements.txt").write_text("".join(lines), "utf-8")
        compile_all(self._root)
        for package in ours:
            self._sbom.add_package(package.name, package.version, package.license)
        self._progress.log("install requirements.txt in the Python that will serve the plugin")
        return self._write_launchers()

    def _write_with_own_python(self, packages: Sequence[Package]) -> set[str]:
        root, progress = self._root, self._progress
        progress.log(f"packages: {', '.join(f'{p.name} {p.version}' for p in packages)}")
        if self._is_foreign():
            python = fetch_python(self._platform, self._python, progress)
            packages = fetch_wheels(packages, self._platform, progress)
        else:
            python = installed_python(self._platform)
        copy_packages(root, packages)
        runtime = copy_runtime(root, python)
        binaries = [path for package in packages for path in binaries_of(package)]
        libraries = copy_libraries(root, runtime, python, binaries)
        progress.log(f"Python and {len(libraries)} shared libraries, with the libc")
        self._launch_conf |= {
            "platform": self._platform,
            "loader": runtime.loader,
            "loader_flags": runtime.loader_flags,
            "interpreter": runtime.interpreter,
            "libraries": runtime.libraries,
        }
        self._trim_arrow(runtime, packages)
        if not strip_all(root, python.strip):
            progress.warn(
                f"the program `{python.strip}` is not installed; the package is larger than "
                "necessary"
            )
        if self._config.small:
            count = remove_unused_modules(root, runtime)
            progress.log(
                f"{count} modules of the standard library that nothing mentions are left out"
            )
        count = compile_all(root, runtime.library, small=self._config.small)
        progress.log(f"{count} files compiled")
        count = write_preload(root, runtime, small=self._config.small)
        smoke_test(root, runtime)
        progress.log(
            f"smoke test passed: it imports ({count} modules at the start), encodes a frame"
        )
        for text in describe_contents(self._sbom, root, runtime, python, packages, libraries):
            progress.warn(text)
        launchers = self._write_launchers(self._platform)
        return {runtime.loader, runtime.interpreter, *launchers}

    def _trim_arrow(self, runtime: Runtime, packages: Sequence[Package]) -> None:
        """Remove what the plugin does not use of pyarrow, if that works."""
        if self._config.whole_arrow:
            return
        folder = self._root / "py/pyarrow"
        sources = self._sources_with_arrow(packages)
        if sources:
            trim_optional_arrow(folder, sources)
        else:
            trim_arrow(folder)
        if not self._arrow_works(runtime):
            self._progress.warn("this release of pyarrow cannot be trimmed; all of it is packaged")
            shutil.rmtree(folder)
            copy_packages(self._root, [one for one in packages if one.name == "pyarrow"])
            return
        self._try(runtime, folder, "libarrow_compute.", replace_compute)
        removed = self._try(runtime, folder, "libarrow.", remove_unreachable_code)
        if removed:
            self._progress.log(
                f"pyarrow: {megabytes(removed)} of code that nothing in the package can reach "
                "are left out"
            )

    def _try(
        self, runtime: Runtime, folder: Path, library: str, change: Callable[[Path], int]
    ) -> int:
        """Change a library in pyarrow's folder, unless pyarrow then fails; returns what `change`
        returned, or 0."""
        before = {path: path.read_bytes() for path in folder.glob(f"{library}*")}
        done = change(folder)
        if done and not self._arrow_works(runtime):
            for path, content in before.items():
                path.write_bytes(content)
            self._progress.warn(f"{library}so of this release of pyarrow cannot be made smaller")
            return 0
        return done

    def _arrow_works(self, runtime: Runtime) -> bool:
        try:
            smoke_test(self._root, runtime, only_arrow=True)
        except PackagingError:
            return False
        return True

    def _sources_with_arrow(self, packages: Sequence[Package]) -> list[Path]:
        """The author's files and those of other packages that name pyarrow."""
        ours = {DISTRIBUTION, "pyarrow"}
        sources = list((self._root / "app").rglob("*.py"))
        sources += [
            path
            for package in packages
            for path in package.files.values()
            if package.name not in ours and path.suffix == ".py"
        ]
        return [path for path in sources if b"pyarrow" in path.read_bytes()]

    def _write_launchers(self, *platforms: str, bridge: bool = False) -> set[str]:
        """Copy the launchers, by default those of all platforms; returns their names."""
        names = write_launchers(self._root, self._manifest, *platforms, bridge=bridge)
        for name in sorted(names):
            self._sbom.add_launcher(self._root / name, version(DISTRIBUTION))
        return names
