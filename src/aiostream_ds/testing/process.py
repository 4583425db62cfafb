"""Runs a plugin's process as Grafana does: cookie, handshake line, calls over the socket, Shutdown,
SIGKILL.

The rules are those of go-plugin's client.go. `aiostream-ds check` and `doctor` use this.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds._grafana.application import background_tasks
from aiostream_ds._pb import plugin as pb
from aiostream_ds.testing.grafana import Grafana

__all__ = ["HandshakeLine", "NotStarted", "Process", "start_process"]

START_TIMEOUT = 60.0
"""Seconds that Grafana waits for a plugin's handshake line."""

STOP_TIMEOUT = 2.0
"""Seconds that a plugin has to end after Shutdown; then it is killed."""

_FIELDS = 4  # the least number of fields in a handshake line


class NotStarted(Exception):
    """The plugin did not complete the handshake. The message is the one in Grafana's log.

    `stderr` is the process's output, `status` its exit status: None while it runs, negative for a
    signal.
    """

    def __init__(self, message: str, stderr: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.stderr = stderr
        self.status = status


class HandshakeLine(NamedTuple):
    """The handshake line of a plugin and its fields."""

    line: str
    network: str
    address: str
    protocol: str


class Process:
    """A started plugin, created by `start_process`. `seconds` is how long the start took."""

    def __init__(
        self,
        child: asyncio.subprocess.Process,
        handshake: HandshakeLine,
        log: "_StderrReader",
        seconds: float,
    ) -> None:
        self.handshake = handshake
        self.seconds = seconds
        self._log = log
        self.pid = child.pid
        self._child = child
        self.channel = self._open_channel()

    def _open_channel(self) -> Channel:
        if self.handshake.network == "unix":
            return Channel(path=self.handshake.address)
        host, _, port = self.handshake.address.rpartition(":")
        return Channel(host.strip("[]"), int(port))

    @property
    def stderr(self) -> str:
        """The process's output: all of it after the block of `start_process`."""
        return self._log.text

    @asynccontextmanager
    async def grafana(
        self, settings: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Grafana]:
        """Connect a Grafana with one configured data source to this process.

        Each has a connection of its own. h2, which its client uses, looks at all open streams of
        a connection at each call: give a Grafana some hundred subscriptions at most.
        """
        channel = self._open_channel()
        try:
            async with background_tasks() as tasks:
                yield _Remote(channel, tasks, settings or {}, secrets or {})
        finally:
            channel.close()

    async def stop(self) -> float:
        """Send Shutdown, and SIGKILL if that does not end it. Returns how many seconds it took."""
        began = time.monotonic()
        rpc = UnaryUnaryMethod(self.channel, "/plugin.GRPCController/Shutdown", pb.Empty, pb.Empty)
        with anyio.move_on_after(STOP_TIMEOUT):
            # the last one is that of grpclib for a connection that is lost while it is opened
            with contextlib.suppress(GRPCError, StreamTerminatedError, OSError, AttributeError):
                await rpc(pb.Empty())
            await self._child.wait()
        if self._child.returncode is None:
            self._child.kill()
            await self._child.wait()
        return time.monotonic() - began


class _Remote(Grafana):
    """A Grafana over an open channel."""

    def __init__(
        self, channel: Channel, tasks: Any, settings: Mapping[str, Any], secrets: Mapping[str, str]
    ) -> None:
        self._channel = channel
        super().__init__(None, tasks, settings, secrets, "check")  # type: ignore[arg-type]

    def _connect(self, application: Any) -> None:
        pass


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment that Grafana gives a plugin: go-plugin's variables and no others."""
    return {
        "grafana_plugin_type": "datasource",
        "PLUGIN_PROTOCOL_VERSIONS": "2",
        "PLUGIN_MIN_PORT": "10000",
        "PLUGIN_MAX_PORT": "25000",
        **extra,
    }


@asynccontextmanager
async def start_process(
    command: Sequence[str],
    *,
    environ: Mapping[str, str] = {},
    timeout: float = START_TIMEOUT,  # noqa: ASYNC109
) -> AsyncGenerator[Process]:
    """Start a plugin and read its handshake line; stop it when the block ends.

    `environ` is added to Grafana's environment. Raises NotStarted with Grafana's message.
    """
    began = time.monotonic()
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            env=environment(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=os.sep,
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NotStarted(f"fork/exec {command[0]}: {reason}") from None
    log = _StderrReader(child)
    process: Process | None = None
    try:
        handshake = await _handshake(child, log, timeout)
        process = Process(child, handshake, log, time.monotonic() - began)
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process is not None:
                try:
                    await process.stop()
                finally:
                    process.channel.close()
            elif child.returncode is None:
                child.kill()
                await child.wait()
            await log.end()


async def _handshake(
    child: asyncio.subprocess.Process, log: "_StderrReader", seconds: float
) -> HandshakeLine:
    assert child.stdout is not None
    line = b""
    with anyio.move_on_after(seconds) as waiting:
        line = await child.stdout.readline()
    if waiting.cancelled_caught:
        raise NotStarted(f"timeout while waiting for plugin to start ({seconds:g} s)", log.text)
    text = line.decode("utf-8", "replace").strip()
    if not text:
        with anyio.move_on_after(STOP_TIMEOUT):
            await child.wait()
        await log.end()
        raise NotStarted("plugin exited before we could connect", log.text, child.returncode)
    fields = text.split("|")
    if len(fields) < _FIELDS or fields[0] != "1":
        raise NotStarted(f"Unrecognized remote plugin message: {text}", log.text)
    if fields[1] != "2":
        raise NotStarted(f"incompatible API version with plugin: {fields[1]}", log.text)
    protocol = fields[4] if len(fields) > _FIELDS else "netrpc"
    if protocol != "grpc":
        raise NotStarted(f"unsupported plugin protocol {protocol!r}: {text}", log.text)
    if fields[2] not in ("unix", "tcp"):
        raise NotStarted(f"unknown address type: {fields[2]}", log.text)
    return HandshakeLine(text, fields[2], fields[3], protocol)


class _StderrReader:
    """Collects a process's stderr, so that the process never blocks on a full pipe."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._chunks: list[bytes] = []
        self._task = asyncio.create_task(self._read(child), name="plugin stderr reader")

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        while chunk := await child.stderr.read(64 * 1024):
            self._chunks.append(chunk)

    @property
    def text(self) -> str:
        return b"".join(self._chunks).decode("utf-8", "replace")

    async def end(self) -> None:
        """Wait for the end of the pipe, for STOP_TIMEOUT: another process may hold it open."""
        await asyncio.wait([self._task], timeout=STOP_TIMEOUT)
        self._task.cancel()
        await asyncio.wait([self._task])
