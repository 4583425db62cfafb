"""The proxy on the way to a server: that of the settings, or that of the environment."""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret
from aiostream_ds.sources.http_client.client_settings import HttpClientSettings
from aiostream_ds.sources.http_client.credentials import basic_authorization

__all__ = ["Proxy", "find_proxy"]

SCHEMES = ("http", "socks5", "socks4")


class Proxy(NamedTuple):
    """A proxy, with credentials for it if there are any."""

    scheme: str
    host: str
    port: int
    user: str
    password: Secret

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS; else it is an HTTP proxy."""
        return self.scheme.startswith("socks")

    @property
    def authorization(self) -> str:
        """The value of the header Proxy-Authorization."""
        return basic_authorization(self.user, self.password)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def find_proxy(settings: HttpClientSettings, is_secure: bool, host: str) -> Proxy | None:
    """The proxy for a server; None: it is reached directly.

    Raises:
        ConfigError: the proxy's URL is invalid.
    """
    if settings.proxy == "none":
        return None
    if settings.proxy:
        found = _parse(settings.proxy, "proxy")
        if found.user:
            raise ConfigError(
                "proxy must have no user or password, which viewers could see: set proxyUser and"
                f" proxyPassword; got {found}"
            )
        return found._replace(user=settings.proxy_user, password=settings.proxy_password)
    if proxy_bypass(host):
        return None
    known = getproxies()
    url = known.get("https" if is_secure else "http") or known.get("all")
    return _parse(url, "the proxy of Grafana's environment") if url else None


def _parse(url: str, setting: str) -> Proxy:
    shown = url.rpartition("@")[2]
    try:
        split = urlsplit(url if "://" in url else f"http://{url}")
        scheme = {"socks5h": "socks5", "socks": "socks5", "socks4a": "socks4"}.get(
            split.scheme, split.scheme
        )
        port = split.port or (80 if scheme == "http" else 1080)
    except ValueError as error:
        raise ConfigError(f"{setting} must be a URL, got {shown!r}: {error}") from None
    if scheme not in SCHEMES or not split.hostname or split.path.strip("/") or split.query:
        expected = " or ".join(f"{each}://HOST:PORT" for each in SCHEMES)
        raise ConfigError(f"{setting} must be {expected}, got {shown!r}")
    user, password = unquote(split.username or ""), unquote(split.password or "")
    return Proxy(scheme, split.hostname, port, user, Secret(password))
