"""The close codes of WebSockets, in words, as errors that are retried or not."""

from collections.abc import Mapping

from aiostream_ds._redaction import redact
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError

__all__ = ["close_error"]

# RFC 6455 and IANA's registry
_MEANINGS: Mapping[int, str] = {
    1000: "normal closure",
    1001: "going away: the server stops",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no code",
    1006: "the connection was lost",
    1007: "invalid data",
    1008: "policy violation",
    1009: "message too big",
    1010: "an extension is missing",
    1011: "internal error of the server",
    1012: "the server restarts",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS failed",
    3000: "unauthorized",
    3003: "forbidden",
    3008: "timeout",
    4401: "unauthorized",
    4403: "forbidden",
}
_CREDENTIALS = (3000, 3003, 4401, 4403)
_POLICY = 1008
_TEXT_SHOWN = 200


def close_error(code: int | None, reason: str, server: str, *, had_messages: bool) -> PluginError:
    """The error for a WebSocket that was closed.

    Codes for missing rights are permanent. So is 1008 before the first message, with which many
    servers answer wrong credentials: a retry could lock an account.
    """
    if code is None or code == 1006:
        return UpstreamError(f"{server}: the connection was lost")
    meaning = _MEANINGS.get(code, "a code of the server's own" if code >= 4000 else "")
    text = f"{server} has closed the connection: {code} {meaning}".rstrip()
    shown = " ".join(redact(reason).split())[:_TEXT_SHOWN]
    if shown and shown.isprintable():
        text += f", {shown!r}"
    if code in _CREDENTIALS or (code == _POLICY and not had_messages):
        return ConfigError(f"{text}: check the credentials, and what subscribe asks for")
    return UpstreamError(text)
