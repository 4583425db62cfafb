"""Serves the console's app in the running event loop."""

import logging
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn

from aiostream_ds.console.access_guard import LOOPBACK, ASGIApp
from aiostream_ds.errors import ConfigError

__all__ = ["DEFAULT_PORT", "ConsoleSocket", "listen", "serve_app"]

DEFAULT_PORT = 3030
"""The console's port; when it is in use, the next free one."""

MAX_PORTS = 20
"""Ports to try, from DEFAULT_PORT on."""

_LAST_PORT = 65_535

MESSAGE_LIMIT = 1 << 20
"""Bytes of one message from a page."""

MAX_CONNECTIONS = 256
"""Connections at once."""


class ConsoleSocket:
    """A listening socket, and the `url` that opens the console in a browser.

    On a loopback address, `hosts` are the accepted names and `token` is "". On any other address
    `hosts` is None, and the `token` is required.
    """

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        address, port = sock.getsockname()[:2]
        is_wildcard = address in ("0.0.0.0", "::")
        self.loopback = address in LOOPBACK
        self.token = "" if self.loopback else secrets.token_urlsafe(24)
        self.hosts = LOOPBACK if self.loopback else None  # the token keeps foreign pages out
        name = socket.gethostname() if is_wildcard else host
        name = f"[{name}]" if ":" in name else name
        self.url = f"http://{name}:{port}/" + (f"?token={self.token}" if self.token else "")


def listen(host: str = "127.0.0.1", port: int | None = None) -> ConsoleSocket:
    """Listen on `port`; None means DEFAULT_PORT or the next free one, 0 any free one.

    Raises ConfigError when the port cannot be opened, or is not a port.
    """
    if port is not None and not (isinstance(port, int) and 0 <= port <= _LAST_PORT):
        raise ConfigError(f"port must be an integer from 0 to {_LAST_PORT}, got {port!r}")
    ports = range(DEFAULT_PORT, DEFAULT_PORT + MAX_PORTS) if port is None else (port,)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in ports:
        try:
            return ConsoleSocket(socket.create_server((host, number), family=family), host)
        except OSError as error:
            failure = error
    where = f"{host}:{ports[0]}" + (f" to {ports[-1]}" if len(ports) > 1 else "")
    raise ConfigError(f"the console cannot listen on {where}: {failure}") from failure


class _UvicornServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command line."""
        yield


async def serve_app(app: ASGIApp, listener: ConsoleSocket) -> None:
    """Serve until cancelled, then close open pages."""
    logging.getLogger("uvicorn").setLevel("WARNING")
    logging.getLogger("websockets").setLevel("WARNING")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_LIMIT,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,
        server_header=False,
        ws_per_message_deflate=not listener.loopback,
    )
    server = _UvicornServer(config)

    async def run() -> None:
        with anyio.CancelScope(shield=True):  # it closes its sockets only when it ends by itself
            await server.serve(sockets=[listener.sock])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            await anyio.sleep_forever()
        finally:
            # pages that do not close in time are cut off, which needs no traceback
            logging.getLogger("uvicorn").setLevel("CRITICAL")
            server.should_exit = True
