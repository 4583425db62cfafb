"""The settings of the source `websocket`, and the templates that they make."""

import json
from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import Secret, secret, section
from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.form_sections import ADVANCED, MESSAGES
from aiostream_ds.sources.http_client.client import HttpSettings
from aiostream_ds.sources.http_client.templates import (
    MessageTemplate,
    UrlTemplate,
    parse_parameters,
    texts_in,
)
from aiostream_ds.sources.sharing_settings import SharingSettings
from aiostream_ds.sources.websocket.message_keys import MessageKeys

__all__ = ["Subscriptions", "WebSocketSettings", "login_secrets"]

_TEXT = {"format": "textarea"}
_SECRET_LENGTH = 8
_KEYS = section("One connection for all channels")


class WebSocketSettings(DecodingSettings, HttpSettings, SharingSettings):
    """A server that sends messages over a WebSocket."""

    url: Annotated[str, Meta(examples=["wss://example.com/stream"])]
    """The address. {NAME} in its path or query is a placeholder, which a query fills; each channel
    then has a connection of its own."""
    subprotocols: Annotated[list[str], ADVANCED] = []
    """The subprotocols that are offered."""
    subscribe: Annotated[str, Meta(extra_json_schema=_TEXT)] = ""
    """A message that is sent for each channel: JSON or text, with placeholders."""
    unsubscribe: Annotated[str, Meta(extra_json_schema=_TEXT)] = ""
    """A message that is sent when a channel has no viewer any more, over a shared connection."""
    login: Secret = secret()
    """A message with credentials that is sent first."""
    message_key: Annotated[str, Meta(examples=["$.stream"]), _KEYS] = ""
    """A JSONPath to the value that distinguishes the messages of channels. With it, all channels
    share one connection."""
    key: Annotated[str, Meta(examples=["{symbol}@trade"]), _KEYS] = ""
    """The value at this path in the messages of a channel, with placeholders. Without it, it is the
    value of the only placeholder."""
    keep_alive: Annotated[str, ADVANCED] = ""
    """A message that is sent every pingInterval seconds, for servers that expect one of their
    own."""
    ping_interval: Annotated[float, Meta(ge=0, le=3_600), ADVANCED] = 20.0
    """Seconds between two pings. A server that does not answer one in half of that time is gone;
    0: no pings."""
    idle_timeout: Annotated[float, Meta(ge=0, le=86_400), ADVANCED] = 0.0
    """Seconds without a message after which the connection is opened again; 0: never."""
    sequence: Annotated[str, MESSAGES] = ""
    """A column of numbers that increase by one from row to row. With it, rows that an outage has
    lost are counted and named."""
    test_parameters: str = ""
    """The parameters of the channel that Save & test opens, if there are placeholders."""


class Subscriptions:
    """The templates of the settings: what a channel's parameters mean.

    Attributes:
        url: the template of the URL.
        names: all placeholders.
        keys: finds the key of a message; None: each channel has a connection of its own.

    Raises:
        ConfigError: the settings contradict each other.
    """

    def __init__(self, settings: WebSocketSettings) -> None:
        self.url = UrlTemplate(settings.url, ("ws", "wss"))
        self._subscribe = _message(settings.subscribe, "subscribe")
        self._unsubscribe = _message(settings.unsubscribe, "unsubscribe")
        self._key = MessageTemplate(settings.key, "key")
        sent = self._subscribe.names if self._subscribe else ()
        self.names = tuple(dict.fromkeys((*self.url.names, *sent)))
        self.keys = MessageKeys(settings.message_key, settings) if settings.message_key else None
        if self.keys is None:
            if settings.key or settings.unsubscribe:
                setting = "key" if settings.key else "unsubscribe"
                raise ConfigError(f"messageKey must be set, because {setting} is")
        else:
            self._check_shared(settings)
        _check_known(
            "unsubscribe", self._unsubscribe.names if self._unsubscribe else (), self.names
        )

    def _check_shared(self, settings: WebSocketSettings) -> None:
        if self.url.names:
            raise ConfigError(
                f"url must have no placeholders, because messageKey makes channels share one"
                f" connection; got {{{self.url.names[0]}}}"
            )
        if not settings.key and len(self.names) > 1:
            raise ConfigError(f"key must be set, because there are {len(self.names)} placeholders")
        if settings.key:
            _check_known("key", self._key.names, self.names)
            _check_known("subscribe", self.names, self._key.names, "key")

    def values(self, parameters: str | None) -> dict[str, str]:
        """The values of the placeholders. Raises BadQuery."""
        return parse_parameters(parameters, self.names)

    def message(self, values: Mapping[str, str]) -> str | None:
        """The message that subscribes; None: there is none."""
        return self._subscribe.fill(values) if self._subscribe else None

    def closing_message(self, values: Mapping[str, str]) -> str | None:
        """The message that unsubscribes; None: there is none."""
        return self._unsubscribe.fill(values) if self._unsubscribe else None

    def key(self, values: Mapping[str, str], parameters: str | None) -> str:
        """The key of the messages of a channel; "": those of all keys.

        Without placeholders the parameters are the key itself.
        """
        if not self.names:
            return parameters or ""
        return self._key.fill(values) if self._key.names else values[self.names[0]]


def login_secrets(login: Secret) -> list[Secret]:
    """The texts in a login of JSON as secrets of their own: a server may repeat one in an error.

    They are hidden as long as they exist. Short ones may be common words.
    """
    try:
        document = json.loads(login.reveal() or "null")
    except (ValueError, RecursionError):
        return []
    return [Secret(text) for text in texts_in(document) if len(text) >= _SECRET_LENGTH]


def _message(text: str, setting: str) -> MessageTemplate | None:
    return MessageTemplate(text, setting) if text.strip() else None


def _check_known(
    setting: str, names: tuple[str, ...], known: tuple[str, ...], place: str = "url or subscribe"
) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{setting} has the placeholder {{{name}}}, which {place} has not")
