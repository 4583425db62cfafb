"""Makes pyarrow smaller: without the libraries and modules that a plugin does not use."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from aiostream_ds.packaging.elf import drop_needed, is_elf, read_elf
from aiostream_ds.packaging.elf_library import shared_library
from aiostream_ds.packaging.elf_sections import sections, symbols
from aiostream_ds.packaging.unreachable_code import remove_unreachable

__all__ = [
    "COMPUTE_SYMBOLS",
    "remove_unreachable_code",
    "replace_compute",
    "trim_arrow",
    "trim_optional_arrow",
]

_ARROW_UNUSED = ("libarrow_substrait.", "libarrow_dataset.", "libarrow_acero.", "libparquet.")
"""Libraries that pyarrow's core links but takes no symbol from."""

_ARROW_OPTIONAL = ("substrait", "flight")
"""Parts of pyarrow that only code which names them uses."""

_ARROW_FOLDERS = ("include", "includes", "src", "tests", "vendored/tests")


def trim_arrow(folder: Path) -> None:
    """Remove from pyarrow's folder what reading and writing frames does not need (Parquet, S3,
    SQL).

    Other releases of pyarrow may need more, so the caller has to test the result.
    """
    _remove_from_arrow(folder, ("lib.",), _ARROW_UNUSED)


def trim_optional_arrow(folder: Path, sources: Iterable[Path]) -> None:
    """Remove from pyarrow's folder the optional parts that no source names, and second copies of
    libraries; the caller has to test the result, as above."""
    code = b"".join(path.read_bytes() for path in sources)
    unnamed = [part for part in _ARROW_OPTIONAL if part.encode() not in code]
    modules = tuple(
        path.name
        for path in folder.glob("*.so")
        if not path.name.startswith(("lib", *(f"_{part}." for part in unnamed)))
    )
    unused = tuple(f"libarrow_{part}." for part in unnamed)
    _remove_from_arrow(folder, ("lib.", *modules), unused)


def _remove_from_arrow(folder: Path, modules: tuple[str, ...], unused: tuple[str, ...]) -> None:
    """Keep these extension modules, the libraries that they need except `unused`, and sources.
    All are starts of names."""
    for name in _ARROW_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    libraries = {path.name: path for path in folder.iterdir() if ".so" in path.name}
    unused_names = {name for name in libraries if name.startswith(unused)}
    reached = [name for name in libraries if name.startswith(modules)]
    for name in reached:  # the list grows during the loop
        drop_needed(libraries[name], unused_names)
        needed = read_elf(libraries[name]).needed
        reached += [n for n in needed if n in libraries and n not in reached]
    for name in libraries.keys() - set(reached):
        libraries[name].unlink()
        _remove_modules(folder, name.partition(".")[0].removeprefix("_"))


def _remove_modules(folder: Path, name: str) -> None:
    """Remove the modules in Python that only make a removed module in C usable."""
    (folder / f"{name}.py").unlink(missing_ok=True)
    shutil.rmtree(folder / name, ignore_errors=True)


_COMPUTE = "libarrow_compute."

