"""`serve()`: the life of the process, from the first line of main to its exit status.

    started ──▶ serving ──▶ draining ──▶ gone
                  └─ Shutdown called, SIGTERM, or the host is gone

Under Grafana: SIGINT is ignored (Ctrl-C in a terminal reaches the whole group, and Grafana
decides), the connection may drop and come back, and nothing of ours outlives the host. Exit status
0: asked to stop; 1: could not start.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol

import anyio

from aiostream_ds import _telemetry as telemetry
from aiostream_ds._grafana.application import (
    DRAIN,
    Application,
    background_tasks,
    open_application,
)
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grpc.methods import Services
from aiostream_ds._grpc.server import Server
from aiostream_ds._process import handshake as goplugin
from aiostream_ds._process import standalone
from aiostream_ds._process.stdio import StandardStreams
from aiostream_ds._process.watchdog import watch_loop
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import ConfigError

if TYPE_CHECKING:
    import ssl

__all__ = [
    "SHUTDOWN_DRAIN",
    "Serves",
    "serve_at",
    "serve_beside",
    "serve_loaded",
    "serve_standalone",
]

log = logging.getLogger(__name__)

SHUTDOWN_DRAIN = 0.25
"""Seconds that streams get to end when the host called Shutdown (it kills after 2 s) or died."""

KEEP_ALIVE = 10.0
"""Seconds between two lines by which a copy that hands on an address shows that it lives."""


def serve_loaded(load: Callable[[], Catalog]) -> NoReturn:
    """The same for a plugin that is loaded only when stdout is safe: what its modules print, and
    the traceback of one that cannot be imported, are log lines then."""
    directory = _directory()
    if {"-standalone", "--standalone"} & set(sys.argv[1:]):
        _log_to(None)
        with suppress(KeyboardInterrupt):
            catalog = load()
            _keep_imports()
            _run(serve_standalone(catalog, directory))
        _leave(0)
    try:
        handshake = goplugin.read_handshake(os.environ)
    except goplugin.Refused as refused:
        sys.stderr.write(f"{refused}\n")
        _leave(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    streams = StandardStreams()
    address = standalone.elsewhere(os.environ, directory) if directory is not None else ""
    if address:
        streams.announce(f"1|{goplugin.PROTOCOL_VERSION}|tcp|{address}|grpc")
        _idle(handshake.parent)
    status = 0
    try:
        _log_to(streams.log)
        _run(_managed(load(), handshake, streams))
    except goplugin.Refused as refused:
        log.error("the plugin cannot start: %s", refused)
        status = 1
    except BaseException:
        log.exception("the plugin ends by an error")
        status = 1
    streams.close()
    _leave(status)


def _directory() -> Path | None:
    """Where the program lies, and with it the files of a debugger. One that is given as text lies
    nowhere: the directory that it happens to run in may be another plugin's."""
    program = sys.argv[0]
    return None if program in ("", "-", "-c") else Path(program).resolve().parent


def serve_at(
    load: Callable[[], Catalog], address: str, tls: "ssl.SSLContext | None" = None
) -> NoReturn:
    """Be a plugin that Grafana reaches at `address` (HOST:PORT) instead of starting it: a container
    or a service of its own. Ends by SIGTERM or Ctrl-C, and not by the host's Shutdown, which the
    host calls when it ends itself. Raises ConfigError for an address that cannot be listened on."""
    _log_to(None)
    catalog = load()
    host = address.rpartition(":")[0].strip("[]")
    if tls is None and host not in ("127.0.0.1", "::1", "localhost"):
        log.warning(
            "what Grafana sends to %s is not encrypted, the data sources' secrets neither: keep it "
            "in a private network, or give --tls-cert and --tls-key", address,
        )  # fmt: skip
    _keep_imports()
    with suppress(KeyboardInterrupt):
        _run(serve_standalone(catalog, None, address=address, tls=tls))
    _leave(0)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, on uvloop where that exists: a call costs a third less there."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop as factory
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


async def _managed(
    catalog: Catalog, handshake: goplugin.Handshake, streams: StandardStreams
) -> None:
    stop = anyio.Event()
    async with open_application(catalog) as application:
        server = Server({**application.services(), **goplugin.services(stop.set)})
        server.on_rate_limited = application.counters.count_rate_limited
        listener = await goplugin.listen(server, handshake)
        try:
            async with background_tasks() as tasks:
                tasks.start_soon(watch_loop)
                tasks.start_soon(_when, lambda: goplugin.parent_exit(handshake.parent), stop)
                asked = _on_sigterm(stop)
                _keep_imports()
                streams.announce(listener.line)
                log.info("serving on %s", listener.address)
                await stop.wait()
            drain = DRAIN if asked.is_set() else SHUTDOWN_DRAIN
            if not await _end(application, server, drain):
                log.warning("not everything ended within %.2f s", drain)
        finally:
            listener.close()
        streams.close()
        # From inside: a task or a thread that does not end must not keep the process.
        _leave(0)


