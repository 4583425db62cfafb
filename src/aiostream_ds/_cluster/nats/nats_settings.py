"""The settings of the engine on NATS."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiostream_ds._nats.nats_credentials import parse_credentials
from aiostream_ds._nats.nats_servers import NatsLogin, NatsServer, parse_servers
from aiostream_ds.errors import ConfigError

__all__ = ["NatsEngineSettings"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REPLICAS = (1, 3, 5)


@dataclass(frozen=True)
class NatsEngineSettings:
    """How the engine reaches NATS, and the bounds of what it stores there.

    Raises:
        ConfigError: a value is not one of those that its description allows.
    """

    url: str = field(repr=False)
    """URLs of the servers, with commas between them: nats:// or tls://, with the user and password
    or the token, if they are not set here."""
    login: NatsLogin = field(default=NatsLogin(), repr=False)
    """Has precedence over the URLs."""
    tls: ssl.SSLContext | None = None
    """Servers without TLS are refused then, whatever the URL begins with. None: certificates that
    the system trusts, if the URL or the server demands TLS."""
    name: str = "aiostream-ds"
    """Begins the subjects, and the names of the two streams. Grafana servers of one cluster have
    the same; others in the same account of NATS must have another one."""
    storage: Literal["file", "memory"] = "file"
    replicas: int = 1
    """Copies of the streams in a cluster of NATS servers: 1, 3 or 5."""
    entries: int = 1000
    """Most entries of a channel's log."""
    max_bytes: int = 1 << 30
    """Most bytes of all logs. Above it, the oldest entries are removed, of any channel."""
    idle: float = 3600.0
    """Seconds after which the log of a channel is removed that has no owner and no subscribers."""
    timeout: float = 3.0
    """Seconds in which the server has to answer a request."""

    def __post_init__(self) -> None:
        self.servers  # noqa: B018  (raises)
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"the name must be 1 to 64 letters, digits, - and _, got {self.name!r}"
            )
        if self.storage not in ("file", "memory"):
            raise ConfigError(f"storage must be 'file' or 'memory', got {self.storage!r}")
        if self.replicas not in _REPLICAS:
            raise ConfigError(f"replicas must be 1, 3 or 5, got {self.replicas!r}")
        for name, least in (("entries", 2), ("max_bytes", 1 << 20), ("idle", 60), ("timeout", 0.1)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        if self.login.credentials:
            parse_credentials(self.login.credentials)

    @property
    def inbox(self) -> str:
        """Begins the subjects of answers."""
        return f"{self.name}.inbox"

    @property
    def servers(self) -> Sequence[NatsServer]:
        """The servers of the URLs."""
        return parse_servers(self.url)
