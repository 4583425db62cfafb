"""Logs and counters.

Log lines are hclog JSON, the form in which Grafana reads the stderr of a plugin: `@message`,
`@level` and `@timestamp` are always strings (a number or null crashes the host's reader), and the
timestamp has exactly six fraction digits. Counters are integers that the core increments, one line
per event; `_grafana/metrics.py` renders them as Prometheus text on request.
"""

import contextlib
import json
import logging
import math
import os
import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any, Literal

from aiostream_ds._loggers import add_handler, remove_handler, set_level
from aiostream_ds._redaction import redact, redact_end, redact_start

__all__ = [
    "Counters",
    "DropReason",
    "ErrorKind",
    "JsonLines",
    "PushOutcome",
    "TextLines",
    "author_traceback",
    "configure",
    "use_counters",
    "current_counters",
]

LINE_LIMIT = 60 * 1024
"""Most bytes of a log line: Grafana's reader cuts lines at 64 KiB, which breaks the JSON."""

_LINE_PARTS = {"@message": LINE_LIMIT // 4, "error": LINE_LIMIT // 2}
"""Most bytes of the long parts of a line that exceeds the limit."""

_LEVELS = {
    "DEBUG": "debug",
    "INFO": "info",
    "WARNING": "warn",
    "ERROR": "error",
    "CRITICAL": "error",
}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


DropReason = Literal[
    "late",
    "duplicate",
    "columns",
    "conflict",
    "series",
    "upstream",
    "broadcast",
    "message",
    "value",
    "store",
    "cluster",
]
"""What is left out: rows that are "late" or "duplicate", values beyond the limit of "columns" or in
"conflict" with their column, rows of a "series" beyond the limit, messages of an "upstream", rows
of a "broadcast"; by a source, each "message" that is not a row and each "value" of a row; rows that
a "store" did not take, and messages that the server of a "cluster" did not take."""

ErrorKind = Literal["transient", "permanent", "bug"]

PushOutcome = Literal["accepted", "repeated", "rejected"]
""""repeated": stored before."""


class Counters:
    """The counters of one process since its start. Not thread-safe.

    Gauges are not here: they are computed from the registry.
    """

    __slots__ = (
        "_durations",
        "bytes",
        "drop_episodes",
        "dropped",
        "gaps",
        "lifespans_stuck",
        "memory_exhausted",
        "packets",
        "push_refusals",
        "pushed",
        "rate_limited",
        "refusals",
        "requests",
        "retries",
        "rows",
        "rows_dropped",
        "rows_filled",
        "rows_missing",
        "starts",
        "stream_errors",
        "stuck",
        "task_failures",
        "tasks_stuck",
        "thread_waits",
        "threads_abandoned",
    )

    BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
    """Upper bounds of the request duration histogram, in seconds."""

    def __init__(self) -> None:
        self.starts = self.packets = self.bytes = self.rows = 0
        self.rows_dropped = self.drop_episodes = self.retries = self.stuck = 0
        self.rows_filled = self.rows_missing = self.gaps = self.rate_limited = self.refusals = 0
        self.lifespans_stuck = self.memory_exhausted = 0
        self.task_failures = self.tasks_stuck = 0
        self.thread_waits = self.threads_abandoned = 0
        self.stream_errors: dict[ErrorKind, int] = {}
        self.dropped: dict[DropReason, int] = {}
        self.pushed: dict[PushOutcome, int] = {}
        self.push_refusals: dict[int, int] = {}
        self.requests: dict[tuple[str, str], int] = {}
        self._durations: dict[str, tuple[list[int], float]] = {}

    def count_error(self, kind: ErrorKind) -> None:
        """One failed run of a stream."""
        self.stream_errors[kind] = self.stream_errors.get(kind, 0) + 1

    def count_rate_limited(self) -> None:
        """One connection that was closed because its host exceeded a rate limit."""
        self.rate_limited += 1

    def count_dropped(self, reason: DropReason, count: int = 1) -> None:
        """What was left out: see `DropReason`."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def count_pushed(self, outcome: PushOutcome, rows: int) -> None:
        """Rows that were pushed."""
        if rows:
            self.pushed[outcome] = self.pushed.get(outcome, 0) + rows

    def count_push_refused(self, status: int) -> None:
        """One push that was refused as a whole, with this HTTP status."""
        self.push_refusals[status] = self.push_refusals.get(status, 0) + 1

    def count_request(self, endpoint: str, status: str, seconds: float) -> None:
        """One finished call of Grafana. Streams are counted elsewhere, when they start and end."""
        self.requests[endpoint, status] = self.requests.get((endpoint, status), 0) + 1
        counts, total = self._durations.get(endpoint) or ([0] * (len(self.BUCKETS) + 1), 0.0)
        counts[bisect_left(self.BUCKETS, seconds)] += 1
        self._durations[endpoint] = counts, total + seconds

    def durations(self) -> Iterator[tuple[str, list[int], float]]:
        """For each endpoint, the count of each bucket (the last: above all bounds) and the sum."""
        for endpoint, (counts, total) in tuple(self._durations.items()):
            yield endpoint, counts, total


_CURRENT: "ContextVar[Counters | None]" = ContextVar("counters", default=None)


def use_counters(counters: Counters) -> None:
    """Makes this task, and the tasks that it starts, count in `counters`."""
    _CURRENT.set(counters)


def current_counters() -> Counters:
    """The counters of this task; outside of a plugin, new ones that are never read."""
    return _CURRENT.get() or Counters()


def _jsonable(value: Any) -> str | int | float | bool:
    """A redacted value that Go's JSON reader accepts: no NaN, no integer beyond 64 bits."""
    if isinstance(value, bool):
        return value
    try:
        text = str(value)
        shown = redact_start(text, LINE_LIMIT)
        is_number = (isinstance(value, int) and abs(value) < 1 << 63) or (
            isinstance(value, float) and math.isfinite(value)
        )
        return value if is_number and shown == text else shown
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__} when it was printed>"


