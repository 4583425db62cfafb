"""What HashiCorp's go-plugin asks of a plugin process: handshake, socket, host services, the end.

The host starts us with a cookie in the environment, reads one line that says where we listen, and
calls three small services of its own beside the health check. streams.py owns stdout and stderr,
mtls.py the certificates. May import everything below and the rest of this room.

    started ──▶ listening ──▶ announced ──▶ stopping (Shutdown called, or the host is gone) ──▶ gone
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.methods import Method, Services, bidi_stream, server_stream, unary
from aiostream_ds._grpc.server import Server
from aiostream_ds._pb import plugin as pb
from aiostream_ds._pb.google.protobuf import Empty

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Handshake",
    "Listener",
    "Refused",
    "listen",
    "parent_exit",
    "read_handshake",
    "services",
]

COOKIE = ("grafana_plugin_type", "datasource")
"""The variable, and its value, by which a program knows that Grafana has started it."""

PROTOCOL_VERSION = 2
"""The version of Grafana's plugin protocol that is spoken here."""

POLL_INTERVAL = 0.5
"""Seconds between two looks at the parent process, where the system cannot tell of its end."""

_ADDRESS_LIMIT = 103  # bytes of a socket's path: macOS; Linux allows 107


class Refused(Exception):
    """This process cannot serve: the message belongs on stderr, the exit status is 1."""


class Handshake(msgspec.Struct, frozen=True):
    """What the host asked for in the environment.

    `client_cert` is PEM, or "" for no TLS. `multiplex` says that the host reads a seventh field.
    `socket_dir` and `socket_group` are "" when the host has no wish. Ports are for TCP only, 0 is
    any. `parent` is the host's process id, for `parent_exit`.
    """

    client_cert: str = ""
    multiplex: bool = False
    socket_dir: str = ""
    socket_group: str = ""
    min_port: int = 0
    max_port: int = 0
    parent: int = 0


def read_handshake(environ: Mapping[str, str]) -> Handshake:
    """Read the host's wishes; the first thing that a plugin does, before anything is written.

    Raises Refused when no host started us or when it speaks other versions.
    """
    name, value = COOKIE
    if environ.get(name) != value:
        raise Refused(
            "This program is a Grafana data source plugin: Grafana starts it, and talks to it.\n"
            "To see it at work without Grafana, use: aiostream-ds dev FILE"
        )
    versions = [v.strip() for v in environ.get("PLUGIN_PROTOCOL_VERSIONS", "").split(",")]
    if any(versions) and str(PROTOCOL_VERSION) not in versions:
        raise Refused(
            f"The host speaks the plugin protocol {environ['PLUGIN_PROTOCOL_VERSIONS']!r}; "
            f"this plugin speaks {PROTOCOL_VERSION}."
        )
    low, high = (_read_port(environ, key) for key in ("PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT"))
    if low > high:
        raise Refused(f"PLUGIN_MIN_PORT is {low}; it must not be above PLUGIN_MAX_PORT, {high}.")
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
        raise Refused(f"{key} is {text!r}; it must be a number from 0 to 65535.")
    return int(text)


class Listener:
    """The bound socket, and the line that tells the host of it.

    It stays for the life of the process, whoever connects and disconnects. `close` removes the
    socket file; a directory of our own goes with it.
    """

    def __init__(self, handshake: Handshake) -> None:
        """Bind, without listening. Blocks; raises Refused when nothing can be bound."""
        self.tls: ssl.SSLContext | None = None
        self._own_dir = self._path = ""
        certificate = ""
        if handshake.client_cert:
            self.tls, certificate = _make_tls(handshake.client_cert)
        if hasattr(socket, "AF_UNIX"):
            self.network = "unix"
            try:
                self.socket = self._bind_unix(handshake)
            except OSError as error:
                self.close()
                raise Refused(f"No UNIX socket could be made: {error}") from error
            self.address = self._path
        else:
            self.network = "tcp"
            self.socket = _bind_tcp(handshake.min_port, handshake.max_port)
            self.address = "{}:{}".format(*self.socket.getsockname())
        fields = ["1", str(PROTOCOL_VERSION), self.network, self.address, "grpc", certificate]
        if handshake.multiplex:
            fields.append("false")  # a host that insists reads this and refuses; others go on
        self.line = "|".join(fields)

    def _bind_unix(self, handshake: Handshake) -> socket.socket:
        if handshake.socket_dir:
            name = f"plugin{os.getpid()}-{os.urandom(4).hex()}"
            path = os.path.join(handshake.socket_dir, name)
        else:
            self._own_dir = _make_directory()
            path = os.path.join(self._own_dir, "socket")
        self._path = path
        if len(os.fsencode(path)) > _ADDRESS_LIMIT or "|" in path or "\n" in path:
            raise OSError(
                f"the path {path!r} must have at most {_ADDRESS_LIMIT} bytes and no '|'; "
                "set PLUGIN_UNIX_SOCKET_DIR or TMPDIR to another directory"
            )
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            os.chmod(path, 0o600)
            if handshake.socket_group:
                for owned, mode in ((self._own_dir, 0o770), (path, 0o660)):
                    if owned:
                        _give_to_group(owned, handshake.socket_group, mode)
        except BaseException:
            bound.close()
            raise
        return bound

    def close(self) -> None:
        """Remove the socket and our directory; idempotent. After `Server.close`, as it blocks."""
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        if self._own_dir:
            with contextlib.suppress(OSError):
                os.rmdir(self._own_dir)
        if hasattr(self, "socket"):
            self.socket.close()


