"""The settings of the source `nats`, and the servers that they describe."""

import ssl
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta

from aiostream_ds._nats.nats_credentials import parse_credentials
from aiostream_ds._nats.nats_servers import NatsLogin, NatsServer, parse_servers
from aiostream_ds._tls import TlsSettings, ssl_context
from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret, secret
from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.sharing_settings import SharingSettings

__all__ = ["NatsAccess", "NatsSettings", "access_of"]


class NatsSettings(DecodingSettings, TlsSettings, SharingSettings):
    """Which servers are read, and how their messages become rows."""

    servers: Annotated[str, Meta(examples=["tls://nats.example.com"])]
    """The servers, with commas between them: tls://HOST:PORT with TLS, nats://HOST:PORT without,
    unless the server demands it. The port is 4222 if none is given."""
    user: str = ""
    """The user, unless a token or credentials are set."""
    password: Secret = secret()
    token: Secret = secret()
    """A token instead of a user."""
    credentials: Annotated[Secret, Meta(extra_json_schema={"multiline": True})] = secret()
    """The content of a credentials file (.creds) instead of a user."""
    discover: Annotated[str, Meta(examples=["home.>"])] = ">"
    """The subjects that are suggested as one types: those that have messages while this one is
    subscribed to, for at most a second. Empty: none."""
    publish: list[str] = []
    """Subjects, which may have wildcards, to which panels may publish. Empty: to none."""


class NatsAccess(NamedTuple):
    """How connections are opened. `tls` is None without certificates and without tls://."""

    servers: Sequence[NatsServer]
    login: NatsLogin
    tls: ssl.SSLContext | None
    name: str = "aiostream-ds"
    inbox: str = "_INBOX"

    @property
    def shown(self) -> str:
        """The login, for messages."""
        if self.login.credentials:
            return "the user of the credentials"
        if self.login.token:
            return "the token"
        return f"the user {self.login.user!r}" if self.login.user else "a client without a login"


def access_of(settings: NatsSettings) -> NatsAccess:
    """The servers that the settings describe. Blocks for some milliseconds with TLS.

    Raises:
        ConfigError: settings do not fit together, or one is invalid.
    """
    _, login_end, rest = settings.servers.rpartition("@")
    if login_end:
        raise ConfigError(
            f"expected servers without a login, which viewers could read, got one at"
            f" {rest.partition(',')[0]}; set user and password, or token"
        )
    servers = parse_servers(settings.servers)
    for server in servers:
        _check_host(server.host)
    login = NatsLogin(
        settings.user,
        settings.password.reveal(),
        settings.token.reveal().strip(),
        settings.credentials.reveal().strip(),
    )
    given = [name for name in ("user", "token", "credentials") if getattr(login, name)]
    if len(given) > 1:
        raise ConfigError(f"expected one of user, token and credentials, got {' and '.join(given)}")
    if login.credentials:
        parse_credentials(login.credentials)
    return NatsAccess(
        servers, login, ssl_context(settings) if _has_tls(settings, servers) else None
    )


def _has_tls(settings: NatsSettings, servers: Sequence[NatsServer]) -> bool:
    """Whether TLS is demanded of all servers."""
    return (
        any(server.tls for server in servers)
        or bool(settings.ca_certificate.strip() or settings.client_certificate.strip())
        or bool(settings.client_key or settings.server_name.strip() or settings.skip_verify)
    )


def _check_host(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigError(f"servers must be host names or addresses, got {host!r}") from None
