"""The server Redis, whose data survives `kill`; also as a sentinel, and in a cluster."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from .ports import free_port
from .process import Server


class Redis(Server):
    program: ClassVar[str] = "redis-server"
    password: ClassVar[str] = "swordfish"
    reader: ClassVar[str] = "grafana"
    """A user who may read only, with `RIGHTS`."""
    reader_password: ClassVar[str] = "look-only"

    RIGHTS: ClassVar[str] = (
        "resetkeys %R~* resetchannels &* -@all +xread +xrange +xrevrange +xinfo|stream +scan"
        " +subscribe +unsubscribe +psubscribe +punsubscribe +pubsub|channels"
        " +ping +select +config|get"
    )
    """The rights that docs/sources.md asks for."""

    rights = RIGHTS
    """The rights of the reader, from the next start on."""

    extra: Mapping[str, str] = {}
    """Further settings, from the next start on."""

    def options(self) -> dict[str, str]:
        """The server's settings."""
        return {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "requirepass": self.password,
            "masterauth": self.password,
            "appendonly": "yes",
            "appendfsync": "no",  # a process that is killed loses nothing without it
            "save": "",
            "repl-diskless-sync-delay": "0",
            "shutdown-timeout": "0",  # seconds in which replicas may catch up
        }

    def command(self) -> list[str]:
        options = self.options() | self.extra
        if self.tls is not None:
            # Redis demands a CA, also without clients' certificates
            ca = self.certificate_file if self.client_ca is None else self.client_ca_file
            options |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-cert-file": str(self.certificate_file),
                "tls-key-file": str(self.key_file),
                "tls-ca-cert-file": str(ca),
                "tls-auth-clients": "yes" if self.client_ca else "no",
            }
        words = [word for name in options for word in (f"--{name}", options[name])]
        user = ["--user", self.reader, "on", f">{self.reader_password}", *self.rights.split()]
        return [self.binary, *words, *user]

    def answers(self) -> bool:
        with self.connect() as connection:
            connection.sendall(b"AUTH %s\r\n" % self.password.encode())
            return connection.recv(16).startswith(b"+OK")

    def call(self, *words: str | bytes | int) -> bytes:
        """Send a command as the admin; the answer as the protocol has it."""
        with self.connect() as connection:
            for command in (("AUTH", self.password), words):
                connection.sendall(_packed(command))
                answer = connection.recv(65_536)
            return answer

    @property
    def url(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://:{self.password}@127.0.0.1:{self.port}"


class RedisReplica(Redis):
    """A replica of another server."""

    def __init__(self, primary: Redis) -> None:
        self._primary = primary
        super().__init__()

    def options(self) -> dict[str, str]:
        return super().options() | {"replicaof": f"127.0.0.1 {self._primary.port}"}


class RedisSentinel(Redis):
    """A sentinel that watches one primary, and decides alone."""

    primary_name: ClassVar[str] = "mymaster"

    def __init__(self, primary: Redis) -> None:
        self._primary = primary
        super().__init__()

    def prepare(self) -> None:
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"requirepass {self.password}",
            f"sentinel monitor {self.primary_name} 127.0.0.1 {self._primary.port} 1",
            f"sentinel auth-pass {self.primary_name} {self._primary.password}",
            f"sentinel down-after-milliseconds {self.primary_name} 1000",
            f"sentinel failover-timeout {self.primary_name} 3000",
        ]
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n", "utf-8")

    def command(self) -> list[str]:
        return [self.binary, str(self.folder / "sentinel.conf"), "--sentinel"]


class RedisClusterNode(Redis):
    """A server of a cluster."""

    RIGHTS: ClassVar[str] = Redis.RIGHTS + " +cluster|slots +asking"
    rights = RIGHTS

    def options(self) -> dict[str, str]:
        return super().options() | {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": "2000",
            "cluster-require-full-coverage": "no",
        }

    @property
    def bus_port(self) -> int:
        """The port of the cluster's own protocol."""
        if not hasattr(self, "_bus_port"):
            self._bus_port: int = free_port()
        return self._bus_port


@contextlib.contextmanager
def redis_cluster(
    count: int = 3, kind: type[RedisClusterNode] = RedisClusterNode, *, replicas: int = 0
) -> Iterator[Sequence[RedisClusterNode]]:
    """A cluster of primaries, which share the slots in order, and replicas of the first ones."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(kind()) for _ in range(count + replicas)]
        slots = [16_384 * n // count for n in range(count + 1)]
        for node, first, end in zip(nodes, slots, slots[1:], strict=False):
            node.call("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for other in nodes[1:]:
            nodes[0].call("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        _wait_for(lambda: all(_knows_all(node, count + replicas) for node in nodes))
        for primary, replica in zip(nodes, nodes[count:], strict=False):
            replica.call("CLUSTER", "REPLICATE", primary.call("CLUSTER", "MYID")[5:45])
        _wait_for(lambda: all(_replicas(node) == replicas for node in nodes))
        _wait_for(lambda: all(_is_linked(node) for node in nodes[count:]))
        yield nodes


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the cluster did not form")
        time.sleep(0.05)


def _knows_all(node: Redis, count: int) -> bool:
    info = node.call("CLUSTER", "INFO")
    return (
        b"cluster_state:ok" in info
        and b"cluster_slots_assigned:16384" in info
        and b"cluster_known_nodes:%d\r" % count in info
    )


def _replicas(node: Redis) -> int:
    return node.call("CLUSTER", "NODES").count(b"slave ")


def _is_linked(node: Redis) -> bool:
    return b"master_link_status:up" in node.call("INFO", "replication")


def _packed(words: Sequence[str | bytes | int]) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
