"""A plugin process as a host sees it: one line on stdout, JSON on stderr, a quick exit."""

import ast
import asyncio
import json
import os
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod

from aiostream_ds._grpc.call import Codec, GRPCError, Status
from aiostream_ds._pb import plugin as pb
from aiostream_ds._pb.google.protobuf import Empty
from aiostream_ds._pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)

pytestmark = pytest.mark.slow  # a process for each test

KILL_TIMEOUT = 2.0
"""Seconds after Shutdown at which go-plugin kills the process."""

PLUGIN = """
import os, sys, logging, subprocess, anyio
from aiostream_ds import _telemetry as telemetry
from aiostream_ds._process.handshake import StartError, listen, read_handshake
from aiostream_ds._process.host_services import host_services
from aiostream_ds._process.parent import wait_for_parent_exit
from aiostream_ds._process.stdio import StandardStreams
from aiostream_ds._grpc.server import Server
try:
    handshake = read_handshake(os.environ)
except StartError as error:
    sys.exit(str(error))
print("before")
streams = StandardStreams()
telemetry.configure(streams.log)
async def main():
    stop = anyio.Event()
    server = Server(host_services(stop.set))
    listener = await listen(server, handshake)
    streams.announce(listener.line)
    exec(os.environ.get("TEST_DO", ""), globals())
    async def watch():
        await wait_for_parent_exit(handshake.parent)
        stop.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await stop.wait()
        tasks.cancel_scope.cancel()
    server.close()
    await server.wait_closed()
    listener.close()
anyio.run(main)
exec(os.environ.get("TEST_LAST", ""), globals())
"""
PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
"""
ENVIRON = {"grafana_plugin_type": "datasource", "PLUGIN_PROTOCOL_VERSIONS": "2"}


class Plugin:
    """The process, its handshake line, a channel to it."""

    def __init__(self, process):
        self.process = process
        self.line = ""
        self.channel = None

    async def connect(self):
        self.line = (await self.process.stdout.readline()).decode()
        self.address = self.line.split("|")[3]
        self.channel = Channel(path=self.address, codec=Codec())

    async def check(self, service):
        method = UnaryUnaryMethod(
            self.channel, "/grpc.health.v1.Health/Check", HealthCheckRequest, HealthCheckResponse
        )
        return await method(HealthCheckRequest(service=service))

    async def shutdown(self):
        """Returns the seconds from the call to the end of both pipes, later stdout, and the log."""
        start = time.monotonic()
        method = UnaryUnaryMethod(
            self.channel, "/plugin.GRPCController/Shutdown", pb.Empty, pb.Empty
        )
        await method(pb.Empty())
        self.channel.close()
        out, err = await self.process.communicate()
        return time.monotonic() - start, out, read_log(err)


def read_log(err):
    """Parse the log. Every line is JSON that hclog accepts, and shorter than its buffer."""
    records = []
    for line in err.splitlines():
        assert len(line) < 64 * 1024
        record = json.loads(line)
        assert all(type(record[key]) is str for key in ("@message", "@level", "@timestamp"))
        records.append(record)
    return records


def texts(log):
    return [record["@message"] for record in log]


@asynccontextmanager
async def starting(tmp_path, do="", last="", command=(), **environ):
    """Start it as newer versions of Grafana do: without PATH, HOME and LANG."""
    environ = {**ENVIRON, "PLUGIN_UNIX_SOCKET_DIR": str(tmp_path), **environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(command or ("-c", PLUGIN)),
        env={**environ, "TEST_DO": do, "TEST_LAST": last},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=8 * 1024 * 1024,
    )
    plugin = Plugin(process)
    try:
        yield plugin
    finally:
        if plugin.channel is not None:
            plugin.channel.close()
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_plugin_with_a_minimal_environment_serves_all_of_go_plugins_services(tmp_path):
    async with starting(tmp_path) as plugin:
        await plugin.connect()
        assert plugin.line == f"1|2|unix|{plugin.address}|grpc|\n"
        assert os.path.dirname(plugin.address) == str(tmp_path)
        serving = HealthCheckResponseServingStatus.SERVING
        for service in ("plugin", ""):
            assert (await plugin.check(service)).status == serving
        with pytest.raises(GRPCError) as caught:
            await plugin.check("other")
        assert caught.value.status is Status.NOT_FOUND

        watch = UnaryStreamMethod(
            plugin.channel, "/grpc.health.v1.Health/Watch", HealthCheckRequest, HealthCheckResponse
        )
        stdio = UnaryStreamMethod(
            plugin.channel, "/plugin.GRPCStdio/StreamStdio", Empty, pb.StdioData
        )
        broker = StreamStreamMethod(
            plugin.channel, "/plugin.GRPCBroker/StartStream", pb.ConnInfo, pb.ConnInfo
        )
        async with watch.open() as health, stdio.open() as output, broker.open() as dialled:
            await health.send_message(HealthCheckRequest(service="plugin"), end=True)
            assert (await health.recv_message()).status == serving
            await output.send_message(Empty(), end=True)
            await dialled.send_request()
            for stream in (health, output, dialled):  # they stay open without data
                with anyio.move_on_after(0.02) as waited:
                    await stream.recv_message()
                assert waited.cancelled_caught
                await stream.cancel()

        seconds, out, log = await plugin.shutdown()
    assert seconds < KILL_TIMEOUT
    assert plugin.process.returncode == 0
    assert (out, texts(log)) == (b"", ["before"])
    assert not list(tmp_path.iterdir())


async def test_shutdown_is_quick_while_the_hosts_streams_are_open(tmp_path):
    async with starting(tmp_path) as plugin:
        await plugin.connect()
        method = UnaryStreamMethod(
            plugin.channel, "/plugin.GRPCStdio/StreamStdio", Empty, pb.StdioData
        )
        stream = await method.open().__aenter__()
        await stream.send_message(Empty(), end=True)
        seconds, _, log = await plugin.shutdown()
    assert seconds < KILL_TIMEOUT
    assert texts(log) == ["before"]


async def test_all_output_becomes_json_lines_and_stdout_has_only_the_handshake(tmp_path):
    do = """
