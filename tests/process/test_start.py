"""The start of a plugin process: which modules it imports, which versions it accepts."""

import asyncio
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from aiostream_ds import _dependencies
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._process import betterproto_import
from aiostream_ds.errors import ConfigError

pytestmark = pytest.mark.slow  # a process for each test

# Each of them takes milliseconds, pyarrow and numpy a hundred. (asyncio itself imports ssl.)
UNNEEDED = """
    aiostream_ds.cli aiostream_ds._frames.arrow aiostream_ds._grafana.services.data_service
    aiostream_ds._pb.pluginv2.data aiostream_ds._pb.pluginv2.resource
    aiostream_ds._pb.grpc.health.v1 aiostream_ds._process.server_tls
    aiostream_ds._grafana.services.resource_service aiostream_ds.testing argparse
    betterproto2.grpclib cryptography dateutil doctest email grpclib.client grpclib.protocol
    grpclib.server h2 http hyperframe
    importlib.metadata importlib.resources logging.config multiprocessing
    numpy prometheus_client psutil pyarrow pytest shutil sqlite3
    tempfile unittest xml zipfile zoneinfo
""".split()

# Needed by streams only; together a fifth of a start.
UNNEEDED_FOR_HEALTH = [
    *UNNEEDED,
    *("anyio._backends._asyncio", "anyio._core._tasks", "anyio.lowlevel", "anyio.streams.memory"),
    *("difflib", "grpclib.metadata", "ipaddress", "multidict", "pathlib", "urllib.parse"),
]

PROGRAM = f"""
import sys
from aiostream_ds import DataSource, Field, Frame, Health, Query, Rows, query, serve, stream

class Inspected(DataSource):
    async def health(self) -> Health:
        names = (name for name in {UNNEEDED_FOR_HEALTH} if name in sys.modules)
        return Health(message=" ".join(names) or "none")

    @query
    async def table(self, asked: Query) -> Frame:
        return Frame(Field("a", [1]))

    @stream("imported")
    async def imported(self) -> Rows:
        yield {{"names": " ".join(name for name in {UNNEEDED} if name in sys.modules)}}

serve(Inspected)
"""
CONTEXT = pb.PluginContext(
    org_id=1,
    plugin_id="inspected-datasource",
    data_source_instance_settings=pb.DataSourceInstanceSettings(id=1, uid="u", json_data=b"{}"),
)


