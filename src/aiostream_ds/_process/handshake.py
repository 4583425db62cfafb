"""The handshake of HashiCorp's go-plugin: the host's environment, the socket, the handshake line.

The host starts the process with a cookie in the environment and reads one line, which has the
address of the gRPC server.

    started ──▶ listening ──▶ announced ──▶ stopping (Shutdown, or the host has exited) ──▶ exited
"""

import contextlib
import os
import re
import socket
import stat
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import msgspec

from aiostream_ds._grpc.server import Server
from aiostream_ds._installation import install_command

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Handshake",
    "Listener",
    "SOCKET_PATH_LIMIT",
    "StartError",
    "handshake_line",
    "listen",
    "read_handshake",
]

COOKIE = ("grafana_plugin_type", "datasource")
"""The environment variable, and its value, that show that Grafana has started the process."""

PROTOCOL_VERSION = 2
"""The version of Grafana's plugin protocol."""

SOCKET_PATH_LIMIT = 103  # bytes: macOS; Linux allows 107


_DIRECTORY = re.compile(r"plugin[0-9a-f]{16}")
_ABANDONED = 60.0  # seconds since the directory was made


class StartError(Exception):
    """The process cannot serve. The message is for stderr, the exit status is 1."""


class Handshake(msgspec.Struct, frozen=True):
    """What the host has set in the environment.

    `client_cert` is PEM, or "" for no TLS. `multiplex` is True for a host that reads a seventh
    field. `socket_dir` and `socket_group` are "" when the host has set none. The ports are for TCP;
    0 is any port. `parent` is the host's process id.
    """

    client_cert: str = ""
    multiplex: bool = False
    socket_dir: str = ""
    socket_group: str = ""
    min_port: int = 0
    max_port: int = 0
    parent: int = 0


def read_handshake(environ: Mapping[str, str]) -> Handshake:
    """Read the host's environment. Call it before anything is written to stdout.

    Raises StartError when no host has started the process, or one with another protocol version.
    """
    name, value = COOKIE
    if environ.get(name) != value:
        raise StartError(
            "This program is a Grafana data source plugin: Grafana starts it.\n"
            "To run it without Grafana, use: aiostream-ds dev FILE"
        )
    versions = environ.get("PLUGIN_PROTOCOL_VERSIONS", "")
    offered = [version.strip() for version in versions.split(",")]
    if any(offered) and str(PROTOCOL_VERSION) not in offered:
        raise StartError(
            f"PLUGIN_PROTOCOL_VERSIONS must contain {PROTOCOL_VERSION}, got {versions!r}; "
            "use a Grafana that supports this version of the plugin protocol"
        )
    low, high = (_read_port(environ, key) for key in ("PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT"))
    if low > high:
        raise StartError(f"PLUGIN_MIN_PORT must not be above PLUGIN_MAX_PORT, got {low} and {high}")
    return Handshake(
        client_cert=environ.get("PLUGIN_CLIENT_CERT", ""),
        multiplex=bool(environ.get("PLUGIN_MULTIPLEX_GRPC")),
        socket_dir=environ.get("PLUGIN_UNIX_SOCKET_DIR", ""),
        socket_group=environ.get("PLUGIN_UNIX_SOCKET_GROUP", ""),
        min_port=low,
        max_port=high,
        parent=os.getppid(),
    )


def _read_port(environ: Mapping[str, str], key: str) -> int:
    text = environ.get(key) or "0"
    if not text.isdecimal() or int(text) > 65535:
        raise StartError(f"{key} must be a port from 0 to 65535, got {text!r}")
    return int(text)


def handshake_line(network: str, address: str, certificate: str | None = None) -> str:
    """The line that the host reads on stdout. `certificate` is "" without TLS; None omits the
    field."""
    fields = ["1", str(PROTOCOL_VERSION), network, address, "grpc"]
    if certificate is not None:
        fields.append(certificate)
    return "|".join(fields)


