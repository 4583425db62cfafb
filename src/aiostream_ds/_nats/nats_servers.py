"""The settings of a connection to NATS: the servers' URLs and the login."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from aiostream_ds.errors import ConfigError

__all__ = [
    "DEFAULT_PORT",
    "NatsLogin",
    "NatsServer",
    "discovered_server",
    "known_servers",
    "parse_servers",
]

DEFAULT_PORT = 4222
_SCHEMES = ("nats", "tls")


class NatsLogin(NamedTuple):
    """How the client authenticates. Only one kind is used: credentials, user, or token."""

    user: str = ""
    password: str = ""
    token: str = ""
    credentials: str = ""
    """The text of a credentials file, with a JWT and a seed."""


class NatsServer(NamedTuple):
    """A server of the list. `tls_name`: the name that its certificate must have."""

    host: str
    port: int
    tls: bool
    tls_name: str
    login: NatsLogin = NatsLogin()
    """From the URL; that of the settings has precedence."""

    def __str__(self) -> str:
        return _address(self.host, self.port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_servers(text: str) -> Sequence[NatsServer]:
    """The servers of a list of URLs with commas or spaces between them.

    Raises:
        ConfigError: the list is empty, or an element is not a URL of NATS.
    """
    has_login = "@" in text
    servers = tuple(_server(each, has_login) for each in text.replace(",", " ").split())
    if not servers:
        raise ConfigError(
            "expected the URL of a NATS server, as nats://nats.example:4222, got none"
        )
    return servers


def _server(text: str, has_login: bool) -> NatsServer:
    shown = text.rpartition("@")[2]  # without the password
    if has_login and shown == text:  # maybe with the begin of a password that has a comma
        shown = "…"
    try:
        url = urlsplit(text if "://" in text else f"nats://{text}")
    except ValueError:
        raise ConfigError(f"expected the URL of a NATS server, got {shown!r}") from None
    if url.scheme not in _SCHEMES:
        raise ConfigError(
            f"the URL of a NATS server must begin with nats:// or tls://, got {url.scheme}://"
        )
    try:
        port = DEFAULT_PORT if url.port is None else url.port
    except ValueError:
        port = 0
    if not 0 < port < 65_536:
        raise ConfigError(f"the port of a NATS server must be from 1 to 65535, got {shown!r}")
    if not url.hostname:
        raise ConfigError(f"expected the host of a NATS server, got {shown!r}")
    if url.path.strip("/") or url.query or url.fragment:
        raise ConfigError(f"expected a URL of a NATS server without a path, got {shown!r}")
    return NatsServer(url.hostname, port, url.scheme == "tls", url.hostname, _login(url))


def _login(url: SplitResult) -> NatsLogin:
    user, password = unquote(url.username or ""), unquote(url.password or "")
    if user and url.password is None:
        return NatsLogin(token=user)
    return NatsLogin(user, password)


def known_servers(
    configured: Sequence[NatsServer], last: NatsServer, info: Mapping[str, Any]
) -> Sequence[NatsServer]:
    """The servers of the settings, and those that the last one has named in its INFO."""
    known = {(each.host, each.port): each for each in configured}
    for text in info.get("connect_urls") or ():
        found = discovered_server(text, last)
        if found is not None:
            known.setdefault((found.host, found.port), found)
    return list(known.values())


def discovered_server(text: str, known: NatsServer) -> NatsServer | None:
    """A server that another one has named; None if the text is not an address."""
    try:
        url = urlsplit(f"nats://{text}")
        if not url.hostname or not url.port:
            return None
    except ValueError:
        return None
    # the certificates of a cluster have its name, not the addresses that its servers announce
    name = known.tls_name if _is_address(url.hostname) else url.hostname
    return known._replace(host=url.hostname, port=url.port, tls_name=name)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
