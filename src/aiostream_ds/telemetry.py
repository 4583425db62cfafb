"""Logs and counters. Standard library only; every room may use it.

Logs are hclog JSON lines, the form in which Grafana reads a plugin's stderr: `@message`, `@level`
and `@timestamp` are always strings (a number or null there crashes the host's reader) and the
timestamp has exactly six fraction digits. Counters are plain integers that the core adds to, one
line per event; `grafana/metrics.py` renders them as Prometheus text when asked.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Any, Protocol
from weakref import WeakValueDictionary

__all__ = ["Counters", "JsonLines", "TextLines", "configure", "keep_secret", "redact"]

LINE_LIMIT = 60 * 1024
"""Bytes of one log line: Grafana's reader cuts at 64 KiB, and a cut line is no JSON any more."""

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
        "packets",
        "requests",
        "retries",
        "rows",
        "rows_dropped",
        "starts",
        "stream_errors",
        "stuck",
    )

    BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
    """Upper bounds of the request duration histogram, in seconds."""

    def __init__(self) -> None:
        self.starts = self.packets = self.bytes = self.rows = 0
        self.rows_dropped = self.drop_episodes = self.retries = self.stuck = 0
        self.stream_errors: dict[str, int] = {}
        self.requests: dict[tuple[str, str], int] = {}
        self._durations: dict[str, tuple[list[int], float]] = {}

    def count_error(self, kind: str) -> None:
        """One failed run of a stream; kind is "downstream", "lasting" or "bug"."""
        self.stream_errors[kind] = self.stream_errors.get(kind, 0) + 1

    def count_request(self, endpoint: str, status: str, seconds: float) -> None:
        """One finished call of Grafana's; streams are counted when they start and end elsewhere."""
        self.requests[endpoint, status] = self.requests.get((endpoint, status), 0) + 1
        counts, total = self._durations.get(endpoint) or ([0] * (len(self.BUCKETS) + 1), 0.0)
        counts[next((i for i, b in enumerate(self.BUCKETS) if seconds <= b), -1)] += 1
        self._durations[endpoint] = counts, total + seconds

    def durations(self) -> Iterator[tuple[str, list[int], float]]:
        """For each endpoint the count of each bucket (the last: everything above) and the sum."""
        for endpoint, (counts, total) in self._durations.items():
            yield endpoint, counts, total


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
    for secret in tuple(_secrets.values()):
        value = secret.reveal()
        if value in text:
            text = text.replace(value, "***")
    return text


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)


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
                line[key] = redact(value) if isinstance(value, str) else _jsonable(value)
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        text = json.dumps(line, ensure_ascii=False)
        if len(text.encode("utf-8", "replace")) > LINE_LIMIT:
            for key in ("error", "@message"):
                if isinstance(line.get(key), str):
                    # JSON may spell one character in six, UTF-8 in four: an eighth always fits
                    line[key] = f"{line[key][: LINE_LIMIT // 8]} … ({len(line[key])} characters)"
            text = json.dumps({k: v for k, v in line.items() if k.startswith("@") or k == "error"})
        return text


class TextLines(logging.Formatter):
    """For a terminal: time, level, message, traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Handler(logging.StreamHandler[IO[str]]):
    def handleError(self, record: logging.LogRecord) -> None:
        # The host's end of stderr may be gone; logging must never take the plugin down with it.
        with contextlib.suppress(Exception):
            super().handleError(record)


def configure(stream: IO[str] | None = None, *, text: bool = False, level: str = "INFO") -> None:
    """Send all logging of the process to `stream` (stderr), as hclog JSON or as plain text.

    Raises ValueError for a level that is no level.
    """
    names = ("DEBUG", "INFO", "WARNING", "ERROR")
    if level.upper() not in names:
        raise ValueError(f"the log level {level!r} is none of {', '.join(names).lower()}")
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(TextLines() if text else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
