"""The errors of the client, and what an HTTP status of a push means."""

import msgspec

__all__ = [
    "PushError",
    "PushRejected",
    "PushUnsent",
    "TooLarge",
    "TryAgain",
    "message_in",
    "rejection",
    "shortened",
]

_LONGEST = 300  # characters of a server's message


class PushError(Exception):
    """Rows could not be pushed. The base class of the client's errors."""


class PushRejected(PushError):
    """The server refuses what this client sends, and would again: nothing more is sent.

    `status` is the HTTP status, or 0 if the answer is not one of a push.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class PushUnsent(PushError):
    """The time limit has passed. `rows` were not acknowledged: they may be stored, if their answer
    was lost."""

    def __init__(self, message: str, rows: int) -> None:
        super().__init__(message)
        self.rows = rows


class TryAgain(Exception):
    """The batch may be taken later. `after`: seconds that the server asks to wait, or None."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class TooLarge(Exception):
    """The server refuses the batch for its size (413)."""


_MEANINGS = {
    400: "the server cannot read what was pushed",
    401: "the token is missing, wrong or expired; create one for a service account in Grafana, and"
    " set token= or AIOSTREAM_DS_PUSH_TOKEN",
    403: "the token must not push here",
    404: "there is no data source that takes pushes at this address; check url and uid",
    405: "this address takes no pushes; check url and uid",
    415: "the server does not take this content type",
}


def rejection(status: int, url: str, body: bytes, location: str = "") -> PushRejected:
    """The error for a status that a repetition would not change."""
    if 300 <= status < 400:
        text = (
            f"the server redirects to {location!r}; use that address"
            if location
            else ("the server redirects to nowhere; check url")
        )
        return PushRejected(f"{url}: {text} (HTTP {status})", status)
    meaning = _MEANINGS.get(status, "the server refused the rows")
    reason = message_in(body)
    return PushRejected(
        f"{url}: {meaning} (HTTP {status}{f': {reason}' if reason else ''})", status
    )


def message_in(body: bytes) -> str:
    """The message of an answer: that of Grafana's JSON, or the first line of a text; not HTML."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        return "" if text[:1] == "<" else shortened(text)
    if isinstance(found, dict):
        for key in ("message", "error", "reason"):
            if isinstance(found.get(key), str) and found[key]:
                return shortened(found[key])
    return ""


def shortened(text: str) -> str:
    """The first line of a server's text, without what is not printable."""
    line = text.partition("\n")[0].strip()
    line = "".join(c if c.isprintable() else "�" for c in line[: _LONGEST + 1])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
