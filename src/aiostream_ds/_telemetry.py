"""Logs and counters. Standard library only; every room may use it.

Logs are hclog JSON lines, the form in which Grafana reads a plugin's stderr: `@message`, `@level`
and `@timestamp` are always strings (a number or null there crashes the host's reader) and the
timestamp has exactly six fraction digits. Counters are plain integers that the core adds to, one
line per event; `_grafana/metrics.py` renders them as Prometheus text when asked.
"""

import contextlib
import json
import logging
import math
import os
import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any, Protocol
from urllib.parse import quote, quote_plus
from weakref import WeakValueDictionary

__all__ = [
    "Counters",
    "JsonLines",
    "TextLines",
    "authors_traceback",
    "configure",
    "count_here",
    "counters_here",
    "keep_secret",
    "redact",
]

LINE_LIMIT = 60 * 1024
"""Bytes of one log line: Grafana's reader cuts at 64 KiB, and a cut line is no JSON any more."""

_LINE_PARTS = {"@message": LINE_LIMIT // 4, "error": LINE_LIMIT // 2}
"""What the long parts of a line that is over the limit are cut to; the rest stays as it is."""

_LEVELS = {
    "DEBUG": "debug",
    "INFO": "info",
    "WARNING": "warn",
    "ERROR": "error",
    "CRITICAL": "error",
}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Counters:
    """Counts of one process since its start. Gauges are read from the registry, not kept here."""

    __slots__ = (
        "_durations",
        "bytes",
        "drop_episodes",
        "dropped",
        "packets",
        "rate_limited",
        "refusals",
        "requests",
        "retries",
        "rows",
        "rows_dropped",
        "rows_filled",
        "starts",
        "stream_errors",
        "stuck",
    )

    BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
    """Upper bounds of the request duration histogram, in seconds."""

    def __init__(self) -> None:
        self.starts = self.packets = self.bytes = self.rows = 0
        self.rows_dropped = self.drop_episodes = self.retries = self.stuck = 0
        self.rows_filled = self.rate_limited = self.refusals = 0
        self.stream_errors: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.requests: dict[tuple[str, str], int] = {}
        self._durations: dict[str, tuple[list[int], float]] = {}

    def count_error(self, kind: str) -> None:
        """One failed run of a stream; kind is "transient", "permanent" or "bug"."""
        self.stream_errors[kind] = self.stream_errors.get(kind, 0) + 1

    def count_rate_limited(self) -> None:
        """One connection that was closed because its host exceeded a rate limit."""
        self.rate_limited += 1

    def count_dropped(self, reason: str, count: int = 1) -> None:
        """What a stream left out by its rules: rows that are "late" or "duplicate", values beyond
        the cap of "columns" or in "conflict" with their column, messages of an "upstream"."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def count_request(self, endpoint: str, status: str, seconds: float) -> None:
        """One finished call of Grafana's; streams are counted when they start and end elsewhere."""
        self.requests[endpoint, status] = self.requests.get((endpoint, status), 0) + 1
        counts, total = self._durations.get(endpoint) or ([0] * (len(self.BUCKETS) + 1), 0.0)
        counts[bisect_left(self.BUCKETS, seconds)] += 1
        self._durations[endpoint] = counts, total + seconds

    def durations(self) -> Iterator[tuple[str, list[int], float]]:
        """For each endpoint the count of each bucket (the last: everything above) and the sum."""
        for endpoint, (counts, total) in tuple(self._durations.items()):
            yield endpoint, counts, total


_HERE: "ContextVar[Counters | None]" = ContextVar("counters", default=None)


def count_here(counters: Counters) -> None:
    """What this task and those that it starts count, they count there."""
    _HERE.set(counters)


def counters_here() -> Counters:
    """Where this task counts; outside of a plugin, nowhere that anybody looks."""
    return _HERE.get() or Counters()


# The values that no log line and no message may show: alive as long as their Secret is.
_secrets: "WeakValueDictionary[int, Revealing]" = WeakValueDictionary()


class Revealing(Protocol):
    """What `keep_secret` takes: an object that can be weakly referenced and holds a secret."""

    def reveal(self) -> str:
        """The text to hide."""


def keep_secret(secret: Revealing) -> None:
    """While `secret` lives, `redact` replaces its text. Under four characters too much would go."""
    if len(secret.reveal()) >= 4:
        _secrets[id(secret)] = secret


def redact(text: str) -> str:
    """`text` with every living secret replaced: for the log and for messages to users."""
    found = (reference() for reference in _secrets.valuerefs())
    values: set[str] = set()
    for secret in found:
        if secret is not None:
            values |= _spellings(secret.reveal())
    for value in sorted(values, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, "***")
    # Text that is no UTF-8 (a file name of another encoding) could go neither into a log line
    # nor into an answer.
    return text.encode("utf-8", "backslashreplace").decode()


def _spellings(value: str) -> set[str]:
    """A secret as it stands, and as repr, JSON and URLs write it."""
    quoted = repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value)
    return {value, *quoted}


