"""Drives the Go conformance host (host/main.go lists its commands) and builds the Go programs.

``async with Host(binary) as host: await host.call("health")``. Calls may run concurrently; a
cancelled call cancels its gRPC call in the host. Leaving the block stops the plugin and the host.
"""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
CACHE_VARIABLE = "AIOSTREAM_DS_CACHE"
BUILD_TIMEOUT = 1200.0  # seconds; the first build downloads modules
CLOSE_TIMEOUT = 8.0  # seconds; the host waits 4 of them for the plugin
MAX_ANSWER_BYTES = 512 * 1024 * 1024


class BuildError(Exception):
    """``go build`` failed; the message is its output."""


class HostError(Exception):
    """A command failed.

    ``code`` is the gRPC status name if the plugin failed the call ("NotFound"), or one of the
    host's codes: Host, Start, Frame, Packet, Timeout; "Gone" if the host has exited. ``details``
    are the gRPC status details as JSON.
    """

    def __init__(self, code: str, message: str, details: list[dict[str, Any]] | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details or []


class Host:
    """One host process, which runs at most one plugin at a time."""

    def __init__(self, binary: Path):
        self._binary = binary
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_ANSWER_BYTES,
        )
        self._reader = asyncio.create_task(self._read(), name="conformance host answers")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process, reader = self._parts()
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()
        await reader
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()

    @property
    def pid(self) -> int:
        return self._parts()[0].pid

    def kill(self) -> None:
        """Send SIGKILL to the host, which then cannot stop its plugin."""
        with contextlib.suppress(ProcessLookupError):
            self._parts()[0].kill()

    async def call(self, do: str, /, **arguments: Any) -> dict[str, Any]:
        """Run a command; host/main.go describes its arguments and its answer.

        Raises:
            HostError: the command failed, or the host has exited.
        """
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._write({**arguments, "id": number, "do": do})
            return await future
        except asyncio.CancelledError:
            if not future.done() or future.cancelled():
                self._write_nowait({"id": next(self._ids), "do": "abort", "call": number})
            raise
        finally:
            del self._waiting[number]

    async def start(self, *command: str | Path, **options: Any) -> dict[str, Any]:
        """Start a plugin: ``pid``, ``protocol``, ``network``, ``address``, ``start_ms``.

        Raises:
            HostError: code "Start", with go-plugin's reason.
        """
        executable, *arguments = map(str, command)
        return await self.call("start", exec=executable, args=arguments, **options)

    async def packets(self, run: str, n: int = 0, **options: Any) -> list[Any]:
        """Wait for the next ``n`` packets of a run, or its end."""
        packets = (await self.call("packets", run=run, n=n, **options))["packets"]
        assert isinstance(packets, list)
        return packets

    async def frames(self, run: str, n: int = 0, **options: Any) -> list[dict[str, Any]]:
        """The same packets as frames, decoded by Grafana's SDK with the current schema."""
        frames = (await self.call("packets", run=run, n=n, decode=True, **options))["frames"]
        assert isinstance(frames, list)
        return frames

    def _parts(self) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        if self._process is None or self._reader is None:
            raise RuntimeError("the host is not running; use `async with Host(binary) as host`")
        return self._process, self._reader

    def _write_nowait(self, command: dict[str, Any]) -> None:
        stdin = self._parts()[0].stdin
        assert stdin is not None
        if not stdin.is_closing():
            stdin.write(json.dumps(command).encode() + b"\n")

    async def _write(self, command: dict[str, Any]) -> None:
        process, reader = self._parts()
        if reader.done():
            raise _gone(process)
        self._write_nowait(command)
        assert process.stdin is not None
        try:
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise _gone(process) from None

    async def _read(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        while line := await process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.get(answer.pop("id"))
            if future is None or future.done():
                continue  # the call was cancelled, or it is the answer to an abort
            if answer.pop("ok"):
                future.set_result(answer)
            else:
                future.set_exception(
                    HostError(answer["code"], answer["error"], answer.get("details"))
                )
        await process.wait()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_gone(process))


def _gone(process: asyncio.subprocess.Process) -> HostError:
    return HostError("Gone", f"the host process ended with status {process.returncode}")


def go_missing() -> str | None:
    """The reason why Go programs cannot be built, or None."""
    return None if shutil.which("go") else "no Go toolchain: `go` is not on PATH"


def build_program(module: str) -> Path:
    """The executable of a Go module in this folder, built if its sources have changed.

    Raises:
        BuildError: ``go build`` failed.
    """
    outcome = _build_once(module)
    if isinstance(outcome, BuildError):
        raise outcome
    return outcome


@functools.cache
def _build_once(module: str) -> Path | BuildError:
    cache = Path(os.environ.get(CACHE_VARIABLE) or HERE.parent / ".cache")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    binary = cache / f"{module}-{_content_key(module)}"
    with locked(cache / f"{module}.lock"):
        if binary.exists():
            return binary
        fresh = binary.with_suffix(".new")
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=readonly -buildvcs=false",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }
        done = subprocess.run(
            ["go", "build", "-trimpath", "-o", str(fresh), "."],
            cwd=HERE / module,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT,
        )
        if done.returncode != 0:
            return BuildError(f"go build of {module} failed:\n{done.stderr[-4000:]}")
        for old in cache.glob(f"{module}-*"):
            if old != fresh:
                old.unlink()
        fresh.rename(binary)
    return binary


def _content_key(module: str) -> str:
    digest = hashlib.sha256(subprocess.check_output(["go", "version"]))
    for folder in (HERE / module, HERE / "descriptors"):
        for path in sorted(folder.iterdir()):
            if path.suffix in (".go", ".mod", ".sum"):
                digest.update(f"{folder.name}/{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A lock against other builders, including the processes of a parallel test run."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
