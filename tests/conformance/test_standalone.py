"""A running Grafana that is attached to a process under a debugger."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from .driver import Host

pytestmark = [pytest.mark.go, pytest.mark.timeout(60)]


async def test_the_process_that_grafana_starts_announces_the_standalone_address(
    host_binary: Path,
    packaged: Path,
    tmp_path: Path,
) -> None:
    directory = shutil.copytree(packaged.parent, tmp_path / packaged.parent.name)
    dev = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "aiostream_ds",
            "--terminal",
            "--plugin-dir",
            directory,
            "--path",
            "walk/1/1",
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    assert dev.stdout is not None
    try:
        while b"Serving" not in (line := await dev.stdout.readline()):
            assert line, "the process ended before it served"
        address = (directory / "standalone.txt").read_text()
        assert address in line.decode()
        async with Host(host_binary) as host:
            started = await host.start(directory / packaged.name)
            assert (started["network"], started["address"]) == ("unix", address)
            assert (await host.call("health"))["status"] == "OK"
            await host.call("run", path="walk/100/1", run="walk")
            assert await host.packets("walk", 2)
            await host.call("shutdown")  # by Grafana: the process under the debugger keeps running
            assert dev.returncode is None
    finally:
        dev.terminate()
        await dev.wait()
    assert not (directory / "standalone.txt").exists()