def _jsonable(value: Any) -> str | int | float | bool:
    """A value as Go's JSON reader takes it: no NaN, no number that it has no type for."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    try:
        return redact(str(value))
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__} when it was printed>"


def _cut(text: str, limit: int, *, keep_end: bool) -> str:
    """`text`, shorter by as much as its JSON has more bytes than `limit`."""
    kept = text
    while (size := len(json.dumps(kept))) > limit:
        count = len(kept) * limit // size
        kept = kept[-count:] if keep_end else kept[:count]
    if kept is text:
        return text
    note = f"({len(text)} characters)"
    return f"{note} … {kept}" if keep_end else f"{kept} … {note}"


class JsonLines(logging.Formatter):
    """One record, one JSON object; `extra=` values become keys beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "@level": _LEVELS.get(record.levelname, "info"),
            "@message": redact(record.getMessage()),
            "@timestamp": datetime.fromtimestamp(record.created, UTC).strftime(
                "%Y-%m-%dT%H:%M:%S.%fZ"
            ),
            "@module": record.name,
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and not key.startswith("@"):
                line[key] = _jsonable(value)
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        text = json.dumps(
            line
        )  # ASCII: its length is its size, and a lone surrogate can be written
        if len(text) > LINE_LIMIT:
            line = {k: v for k, v in line.items() if k.startswith("@") or k == "error"}
            for key, limit in _LINE_PARTS.items():
                if key in line:
                    # what a traceback is about stands at its end
                    line[key] = _cut(line[key], limit, keep_end=key == "error")
            text = json.dumps(line)
        return text


_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def authors_traceback(error: BaseException) -> str:
    """A traceback as an author needs it: without the calls of ours that lead to their code, when
    there is code of theirs in it; causes included."""
    told = traceback.TracebackException.from_exception(error)
    part: Any = told
    while part is not None:
        frames = part.stack
        theirs = [n for n, frame in enumerate(frames) if _is_authors(frame.filename)]
        # the error of a file that cannot be read names the line itself
        rest = [] if isinstance(getattr(part, "filename", None), str) else frames[-1:]
        part.stack = traceback.StackSummary.from_list(frames[theirs[0] :] if theirs else rest)
        part = part.__cause__ or part.__context__
    return "".join(told.format())


def _is_authors(file: str) -> bool:
    return not (file.startswith((_OURS, "<frozen")) or f"{os.sep}anyio{os.sep}" in file)


class TextLines(logging.Formatter):
    """For a terminal: time, level, message, the path it is about, traceback or stack."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatException(self, ei: Any) -> str:
        """The author's part of it: see `authors_traceback`."""
        return authors_traceback(ei[1]).rstrip() if ei[1] is not None else ""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        path, stack = getattr(record, "path", None), getattr(record, "stack", None)
        if path is not None:
            first, *more = text.split("\n", 1)
            text = "\n".join([f"{first} [{path}]", *more])
        if stack:
            text = f"{text}\n{stack}".rstrip()
        return redact(text)


class _Handler(logging.StreamHandler[IO[str]]):
    def handleError(self, record: logging.LogRecord) -> None:
        # The host's end of stderr may be gone; logging must never take the plugin down with it.
        with contextlib.suppress(Exception):
            super().handleError(record)


def configure(stream: IO[str] | None = None, *, text: bool = False, level: str = "INFO") -> None:
    """Send all logging of the process to `stream` (stderr), as hclog JSON or as plain text.

    Raises ValueError for a level that is no level.
    """
    wanted = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING"}
    wanted["error"] = "ERROR"
    if level.lower() not in wanted:
        raise ValueError(f"the log level {level!r} is none of debug, info, warn, error")
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(TextLines() if text else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(wanted[level.lower()])
    logging.getLogger("hpack").setLevel("INFO")  # it writes a line for each header
    logging.captureWarnings(True)
