"""The server NATS with JetStream, whose streams survive `kill`; also as a cluster of three."""

import contextlib
import json
import signal
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from .certificates import certificates
from .ports import free_port
from .process import Server

_CONNECT: Mapping[str, Any] = {"verbose": False, "pedantic": False, "headers": True}


class Nats(Server):
    program: ClassVar[str] = "nats-server"
    admin: ClassVar[str] = "admin"
    password: ClassVar[str] = "swordfish"
    user: ClassVar[str] = "grafana"
    """A user with `RIGHTS` only."""
    user_password: ClassVar[str] = "streams-only"

    STREAMS: ClassVar[tuple[str, str]] = ("aiostream-ds-log", "aiostream-ds-state")

    RIGHTS: ClassVar[Mapping[str, Sequence[str]]] = {
        "publish": [
            "aiostream-ds.log.*",
            "aiostream-ds.live.*",
            "aiostream-ds.state.>",
            *(
                f"$JS.API.{each}"
                for stream in STREAMS
                for each in (
                    f"STREAM.CREATE.{stream}",
                    f"STREAM.UPDATE.{stream}",
                    f"STREAM.INFO.{stream}",
                    f"STREAM.PURGE.{stream}",
                    f"STREAM.MSG.GET.{stream}",
                    f"DIRECT.GET.{stream}",
                )
            ),
        ],
        "subscribe": ["aiostream-ds.live.*", "aiostream-ds.inbox.>"],
    }
    """The rights that docs/cluster.md asks for."""

    rights: Mapping[str, Sequence[str]] = RIGHTS
    """The rights of the user, from the next start on."""

    jetstream = True
    admin_login: Mapping[str, str] | None = {"user": "admin", "pass": "swordfish"}
    """How the tests log in; None: not at all, so that they only wait for a listening server."""

    extra: Mapping[str, Any] = {}
    """Further settings, from the next start on."""

    def options(self) -> dict[str, Any]:
        """The server's settings."""
        admin = {"user": self.admin, "password": self.password}
        user = {"user": self.user, "password": self.user_password, "permissions": self.rights}
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "server_name": f"n{self.port}",
            "authorization": {"users": [admin, user]},
        }

    def command(self) -> list[str]:
        options = self.options()
        if self.jetstream:
            options["jetstream"] = {"store_dir": str(self.folder / "jetstream")}
        if self.tls is not None:
            options["tls"] = {
                "cert_file": str(self.certificate_file),
                "key_file": str(self.key_file),
            }
            if self.client_ca is not None:
                options["tls"] |= {"ca_file": str(self.client_ca_file), "verify": True}
        # the server reads JSON as its own format
        path = self.folder / "nats.conf"
        path.write_text(json.dumps(options | dict(self.extra), indent=1), "utf-8")
        return [self.binary, "-c", str(path)]

    def reload(self) -> None:
        """Let the server read its settings again, as an admin does."""
        self.command()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def connect(self) -> ssl.SSLSocket | Any:
        """A connection on which the server has sent its INFO; with TLS if the server has it."""
        connection = self.connect_plain()
        line = b""
        while not line.endswith(b"\r\n"):
            received = connection.recv(1)  # nothing of the handshake that follows
            if not received:
                raise ConnectionResetError("the server has closed the connection")
            line += received
        return connection if self.tls is None else self._context().wrap_socket(connection)

    def answers(self) -> bool:
        if self.client_ca is not None or self.admin_login is None:
            self.connect().close()
            return True
        with self.log_in():
            return not self.jetstream or "error" not in self.call("$JS.API.INFO")

    @contextlib.contextmanager
    def log_in(self) -> Iterator[Any]:
        """A connection of the admin."""
        login = json.dumps({**(self.admin_login or {}), **_CONNECT})
        with self.connect() as connection:
            connection.sendall(b"CONNECT %s\r\nPING\r\n" % login.encode())
            if not connection.recv(64).startswith(b"PONG"):
                raise ConnectionRefusedError("the server does not answer")
            yield connection

    def call(self, subject: str, payload: bytes = b"") -> dict[str, Any]:
        """The answer to a request of the admin, from JSON."""
        with self.log_in() as connection:
            publish = b"PUB %s inbox %d\r\n" % (subject.encode(), len(payload))
            connection.sendall(b"SUB inbox 1\r\n" + publish + payload + b"\r\n")
            return _answer(connection)

    def purge(self, subject: str) -> None:
        """Remove the messages of one subject of the engine."""
        payload = json.dumps({"filter": subject}).encode()
        for stream in self.STREAMS:
            self.call(f"$JS.API.STREAM.PURGE.{stream}", payload)

    def stream_names(self) -> list[str]:
        """The names of all streams."""
        return self.call("$JS.API.STREAM.NAMES").get("streams") or []

    def delete_streams(self) -> None:
        """Remove all streams of the engine."""
        for stream in self.STREAMS:
            self.call(f"$JS.API.STREAM.DELETE.{stream}")

    @property
    def url(self) -> str:
        """For the restricted user."""
        return self.url_of(self.user, self.user_password)

    @property
    def admin_url(self) -> str:
        return self.url_of(self.admin, self.password)

    def url_of(self, user: str, password: str) -> str:
        scheme = "nats" if self.tls is None else "tls"
        return f"{scheme}://{user}:{password}@127.0.0.1:{self.port}"


class NatsClusterNode(Nats):
    """A server of a cluster."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.cluster_port = free_port()
        self.routes: Sequence[int] = ()
        super().__init__(*args, **options)

    def options(self) -> dict[str, Any]:
        routes = [f"nats://127.0.0.1:{port}" for port in self.routes]
        cluster = {"name": "tests", "listen": f"127.0.0.1:{self.cluster_port}", "routes": routes}
        return super().options() | {"cluster": cluster}

    def answers(self) -> bool:
        with self.log_in():  # JetStream has a leader only when most servers run
            return True


@contextlib.contextmanager
def nats_cluster(count: int = 3, **options: Any) -> Iterator[Sequence[NatsClusterNode]]:
    """A cluster whose JetStream has a leader."""
    nodes = [NatsClusterNode(**options) for _ in range(count)]
    for node in nodes:
        node.routes = [each.cluster_port for each in nodes]
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(node)
        wait_for_jetstream(nodes[0])
        yield nodes


def wait_for_jetstream(node: Nats, seconds: float = 20.0) -> None:
    """Wait until JetStream of a cluster answers."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if "error" not in node.call("$JS.API.INFO"):
                return
        if time.monotonic() > deadline:
            raise RuntimeError("JetStream has no leader")
        time.sleep(0.05)


def _answer(connection: Any) -> dict[str, Any]:
    """The JSON of the first message on a connection."""
    received = b""
    while True:
        block = connection.recv(65_536)
        if not block:
            raise ConnectionResetError("the server has closed the connection")
        received += block
        start = received.find(b"\r\n{")
        if start >= 0 and received.endswith(b"}\r\n"):
            found: dict[str, Any] = json.loads(received[start:])
            return found
        if b"-ERR" in received or b" 503" in received:
            raise ConnectionRefusedError(received.decode("utf-8", "replace"))


def client_context() -> ssl.SSLContext:
    """TLS of a client that trusts the tests' certificates."""
    return ssl.create_default_context(cadata=certificates().ca)
