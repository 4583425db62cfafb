"""Counts the messages of a source that are not rows, by address, with one sample of each."""

import time
from typing import Any

from msgspec import Struct

from aiostream_ds._frames.config import Notice
from aiostream_ds._loggers import get_logger
from aiostream_ds._redaction import redact, redact_start
from aiostream_ds._telemetry import current_counters

__all__ = ["ADDRESSES", "SAMPLE", "AddressErrors", "MessageErrors"]

log = get_logger(__name__)

ADDRESSES = 100
"""Addresses whose errors are kept apart; errors of further ones are only counted."""

SAMPLE = 200
"""Characters of a bad message that are kept: of the first one of each address."""

_LOG_INTERVAL = 60.0
"""Minimum seconds between two log lines about messages that were left out."""

_REASON = 300
_ADDRESS = 300


class AddressErrors(Struct):
    """The bad messages of one address, such as a topic."""

    count: int
    reason: str
    """Of the first one."""
    sample: str
    """The beginning of the first one, without secrets."""


class MessageErrors:
    """What was left out of the messages of one data source: kept for "Save & test".

    Not thread-safe. Create one in the source's `__init__` or `lifespan`.
    """

    __slots__ = (
        "_counters",
        "_first_empty",
        "_log_at",
        "by_address",
        "empty",
        "messages",
        "values",
    )

    def __init__(self) -> None:
        self._counters = current_counters()
        self._log_at = 0.0
        self.messages = 0
        """Bad messages of all addresses, and rows of messages."""
        self.values = 0
        """Values that do not have the fixed type of their column, or are beyond a limit."""
        self.empty = 0
        """Messages that have content and no row, such as those in which `rows_path` selects
        nothing."""
        self._first_empty = ""
        self.by_address: dict[str, AddressErrors] = {}

    def add(self, address: str, reason: str, payload: Any) -> None:
        """Count a message, or a row of one, that was left out."""
        self.messages += 1
        self._counters.count_dropped("message")
        found = self.by_address.get(address)
        self._log(address, reason)
        if found is not None:
            found.count += 1
        elif len(self.by_address) < ADDRESSES:
            self.by_address[address] = AddressErrors(
                1, redact_start(reason, _REASON), sample(payload)
            )

    def _log(self, address: str, reason: str) -> None:
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + _LOG_INTERVAL
            where = f" of {address[:_ADDRESS]}" if address else ""
            log.warning(
                "a message%s was left out: %s; %d in all, see Save & test",
                where,
                reason,
                self.messages,
            )

    def add_empty(self, address: str, payload: Any) -> None:
        """Count a message without a row."""
        if not self.empty:
            where = f" of {redact_start(address, _ADDRESS)}" if address else ""
            self._first_empty = f"the first{where}: {sample(payload)}"
        self.empty += 1

    def add_values(self, count: int) -> None:
        """Count values that were left out of rows."""
        self.values += count
        self._counters.count_dropped("value", count)

    def text(self) -> str:
        """What was left out, for the message of "Save & test"; empty if nothing was."""
        parts = []
        if self.messages:
            noun = "message or row was" if self.messages == 1 else "messages and rows were"
            parts.append(f"{self.messages:,} {noun} left out{self._first()}")
        if self.empty:
            noun = "message has" if self.empty == 1 else "messages have"
            parts.append(f"{self.empty:,} {noun} no row; {self._first_empty}")
        if self.values:
            noun = "value was" if self.values == 1 else "values were"
            parts.append(f"{self.values:,} {noun} left out")
        return "; ".join(parts)

    def _first(self) -> str:
        address, errors = next(iter(self.by_address.items()))
        where = f" of {redact_start(address, _ADDRESS)}" if address else ""
        sampled = f", as {errors.sample}" if errors.sample else ""
        return f"; the first{where}: {errors.reason}{sampled}"

    def details(self) -> dict[str, Any]:
        """The counts, for the details of "Save & test"."""
        return {
            "messages_left_out": self.messages,
            "messages_without_rows": self.empty,
            "values_left_out": self.values,
            "addresses": {
                redact(address): {"count": e.count, "reason": e.reason, "sample": e.sample}
                for address, e in self.by_address.items()
            },
        }

    def notice(self) -> Notice | None:
        """What was left out, for a history's notices."""
        text = self.text()
        return Notice(severity="warning", text=text) if text else None


def sample(payload: Any) -> str:
    """The beginning of a message as one line of text, redacted."""
    if isinstance(payload, bytes | bytearray | memoryview):
        head = bytes(payload[: 64 * 1024])
        try:
            text = head.decode()
        except UnicodeDecodeError:
            text = repr(head)[2:-1]
    else:
        text = payload if isinstance(payload, str) else _repr(payload)
    text = redact_start(text, SAMPLE, note=False)
    return repr(text)[1:-1] if not text.isprintable() else text


def _repr(payload: Any) -> str:
    try:
        return repr(payload)
    except (ValueError, RecursionError):
        return f"<{type(payload).__name__}>"
