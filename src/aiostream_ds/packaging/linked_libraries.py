"""Finds the libraries that are linked into programs: no package manager knows them, and they have
faults of their own.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aiostream_ds.packaging.python_runtime import Runtime, run_python

__all__ = [
    "Library",
    "PythonLibraries",
    "find_declared",
    "find_linked",
    "python_libraries",
]


class Library(NamedTuple):
    """A library; `version` is "" if unknown. `purl` and `license` are those of a wheel's SBOM."""

    name: str
    version: str = ""
    purl: str = ""
    license: str = ""


_VERSIONS = {
    "bzip2": re.compile(rb"(1\.0\.\d), \d+-[A-Z][a-z]+-20\d\d"),
    "curl": re.compile(rb"libcurl/(\d+\.\d+\.\d+)"),
    "jemalloc": re.compile(rb"(\d+\.\d+\.\d+)-\d+-g[0-9a-f]{40}\0"),
    "libpq": re.compile(rb"PostgreSQL (\d+\.\d+)\b"),
    "openssl": re.compile(rb"OpenSSL (\d+\.\d+\.\d+[a-z]?) +\d{1,2} [A-Z][a-z]{2} 20\d\d"),
    "sqlite": re.compile(rb"SQLite version (3\.\d+\.\d+)"),
    "zlib": re.compile(rb"flate (\d+\.\d+[\d.]*) Copyright "),
}
"""The texts with which libraries state their versions."""

_MARKERS = {
    "azure-sdk-for-cpp": rb"N5Azure",
    "brotli": rb"BrotliDecoder|brotli decode",
    "lz4": rb"LZ4_compress|LZ4F_|ERROR_maxBlockSize_invalid",
    "mimalloc": rb"mimalloc: error",
    "orc": rb"N3orc",
    "rapidjson": rb"N9rapidjson",
    "simdjson": rb"N8simdjson",
    "snappy": rb"SnappyCodec",
    "zstd": rb"ZSTD_",
}
"""Texts of libraries that state no version."""

# The build trees of vcpkg, which builds the libraries in Arrow's wheels.
_BUILD_TREE = re.compile(rb"vcpkg/buildtrees/([a-z0-9-]+)/src/([^/\0]+)-[0-9a-f]{10}\.clean/")
_NUMBERS = re.compile(r"\d+(?:[._]\d+)+")


def find_linked(binary: Path) -> set[Library]:
    """The libraries that left their names in a binary: those that are listed above, and all of a
    build with vcpkg."""
    data = binary.read_bytes()
    found: dict[str, str] = {}
    for name, tree in set(_BUILD_TREE.findall(data)):
        numbers = _NUMBERS.search(tree.decode("ascii", "replace"))
        found[name.decode()] = numbers[0].replace("_", ".") if numbers else ""
    for name, pattern in _VERSIONS.items():
        match = pattern.search(data)
        if match is not None:
            found[name] = match[1].decode()
    for name, marker in _MARKERS.items():
        if name not in found and re.search(marker, data):
            found[name] = ""
    return {Library(name, version) for name, version in found.items()}


def find_declared(sboms: Iterable[Path]) -> set[Library]:
    """The components in the CycloneDX files of a wheel (PEP 770); other files are skipped."""
    found = set()
    for path in sboms:
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            continue
        if isinstance(document, dict) and document.get("bomFormat") == "CycloneDX":
            found |= set(_components(document))
    return found


def _components(parent: Mapping[str, Any]) -> Iterable[Library]:
    for component in parent.get("components") or ():
        licenses = [
            one.get("expression") or one.get("license", {}).get("id") or ""
            for one in component.get("licenses") or ()
        ]
        yield Library(
            str(component.get("name", "")),
            str(component.get("version") or ""),
            str(component.get("purl") or "").partition("?")[0],
            licenses[0] if len(licenses) == 1 else "",
        )
        yield from _components(component)


_ASK_PYTHON = """
import importlib, json, sys
sys.path.append(sys.argv[1] + "/py")
found = {}
for name, module, attribute in json.loads(sys.argv[2]):
    try:
        value = importlib.import_module(module)
        for one in attribute.split("."):
            value = getattr(value, one)
        found[name] = value() if callable(value) else value
    except (ImportError, AttributeError):
        pass
print(json.dumps(found))
"""

_STATED = {
    "expat": ("pyexpat", "EXPAT_VERSION"),
    "libmpdec": ("decimal", "__libmpdec_version__"),
    "openssl": ("ssl", "OPENSSL_VERSION"),
    "sqlite": ("sqlite3", "sqlite_version"),
    "zlib": ("zlib", "ZLIB_RUNTIME_VERSION"),
    "libuv": ("uvloop.loop", "libuv_get_version"),
    "bzip2": ("_bz2", "__name__"),
    "xz": ("_lzma", "__name__"),
    "libffi": ("_ctypes", "__name__"),
}
"""Library → where a module states its version. The last three are there, but state none."""

_FILES = {
    "bzip2": ("libbz2.",),
    "expat": ("libexpat.",),
    "libffi": ("libffi.",),
    "libmpdec": ("libmpdec.",),
    "openssl": ("libcrypto.", "libssl."),
    "sqlite": ("libsqlite3.",),
    "xz": ("liblzma.",),
    "zlib": ("libz.",),
}
"""How the names of their shared libraries start."""


class PythonLibraries(NamedTuple):
    """The libraries of the packaged Python.

    Attributes:
        linked: Those that are linked into Python.
        event_loop: That of uvloop; None without it.
        shared: The others, by the names of their files in the package.
    """

    linked: list[Library]
    event_loop: Library | None
    shared: dict[str, Library]


def python_libraries(root: Path, runtime: Runtime) -> PythonLibraries:
    """Ask the packaged Python for its libraries.

    Raises:
        PackagingError: It does not run.
    """
    question = [(name, *where) for name, where in _STATED.items()]
    answer = run_python(root, runtime, _ASK_PYTHON, json.dumps(question)).rpartition("\n")[2]
    files = [path.name for path in (root / runtime.libraries).iterdir()]
    linked: list[Library] = []
    event_loop: Library | None = None
    shared: dict[str, Library] = {}
    for name, stated in json.loads(answer).items():
        library = Library(*_name_and_version(name, stated))
        own_files = [file for file in files if file.startswith(_FILES.get(name, ("/",)))]
        if name == "libuv":
            event_loop = library
        elif own_files:
            shared |= dict.fromkeys(own_files, library)
        else:
            linked.append(library)
    return PythonLibraries(linked, event_loop, shared)


def _name_and_version(name: str, stated: object) -> tuple[str, str]:
    if name == "libuv" and isinstance(stated, int):
        return name, ".".join(str(stated >> shift & 0xFF) for shift in (16, 8, 0))
    if name == "openssl":  # or LibreSSL, AWS-LC …
        words = str(stated).split()
        return words[0].lower(), words[1] if len(words) > 1 else ""
    numbers = re.search(r"\d+(\.\d+)+", str(stated))
    return name, numbers[0] if numbers else ""
