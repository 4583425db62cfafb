"""Server-Sent Events, as the WHATWG's HTML standard defines them (section 9.2.6)."""

from typing import NamedTuple

from aiostream_ds.sources.http.lines import LineSplitter

__all__ = ["SseEvent", "SseParser"]

_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event. `type` is `message` if the server sent none. `data` is UTF-8, without errors; None
    if the event has more bytes than the limit."""

    type: str
    data: bytes | None
    id: str


class SseParser:
    """The events of one response, which arrives in chunks of any size.

    An event is complete with its empty line; one that the end of the response cuts is discarded.

    Args:
        limit: the maximum bytes of an event's data, and of a line.
        last_event_id: the id of the last event before this response. Events have it until the
            server sends another: browsers keep it over reconnections, too.

    Attributes:
        last_event_id: the id to send as `Last-Event-ID` in the next request; "": none.
        retry: the last reconnection time that the server has sent, in milliseconds.
        comments: the number of lines that are comments; servers send them to keep a connection
            alive.
    """

    __slots__ = (
        "_bom",
        "_data",
        "_id",
        "_is_too_long",
        "_limit",
        "_lines",
        "_size",
        "_type",
        "comments",
        "last_event_id",
        "retry",
    )

    def __init__(self, limit: int, last_event_id: str = "") -> None:
        self._limit = limit
        self._lines = LineSplitter(limit + len("data: "), any_newline=True)
        self._bom: bytes | None = b""  # the first bytes, until there are three; then None
        self._type = b""
        self._data: list[bytes] = []
        self._size = 0
        self._is_too_long = False
        self._id = self.last_event_id = last_event_id
        self.retry: int | None = None
        self.comments = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that are complete with this chunk."""
        if self._bom is not None:
            chunk = self._bom + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._bom = chunk
                return []
            self._bom = None
            chunk = chunk.removeprefix(_BOM)
        events: list[SseEvent] = []
        for line in self._lines.feed(chunk):
            if line is None:
                self._is_too_long = True
            elif line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            if self._size - 1 > self._limit:
                self._is_too_long = True
                self._data.clear()
            else:
                self._data.append(value)
        elif not name:
            self.comments += 1
        elif name == b"event":
            self._type = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self.retry = int(value)

    def _dispatch(self) -> SseEvent | None:
        """The event that an empty line completes; None if it has no data."""
        self.last_event_id = self._id
        data, kind, is_too_long = self._data, self._type, self._is_too_long
        self._data, self._type, self._size, self._is_too_long = [], b"", 0, False
        if is_too_long:
            return SseEvent(_text(kind) or "message", None, self._id)
        if not data:
            return None
        joined = data[0] if len(data) == 1 else b"\n".join(data)
        if not joined.isascii():
            joined = _text(joined).encode()
        return SseEvent(_text(kind) or "message", joined, self._id)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