@asynccontextmanager
async def started(tmp_path):
    """A channel to a process that is started as by Grafana."""
    environ = {
        "grafana_plugin_type": "datasource",
        "PLUGIN_PROTOCOL_VERSIONS": "2",
        "PLUGIN_UNIX_SOCKET_DIR": str(tmp_path),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-IBXutf8", "-c", PROGRAM),
        cwd=tmp_path,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    channel = None
    try:
        channel = Channel(path=(await process.stdout.readline()).decode().split("|")[3])
        yield channel
    finally:
        if channel is not None:
            channel.close()
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def call(channel, method, request, reply):
    return await UnaryUnaryMethod(channel, f"/pluginv2.{method}", type(request), reply)(request)


async def unneeded_modules(channel):
    """The modules of UNNEEDED that are imported in the process after one stream has ended."""
    request = pb.SubscribeStreamRequest(plugin_context=CONTEXT, path="imported")
    reply = await call(channel, "Stream/SubscribeStream", request, pb.SubscribeStreamResponse)
    assert reply.status is pb.SubscribeStreamResponseStatus.OK
    run = UnaryStreamMethod(
        channel, "/pluginv2.Stream/RunStream", pb.RunStreamRequest, pb.StreamPacket
    )
    for _ in range(2):
        packets = await run(pb.RunStreamRequest(plugin_context=CONTEXT, path="imported"))
    ((names,),) = (json.loads(packet.data)["data"]["values"][-1] for packet in packets)
    return names.split()


async def test_a_process_that_streams_has_imported_only_what_it_needs(tmp_path):
    async with started(tmp_path) as channel:
        request = pb.CheckHealthRequest(plugin_context=CONTEXT)
        reply = await call(channel, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        assert reply.status is pb.CheckHealthResponseHealthStatus.OK
        assert await unneeded_modules(channel) == []


async def test_the_first_health_check_has_imported_only_what_it_needs(tmp_path):
    async with started(tmp_path) as channel:
        request = pb.CheckHealthRequest(plugin_context=CONTEXT)
        for _ in range(2):  # the second sees what the first has imported
            reply = await call(channel, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
            assert reply.message == "none"


async def test_a_program_without_a_file_ignores_a_standalone_address_in_its_directory(tmp_path):
    (tmp_path / "standalone.txt").write_text("127.0.0.1:1")
    async with started(tmp_path) as channel:
        request = pb.CheckHealthRequest(plugin_context=CONTEXT)
        reply = await call(channel, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        assert reply.status is pb.CheckHealthResponseHealthStatus.OK


@pytest.mark.slow
async def test_the_first_query_imports_pyarrow(tmp_path):
    async with started(tmp_path) as channel:
        query = pb.DataQuery(
            ref_id="A", query_type="table", time_range=pb.TimeRange(to_epoch_ms=1), json=b"{}"
        )
        request = pb.QueryDataRequest(plugin_context=CONTEXT, queries=[query])
        reply = await call(channel, "Data/QueryData", request, pb.QueryDataResponse)
        assert reply.responses["A"].status == 200
        assert "pyarrow" in await unneeded_modules(channel)


# -- import aiostream_ds ---------------------------------------------------------------------------

SNAPSHOT = """
import gc, logging, signal, sys, threading, warnings
import anyio, asyncio, betterproto2, grpclib.server, hpack, json, msgspec, orjson

def snapshot():
    found = {}
    for name, module in modules.items():
        found |= {(name, key): value for key, value in vars(module).items()}
        for kind in vars(module).values():
            if isinstance(kind, type):
                found |= {(kind, key): value for key, value in vars(kind).items()}
    return found

def state():
    return (
        list(sys.meta_path), list(sys.path), list(sys.path_hooks), dict(sys.modules),
        gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), threading.active_count(),
        logging.root.level, list(logging.root.handlers), list(warnings.filters),
        sys.excepthook, sys.stdout, sys.stderr,
        [signal.getsignal(number) for number in signal.valid_signals()],
    )

modules = {name: module for name, module in sys.modules.items() if name != "__main__"}
attributes, before = snapshot(), state()
import aiostream_ds
after = state()
changed = {key: value for key, value in after[3].items() if before[3].get(key, value) is not value}
print("state", [n for n, (a, b) in enumerate(zip(before, after)) if n != 3 and a != b])
print("modules", sorted(changed), sorted(before[3].keys() - after[3].keys()))
now = snapshot()
print("attributes", [key for key, value in attributes.items() if now.get(key) is not value])
"""


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, **options
    )


def test_importing_the_package_changes_nothing_outside_it():
    found = run(SNAPSHOT, check=True).stdout.splitlines()
    assert found == ["state []", "modules [] []", "attributes []"]


def test_importing_the_package_imports_neither_the_server_nor_importlib_metadata():
    code = (
        "import sys, aiostream_ds\n"
        "names = {'betterproto2', 'grpclib', 'hpack', 'importlib.metadata'}\n"
        "print(sorted(names & sys.modules.keys()))"
    )
    assert run(code, check=True).stdout == "[]\n"


def test_importing_the_server_without_a_start_uses_the_real_importlib_metadata():
    # had there been a substitute, the real module would not have been imported
    code = (
        "import sys, aiostream_ds.testing, betterproto2._version as version\n"
        "print(version.metadata is sys.modules['importlib.metadata'], version.metadata.__file__)"
    )
    assert run(code, check=True).stdout.split() == ["True", importlib.metadata.__file__]


# -- betterproto2 without importlib.metadata -------------------------------------------------------


def test_a_start_imports_betterproto2_with_its_version_and_restores_importlib_metadata():
    code = (
        "import sys\n"
        "from aiostream_ds._process.entry import load_runtime; load_runtime()\n"
        "import betterproto2; print('importlib.metadata' in sys.modules)\n"
        "from importlib import metadata; print(betterproto2.__version__, metadata.__spec__.name)"
    )
    version = importlib.metadata.version("betterproto2")
    assert run(code, check=True).stdout.split() == ["False", version, "importlib.metadata"]


def test_a_module_that_imports_importlib_metadata_meanwhile_gets_all_of_it(tmp_path):
    fake = tmp_path / "betterproto2"
    fake.mkdir()
    (tmp_path / "betterproto2-7.5.dist-info").mkdir()
    (fake / "__init__.py").write_text(
        "import importlib.metadata as first\nfrom importlib import metadata\n"
        "mine, other = metadata.version('betterproto2'), metadata.version('grpclib')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sys.path.append({str(Path(betterproto_import.__file__).parent)!r})\n"
        "import betterproto_import; betterproto_import.import_betterproto2()\n"
        "import betterproto2 as b\n"
        "from importlib import metadata\n"
        "print(b.mine, b.other, b.first.distributions is metadata.distributions, b.__file__)"
    )
    found = run(code, check=True).stdout.split()
    other = importlib.metadata.version("grpclib")
    assert found == ["7.5", other, "True", str(fake / "__init__.py")]


@pytest.mark.parametrize(
    "installed", [(), ("betterproto2-1.0.dist-info", "betterproto2-2.0.dist-info")]
)
def test_the_version_is_unknown_without_exactly_one_installation(monkeypatch, tmp_path, installed):
    (tmp_path / "betterproto2").mkdir()
    (tmp_path / "betterproto2" / "__init__.py").touch()
    for name in (*installed, "betterproto2_compiler-0.1.dist-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert betterproto_import._installed_version() is None


def test_the_version_is_found_where_only_another_finder_knows_the_package(monkeypatch, tmp_path):
    (tmp_path / "betterproto2-7.5.dist-info").mkdir()
    origin = tmp_path / "betterproto2" / "__init__.py"  # not there, as in a package

    class Finder:
        def find_spec(self, name, path=None, target=None):
            return importlib.util.spec_from_file_location(name, origin)

    monkeypatch.setattr(sys, "meta_path", [Finder()])
    assert betterproto_import._installed_version() == "7.5"


# -- versions of dependencies ----------------------------------------------------------------------


def test_the_supported_versions_are_those_of_pyproject_and_fit_the_installed_ones():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    required = {r.name: r.specifier for r in map(Requirement, project["project"]["dependencies"])}
    for package, (lowest, limit) in _dependencies.SUPPORTED.items():
        assert required[package] == SpecifierSet(f">={lowest},<{limit}")
    _dependencies.check_dependencies()


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("betterproto2", "0.11.0"),
        ("grpclib", "0.4.8"),
        ("grpclib", "0.5.0"),
        ("grpclib", "unknown"),
    ],
)
def test_a_version_that_is_not_a_tested_one_is_refused(monkeypatch, package, version):
    monkeypatch.setattr(f"{package}.__version__", version)
    with pytest.raises(ConfigError, match=f"the version of {package} must be .* got {version};"):
        _dependencies.check_dependencies()


@pytest.mark.parametrize(
    ("package", "version"), [("grpclib", "0.4.9"), ("grpclib", "0.4.12"), ("betterproto2", "0.10")]
)
def test_a_patch_of_a_tested_version_is_accepted(monkeypatch, package, version):
    monkeypatch.setattr(f"{package}.__version__", version)
    _dependencies.check_dependencies()


START = """
import grpclib
grpclib.__version__ = "1.1.0"
import aiostream_ds
aiostream_ds.serve(aiostream_ds.DataSource)
"""
REASON = (
    "the plugin cannot start: the version of grpclib must be at least 0.4.9 and below 0.5, got "
    "1.1.0; run: pip install 'grpclib>=0.4.9,<0.5'"
)


def test_a_start_with_another_version_ends_with_one_sentence():
    ended = run(START, env={})
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", REASON + "\n")


def test_under_a_host_the_sentence_is_a_log_line():
    ended = run(START, env={"grafana_plugin_type": "datasource"})
    assert (ended.returncode, ended.stdout) == (1, "")
    line = json.loads(ended.stderr)
    assert line == {"@level": "error", "@message": REASON, "@module": "start"}