_MOVE = {
    "amd64": bytes.fromhex(
        "41564d89ce41554989d541544989cc554889f5534c89c34d85c074134c39c2720e4c89c24889ce4889efe884"
        "0000004d85f674174c39eb74124a8d742d00488d7c1d004c89f2e8680000004939dd735a4a8d442d00498d14"
        "1c4839d072084889da4c89e6eb114939c472114889de4889da4c29ee4c01e64889efeb244c29e04c89e64889"
        "ef4889c24989c5e8230000004889da488d741d004a8d7c2d004c29ea5b5d415c415d415eeb095b5d415c415d"
        "415ec34839fe721331c04839c2740b8a0c06880c0748ffc0ebf0c34883ea0172088a0416880417ebf2c3"
    ),
    "arm64": bytes.fromhex(
        "fd7bbca99f0000f1821042fafd030091f35301a9f40301aaf30304aaf55b02a9f50302aaf60303aaf71b00f9"
        "f70305aaa8000054e20304aae10303aae00314aa2a000094ff0200f1641255faa0000054e20317aa8102158b"
        "8002138b230000947f0215eb890300548002158bc102138b1f0001eb23010054e20313aae10316aae00314aa"
        "f35341a9f55b42a9f71b40f9fd7bc4a8150000141f0016eba8000054750215cbe20313aac102158bf5ffff17"
        "150016cbe10316aae20315aae00314aa0a000094620215cb8102138b8002158bedffff17f35341a9f55b42a9"
        "f71b40f9fd7bc4a8c0035fd61f0001eba9010054420400d15f0400b1200100542368623803682238fbffff17"
        "2468633804682338630400915f0003eb81ffff54c0035fd6030080d2fcffff17"
    ),
}
"""`std::string::_M_replace_cold(place, old_size, text, size, after)`, which replaces a part of a
string by another part of itself: machine code that any compiler makes of these lines.

    move(to, from, n): the first byte first if to <= from, otherwise the last byte first
    if size and size <= old_size: move(place, text, size)
    if after and old_size != size: move(place + size, place + old_size, after)
    if size > old_size:
        if text + size <= place + old_size: move(place, text, size)
        elif text >= place + old_size: move(place, text + size - old_size, size)
        else: left = place + old_size - text
              move(place, text, left); move(place + left, place + size, size - left)
"""

_RETURN = {"amd64": b"\xc3", "arm64": b"\xc0\x03\x5f\xd6"}
_ABORT = {"amd64": b"\x0f\x0b", "arm64": b"\x00\x00\x20\xd4"}

COMPUTE_SYMBOLS = {
    "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE15_M_replace_coldEPcmPKcmm": _MOVE,
    "_ZSt21ios_base_library_initv": _RETURN,  # makes a linker load the library; does nothing
    # of aggregations that are written in Python, which need the module `_compute`: never called
    "_ZN5arrow7compute7Grouper13MakeGroupingsERKNS_12NumericArrayINS_10UInt32TypeEEEjPNS0_"
    "11ExecContextE": _ABORT,
}
"""What pyarrow's other libraries take from libarrow_compute: two functions of newer C++ libraries,
and one of its own."""


def replace_compute(folder: Path) -> bool:
    """Replace libarrow_compute in a trimmed pyarrow by a library with what the others take from it;
    False if there is none, or for another machine. The caller has to test the result."""
    found = next(folder.glob(f"{_COMPUTE}*"), None)
    if found is None or any(folder.glob("_compute.*")):
        return False
    machine = read_elf(found).machine
    if machine not in _MOVE:
        return False
    functions = {symbol: code[machine] for symbol, code in COMPUTE_SYMBOLS.items()}
    found.write_bytes(shared_library(machine, found.name, functions))
    return True


_CORE = "libarrow."


def remove_unreachable_code(folder: Path) -> int:
    """Overwrite the functions of libarrow that the other libraries in pyarrow's folder, and those
    of the package that are linked with it, cannot reach, such as those of cloud storage; returns
    their bytes. It is 0 for another machine, and for a release without the table of symbols. The
    caller has to test the result."""
    found = next(folder.glob(f"{_CORE}*"), None)
    if found is None:
        return 0
    named: set[bytes] = set()
    for path in folder.parents[1].rglob("*.so*"):
        if path != found and (path.parent == folder or _is_linked_with_arrow(path)):
            named |= _dynamic_names(path)
    try:
        data, count = remove_unreachable(found.read_bytes(), named)
    except ValueError:
        return 0
    found.write_bytes(data)
    return count


def _is_linked_with_arrow(path: Path) -> bool:
    if not path.is_file() or not is_elf(path):
        return False
    try:
        needed = read_elf(path).needed
    except ValueError:  # for another machine, as test data may be
        return False
    return any(name.startswith("libarrow") for name in needed)


def _dynamic_names(path: Path) -> set[bytes]:
    """The names of symbols that a library takes from others or has for them."""
    data = path.read_bytes()
    try:
        found = sections(data)
    except ValueError:  # the library that replaces libarrow_compute has no sections
        return {name.encode() for name in COMPUTE_SYMBOLS}
    return {one.name for one in symbols(data, found[".dynsym"], found[".dynstr"])}
