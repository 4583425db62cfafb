"""The socket of a process that a running Grafana, or a debugger, connects to.

Settings come with each call, and a data source reads files with them. So only the developer may
connect: to a UNIX socket with mode 0600, unless an address is configured. The socket is in the
plugin's folder, which a Grafana that runs as a service can see (its /tmp is another one), else in a
directory of its own.
"""

import os
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from aiostream_ds._process.handshake import SOCKET_PATH_LIMIT, Handshake, Listener
from aiostream_ds.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOCKET_FILE", "StandaloneSocket", "bind_standalone", "network_of"]

SOCKET_FILE = "standalone.sock"


class StandaloneSocket(NamedTuple):
    """A bound socket, its address, and what removes its file once the server is closed."""

    socket: socket.socket
    address: str
    close: Callable[[], None]


def network_of(address: str) -> str:
    """The network of an address in the handshake line: "unix" for a path, else "tcp"."""
    return "unix" if os.path.isabs(address) else "tcp"


def bind_standalone(address: str, directory: "Path | None") -> StandaloneSocket:
    """Bind to `address` (HOST:PORT); "" is a private socket.

    `directory` is the plugin's folder. Raises ConfigError for an address that cannot be bound.
    """
    if address:
        bound = _bind_tcp(address)
        return StandaloneSocket(bound, "{}:{}".format(*bound.getsockname()[:2]), lambda: None)
    if directory is not None and hasattr(socket, "AF_UNIX"):
        path = directory.resolve() / SOCKET_FILE
        try:
            return _bind_in(path)
        except OSError:  # the file system has no sockets, or another user owns the folder
            pass
    listener = Listener(Handshake())
    return StandaloneSocket(listener.socket, listener.address, listener.close)


def _bind_in(path: "Path") -> StandaloneSocket:
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise OSError("the path is too long for a socket")
    if os.path.lexists(path):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError("another file has the socket's name")
        path.unlink()  # of a process that was killed, or that this one replaces
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)  # before it listens: nobody has connected yet
    except OSError:
        bound.close()
        raise
    inode = path.lstat().st_ino

    def close() -> None:
        if os.path.lexists(path) and path.lstat().st_ino == inode:
            path.unlink()

    return StandaloneSocket(bound, str(path), close)


def _bind_tcp(address: str) -> socket.socket:
    name, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"the address must be HOST:PORT, got {address!r}")
    host = name.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise ConfigError(
            f"the address must be a free one of this machine, got {address!r}: {error}"
        ) from error
