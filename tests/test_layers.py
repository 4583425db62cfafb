"""The rooms: who may import whom, read from the source. docs/internals.md has the picture."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "aiostream_ds"
LONGEST = 400  # lines of a file

# From the ground up; rooms of one set stand side by side and do not import each other.
FLOORS = (
    {"errors", "telemetry"},
    {"frames"},
    {"channels"},
    {"plugin"},
    {"grafana"},
    {"sources", "cluster", "testing"},
    {"console", "packaging"},
    {"cli"},
    {"__init__", "__main__"},
)

# A plain task, the server or the start of a loop: everything else is anyio's.
ASYNCIO = {
    "channels/channel.py",
    "channels/life.py",
    "channels/paced.py",
    "channels/registry.py",
    "grafana/http2.py",
    "grafana/http2streams.py",
    "grafana/outbox.py",
    "grafana/runtime.py",
    "grafana/sending.py",
    "grafana/wire.py",
    "plugin/pump.py",
}

# Packages that few files may know, and which: a file, or a folder with everything in it.
OUTSIDERS = {
    "cryptography": ("grafana/mtls.py",),
    "grpclib": (
        "grafana/http2.py",
        "grafana/http2streams.py",
        "grafana/wire.py",
        "testing/",
        "console/app.py",
        "console/session.py",
        "cli/live.py",
        "packaging/wire.py",
    ),
    "h2": (
        "grafana/control.py",
        "grafana/floods.py",
        "grafana/http2.py",
        "grafana/http2streams.py",
    ),
    "hpack": ("grafana/headers.py",),
    "numpy": ("frames/", "sources/"),
    "packaging": ("packaging/dependencies.py",),
    "orjson": ("frames/", "plugin/layout.py", "plugin/values.py"),
    "prometheus_client": ("grafana/metrics.py",),
    "psutil": ("sources/host.py",),
    "pyarrow": ("frames/arrow.py", "frames/batch.py"),
    "starlette": ("console/",),
    "uvicorn": ("console/server.py",),
    "uvloop": ("grafana/runtime.py",),
    "watchfiles": ("console/reload.py",),
    "ssl": (
        "grafana/goplugin.py",
        "grafana/mtls.py",
        "grafana/runtime.py",
        "grafana/servertls.py",
    ),
}


class Module(NamedTuple):
    """One file: its path below the package and what it imports, whole and by dotted name."""

    file: str
    tree: ast.Module
    lines: int
    imports: frozenset[str]

    @property
    def name(self) -> str:
        return dotted(self.file)

    @property
    def room(self) -> str:
        return room(self.name)


def dotted(file: str) -> str:
    name = "aiostream_ds." + file.removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__") if file.count("/") else name


def room(name: str) -> str:
    """`aiostream_ds.frames.json` → `frames`; the package itself → `__init__`."""
    return [*name.split("."), "__init__"][1]


def imported(tree: ast.Module, names: frozenset[str]) -> Iterator[str]:
    """Every import in the file: at its top, in functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"line {node.lineno}: imports are absolute here")
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else str(node.module)


def read() -> list[Module]:
    files = sorted(p for p in PACKAGE.rglob("*.py") if "_pb" not in p.parts)
    paths = [path.relative_to(PACKAGE).as_posix() for path in files]
    # generated packages count by their names: `from aiostream_ds.grafana._pb import pluginv2`
    generated = (p.parent.relative_to(PACKAGE) for p in PACKAGE.rglob("_pb/**/__init__.py"))
    known = {dotted(p) for p in paths} | {dotted(f"{g.as_posix()}/__init__.py") for g in generated}
    modules = []
    for path, file in zip(files, paths, strict=True):
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        found = frozenset(imported(tree, frozenset(known)))
        modules.append(Module(file, tree, text.count("\n"), found))
    return modules


MODULES = read()
BY_FILE = pytest.mark.parametrize("module", MODULES, ids=[m.file for m in MODULES])


def ours(module: Module) -> list[str]:
    return [name for name in module.imports if name.split(".")[0] == "aiostream_ds"]


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def allowed(file: str, places: tuple[str, ...]) -> bool:
    return any(file == place or (place[-1] == "/" and file.startswith(place)) for place in places)


def test_imports_are_seen_wherever_they_are_written():
    text = """
if TYPE_CHECKING:
    from aiostream_ds import telemetry
def later():
    import pyarrow.ipc
    from aiostream_ds.errors import NotFound
"""
    known = frozenset({"aiostream_ds.telemetry", "aiostream_ds.errors"})
    found = set(imported(ast.parse(text), known))
    assert found == {*known, "pyarrow.ipc"}


def test_every_folder_is_a_room_that_is_known():
    assert {module.room for module in MODULES} <= set().union(*FLOORS)


@BY_FILE
def test_a_module_looks_only_into_its_own_room_and_lower_ones(module):
    here = floor(module.room)
    for name in ours(module):
        there = room(name)
        assert there == module.room or floor(there) < here, f"{module.file} imports {name}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {m.name: {n for n in ours(m) if n != m.name} for m in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@BY_FILE
def test_generated_code_is_known_only_to_grafana_and_testing(module):
    if any("._pb" in name for name in module.imports):
        assert module.room in ("grafana", "testing")


@BY_FILE
def test_asyncio_is_named_only_where_a_plain_task_or_the_loop_is_needed(module):
    if any(name.split(".")[0] == "asyncio" for name in module.imports):
        assert module.file in ASYNCIO or module.room == "testing"


def test_every_place_that_may_name_asyncio_does():
    using = {m.file for m in MODULES if any(n.split(".")[0] == "asyncio" for n in m.imports)}
    assert using >= ASYNCIO, "the list is longer than it has to be"


@BY_FILE
def test_outside_packages_are_known_only_where_they_belong(module):
    for name in {name.split(".")[0] for name in module.imports} & OUTSIDERS.keys():
        assert allowed(module.file, OUTSIDERS[name]), f"{module.file} imports {name}"


@BY_FILE
def test_no_file_is_too_long(module):
    assert module.lines <= LONGEST


@BY_FILE
def test_every_module_says_what_lives_in_it(module):
    if module.tree.body:  # an empty __init__.py holds nothing
        text = ast.get_docstring(module.tree)
        assert text, f"{module.file} has no docstring"
