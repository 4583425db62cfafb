"""Reads the messages of an HTTP answer: Server-Sent Events, or lines."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.http.lines import LineSplitter
from aiostream_ds.sources.http.sse_parser import SseParser

__all__ = ["ACCEPT", "AnswerReader", "Framing", "HttpMessage", "open_reader"]

Framing = Literal["auto", "sse", "lines"]

SSE = "text/event-stream"

ACCEPT = {
    "auto": f"{SSE}, application/x-ndjson;q=0.9, */*;q=0.5",
    "sse": SSE,
    "lines": "application/x-ndjson, application/jsonl, */*;q=0.5",
}  # the header Accept for each framing

ID_LIMIT = 4_096
"""Maximum characters of an id: servers refuse larger headers."""


class HttpMessage(NamedTuple):
    """One message. `data` is None if it exceeds the limit; `event` is "" if it has no type."""

    data: bytes | None
    event: str = ""


class AnswerReader(ABC):
    """The messages of one answer, which arrives in chunks of any size.

    Attributes:
        content_type: the media type of each message; "": it is not known.
    """

    content_type = ""

    @abstractmethod
    def feed(self, chunk: bytes) -> list[HttpMessage]:
        """The messages that are complete with this chunk."""

    def end(self) -> list[HttpMessage]:
        """The answer has ended: the message that needed no more."""
        return []

    @property
    def reconnect(self) -> float | None:
        """Seconds after which the server wants to be asked again, if it has stated it."""
        return None

    @property
    def last_event_id(self) -> str:
        """The id with which the next request resumes; "": none."""
        return ""


class _Events(AnswerReader):
    def __init__(self, limit: int, last_event_id: str, events_seen: Callable[[str], None]) -> None:
        self._parser = SseParser(limit, last_event_id)
        self._seen = events_seen

    def feed(self, chunk: bytes) -> list[HttpMessage]:
        messages = []
        for event in self._parser.feed(chunk):
            if event.type != "message":
                self._seen(event.type)
            if event.data != b"":  # some servers keep connections alive with empty events
                messages.append(HttpMessage(event.data, event.type))
        return messages

    @property
    def reconnect(self) -> float | None:
        retry = self._parser.retry
        return None if retry is None else retry / 1000

    @property
    def last_event_id(self) -> str:
        last = self._parser.last_event_id
        return last if len(last) <= ID_LIMIT else ""


class _Lines(AnswerReader):
    def __init__(self, limit: int, content_type: str) -> None:
        self._lines = LineSplitter(limit)
        self.content_type = content_type

    def feed(self, chunk: bytes) -> list[HttpMessage]:
        return [HttpMessage(line) for line in self._lines.feed(chunk) if line != b""]

    def end(self) -> list[HttpMessage]:
        return [HttpMessage(line) for line in self._lines.rest()]


def open_reader(
    framing: Framing,
    content_type: str,
    limit: int,
    last_event_id: str,
    events_seen: Callable[[str], None],
) -> AnswerReader:
    """The reader for an answer with this media type.

    Raises:
        ConfigError: it is a page for browsers, or not Server-Sent Events where they are expected.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if framing == "sse" and kind != SSE:
        raise ConfigError(f"expected an answer of the type {SSE}, got {kind or 'no type'!r}")
    if kind == "text/html":
        raise ConfigError(
            "expected a stream of messages, got the type 'text/html': a page for browsers, as of a"
            " login or of an error"
        )
    if framing == "sse" or (framing == "auto" and kind == SSE):
        return _Events(limit, last_event_id, events_seen)
    return _Lines(limit, content_type)
