"""How credentials are sent: in headers or in the query of the URL."""

import re
from base64 import b64encode

from yarl import URL

from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret
from aiostream_ds.sources.http_client.client_settings import HttpClientSettings

__all__ = ["Credentials", "basic_authorization", "check_secret_text"]

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Credentials:
    """What a server gets with each request.

    Raises:
        ConfigError: the settings contradict each other.
    """

    def __init__(self, settings: HttpClientSettings) -> None:
        self._settings = settings
        place, name = settings.token_in, settings.token_name
        if settings.password and not settings.user:
            raise ConfigError("user must be set, because password is")
        if place == "bearer" and name:
            raise ConfigError(
                f"tokenIn must be header or query, because tokenName is {name!r}; got 'bearer'"
            )
        if place != "bearer" and settings.token and not name:
            raise ConfigError(f"tokenName must be set, because tokenIn is {place!r}")
        if place == "header" and name and not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"tokenName must be a header such as X-API-Key, got {name!r}")
        in_authorization = place == "bearer" or name.lower() == "authorization"
        if settings.user and settings.token and in_authorization:
            raise ConfigError(
                "expected a token or a user and password, got both, for one header Authorization"
            )
        if ":" in settings.user:
            raise ConfigError(f"user must have no colon, got {settings.user!r}")
        check_secret_text("password", settings.password)
        check_secret_text("token", settings.token)
        check_secret_text("proxyPassword", settings.proxy_password)
        # the spelling in the header is a secret, too, as long as the credentials are used
        basic = basic_authorization(settings.user, settings.password) if settings.user else ""
        self._basic = Secret(basic)

    @property
    def exist(self) -> bool:
        """Whether any are sent."""
        return bool(self._settings.user or self._settings.token)

    def headers(self) -> dict[str, str]:
        """The headers that carry credentials."""
        settings, headers = self._settings, {}
        if settings.user:
            headers["Authorization"] = self._basic.reveal()
        if settings.token:
            token = settings.token.reveal()
            if settings.token_in == "bearer":
                headers["Authorization"] = f"Bearer {token}"
            elif settings.token_in == "header":
                headers[settings.token_name] = token
        return headers

    def url(self, url: str) -> URL:
        """The URL, with the token if it is sent in the query. Do not show it."""
        found = URL(url, encoded=True)
        settings = self._settings
        if settings.token and settings.token_in == "query":
            return found.extend_query({settings.token_name: settings.token.reveal()})
        return found


def basic_authorization(user: str, password: Secret) -> str:
    """The value of a header for HTTP's basic authentication."""
    return f"Basic {b64encode(f'{user}:{password.reveal()}'.encode()).decode()}"


def check_secret_text(setting: str, value: Secret) -> None:
    """Raises ConfigError: the secret cannot be sent, because of a line break, for example."""
    if not value.reveal().isprintable():
        raise ConfigError(
            f"{setting} must be one line of printable characters; one of them is not, such as a"
            " line break at its end"
        )
