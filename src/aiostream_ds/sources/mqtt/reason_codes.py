"""The broker's answers in words, with the error that each is."""

from collections.abc import Mapping

from aiostream_ds.errors import (
    BadQuery,
    ConfigError,
    PermissionDenied,
    PluginError,
    UpstreamError,
)

__all__ = [
    "TAKEN_OVER",
    "UnsupportedVersion",
    "connect_error",
    "disconnect_text",
    "publish_error",
    "subscribe_error",
]


class UnsupportedVersion(ConfigError):
    """The broker does not support this version of MQTT."""


TAKEN_OVER = 0x8E
"""Another client has connected with the same client id."""

_VERSION_3: Mapping[int, str] = {
    1: "unsupported version of MQTT",
    2: "the client id is refused",
    3: "the broker is unavailable",
    4: "wrong user or password",
    5: "not authorized",
}
"""The answers to CONNECT of MQTT 3.1.1."""

_TEXTS: Mapping[int, str] = {
    0x04: "the broker publishes the will",
    0x80: "refused without a reason",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "refused by a rule of the broker",
    0x84: "unsupported version of MQTT",
    0x85: "the client id is refused",
    0x86: "wrong user or password",
    0x87: "not authorized",
    0x88: "the broker is unavailable",
    0x89: "the broker is busy",
    0x8A: "the client is banned",
    0x8B: "the broker is shutting down",
    0x8C: "unsupported method of authentication",
    0x8D: "the broker has received nothing in time",
    0x8E: "another client has connected with the same client id",
    0x8F: "the topic filter is refused",
    0x90: "the topic is refused",
    0x91: "the packet identifier is in use",
    0x93: "too many messages without an answer",
    0x95: "the packet is too large",
    0x96: "too many messages a second",
    0x97: "a quota is exceeded",
    0x98: "ended by an administrator",
    0x99: "the payload has the wrong format",
    0x9A: "retained messages are not supported",
    0x9B: "this quality of service is not supported",
    0x9C: "use another server",
    0x9D: "the server has moved",
    0x9E: "shared subscriptions are not supported",
    0x9F: "too many connections a second",
    0xA0: "the longest connection time is reached",
    0xA1: "subscription identifiers are not supported",
    0xA2: "wildcards are not supported",
}

_VERSION = frozenset({1, 0x84})
_LOGIN = frozenset({4, 5, 0x86, 0x87})
_TRANSIENT = frozenset({3, 0x88, 0x89, 0x8B, 0x97, 0x9F})
"""Answers to CONNECT that change without a change of the settings."""

_BAD_FILTER = frozenset({0x8F, 0x9E, 0xA2})
_FORBIDDEN = frozenset({0x80, 0x83, 0x87})


def _text(code: int, reason: str, version: int = 5) -> str:
    texts = _VERSION_3 if version < 5 and code in _VERSION_3 else _TEXTS
    text = texts.get(code, f"reason code {code:#04x}")
    return f"{text} ({reason})" if reason and reason.lower() != text else text


def connect_error(server: str, user: str, code: int, reason: str) -> PluginError:
    """The error for a refused CONNECT; the codes of MQTT 3.1.1 are below those of MQTT 5."""
    text = _text(code, reason, 3 if code < 0x80 else 5)
    if code in _LOGIN:
        who = f"the user {user!r}" if user else "a client without a user"
        return ConfigError(f"{server} refuses {who}: {text}; check user and password")
    kind: type[PluginError] = UpstreamError if code in _TRANSIENT else ConfigError
    if code in _VERSION:
        kind = UnsupportedVersion
    return kind(f"{server} refuses the connection: {text}")


def subscribe_error(server: str, text: str, code: int, reason: str) -> PluginError:
    """The error for a refused subscription."""
    answer = f"{server} refuses to subscribe to {text!r}: {_text(code, reason)}"
    if code in _FORBIDDEN:
        return PermissionDenied(answer)
    return BadQuery(answer) if code in _BAD_FILTER else UpstreamError(answer)


def publish_error(server: str, topic: str, code: int, reason: str) -> PluginError:
    """The error for a refused message."""
    answer = f"{server} refuses the message to {topic!r}: {_text(code, reason)}"
    if code in _FORBIDDEN:
        return PermissionDenied(answer)
    return BadQuery(answer) if code in (0x90, 0x95, 0x99, 0x9A, 0x9B) else UpstreamError(answer)


def disconnect_text(code: int, reason: str) -> str:
    """Why the broker has ended the connection."""
    return _text(code, reason)
