"""Serves the console's app on a socket of this machine, within the loop that runs already."""

import logging
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn

from aiostream_ds.console.access_guard import LOOPBACK, ASGIApp
from aiostream_ds.errors import ConfigError

__all__ = ["PORT", "Listener", "listen", "serve_app"]

PORT = 3030
"""Where the console listens unless it is told otherwise; the next free port when it is taken."""

TRIES = 20
"""Ports that are tried, from PORT on."""

QUESTION_LIMIT = 1 << 20
"""Bytes of one message that a page may send."""

PAGES = 256
"""Connections at once."""


class Listener:
    """A socket that listens, and how a browser comes to it: `url`, with the `token` in it."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        address, port = sock.getsockname()[:2]
        open_to_all = address in ("0.0.0.0", "::")
        self.loopback = address in LOOPBACK
        self.token = "" if self.loopback else secrets.token_urlsafe(24)
        self.hosts = LOOPBACK if self.loopback else None  # the token keeps foreign names out
        name = socket.gethostname() if open_to_all else host
        name = f"[{name}]" if ":" in name else name
        self.url = f"http://{name}:{port}/" + (f"?token={self.token}" if self.token else "")


def listen(host: str = "127.0.0.1", port: int | None = None) -> Listener:
    """Listen; `port` None is PORT or the next that is free, 0 any. Raises ConfigError."""
    ports = range(PORT, PORT + TRIES) if port is None else (port,)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in ports:
        try:
            return Listener(socket.create_server((host, number), family=family), host)
        except OSError as error:
            failed = error
    where = f"{host}:{ports[0]}" + (f" to {ports[-1]}" if len(ports) > 1 else "")
    raise ConfigError(f"the console cannot listen on {where}: {failed}") from failed


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's to handle."""
        yield


async def serve_app(app: ASGIApp, listener: Listener) -> None:
    """Serve until cancelled; open pages are closed then."""
    logging.getLogger("uvicorn").setLevel("WARNING")
    logging.getLogger("websockets").setLevel("WARNING")
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="websockets-sansio",
        ws_max_size=QUESTION_LIMIT, limit_concurrency=PAGES, timeout_graceful_shutdown=1,
        server_header=False, ws_per_message_deflate=not listener.loopback,
    )  # fmt: skip
    server = _Server(config)

    async def run() -> None:
        with anyio.CancelScope(shield=True):  # it closes its sockets only by its own end
            await server.serve(sockets=[listener.sock])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            await anyio.sleep_forever()
        finally:
            server.should_exit = True
