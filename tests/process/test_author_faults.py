"""What an author's code does to the event loop and to all tasks does not end the process."""

import os
import signal
import subprocess
import sys

import anyio
import pytest

from aiostream_ds.testing.process import start_process

pytestmark = pytest.mark.slow  # a process for each test

PLUGIN = """
import asyncio, os, sys
import aiostream_ds as ds

def interrupt():
    raise KeyboardInterrupt

async def leave():
    sys.exit(3)

class Faulty(ds.DataSource):
    @ds.resource("stop")
    async def stop(self):
        asyncio.get_running_loop().stop()
        return {}

    @ds.resource("cancel")
    async def cancel(self):
        for task in asyncio.all_tasks():
            task.cancel()
        return {}

    @ds.resource("task")
    async def task(self):
        asyncio.create_task(leave())
        await asyncio.sleep(0.1)
        return {}

    @ds.resource("callback")
    async def callback(self):
        asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.sleep(0.1)
        return {}

    @ds.resource("raise")
    async def raises(self):
        interrupt()

    @ds.resource("silence")
    async def silence(self):
        sys.stdout = None
        sys.stderr = object()
        return {}

    @ds.stream("ticks")
    async def ticks(self):
        while True:
            yield {"pid": os.getpid()}
            await asyncio.sleep(0.05)

ds.serve(Faulty)
"""


@pytest.fixture
def command(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    return [sys.executable, str(file)]


SLOW = [
    pytest.param(each, marks=pytest.mark.slow) for each in ("cancel", "task", "callback", "raise")
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stop", "cancel", "task", "callback", "raise"])
async def test_the_process_lives_and_its_streams_go_on(command, fault):
    async with start_process(command) as process:
        async with process.grafana() as grafana:
            viewer = await grafana.follow("ticks")
            await viewer.next()
            for _ in range(2):
                with anyio.move_on_after(2):
                    await _ignoring_errors(grafana.resource(fault))
                await anyio.sleep(0.3)
                assert (await grafana.health())[0]
                before = len(viewer.rows)
                with anyio.fail_after(15):
                    while len(viewer.rows) < before + 3:
                        await anyio.sleep(0.1)
                assert viewer.rows[-1]["pid"] == process.pid
        assert await process.stop() < 1.5


async def _ignoring_errors(awaitable):
    try:
        await awaitable
    except Exception:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_drains_and_removes_the_directory_of_the_socket(command, number):
    async with start_process(command) as process:
        async with process.grafana() as grafana:
            viewer = await grafana.follow("ticks")
            await viewer.next()
        directory = os.path.dirname(process.handshake.address)
        assert os.path.isdir(directory)
        os.kill(process.pid, number)
        with anyio.fail_after(15):
            await process._child.wait()
        assert process._child.returncode == 0
        assert not os.path.exists(directory)


async def test_a_hang_up_that_is_ignored_as_under_nohup_ends_nothing(command):
    ignoring = ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *command]
    async with start_process(ignoring) as process:
        async with process.grafana() as grafana:
            viewer = await grafana.follow("ticks")
            await viewer.next()
            os.kill(process.pid, signal.SIGHUP)
            for _ in range(3):
                assert (await viewer.next())["pid"] == process.pid
        assert process._child.returncode is None


async def test_a_process_without_standard_streams_ends_with_status_0(command):
    async with start_process(command) as process:
        async with process.grafana() as grafana:
            await grafana.resource("silence")
        os.kill(process.pid, signal.SIGTERM)
        with anyio.fail_after(15):
            await process._child.wait()
        assert process._child.returncode == 0


def test_ctrl_c_ends_a_process_that_serves_at_an_address(command):
    process = subprocess.Popen(
        [*command, "--standalone"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    for line in process.stderr:
        if "serving on" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    process.stderr.close()
