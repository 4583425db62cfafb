"""A logging handler that keeps the newest lines for the console."""

import logging
import time
from collections import deque
from collections.abc import Callable

from aiostream_ds._redaction import redact, redact_end
from aiostream_ds._telemetry import JsonLines

__all__ = ["MAX_LINES", "LogBuffer"]

MAX_LINES = 500
"""Log lines that a page gets when it opens."""

ERROR_LIMIT = 16 * 1024
"""Characters of one traceback; the end is kept, which names the error."""


class LogBuffer(logging.Handler):
    """Keeps the newest lines as JSON and passes each to `on_line`, in the logging thread.

    `on_line` takes the line, the channel's path and the error with its traceback, "" for none.
    """

    def __init__(self, on_line: Callable[[str, str, str], None]) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self._on_line = on_line
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        try:
            error = ""
            if record.exc_info and record.levelno >= logging.WARNING:
                error = logging.Formatter().formatException(record.exc_info)
                error = redact_end(error, ERROR_LIMIT)
                error = f"{time.strftime('%H:%M:%S')} {redact(record.getMessage())}\n{error}"
            line = self.format(record)
            self.lines.append(line)
            self._on_line(line, str(getattr(record, "path", "")), error)
        except Exception:
            self.handleError(record)
