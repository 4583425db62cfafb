"""Runs the plugin process, from the handshake to the exit status.

    started ──▶ serving ──▶ draining ──▶ exited
                  └─ Shutdown, SIGTERM, or the host has exited

Under Grafana, SIGINT is ignored (Ctrl-C in a terminal goes to the whole process group, and Grafana
stops its plugins itself), the connection may be lost and opened again, and no thread or child
outlives the host. Exit status 0: stopped; 1: could not start.
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol

import anyio

from aiostream_ds import _telemetry as telemetry
from aiostream_ds._author_code import contained, keep_running
from aiostream_ds._grafana.application import (
    DRAIN,
    Application,
    open_application,
)
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.runtime_tasks import runtime_tasks
from aiostream_ds._grpc.methods import Services
from aiostream_ds._grpc.server import Server
from aiostream_ds._loggers import get_logger
from aiostream_ds._process import standalone
from aiostream_ds._process.cluster_of_process import cluster_of_process
from aiostream_ds._process.handshake import (
    Handshake,
    StartError,
    handshake_line,
    listen,
    read_handshake,
)
from aiostream_ds._process.host_services import host_services
from aiostream_ds._process.main_task import run_main_task
from aiostream_ds._process.parent import POLL_INTERVAL, wait_for_parent_exit
from aiostream_ds._process.queue_memory import queue_memory
from aiostream_ds._process.standalone_socket import bind_standalone, network_of
from aiostream_ds._process.stdio import StandardStreams, redact_output
from aiostream_ds._process.watchdog import watch_loop
from aiostream_ds._telemetry import Counters

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

__all__ = [
    "SHUTDOWN_DRAIN",
    "Servable",
    "serve_application",
    "serve_at",
    "serve_loaded",
    "serve_standalone",
]

log = get_logger(__name__)

SHUTDOWN_DRAIN = 0.25
"""Seconds for streams to end after the host has called Shutdown (it kills after 2 s) or exited."""


def serve_loaded(load: Callable[[], Catalog]) -> NoReturn:
    """Run the plugin process that Grafana starts. `load` imports the author's modules: it is called
    once stdout is redirected, so that what they print, or a traceback, becomes log lines.

    With the argument `--standalone` the process serves on a private socket instead.
    """
    directory = _directory()
    if {"-standalone", "--standalone"} & set(sys.argv[1:]):
        from pathlib import Path  # a start under Grafana does without it

        redact_output("stdout", "stderr")
        _configure_logging(None)
        with suppress(KeyboardInterrupt):
            catalog = load()
            _freeze_imports()
            folder = Path(directory) if directory is not None else None
            _run(serve_standalone(catalog, folder))
        _exit(0)
    try:
        handshake = read_handshake(os.environ)
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        _exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    streams = StandardStreams()

    def standalone_address() -> str:
        return standalone.standalone_address(os.environ, directory) if directory is not None else ""

    address = standalone_address()
    if address:
        streams.announce(handshake_line(network_of(address), address))
        _idle(lambda: os.getppid() == handshake.parent and standalone_address() == address)
    status = 0
    try:
        _configure_logging(streams.log)
        _run(_managed(load(), handshake, streams))
    except StartError as error:
        log.error("the plugin cannot start: %s", error)
        status = 1
    except BaseException:
        log.exception("the plugin failed")
        status = 1
    streams.close()
    _exit(status)


def _directory() -> str | None:
    """The program's directory, which has the files of standalone mode. None for a program without a
    file: the current directory may be another plugin's."""
    program = sys.argv[0]
    return None if program in ("", "-", "-c") else os.path.dirname(os.path.realpath(program))