class Listener:
    """The bound socket and the handshake line.

    The socket stays open as long as the process, independent of connections. `close` removes the
    socket file, and its directory if `Listener` has created one.
    """

    def __init__(self, handshake: Handshake) -> None:
        """Bind without listening. Blocks. Raises StartError when nothing can be bound."""
        self.tls: ssl.SSLContext | None = None
        self._directory = self._path = ""
        certificate = ""
        if handshake.client_cert:
            self.tls, certificate = _create_tls(handshake.client_cert)
        if hasattr(socket, "AF_UNIX"):
            self.network = "unix"
            try:
                self.socket = self._bind_unix(handshake)
            except OSError as error:
                self.close()
                raise StartError(f"cannot bind a UNIX socket: {error}") from error
            self.address = self._path
        else:
            self.network = "tcp"
            self.socket = _bind_tcp(handshake.min_port, handshake.max_port)
            self.address = "{}:{}".format(*self.socket.getsockname())
        self.line = handshake_line(self.network, self.address, certificate)
        if handshake.multiplex:
            self.line += "|false"  # a host that requires multiplexing refuses, others continue

    def _bind_unix(self, handshake: Handshake) -> socket.socket:
        if handshake.socket_dir:
            name = f"plugin{os.getpid()}-{os.urandom(4).hex()}"
            path = os.path.join(handshake.socket_dir, name)
        else:
            self._directory = _create_directory()
            path = os.path.join(self._directory, "socket")
        self._path = path
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT or "|" in path or "\n" in path:
            raise OSError(
                f"the path must have at most {SOCKET_PATH_LIMIT} bytes and no '|', got {path!r}; "
                "set PLUGIN_UNIX_SOCKET_DIR or TMPDIR to another directory"
            )
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            os.chmod(path, 0o600)
            if handshake.socket_group:
                for owned, mode in ((self._directory, 0o770), (path, 0o660)):
                    if owned:
                        _change_group(owned, handshake.socket_group, mode)
        except BaseException:
            bound.close()
            raise
        return bound

    def close(self) -> None:
        """Remove the socket. Blocks: call it after `Server.close`. May be called again."""
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        if self._directory:
            with contextlib.suppress(OSError):
                os.rmdir(self._directory)
        if hasattr(self, "socket"):
            self.socket.close()


async def listen(server: Server, handshake: Handshake) -> Listener:
    """Bind as the host requires and start the server. Then write `Listener.line` to stdout.

    Raises StartError when nothing can be bound, or when the required TLS is not available.
    """
    if handshake.client_cert:  # creating a key and a certificate blocks
        listener = await anyio.to_thread.run_sync(Listener, handshake)
    else:
        listener = Listener(handshake)
    await server.start(sock=listener.socket, ssl=listener.tls)
    return listener


def _create_directory() -> str:
    """A new directory with mode 0700, whose path is short enough for a socket in it.

    Without tempfile: importing it, with shutil and its compressors, would slow every start.
    """
    name = f"plugin{os.urandom(8).hex()}"
    preferred = os.path.join(os.path.abspath(os.environ.get("TMPDIR") or "/tmp"), name)
    if len(os.fsencode(preferred)) <= SOCKET_PATH_LIMIT - len("/socket"):
        with contextlib.suppress(OSError):
            return _make_directory(preferred)
    return _make_directory(os.path.join("/tmp", name))


def _make_directory(path: str) -> str:
    os.mkdir(path, 0o700)
    with contextlib.suppress(OSError):
        _remove_abandoned(os.path.dirname(path))
    return path


def _remove_abandoned(parent: str) -> None:
    """Remove this user's directories of processes that were killed: nothing listens there. A
    directory that has other files stays."""
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if _DIRECTORY.fullmatch(entry.name)]
    for directory in found:
        path = os.path.join(directory, "socket")
        with contextlib.suppress(OSError):
            status = os.lstat(directory)
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            # a newer one may be bound, and not listen yet
            if is_ours and time.time() - status.st_mtime > _ABANDONED and _is_refused(path):
                with contextlib.suppress(FileNotFoundError):  # killed before it was bound
                    os.unlink(path)
                os.rmdir(directory)


def _is_refused(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
    return False


def _change_group(path: str, group: str, mode: int) -> None:
    import grp

    try:
        number = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise OSError(
            f"PLUGIN_UNIX_SOCKET_GROUP must be a group of this system, got {group!r}"
        ) from error
    os.chown(path, -1, number)
    os.chmod(path, mode)


def _bind_tcp(low: int, high: int) -> socket.socket:
    for port in range(low, high + 1):
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.bind(("127.0.0.1", port))
        except OSError:
            bound.close()
        else:
            return bound
    raise StartError(f"expected a free port of 127.0.0.1 from {low} to {high}, got none")


def _create_tls(client_cert: str) -> "tuple[ssl.SSLContext, str]":
    from aiostream_ds._process import server_tls

    try:
        return server_tls.auto_mtls_context(client_cert)
    except ModuleNotFoundError as error:
        raise StartError(
            "the host requires TLS (PLUGIN_CLIENT_CERT), which needs the package cryptography; "
            f"run: {install_command('mtls')}"
        ) from error
    except ValueError as error:
        raise StartError(str(error)) from error
