"""Functions of a library that no other library can reach are removed; all others work as before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aiostream_ds.packaging.arrow_trimming import remove_unreachable_code
from aiostream_ds.packaging.elf_sections import sections, symbols
from aiostream_ds.packaging.unreachable_code import remove_unreachable

from ..requirements import require

pytestmark = pytest.mark.slow

SOURCE = r"""
#include <stdexcept>
#define APART __attribute__((noinline, noclone))
struct Shape { virtual int size() { return 1; } virtual ~Shape() {} };
struct Box : Shape { int size() override; };
struct Ball : Shape { int size() override; };
APART int Box::size() { return 42; }
APART int Ball::size() { return 43; }
APART static int leaf(int x) { return x * 3; }
APART static int hidden(int x) { return x * 5; }
APART static int first(int x) { return x + 100; }
APART static int second(int x) { return x + 200; }
APART static void fail(int x) { if (x > 3) throw std::runtime_error("large"); }
APART static int caught(int x) {
    try { fail(x + 1); } catch (const std::exception&) { return 7; }
    return 8;
}
static int size_of(Shape* shape) {
    asm volatile("" : "+r"(shape));  // its class is unknown
    int size = shape->size();
    delete shape;
    return size;
}
static int (*volatile changing)(int) = first;
static int (*const volatile table[2])(int) = {first, second};
static int started;
APART static int begin(int x) { return x + 11; }
__attribute__((constructor)) static void start() { started = begin(1); }
extern "C" {
int used(int x) { return leaf(x) + 1; }
int unused(int x) { return hidden(x) + 2; }
int by_variable(int x) { return changing(x); }
int by_index(int x) { return table[x - 3](x); }
int by_class(int x) { return size_of(new Box) + x; }
int unused_class(int x) { return size_of(new Ball) + x; }
int at_start(int) { return started; }
int thrown(int x) { try { fail(x); } catch (const std::exception&) { return -1; } return x; }
int unused_thrown(int x) { return caught(x); }
}
"""

CALL = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
print(*[library[name](int(x)) for name, x in (word.split(":") for word in sys.argv[2:])])
"""

TRAP = 0xCC


@pytest.fixture
def library(tmp_path: Path) -> Path:
    require("package", os.uname().machine == "x86_64", "the code that is read is of x86-64")
    require("package", shutil.which("g++") is not None, "g++ makes the library")
    path = tmp_path / "library.so"
    (tmp_path / "library.cpp").write_text(SOURCE)
    words = ["g++", "-O2", "-fPIC", "-shared", "-o", path, tmp_path / "library.cpp"]
    subprocess.run(words, check=True)
    return path


def call(path: Path, *words: str) -> list[int]:
    command = [sys.executable, "-c", CALL, path, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


def removed_functions(before: bytes, after: bytes) -> set[str]:
    """The names of functions that consist of traps."""
    found = sections(before)
    text = found[".text"]
    names = set()
    for one in symbols(before, found[".symtab"], found[".strtab"]):
        if one.kind == 2 and one.size and text.address <= one.address < text.end:
            at = one.address - text.address + text.offset
            if set(after[at : at + one.size]) == {TRAP}:
                names.add(one.name.decode())
    return names


def test_what_only_removed_functions_call_is_removed_too(library: Path) -> None:
    before = library.read_bytes()
    after, count = remove_unreachable(before, {b"used"})
    removed = removed_functions(before, after)
    assert {"unused", "_ZL6hiddeni", "unused_class", "_ZN4Ball4sizeEv", "_ZL6caughti"} <= removed
    assert not {"used", "_ZL4leafi", "_ZL5starti", "_ZL5begini"} & removed
    assert count > 0
    library.write_bytes(after)
    assert call(library, "used:2") == [7]


KEPT = {
    "by_variable": ([2], [102]),
    "by_index": ([3, 4], [103, 204]),
    "by_class": ([1], [43]),
    "at_start": ([0], [12]),
    "thrown": ([2, 4], [2, -1]),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_function_reaches_others_by_addresses_tables_classes_and_exceptions(
    library: Path, name: str
) -> None:
    before = library.read_bytes()
    after, _ = remove_unreachable(before, {name.encode()})
    library.write_bytes(after)
    values, expected = KEPT[name]
    assert call(library, *(f"{name}:{value}" for value in values)) == expected
    assert {"unused", "unused_thrown"} <= removed_functions(before, after)


def test_the_table_of_exceptions_has_no_removed_function(library: Path) -> None:
    before = library.read_bytes()
    after, _ = remove_unreachable(before, {b"thrown"})
    library.write_bytes(after)
    dump = ["readelf", "--debug-dump=frames", library]
    done = subprocess.run(dump, check=True, capture_output=True, text=True)
    assert not done.stderr, "every entry is well-formed"
    handlers = sections(before)[".gcc_except_table"]
    kept = after[handlers.offset : handlers.offset + handlers.size]
    assert kept != before[handlers.offset : handlers.offset + handlers.size]
    assert any(kept)


def test_what_a_library_of_another_package_takes_is_kept(library: Path) -> None:
    root = library.parent / "package"
    arrow, native = root / "py/pyarrow/libarrow.so.1", root / "app/plant/native.so"
    user = library.parent / "user.cpp"
    user.write_text('extern "C" int unused(int); int take(int x) { return unused(x); }')
    for path, made_of in (
        (arrow, [library.with_suffix(".cpp"), f"-Wl,-soname,{arrow.name}"]),
        (native, [user, arrow]),
    ):
        path.parent.mkdir(parents=True)
        subprocess.run(["g++", "-O2", "-fPIC", "-shared", "-o", path, *made_of], check=True)
    (root / "py/notes.sorted").write_text("no library")
    (root / "py/other.so").write_bytes(b"\x7fELF of another machine")
    before = arrow.read_bytes()
    assert remove_unreachable_code(arrow.parent) > 0
    removed = removed_functions(before, arrow.read_bytes())
    assert "unused_class" in removed and not {"unused", "_ZL6hiddeni"} & removed
    assert call(arrow, "unused:2") == [12]


def test_a_library_without_its_symbols_is_refused(library: Path) -> None:
    subprocess.run(["strip", library], check=True)
    with pytest.raises(ValueError, match="table of symbols"):
        remove_unreachable(library.read_bytes(), {b"used"})


def test_a_library_for_another_machine_is_refused(library: Path) -> None:
    data = bytearray(library.read_bytes())
    data[18] = 183
    with pytest.raises(ValueError, match="x86-64"):
        remove_unreachable(bytes(data), {b"used"})