print("printed")
print("two\\nlines\\n\\n")
os.write(1, b"raw 1\\n")
os.write(2, b"raw 2 \\xff\\n")
sys.stderr.write("err ü \\udc80\\n")
subprocess.run([sys.executable, "-c", "print('child', flush=True); open(2, 'w').write('child 2')"])
os.write(1, b"\\n")
print("x" * 1_000_000)
print("\\x00" * 30_000)
logging.getLogger("author").warning("logged", extra={"n": 1})
"""
    async with starting(tmp_path, do, last="print('last', end='')") as plugin:
        await plugin.connect()
        _, out, log = await plugin.shutdown()
    found = texts(log)
    assert out == b""
    short = [text for text in found if len(text) < 1000 and "x" * 10 not in text]
    expected = ["before", "printed", "two", "lines", "raw 1", "raw 2 \\xff", "err ü \\udc80"]
    expected += ["child", "child 2"]
    assert [text for text in short if text != "logged" and "\0" not in text] == [*expected, "last"]
    assert sum(text.count("x") for text in found if set(text) == {"x"}) == 1_000_000
    assert sum(text.count("\0") for text in found) == 30_000
    (record,) = [record for record in log if record["@message"] == "logged"]
    assert (record["@level"], record["@module"], record["n"]) == ("warn", "author", 1)


async def test_a_log_handler_on_stderr_does_not_loop(tmp_path):
    do = """
logging.getLogger().addHandler(logging.StreamHandler())
logging.warning("once")
"""
    async with starting(tmp_path, do) as plugin:
        await plugin.connect()
        await plugin.check("")
        _, _, log = await plugin.shutdown()
    assert texts(log).count("once") == 2  # the log line, and the handler's output


async def test_a_traceback_at_the_exit_is_not_lost(tmp_path):
    async with starting(tmp_path, last="1 / 0") as plugin:
        await plugin.connect()
        _, _, log = await plugin.shutdown()
    assert plugin.process.returncode == 1
    assert texts(log)[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "spawn",
    [
        "pid = subprocess.Popen([sys.executable, '-c', CHILD]).pid",
        "pid = os.fork()\nif not pid: exec(CHILD); os._exit(0)",
    ],
    ids=["spawned", "forked"],
)
async def test_a_child_that_keeps_running_does_not_hold_the_hosts_pipes(tmp_path, spawn):
    do = f"""
CHILD = "import time; print('child', flush=True); time.sleep(60)"
{spawn}
print("pid", pid)
"""
    pid = None
    try:
        async with starting(tmp_path, do) as plugin:
            await plugin.connect()
            record = b""
            while b'"child"' not in record:
                record = await plugin.process.stderr.readline()
                with suppress(ValueError, IndexError):
                    pid = int(json.loads(record)["@message"].split("pid ")[1])
            seconds, _, log = await plugin.shutdown()
            for text in texts(log):
                if text.startswith("pid "):
                    pid = int(text[4:])
            os.kill(pid, 0)  # it runs
        assert seconds < KILL_TIMEOUT
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
async def test_a_child_inherits_only_the_standard_streams(tmp_path):
    code = """
import os
names = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
print("fds", sorted(os.readlink(name) for name in names if os.path.islink(name)))
"""
    do = f"subprocess.run([sys.executable, '-c', {code!r}], close_fds=False)"
    async with starting(tmp_path, do) as plugin:
        await plugin.connect()
        _, _, log = await plugin.shutdown()
    (text,) = [text for text in texts(log) if text.startswith("fds ")]
    open_files = ast.literal_eval(text[4:])
    assert len(open_files) == 3
    assert "/dev/null" in open_files
    assert len({name for name in open_files if name.startswith("pipe:")}) == 1


@pytest.mark.parametrize("cookie", ["", "panel"])
async def test_without_the_cookie_stdout_is_empty_and_the_status_is_1(tmp_path, cookie):
    async with starting(tmp_path, grafana_plugin_type=cookie) as plugin:
        out, err = await plugin.process.communicate()
    assert (out, plugin.process.returncode) == (b"", 1)
    assert b"Grafana starts it" in err
    assert not list(tmp_path.iterdir())


async def test_the_plugin_exits_soon_after_its_host(tmp_path):
    async with starting(tmp_path, command=("-c", PARENT, PLUGIN)) as plugin:
        await plugin.connect()
        await plugin.check("")
        plugin.process.kill()
        start = time.monotonic()
        await plugin.process.stdout.read()  # ends with the last process that has the pipe open
        assert time.monotonic() - start < 10
    assert not list(tmp_path.iterdir())


async def test_the_plugin_keeps_running_after_a_lost_connection(tmp_path):
    async with starting(tmp_path) as plugin:
        await plugin.connect()
        await plugin.check("")
        plugin.channel.close()
        plugin.channel = Channel(path=plugin.address, codec=Codec())
        await plugin.check("plugin")
