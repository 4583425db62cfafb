"""The settings that `http` and `websocket` share: credentials, headers, proxy, time limits."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret, Settings, secret, section
from aiostream_ds.sources.form_sections import ADVANCED

__all__ = ["HttpClientSettings", "check_headers"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")
_AUTH = section("Authentication")
_PROXY = section("Proxy")


class HttpClientSettings(Settings):
    """How a server is reached over HTTP."""

    user: Annotated[str, _AUTH] = ""
    """The user of HTTP's basic authentication."""
    password: Annotated[Secret, _AUTH] = secret()
    """The password of this user."""
    token: Annotated[Secret, _AUTH] = secret()
    """A token or API key, instead of user and password."""
    token_in: Annotated[Literal["bearer", "header", "query"], _AUTH] = "bearer"
    """Where the token is sent: as Authorization: Bearer, in a header or in the URL's query."""
    token_name: Annotated[str, _AUTH] = ""
    """The name of the header or of the query parameter, such as X-API-Key."""
    headers: Annotated[dict[str, str], _AUTH] = {}
    """Further headers. Everybody who may see the data source can see them: no credentials here."""
    proxy: Annotated[str, _PROXY] = ""
    """http://HOST:PORT, socks5://HOST:PORT or none. If it is empty, Grafana's environment counts:
    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."""
    proxy_user: Annotated[str, _PROXY] = ""
    """The user at the proxy."""
    proxy_password: Annotated[Secret, _PROXY] = secret()
    """The password at the proxy."""
    timeout: Annotated[float, Meta(gt=0, le=600), ADVANCED] = 10.0
    """Seconds in which the server must accept a connection and begin its answer."""


def check_headers(settings: HttpClientSettings) -> dict[str, str]:
    """The fixed headers.

    Raises:
        ConfigError: a name or value cannot be one, two names are the same header, or it would hold
            credentials.
    """
    seen: dict[str, str] = {}
    for name, value in settings.headers.items():
        if not _TOKEN.fullmatch(name):
            raise ConfigError(f"headers must have names such as X-Tenant, got {name!r}")
        if name.lower() in _CREDENTIALS:
            raise ConfigError(
                f"headers must not have {name}, which viewers could see: set token, or user and"
                " password"
            )
        if settings.token_in == "header" and name.lower() == settings.token_name.lower():
            raise ConfigError(f"headers must not have {name}, which carries the token: remove it")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ConfigError(
                f"headers must have each name once, in any case of letters; got {other!r} and"
                f" {name!r}: remove one"
            )
        if not value.isprintable():
            raise ConfigError(f"headers: expected a printable value for {name}, got {value!r}")
    return dict(settings.headers)