async def listen(server: Server, handshake: Handshake) -> Listener:
    """Bind as the host asks and serve there; the caller then announces `Listener.line`.

    Raises Refused when nothing can be bound or TLS is asked for and cannot be had.
    """
    if handshake.client_cert:  # keys and certificates take their time
        listener = await anyio.to_thread.run_sync(Listener, handshake)
    else:
        listener = Listener(handshake)
    await server.start(sock=listener.socket, ssl=listener.tls)
    return listener


def _make_directory() -> str:
    """A directory of our own, mode 0700, whose path leaves room for a socket's name.

    Not by tempfile, whose import with shutil and its compressors would slow every start.
    """
    name = f"plugin{os.urandom(8).hex()}"
    wanted = os.path.join(os.path.abspath(os.environ.get("TMPDIR") or "/tmp"), name)
    if len(os.fsencode(wanted)) <= _ADDRESS_LIMIT - len("/socket"):
        with contextlib.suppress(OSError):
            os.mkdir(wanted, 0o700)
            return wanted
    path = os.path.join("/tmp", name)
    os.mkdir(path, 0o700)
    return path


def _give_to_group(path: str, group: str, mode: int) -> None:
    import grp

    try:
        number = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise OSError(f"PLUGIN_UNIX_SOCKET_GROUP is {group!r}, which is no group here") from error
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
    raise Refused(f"No port from {low} to {high} of 127.0.0.1 is free.")


def _make_tls(client_cert: str) -> "tuple[ssl.SSLContext, str]":
    from aiostream_ds._process import mtls

    try:
        return mtls.server_context(client_cert)
    except ModuleNotFoundError as error:
        raise Refused(
            "The host asks for TLS (PLUGIN_CLIENT_CERT), which needs a package more: "
            "pip install 'aiostream-ds[mtls]'"
        ) from error
    except ValueError as error:
        raise Refused(f"The host asks for TLS, but {error}") from error


def services(stop: Callable[[], None] | None) -> Services:
    """The host's own services, for `Server`.

    `stop` is called once Shutdown has been answered; None, outside a host, leaves Shutdown without
    effect.
    """

    async def shutdown(_: pb.Empty, call: Call) -> pb.Empty:
        if stop is not None:
            call.when_done(stop)
        return pb.Empty()

    return {
        "grpc.health.v1.Health": _health,
        "plugin.GRPCController": lambda: {
            "/plugin.GRPCController/Shutdown": unary(shutdown, pb.Empty, pb.Empty)
        },
        "plugin.GRPCBroker": lambda: {
            "/plugin.GRPCBroker/StartStream": bidi_stream(_broker, pb.ConnInfo, pb.ConnInfo)
        },
        "plugin.GRPCStdio": lambda: {
            "/plugin.GRPCStdio/StreamStdio": server_stream(_stdio, Empty, pb.StdioData)
        },
    }


def _health() -> Mapping[str, Method]:
    from aiostream_ds._grpc import health  # which Grafana never asks

    return health.methods()


async def _broker(_: None, call: Call) -> None:
    """The host opens this at once; we never open connections through it."""
    while await call.receive() is not None:
        pass


async def _stdio(_: Any, __: Call) -> None:
    """The host would discard what came here; output goes to its stderr as log lines."""
    await anyio.sleep_forever()


async def parent_exit(parent: int) -> None:
    """Return when the process `parent`, which started us, has ended. It may be process 1."""
    descriptor = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # no such process any more, or not allowed
            descriptor = os.pidfd_open(parent)
    try:
        while os.getppid() == parent:
            if descriptor is None:
                await anyio.sleep(POLL_INTERVAL)
            else:
                await anyio.wait_readable(descriptor)
                return
    finally:
        if descriptor is not None:
            os.close(descriptor)
