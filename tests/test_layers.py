"""The layers: which package may import which. docs/internals.md has the picture."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.slow  # reads all code; `scripts/lint` runs it, too

PACKAGE = Path(__file__).parents[1] / "src" / "aiostream_ds"

# From the base layer up. A package imports itself and lower layers; packages of one layer do not
# import each other.
LAYERS = (
    {"_loggers", "_redaction", "_short_repr"},
    {"errors", "_telemetry", "_annotations", "_allowed_values", "_leniency", "_pb"},
    {"_author_code", "_dependencies", "_installation", "_loop_calls", "_thread_limits"},
    {"_connection_errors", "_declared_errors"},
    {"_run_scope", "_author_threads"},
    {"_frames", "_paths", "_http2", "_redis", "_nats"},
    {"_channels", "_grpc", "settings"},
    {"_tls"},
    {"_cluster", "models", "rows"},
    {"_background_tasks", "_subscriber_queue"},
    {"access", "stores", "upstream", "operators"},
    {"_store_replication"},
    {"_encoding"},
    {"decorators", "broadcast", "push"},
    {"_routing", "_streams"},
    {"datasource"},
    {"_grafana"},
    {"_process"},
    {"sources", "testing"},
    {"console", "packaging"},
    {"cli"},
    {"__init__", "__main__"},
)

# Where a plain task, the server or the start of a loop is needed. Everything else uses anyio.
ASYNCIO = {
    "_author_code.py",
    "_author_threads/iterator_reader.py",
    "_author_threads/loop_access.py",
    "_author_threads/pool.py",
    "_author_threads/thread_call.py",
    "_background_tasks.py",
    "_channels/channel.py",
    "_cluster/redis/channel_watches.py",
    "_cluster/redis/log_cleanup.py",
    "_cluster/redis/node_leases.py",
    "_cluster/redis/open_connections.py",
    "_cluster/redis/pipelined_connection.py",
    "_cluster/redis/redis_calls.py",
    "_cluster/redis/redis_engine.py",
    "_channels/paced.py",
    "_channels/registry.py",
    "_cluster/source_reading.py",
    "_cluster/upstream_run.py",
    "_cluster/participation.py",
    "_cluster/call_limits.py",
    "_cluster/nats/nats_client.py",
    "_nats/nats_connection.py",
    "_cluster/nats/nats_engine.py",
    "_cluster/nats/nats_events.py",
    "_cluster/nats/nats_jetstream.py",
    "_cluster/nats/nats_leases.py",
    "_cluster/nats/nats_overview.py",
    "_cluster/nats/nats_log.py",
    "_cluster/nats/nats_streams.py",
    "_cluster/nats/nats_sweep.py",
    "_cluster/nats/shared_call.py",
    "_grafana/application.py",
    "_grafana/followed_rows.py",
    "_grafana/instance.py",
    "_grafana/instances.py",
    "_grafana/lifespan_task.py",
    "_grpc/call.py",
    "_grafana/runtime_tasks.py",
    "_grpc/http2_protocol.py",
    "_grpc/http2_stream.py",
    "_grpc/server.py",
    "_grpc/write_buffer.py",
    "_loop_calls.py",
    "_process/main_task.py",
    "_process/parent.py",
    "_process/runtime.py",
    "_process/watchdog.py",
    "_streams/producer.py",
    "_streams/row_recording.py",
    "_subscriber_queue.py",
    "broadcast.py",
    "console/background.py",
    "operators/reading.py",
    "push/delivery.py",
    "sources/mqtt/arrival_queue.py",
    "sources/mqtt/broker_connection.py",
    "sources/nats/server_link.py",
    "sources/postgres/table_run.py",
    "stores/row_followers.py",
    "stores/sqlite_store.py",
}

# Packages that only a few places may import: a file, or a folder with everything in it.
THIRD_PARTY = {
    "aiohttp": ("sources/http_client/", "sources/websocket/"),
    "aiohttp_socks": ("sources/http_client/socks.py",),
    "asyncpg": ("sources/postgres/",),
    "cbor2": ("sources/decoding/formats.py",),
    "cryptography": (
        "_cluster/message_cipher.py",
        "_nats/nats_credentials.py",
        "_process/server_tls.py",
    ),
    "gmqtt": ("sources/mqtt/",),
    "google": ("sources/push/otlp_protobuf.py",),
    "grpclib": (
        "_grpc/call.py",
        "_grpc/server.py",
        "testing/",
        "console/app.py",
        "console/push_endpoint.py",
        "console/session.py",
        "cli/live.py",
        "packaging/contract_check.py",
    ),
    "h2": (),  # the other side in tests, and grpclib's client
    "hiredis": ("_cluster/redis/pipelined_connection.py",),
    "hpack": (),  # as h2
    "jsonpath": ("sources/decoding/json_paths.py",),
    "numpy": ("_frames/", "sources/"),
    "packaging": ("packaging/",),
    "opentelemetry": ("sources/push/otlp_protobuf.py",),
    "orjson": ("_frames/", "_encoding/row_layout.py", "_encoding/values.py"),
    "prometheus_client": ("_grafana/metrics.py",),
    "psutil": ("sources/host.py",),
    "pyarrow": ("_frames/", "push/row_tables.py", "sources/push/arrow_stream.py"),
    "sqlite3": ("stores/",),
    "redis": ("_cluster/redis/", "_redis/", "sources/redis/"),
    "starlette": ("console/",),
    "urllib3": ("push/http_post.py",),
    "uvicorn": ("console/web_server.py",),
    "uvloop": ("_process/runtime.py",),
    "watchfiles": ("console/reload.py",),
    "yarl": ("sources/http_client/",),
    "ssl": (
        "push/clients.py",
        "_cluster/nats/",
        "_connection_errors.py",
        "_process/handshake.py",
        "_process/runtime.py",
        "_process/server_tls.py",
        "_nats/",
        "_redis/",
        "_tls.py",
        "sources/mqtt/",
        "sources/nats/",
    ),
}

GENERATED_CODE_USERS = {"_grafana", "_grpc", "_process", "testing"}

# Names that are the standard ones in each of their packages.
STANDARD_NAMES = {"__init__", "encoder", "decoder"}


class Module(NamedTuple):
    """One file: its path below the package and what it imports, by dotted name."""

    file: str
    tree: ast.Module
    imports: frozenset[str]

    @property
    def name(self) -> str:
        return dotted(self.file)

    @property
    def package(self) -> str:
        return package(self.name)


def dotted(file: str) -> str:
    name = "aiostream_ds." + file.removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__") if file.count("/") else name


def package(name: str) -> str:
    """`aiostream_ds._frames.json` → `_frames`; the package itself → `__init__`."""
    return [*name.split("."), "__init__"][1]


def imported(tree: ast.Module, names: frozenset[str]) -> Iterator[str]:
    """Every import in the file: at its top, in functions and under TYPE_CHECKING."""
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"line {node.lineno}: expected an absolute import")
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else str(node.module)


def statements(node: Any) -> Iterator[ast.stmt]:
    """All statements in a node. Most nodes are parts of expressions, which have none."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for each in getattr(node, part, ()):
            if isinstance(each, ast.stmt):
                yield each
            yield from statements(each)