def serve_at(
    load: Callable[[], Catalog], address: str, tls: "ssl.SSLContext | None" = None
) -> NoReturn:
    """Run a plugin that Grafana connects to at `address` (HOST:PORT) instead of starting it: in a
    container or as a service. SIGTERM and Ctrl-C stop it. The host's Shutdown does not, as the host
    calls it when it stops itself. Raises ConfigError for an address that cannot be bound."""
    redact_output("stdout", "stderr")
    _configure_logging(None)
    catalog = load()
    if address.startswith(":"):  # as Go and Docker write all interfaces
        address = f"0.0.0.0{address}"
    host = address.rpartition(":")[0].strip("[]")
    if tls is None and host not in ("127.0.0.1", "::1", "localhost"):
        log.warning(
            "the connection to %s is not encrypted, including the secrets of data sources; use a "
            "private network, or --tls-cert and --tls-key",
            address,
        )
    _freeze_imports()
    with suppress(KeyboardInterrupt):
        _run(serve_standalone(catalog, None, address=address, tls=tls))
    _exit(0)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, on uvloop where it is installed: a call costs a third less there."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop as factory
    with asyncio.Runner(loop_factory=factory) as runner:
        run_main_task(runner, work)


def _open_application(catalog: Catalog) -> AbstractAsyncContextManager[Application]:
    """The plugin with what grafana.ini sets for the process."""
    return open_application(
        catalog, memory=queue_memory(os.environ), cluster=cluster_of_process(os.environ)
    )


async def _managed(catalog: Catalog, handshake: Handshake, streams: StandardStreams) -> None:
    stop = asyncio.Event()
    async with _open_application(catalog) as application:
        server = Server({**application.services(), **host_services(stop.set)})
        server.on_rate_limited = application.counters.count_rate_limited
        listener = await listen(server, handshake)
        try:
            async with runtime_tasks() as tasks:
                tasks.start(keep_running(watch_loop))
                parent_exit = partial(_stop_after_parent, handshake.parent, stop)
                tasks.start(keep_running(parent_exit))
                terminated = _handle_sigterm(stop)
                _freeze_imports()
                streams.announce(listener.line)
                log.info("serving on %s", listener.address)
                await keep_running(stop.wait)
            drain = DRAIN if terminated.is_set() else SHUTDOWN_DRAIN
            if not await _shut_down(application, server, drain):
                log.warning("some streams did not end within %.2f s", drain)
        finally:
            listener.close()
        streams.close()
        # here, inside of everything: a task or a thread that does not end must not block the exit
        _exit(0)


class Servable(Protocol):
    """A running plugin, or a proxy of one."""

    @property
    def counters(self) -> Counters:
        """The plugin's counters."""

    def services(self) -> Services:
        """The gRPC services that the host calls."""

    async def close(self, drain: float = DRAIN) -> bool:
        """End the streams and lifespans. True when all ended within `drain` seconds."""


async def _shut_down(application: Servable, server: Server, drain: float) -> bool:
    """Close the streams first, so that their calls end with a reason, then the server."""
    ended = await application.close(drain)
    server.close()
    with anyio.move_on_after(SHUTDOWN_DRAIN):
        await server.wait_closed()
    return ended


async def _stop_after_parent(parent: int, stop: asyncio.Event) -> None:
    await wait_for_parent_exit(parent)
    log.info("the host has exited")
    stop.set()


def _handle_sigterm(stop: asyncio.Event) -> asyncio.Event:
    """The first SIGTERM or SIGHUP drains, the second exits at once. The first sets the event."""
    terminated = asyncio.Event()

    def handle() -> None:
        if terminated.is_set():
            _exit(0)
        terminated.set()
        stop.set()

    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # event loops on Windows have no signal handlers
        loop.add_signal_handler(signal.SIGTERM, handle)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
            loop.add_signal_handler(signal.SIGHUP, handle)
    return terminated


