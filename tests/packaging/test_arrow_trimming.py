"""The library that replaces libarrow_compute in packages: what others take from it, and that it
loads.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aiostream_ds.packaging.arrow_trimming import COMPUTE_SYMBOLS, replace_compute
from aiostream_ds.packaging.elf import read_elf
from aiostream_ds.packaging.elf_library import shared_library

from ..requirements import require

REPLACE = next(name for name in COMPUTE_SYMBOLS if "_M_replace_cold" in name)


@pytest.fixture
def library(tmp_path: Path) -> ctypes.CDLL:
    require("package", os.uname().machine == "x86_64", "its machine code is for x86-64")
    functions = {symbol: code["amd64"] for symbol, code in COMPUTE_SYMBOLS.items()}
    (tmp_path / "library.so").write_bytes(shared_library("amd64", "library.so", functions))
    return ctypes.CDLL(str(tmp_path / "library.so"))


def replacer(library: ctypes.CDLL) -> Callable[[bytes, int, int, int, int], bytes]:
    """Replaces a part of a text by another part of it, in place."""
    function = library[REPLACE]
    function.restype = None
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_void_p, ctypes.c_size_t] * 2, ctypes.c_size_t]

    def replace(text: bytes, at: int, size: int, other: int, length: int) -> bytes:
        buffer = ctypes.create_string_buffer(text, 2 * len(text) + 1)
        start = ctypes.addressof(buffer)
        function(None, start + at, size, start + other, length, len(text) - at - size)
        return buffer.raw[: len(text) - size + length]

    return replace


def test_every_part_of_a_text_replaces_every_other_part(library: ctypes.CDLL) -> None:
    replace = replacer(library)
    for total in range(8):
        text = bytes(range(65, 65 + total))
        for at in range(total + 1):
            for size in range(total - at + 1):
                for other in range(total + 1):
                    for length in range(total - other + 1):
                        expected = text[:at] + text[other : other + length] + text[at + size :]
                        assert replace(text, at, size, other, length) == expected


def test_the_function_that_only_makes_a_linker_load_it_returns(library: ctypes.CDLL) -> None:
    library["_ZSt21ios_base_library_initv"]()


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_it_has_the_machine_and_needs_no_library(tmp_path: Path, machine: str) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(shared_library(machine, "library.so", {"f": b"\0"}))
    assert read_elf(path)[:3] == (machine, "", {})
    assert path.stat().st_size < 1000


def test_a_pyarrow_that_computes_keeps_its_library(tmp_path: Path) -> None:
    for name in ("libarrow_compute.so.1", "_compute.so"):
        (tmp_path / name).write_bytes(shared_library("amd64", name, {}))
    before = (tmp_path / "libarrow_compute.so.1").read_bytes()
    assert not replace_compute(tmp_path)
    assert (tmp_path / "libarrow_compute.so.1").read_bytes() == before
    (tmp_path / "_compute.so").unlink()
    assert replace_compute(tmp_path)
    assert (tmp_path / "libarrow_compute.so.1").read_bytes() != before
