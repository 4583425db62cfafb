"""The host and its driver, without a plugin or with an invalid one."""

import asyncio
import os
from pathlib import Path

import pytest

from .driver import Host, HostError

pytestmark = pytest.mark.go


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


async def test_concurrent_calls_get_their_own_answers(host_binary: Path) -> None:
    async with Host(host_binary) as host:
        answers = await asyncio.gather(*(host.call("ping") for _ in range(50)))
    assert answers == [{"pid": host.pid}] * 50


@pytest.mark.parametrize(
    ("do", "arguments", "message"),
    [
        ("dance", {}, 'unknown command "dance"'),
        ("health", {"contxt": {}}, 'unknown field "contxt"'),
        ("health", {}, "no plugin was started"),
        ("start", {"exec": "x", "env": "half"}, 'a map of strings, got "half"'),
        ("packets", {"run": "a"}, 'unknown run "a"'),
        ("stats", {"group": "a"}, 'unknown group "a"'),
    ],
)
async def test_an_invalid_command_is_an_error_with_the_reason(
    host_binary: Path, do: str, arguments: dict[str, str], message: str
) -> None:
    async with Host(host_binary) as host:
        with pytest.raises(HostError) as caught:
            await host.call(do, **arguments)
    assert caught.value.code == "Host"
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "Unrecognized remote plugin message: hello"),
        ("1|1|unix|/nowhere|grpc|", "incompatible API version with plugin"),
        ("1|2|unix|/nowhere|netrpc|", 'unsupported plugin protocol "netrpc"'),
    ],
)
async def test_an_invalid_handshake_fails_the_start(
    host_binary: Path, tmp_path: Path, line: str, message: str
) -> None:
    plugin = script(tmp_path / "plugin", f"echo '{line}'", "echo complaint >&2", "exec sleep 60")
    async with Host(host_binary) as host:
        with pytest.raises(HostError) as caught:
            await host.start(plugin)
    assert caught.value.code == "Start"
    assert message.lower() in caught.value.message.lower()


async def test_the_plugin_gets_the_given_environment_and_go_plugins_variables(
    host_binary: Path, tmp_path: Path
) -> None:
    seen = {}
    async with Host(host_binary) as host:
        for name, env in {"full": "full", "empty": "empty", "own": {"GF_VERSION": "9.4.0"}}.items():
            # the initial environment of the process; the shell adds variables to its own copy
            plugin = script(tmp_path / "plugin", "cat /proc/$$/environ >&2", "echo >&2", "exit 1")
            with pytest.raises(HostError, match="^Start: "):
                await host.start(plugin, env=env)
            block = (await host.call("logs"))["stderr"].strip("\n")
            seen[name] = dict(pair.split("=", 1) for pair in block.split("\0") if pair)
    handshake = {
        "grafana_plugin_type": "datasource",
        "PLUGIN_PROTOCOL_VERSIONS": "2",
        "PLUGIN_MIN_PORT": "10000",
        "PLUGIN_MAX_PORT": "25000",
    }
    assert seen["empty"] == handshake
    assert seen["own"] == handshake | {"GF_VERSION": "9.4.0"}
    assert seen["full"].items() >= handshake.items()
    assert seen["full"]["PATH"] == os.environ["PATH"]


async def test_a_cancelled_call_is_aborted_in_the_host(host_binary: Path, tmp_path: Path) -> None:
    silent = script(tmp_path / "silent", "exec sleep 60")
    async with Host(host_binary) as host:
        starting = asyncio.create_task(host.start(silent))
        await host.call("ping")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        # the host starts one plugin at a time: an answer means that the first start has ended
        with pytest.raises(HostError, match="^Start: "):
            await host.start(script(tmp_path / "ending", "exit 1"))


async def test_calls_fail_when_the_host_is_killed(host_binary: Path, tmp_path: Path) -> None:
    async with Host(host_binary) as host:
        plugin = script(tmp_path / "plugin", "exec sleep 1")
        starting = asyncio.create_task(host.start(plugin))
        await host.call("ping")
        host.kill()
        with pytest.raises(HostError, match="^Gone: .*status -9"):
            await starting
        with pytest.raises(HostError, match="^Gone: "):
            await host.call("ping")
