"""The settings that `http` and `websocket` share: credentials, headers, proxy, time limits."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret, Settings, secret

__all__ = ["HttpClientSettings", "check_headers"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")


class HttpClientSettings(Settings):
    """How a server is reached over HTTP."""

    user: str = ""
    """The user of HTTP's basic authentication."""
    password: Secret = secret()
    """The password of this user."""
    token: Secret = secret()
    """A token or API key, instead of user and password."""
    token_in: Literal["bearer", "header", "query"] = "bearer"
    """Where the token is sent: as Authorization: Bearer, in a header or in the URL's query."""
    token_name: str = ""
    """The name of the header or of the query parameter, such as X-API-Key."""
    headers: dict[str, str] = {}
    """Further headers. Everybody who may see the data source can see them: no credentials here."""
    proxy: str = ""
    """http://HOST:PORT, socks5://HOST:PORT or none. If it is empty, Grafana's environment counts:
    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."""
    proxy_user: str = ""
    """The user at the proxy."""
    proxy_password: Secret = secret()
    """The password at the proxy."""
    timeout: Annotated[float, Meta(gt=0, le=600)] = 10.0
    """Seconds in which the server must accept a connection and begin its answer."""


def check_headers(settings: HttpClientSettings) -> dict[str, str]:
    """The fixed headers.

    Raises:
        ConfigError: a name or value cannot be one, or it would hold credentials.
    """
    for name, value in settings.headers.items():
        if not _TOKEN.fullmatch(name):
            raise ConfigError(f"headers must have names such as X-Tenant, got {name!r}")
        if name.lower() in _CREDENTIALS:
            raise ConfigError(
                f"headers must not have {name}, which viewers could see: set token, or user and"
                " password"
            )
        if not value.isprintable():
            raise ConfigError(f"headers: expected a printable value for {name}, got {value!r}")
    return dict(settings.headers)