@cache
def modules() -> list[Module]:
    files = sorted(p for p in PACKAGE.rglob("*.py") if "_pb" not in p.parts)
    paths = [path.relative_to(PACKAGE).as_posix() for path in files]
    # generated packages count by their names: `from aiostream_ds._pb import pluginv2`
    generated = (p.parent.relative_to(PACKAGE) for p in PACKAGE.rglob("_pb/**/__init__.py"))
    known = {dotted(p) for p in paths} | {dotted(f"{g.as_posix()}/__init__.py") for g in generated}
    found = []
    for path, file in zip(files, paths, strict=True):
        tree = ast.parse(path.read_text("utf-8"))
        found.append(Module(file, tree, frozenset(imported(tree, frozenset(known)))))
    return found


def project_imports(module: Module) -> list[str]:
    return [name for name in module.imports if name.split(".")[0] == "aiostream_ds"]


def layer(package: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def matches(file: str, places: tuple[str, ...]) -> bool:
    return any(file == place or (place[-1] == "/" and file.startswith(place)) for place in places)


def test_imports_are_seen_wherever_they_are_written():
    text = """
if TYPE_CHECKING:
    from aiostream_ds import settings
def later():
    import pyarrow.ipc
    from aiostream_ds.errors import NotFound
"""
    known = frozenset({"aiostream_ds.settings", "aiostream_ds.errors"})
    found = set(imported(ast.parse(text), known))
    assert found == {*known, "pyarrow.ipc"}


def test_every_package_has_a_layer():
    assert {module.package for module in modules()} <= set().union(*LAYERS)


def test_a_module_imports_only_its_own_package_and_lower_layers():
    upward = [
        f"{module.file} imports {name}"
        for module in modules()
        for name in project_imports(module)
        if package(name) != module.package and layer(package(name)) >= layer(module.package)
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle():
    graph = {m.name: {n for n in project_imports(m) if n != m.name} for m in modules()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_two_modules_have_one_name():
    files: dict[str, list[str]] = {}
    for module in modules():
        files.setdefault(Path(module.file).stem, []).append(module.file)
    # a subcommand of the command line is named after what it does
    doubled = {
        name: [file for file in found if not file.startswith("cli/")]
        for name, found in files.items()
        if name not in STANDARD_NAMES
    }
    assert {name: found for name, found in doubled.items() if len(found) > 1} == {}


def test_generated_code_is_imported_only_by_the_server_and_its_double():
    users = {m.package for m in modules() if any("._pb" in name for name in m.imports)}
    assert users <= GENERATED_CODE_USERS


def test_asyncio_is_imported_exactly_where_a_plain_task_or_the_loop_is_needed():
    using = {
        module.file
        for module in modules()
        if any(name.split(".")[0] == "asyncio" for name in module.imports)
        and module.package != "testing"
    }
    assert using == ASYNCIO


def test_times_are_limited_by_anyio_which_works_in_a_task_that_was_cancelled():
    """There `asyncio.timeout` raises CancelledError, not TimeoutError, before Python 3.11.3."""
    limit = re.compile(r"\basyncio\.(timeout|timeout_at|wait_for)\(")
    files = sorted(PACKAGE.rglob("*.py"))
    assert [file for file in files if limit.search(file.read_text("utf-8"))] == []


def test_third_party_packages_are_imported_only_where_they_belong():
    elsewhere = [
        f"{module.file} imports {name}"
        for module in modules()
        for name in {name.split(".")[0] for name in module.imports} & THIRD_PARTY.keys()
        if not matches(module.file, THIRD_PARTY[name])
    ]
    assert elsewhere == []


def test_every_module_has_a_docstring():
    # an empty __init__.py holds nothing
    assert [m.file for m in modules() if m.tree.body and not ast.get_docstring(m.tree)] == []


def test_no_two_public_classes_have_one_name():
    places: dict[str, list[str]] = {}
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module.file)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