async def serve_standalone(
    catalog: Catalog,
    directory: "Path | None",
    ready: Callable[[Application, str], Awaitable[None]] | None = None,
    *,
    address: str = "",
    tls: "ssl.SSLContext | None" = None,
) -> None:
    """Serve for a debugger or a Grafana that connects, until cancelled or stopped by a signal.

    The address is `address`, GF_PLUGIN_GRPC_ADDRESS_<ID> or a private UNIX socket. When
    `directory` has a plugin.json, it has the files of standalone mode while this runs. `ready` is
    called with the plugin and its address; when it returns, the server stops. Its exception is
    raised here, after everything has ended.
    """
    async with _open_application(catalog) as application:

        async def on_bound(bound: str) -> None:
            if ready is not None:
                await ready(application, bound)

        callback = on_bound if ready is not None else None
        await serve_application(application, directory, callback, address=address, tls=tls)


async def serve_application(
    application: Servable,
    directory: "Path | None",
    ready: Callable[[str], Awaitable[None]] | None = None,
    *,
    address: str = "",
    tls: "ssl.SSLContext | None" = None,
) -> None:
    """`serve_standalone` for a plugin that runs already. Closes it at the end."""
    identifier = standalone.plugin_id(directory) if directory is not None else ""
    configured = os.environ.get(standalone.address_variable(identifier), "") if identifier else ""
    server = Server({**application.services(), **host_services(None)})
    server.on_rate_limited = application.counters.count_rate_limited
    folder = directory if identifier else None
    bound, address, close = bind_standalone(address or configured, folder)
    try:
        await server.start(sock=bound, ssl=tls)
        try:
            await _serve_until_stopped(application, server, folder, address, ready)
        finally:
            server.close()  # before its socket: uvloop waits for ever for a socket that is closed
    finally:
        close()


async def _serve_until_stopped(
    application: Servable,
    server: Server,
    folder: "Path | None",
    address: str,
    ready: Callable[[str], Awaitable[None]] | None,
) -> None:
    failed: list[Exception] = []
    async with runtime_tasks() as tasks:
        tasks.start(keep_running(watch_loop))
        with standalone.announced(folder, address) if folder is not None else nullcontext():
            stop = asyncio.Event()
            _handle_sigterm(stop)
            if ready is not None:
                tasks.start(_stop_after(ready(address), stop, failed))
            else:
                log.info("serving on %s; press Ctrl-C to stop", address)
            await stop.wait()
    await _shut_down(application, server, DRAIN)
    if failed:
        raise failed.pop()


async def _stop_after(work: Awaitable[None], stop: asyncio.Event, failed: list[Exception]) -> None:
    try:
        await work
    except (Exception, asyncio.CancelledError) as error:
        failure = contained(error)
        if failure is None:
            raise  # the server stops
        failed.append(failure)
    stop.set()


GARBAGE_THRESHOLD = 50_000
"""Allocations at which the garbage collector runs. At Python's 700, it would traverse a thousand
waiting streams twice a second."""


def _freeze_imports() -> None:
    """Exclude imported objects from garbage collection: they live as long as the process, and each
    full collection would take milliseconds longer. Also enables the collector, which a packaged
    start disables."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)
    gc.enable()


def _idle(is_needed: Callable[[], bool]) -> NoReturn:
    """Wait until the host or the process exits whose address this one has announced. A host then
    starts the plugin again, which serves it itself."""
    sys.stderr.write("the plugin runs standalone, in another process\n")
    while is_needed():
        time.sleep(POLL_INTERVAL)
    _exit(0)


def _configure_logging(stream: IO[str] | None) -> None:
    """Write log lines: JSON to the host's stream, text to a terminal (None). The level is that of
    GF_PLUGIN_LOG_LEVEL, which is `log_level` of the section [plugin.<id>] in grafana.ini."""
    level = os.environ.get("GF_PLUGIN_LOG_LEVEL", "info")
    try:
        telemetry.configure(stream, text=stream is None, level=level)
    except ValueError as error:
        telemetry.configure(stream, text=stream is None)
        log.warning("GF_PLUGIN_LOG_LEVEL: %s; using info", error)


def _exit(status: int) -> NoReturn:
    """Exit at once, without waiting for threads."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # an author's code may have replaced it, also by None
            stream.flush()
    os._exit(status)
