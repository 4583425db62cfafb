"""The HTTP statuses of a server, in words, as errors that are retried or not."""

import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from yarl import URL

from aiostream_ds._redaction import redact
from aiostream_ds.errors import BadQuery, ConfigError, NotFound, PluginError, UpstreamError

__all__ = ["LONGEST_WAIT", "RetryLater", "answer_error", "retry_after"]

LONGEST_WAIT = 3_600.0
"""Maximum seconds of a `Retry-After` that are waited."""

_TRANSIENT = (404, 408, 421, 423, 425, 429)  # and all from 500 on
_TEXT_SHOWN = 200


class RetryLater(UpstreamError):
    """The server refuses a request for some time. `seconds`: until the next one."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def answer_error(
    status: int, headers: Mapping[str, str], text: str, server: str, has_credentials: bool
) -> PluginError:
    """The error for an answer that is not the one that was expected.

    Args:
        text: the beginning of the answer's body; shown if it is short and printable.
        server: scheme, host and port.
        has_credentials: whether the request had any.
    """
    answer = f"{server} answers {status} {_phrase(status)}".rstrip()
    if 300 <= status < 400:
        place = _shown_location(headers.get("Location", ""))
        return ConfigError(
            f"{answer} to {place}: redirects are not followed; set url to where it leads"
        )
    if status == 401:
        known = "the credentials are wrong" if has_credentials else "it asks for credentials"
        return ConfigError(f"{answer}: {known}: set token, or user and password{_quoted(text)}")
    if status == 403:
        return ConfigError(f"{answer}: the credentials give no right to read this{_quoted(text)}")
    if status == 407:
        return ConfigError(
            f"the proxy answers {status} {_phrase(status)}: set proxyUser and proxyPassword"
        )
    if status == 204:
        return NotFound(f"{answer}: it has nothing to send and asks not to be asked again")
    seconds = retry_after(headers.get("Retry-After", ""))
    if status >= 500 or status in _TRANSIENT:
        if seconds is None:
            return UpstreamError(f"{answer}{_quoted(text)}")
        return RetryLater(f"{answer}; it is asked again after {seconds:.0f} s", seconds)
    if status == 410:
        return NotFound(f"{answer}{_quoted(text)}")
    if status >= 400:
        return BadQuery(f"{answer}: it does not accept this request{_quoted(text)}")
    return ConfigError(f"{answer}; expected 200 OK with a stream of messages")


def retry_after(value: str) -> float | None:
    """The seconds of a header `Retry-After`, at most `LONGEST_WAIT`; None: it has none."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:  # "-0000": UTC, of an unknown zone
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - time.time()), LONGEST_WAIT)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _quoted(text: str) -> str:
    """What the server writes about its refusal, in one line."""
    text = " ".join(redact(text).split())  # before it is cut: a part of a secret may not be found
    if not text or text.startswith("<") or not text.isprintable():
        return ""
    return f": {text[:_TEXT_SHOWN]}"


def _shown_location(location: str) -> str:
    """Where a redirect leads, without its query, which may have a token."""
    try:
        url = URL(location)
        bare = url.with_query(None).with_fragment(None)
        return repr(str(bare.with_user(None) if bare.absolute else bare)[:_TEXT_SHOWN])
    except ValueError:
        return "another place"
