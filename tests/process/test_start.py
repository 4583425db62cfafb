"""What a plugin process has loaded once it streams: while that is little, starts are quick."""

import asyncio
import importlib.metadata
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from aiostream_ds._grpc import betterproto_import as messages
from aiostream_ds._pb import pluginv2 as pb

# Each of them takes milliseconds, pyarrow and numpy a hundred. (asyncio itself loads ssl.)
UNNEEDED = """
    aiostream_ds.cli aiostream_ds._frames.arrow aiostream_ds._grafana.services.data_service
    aiostream_ds._pb.pluginv2.data aiostream_ds._pb.pluginv2.resource
    aiostream_ds._pb.grpc.health.v1 aiostream_ds._process.mtls
    aiostream_ds._grafana.services.resource_service aiostream_ds.testing argparse
    betterproto2.grpclib cryptography dateutil doctest email grpclib.client http
    importlib.metadata importlib.resources logging.config multiprocessing
    numpy prometheus_client psutil pyarrow pytest shutil sqlite3
    tempfile unittest xml zipfile zoneinfo
""".split()

PROGRAM = f"""
import sys
from aiostream_ds import DataSource, Field, Frame, Query, Rows, query, serve, stream

class Watched(DataSource):
    @query
    async def table(self, asked: Query) -> Frame:
        return Frame(Field("a", [1]))

    @stream("loaded")
    async def loaded(self) -> Rows:
        yield {{"names": " ".join(name for name in {UNNEEDED} if name in sys.modules)}}

serve(Watched)
"""
CONTEXT = pb.PluginContext(
    org_id=1,
    plugin_id="watched-datasource",
    data_source_instance_settings=pb.DataSourceInstanceSettings(id=1, uid="u", json_data=b"{}"),
)


@asynccontextmanager
async def started(tmp_path):
    """A channel to a process as Grafana starts it."""
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
    asked = UnaryUnaryMethod(channel, f"/pluginv2.{method}", type(request), reply)
    return await asked(request)


async def loaded(channel):
    """What a stream of the process finds loaded, after another has run to its end."""
    request = pb.SubscribeStreamRequest(plugin_context=CONTEXT, path="loaded")
    reply = await call(channel, "Stream/SubscribeStream", request, pb.SubscribeStreamResponse)
    assert reply.status is pb.SubscribeStreamResponseStatus.OK
    run = UnaryStreamMethod(
        channel, "/pluginv2.Stream/RunStream", pb.RunStreamRequest, pb.StreamPacket
    )
    for _ in range(2):
        packets = await run(pb.RunStreamRequest(plugin_context=CONTEXT, path="loaded"))
    ((names,),) = (json.loads(packet.data)["data"]["values"][-1] for packet in packets)
    return names.split()


async def test_a_plugin_that_is_healthy_and_streams_has_loaded_only_what_it_needs(tmp_path):
    async with started(tmp_path) as channel:
        request = pb.CheckHealthRequest(plugin_context=CONTEXT)
        reply = await call(channel, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        assert reply.status is pb.CheckHealthResponseHealthStatus.OK
        assert await loaded(channel) == []


async def test_a_program_without_a_file_takes_no_debuggers_address_from_where_it_runs(tmp_path):
    (tmp_path / "standalone.txt").write_text("127.0.0.1:1")
    async with started(tmp_path) as channel:
        request = pb.CheckHealthRequest(plugin_context=CONTEXT)
        reply = await call(channel, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)
        assert reply.status is pb.CheckHealthResponseHealthStatus.OK


@pytest.mark.slow
async def test_the_first_query_loads_pyarrow(tmp_path):
    async with started(tmp_path) as channel:
        query = pb.DataQuery(
            ref_id="A", query_type="table", time_range=pb.TimeRange(to_epoch_ms=1), json=b"{}"
        )
        request = pb.QueryDataRequest(plugin_context=CONTEXT, queries=[query])
        reply = await call(channel, "Data/QueryData", request, pb.QueryDataResponse)
        assert reply.responses["A"].status == 200
        assert "pyarrow" in await loaded(channel)


# -- betterproto2 without importlib.metadata -------------------------------------------------------


def run(code):
    """The words that a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def test_betterproto2_knows_its_version_and_importlib_metadata_is_the_real_one():
    code = (
        "import sys, aiostream_ds, betterproto2; print('importlib.metadata' in sys.modules); "
        "from importlib import metadata; print(betterproto2.__version__, metadata.__spec__.name)"
    )
    version = importlib.metadata.version("betterproto2")
    assert run(code) == ["False", version, "importlib.metadata"]


def test_who_imports_importlib_metadata_meanwhile_gets_all_of_it(tmp_path):
    fake = tmp_path / "betterproto2"
    fake.mkdir()
    (tmp_path / "betterproto2-7.5.dist-info").mkdir()
    (fake / "__init__.py").write_text(
        "import importlib.metadata as kept\nfrom importlib import metadata\n"
        "mine, other = metadata.version('betterproto2'), metadata.version('grpclib')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sys.path.append({str(Path(messages.__file__).parent)!r})\n"
        "import betterproto_import; betterproto_import.import_betterproto2()\n"
        "import betterproto2 as b\n"
        "from importlib import metadata\n"
        "print(b.mine, b.other, b.kept.distributions is metadata.distributions, b.__file__)"
    )
    found = run(code)
    other = importlib.metadata.version("grpclib")
    assert found == ["7.5", other, "True", str(fake / "__init__.py")]


@pytest.mark.parametrize(
    "beside", [(), ("betterproto2-1.0.dist-info", "betterproto2-2.0.dist-info")]
)
def test_an_installation_that_does_not_tell_one_version_is_asked_as_ever(
    monkeypatch, tmp_path, beside
):
    (tmp_path / "betterproto2").mkdir()
    (tmp_path / "betterproto2" / "__init__.py").touch()
    for name in (*beside, "betterproto2_compiler-0.1.dist-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert messages._installed_version() is None