def _cut(text: str, whole: int, limit: int, *, keep_end: bool) -> str:
    """`text`, cut so that its JSON has at most `limit` bytes, and a note of its `whole` length."""
    kept = text
    while (size := len(json.dumps(kept))) > limit:
        count = len(kept) * limit // size
        kept = kept[-count:] if keep_end else kept[:count]
    if kept is text:
        return text
    note = f"({whole} characters)"
    return f"{note} … {kept}" if keep_end else f"{kept} … {note}"


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; `extra=` values are additional keys."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        error = self.formatException(record.exc_info) if record.exc_info else ""
        line: dict[str, Any] = {
            "@level": _LEVELS.get(record.levelname, "info"),
            "@message": redact_start(message, LINE_LIMIT, note=False),
            "@timestamp": datetime.fromtimestamp(record.created, UTC).strftime(
                "%Y-%m-%dT%H:%M:%S.%fZ"
            ),
            "@module": record.name,
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and not key.startswith("@"):
                line[key] = _jsonable(value)
        if error:
            line["error"] = redact_end(error, LINE_LIMIT, note=False)
        # in ASCII the length is the size, and a lone surrogate can be written
        text = json.dumps(line)
        if len(text) > LINE_LIMIT:
            line = {k: v for k, v in line.items() if k.startswith("@") or k == "error"}
            for key, whole in ("@message", message), ("error", error):
                if key in line:
                    # the exception is at the end of a traceback
                    keep_end = key == "error"
                    line[key] = _cut(line[key], len(whole), _LINE_PARTS[key], keep_end=keep_end)
            text = json.dumps(line)
        return text


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def author_traceback(error: BaseException) -> str:
    """A traceback that starts in the author's code, if it contains any; also of its causes. That of
    a mistake in a class ends at the class: the message names the place in it."""
    whole = traceback.TracebackException.from_exception(error)
    part: Any = whole
    while part is not None:
        frames = part.stack
        own = [n for n, frame in enumerate(frames) if _is_author_file(frame.filename)]
        # a SyntaxError names the line itself
        rest = [] if isinstance(getattr(part, "filename", None), str) else frames[-1:]
        shown = frames[own[0] : _end_of_class(frames)] if own else rest
        part.stack = traceback.StackSummary.from_list(shown)
        part = part.__cause__ or part.__context__
    return "".join(whole.format())


def _end_of_class(frames: Sequence[traceback.FrameSummary]) -> int:
    """The number of frames up to a class whose check has raised: not those of a fault of the check
    itself, which raises nothing."""
    for n, frame in enumerate(frames):
        if frame.name == "__init_subclass__" and frame.filename.startswith(_PACKAGE):
            last = frames[-1]
            is_mistake = (last.line or "").startswith("raise ")
            return n if is_mistake and not _is_author_file(last.filename) else len(frames)
    return len(frames)


def _is_author_file(file: str) -> bool:
    return not (file.startswith((_PACKAGE, "<frozen")) or f"{os.sep}anyio{os.sep}" in file)


class TextLines(logging.Formatter):
    """Formats a record for a terminal: time, level, message, channel path, traceback or stack."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatException(self, ei: Any) -> str:
        """The author's part of the traceback: see `author_traceback`."""
        return author_traceback(ei[1]).rstrip() if ei[1] is not None else ""

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
        # the host may have closed its end of stderr; logging must not end the plugin
        with contextlib.suppress(Exception):
            super().handleError(record)


def configure(stream: IO[str] | None = None, *, text: bool = False, level: str = "INFO") -> None:
    """Writes all logging of the process to `stream` (default: stderr), as hclog JSON or as text.

    Raises:
        ValueError: the level is not debug, info, warn or error.
    """
    wanted = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING"}
    wanted["error"] = "ERROR"
    if level.lower() not in wanted:
        raise ValueError(f"the log level must be debug, info, warn or error, got {level!r}")
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(TextLines() if text else JsonLines())
    root = logging.getLogger()
    for each in root.handlers[:]:
        remove_handler(each)
    add_handler(handler)
    root.setLevel(wanted[level.lower()])
    set_level(wanted[level.lower()])
    logging.captureWarnings(True)
