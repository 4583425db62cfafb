"""Saved code is reloaded: under the open call of a Grafana host, and when it has an error."""

import asyncio
import contextlib
import json
import re
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
import websockets

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.cli.target import find_target
from aiostream_ds.console.hub import open_hub
from aiostream_ds.console.reload import Reloader

from ..conformance.conftest import go_program, host_binary  # noqa: F401  (fixtures)
from ..conformance.driver import Host

LOG = Path(__file__).parents[1] / "conformance/plugins/log.py"


@contextlib.asynccontextmanager
async def dev(*arguments, cwd):
    """`aiostream-ds dev …` as a process; the console's address once it serves."""
    main = "import sys; from aiostream_ds.cli import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-uc", main, "dev", *arguments, "--port", "0", "--no-browser", cwd=cwd,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = ""
        async with asyncio.timeout(30):
            while b"Plugin " not in (line := await process.stdout.readline()):
                assert line, "the process ended before it served"
                url = (re.search(rb"http://(\S+)/", line) or [b"", url.encode()])[1].decode()
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def reloads(socket):
    """The outcomes of reloads that a page receives."""
    while True:
        for message in json.loads(await socket.recv()):
            if "reload" in message:
                yield message["reload"]


def numbers(packets):
    return [n for packet in packets if "data" in packet for n in packet["data"]["values"][1]]


def write_log(path, first, count):
    now = int(time.time() * 1000)
    with path.open("a") as file:
        for n in range(first, first + count):
            file.write(json.dumps({"time": now, "n": n, "log": "a"}) + "\n")


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_the_old_code_keeps_running_until_the_new_code_loads(tmp_path):
    source = tmp_path / "source.py"
    helper = tmp_path / "helper.py"
    helper.write_text("NAME = 'one'\n")
    source.write_text(
        "import anyio\nfrom helper import NAME\nfrom aiostream_ds import DataSource, stream\n"
        "class Source(DataSource):\n    @stream('n')\n    async def n(self):\n"
        "        while True:\n            yield {'name': NAME}\n"
        "            await anyio.sleep(0.02)\n"
    )
    async with dev("source.py", cwd=tmp_path) as address, asyncio.timeout(40):
        async with websockets.connect(f"ws://{address}/ws", max_size=None) as socket:
            outcomes = reloads(socket)
            assert (await anext(outcomes))["count"] == 0
            async with websockets.connect(f"ws://{address}/live/n") as rows:
                assert "one" in await rows.recv()
                good = source.read_text()
                source.write_text(good.replace("yield", "yiel d"))
                broken = await anext(outcomes)
                assert broken["count"] == 0 and "SyntaxError" in broken["error"]
                assert "source.py" in broken["error"] and "importlib" not in broken["error"]
                for _ in range(20):
                    assert "one" in await rows.recv()
                helper.write_text("NAME = 'three'\n")  # modules that it imports are watched too
                assert "SyntaxError" in (await anext(outcomes))["error"]
                source.write_text(good)
                assert (await anext(outcomes)) | {"seconds": 0} == {
                    "count": 1, "error": "", "seconds": 0,
                }  # fmt: skip
                while "three" not in await rows.recv():
                    pass


@pytest.mark.go
@pytest.mark.timeout(120)
async def test_a_grafana_hosts_call_stays_open_and_loses_no_row(
    host_binary,  # noqa: F811
    tmp_path,
):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    code = re.sub(r"LAG = .*", "LAG = 0.0", LOG.read_text())  # the command line is that of `dev`
    source = tmp_path / "log.py"
    source.write_text(code)
    log = tmp_path / "a"
    write_log(log, 0, 100)
    ctx = {"jsonData": {"directory": str(tmp_path)}}
    async with dev("log.py", "--grafana", str(plugins), cwd=tmp_path) as address, Host(
        host_binary
    ) as host:  # fmt: skip
        (executable,) = plugins.glob("*/gpx_*_linux_amd64")
        started = await host.start(executable)
        assert started["network"] == "unix"
        await host.call("run", path="log/a", run="log", ctx=ctx)
        written, seen = 100, []
        async with asyncio.timeout(20):
            while not seen:  # until the stream has started
                write_log(log, written, 1)
                written += 1
                await asyncio.sleep(0.05)
                seen += numbers(await host.packets("log", 0))
        async with websockets.connect(f"ws://{address}/ws", max_size=None) as socket:
            outcomes = reloads(socket)
            await anext(outcomes)
            for number in range(5):
                source.write_text(f"{code}\n# {number}\n")
                async with asyncio.timeout(20):
                    reloading = asyncio.ensure_future(anext(outcomes))
                    while not reloading.done():
                        write_log(log, written, 5)
                        written += 5
                        await asyncio.sleep(0.02)
                assert (await reloading)["error"] == ""
        write_log(log, written, 5)
        written += 5
        async with asyncio.timeout(20):
            while seen[-1] < written - 1:
                seen += numbers(await host.packets("log", 1))
        stats = await host.call("stats", run="log")
        assert not stats.get("ended"), stats
    assert seen == [*range(seen[0], written)]


@pytest.mark.slow
async def test_what_is_saved_before_the_watch_begins_is_loaded_once(tmp_path):
    file = tmp_path / "saved_early.py"
    code = "from aiostream_ds import DataSource\nclass Source(DataSource):\n    pass\n"
    file.write_text(code)
    loaded = []

    def load():
        loaded.append(file.read_text())
        return Catalog(*find_target(str(file)))

    async with open_hub(load()) as hub:
        reloader = Reloader(hub, load, file)
        file.write_text(f"{code}# saved\n")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reloader.run)
            with anyio.fail_after(20):
                while len(loaded) < 2 or reloader._is_changed():
                    await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
    assert loaded == [code, f"{code}# saved\n"]


@pytest.mark.slow
async def test_a_cancelled_reloader_ends_at_once(tmp_path):
    # watchfiles waits for changes in a thread, for five seconds at a time
    file = tmp_path / "source.py"
    file.touch()
    started = threading.Event()
    reloader = Reloader(None, None, file)
    folders = reloader._folders
    reloader._folders = lambda: (started.set(), folders())[1]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reloader.run)
        while not started.is_set() or not any("worker" in t.name for t in threading.enumerate()):
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
        began = time.monotonic()
    assert time.monotonic() - began < 4