class Serves(Protocol):
    """A plugin, or what stands before one."""

    @property
    def counters(self) -> Counters:
        """What is counted in it."""

    def services(self) -> Services:
        """What it answers a host's calls by."""

    async def close(self, drain: float = DRAIN) -> bool:
        """End its streams and lifespans; whether all did in time."""


async def _end(application: Serves, server: Server, drain: float) -> bool:
    """Streams first, so that their calls end with a reason; then the server."""
    ended = await application.close(drain)
    server.close()
    with anyio.move_on_after(SHUTDOWN_DRAIN):
        await server.wait_closed()
    return ended


async def _when(event: Callable[[], Awaitable[None]], stop: anyio.Event) -> None:
    await event()
    log.info("the host is gone")
    stop.set()


def _on_sigterm(stop: anyio.Event) -> anyio.Event:
    """The first SIGTERM drains, the second ends the process at once."""
    asked = anyio.Event()

    def handle() -> None:
        if asked.is_set():
            _leave(0)
        asked.set()
        stop.set()

    with suppress(NotImplementedError):  # Windows has no signal handlers in its loop
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, handle)
    return asked


async def serve_standalone(
    catalog: Catalog,
    directory: Path | None,
    ready: Callable[[Application, str], Awaitable[None]] | None = None,
    *,
    address: str = "",
    tls: "ssl.SSLContext | None" = None,
) -> None:
    """Serve on TCP for a debugger or a Grafana beside us, until cancelled or ended by a signal.

    The address is the given one, GF_PLUGIN_GRPC_ADDRESS_<ID> or a free port of 127.0.0.1. When
    `directory` holds a plugin.json, the files that make a running Grafana attach are kept there
    meanwhile. `ready` is called with the plugin and its address, and ends the serving when it
    returns; what it raises is raised here, once everything has ended.
    """
    async with open_application(catalog) as application:

        async def then(bound: str) -> None:
            if ready is not None:
                await ready(application, bound)

        told = then if ready is not None else None
        await serve_beside(application, directory, told, address=address, tls=tls)


async def serve_beside(
    application: Serves,
    directory: Path | None,
    ready: Callable[[str], Awaitable[None]] | None = None,
    *,
    address: str = "",
    tls: "ssl.SSLContext | None" = None,
) -> None:
    """The same for a plugin that lives already; it is closed at the end."""
    failed: list[Exception] = []
    identifier = standalone.plugin_id(directory) if directory is not None else ""
    named = os.environ.get(standalone.address_variable(identifier), "") if identifier else ""
    server = Server({**application.services(), **goplugin.services(None)})
    server.on_rate_limited = application.counters.count_rate_limited
    listening = _listen(address or named)
    await server.start(sock=listening, ssl=tls)
    address = "{}:{}".format(*listening.getsockname()[:2])
    async with background_tasks() as tasks:
        tasks.start_soon(watch_loop)
        with (
            standalone.announced(directory, address)
            if directory is not None and identifier
            else nullcontext()
        ):
            stop = anyio.Event()
            _on_sigterm(stop)
            if ready is not None:
                tasks.start_soon(_until_done, ready(address), stop, failed)
            else:
                log.info("serving on %s; Ctrl-C ends it", address)
            await stop.wait()
    await _end(application, server, DRAIN)
    if failed:
        raise failed.pop()


async def _until_done(work: Awaitable[None], stop: anyio.Event, failed: list[Exception]) -> None:
    try:
        await work
    except Exception as error:
        failed.append(error)
    stop.set()


def _listen(wanted: str) -> socket.socket:
    name, _, port = (wanted or "127.0.0.1:0").rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"the address {wanted!r} is not HOST:PORT")
    host = name.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise ConfigError(f"the address {wanted!r} cannot be listened on: {error}") from error


GARBAGE_THRESHOLD = 50_000
"""Objects made and not yet gone at which Python looks for garbage cycles; by itself it does at 700,
and a thousand streams that sleep would make it search all of them twice a second."""


def _keep_imports() -> None:
    """What was imported lives as long as the process: searching it for garbage would cost every
    full collection milliseconds. An executable may have switched the search off for the start."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)
    gc.enable()


def _idle(parent: int) -> NoReturn:
    """This copy only handed on an address: it stays until the host ends it."""
    while os.getppid() == parent:
        sys.stderr.write("the plugin runs standalone, elsewhere\n")
        for _ in range(int(KEEP_ALIVE / goplugin.POLL_INTERVAL)):
            time.sleep(goplugin.POLL_INTERVAL)
            if os.getppid() != parent:
                break
    _leave(0)


def _log_to(stream: IO[str] | None) -> None:
    """JSON lines to the host, text to a terminal (None). `log_level` of Grafana's ini section
    [plugin.<id>] arrives as GF_PLUGIN_LOG_LEVEL."""
    level = os.environ.get("GF_PLUGIN_LOG_LEVEL", "info")
    try:
        telemetry.configure(stream, text=stream is None, level=level)
    except ValueError as error:
        telemetry.configure(stream, text=stream is None)
        log.warning("GF_PLUGIN_LOG_LEVEL: %s; it is info now", error)


def _leave(status: int) -> NoReturn:
    """Exit now: a thread or a stream that does not end must not keep the process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
