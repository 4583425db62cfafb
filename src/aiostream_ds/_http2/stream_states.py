"""The states of a stream on a server, those of closed ones, and what a frame means that arrives in
each (RFC 9113, 5.1).

                   HEADERS
         idle ─────────────▶ open ──── END_STREAM received ────▶ half-closed (remote)
          │                   │                                          │
          │ a later stream    │ RST_STREAM, in either direction          │ END_STREAM sent
          ▼ was opened        ▼                                          ▼
        skipped           reset by the host, reset                     ended

The server never pushes, so no stream is reserved. It is never half-closed (local) either: with the
END_STREAM of a response whose request has not ended, it sends RST_STREAM NO_ERROR (8.1). The RFC
has one state "closed" for the four in the last row; they differ in what is still allowed.
"""

from enum import Enum

from aiostream_ds._http2.wire import DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, ErrorCode

__all__ = ["CLOSED_STREAMS", "REACTIONS", "ClosedStreams", "Reaction", "StreamState"]

CLOSED_STREAMS = 4_096
"""Closed streams that a connection remembers at least, for frames that arrive late. Frames of older
ones are treated as those of a stream that was never opened."""


class StreamState(Enum):
    """See the module's picture."""

    IDLE = "idle"
    OPEN = "open"
    HALF_CLOSED = "half-closed (remote)"
    RESET_BY_HOST = "closed by a RST_STREAM of the host"
    RESET = "closed by a RST_STREAM of the server"
    ENDED = "closed after both sides have ended it"
    SKIPPED = "closed without having been opened, or so long ago that it is forgotten"


class ClosedStreams:
    """How the newest of the closed streams of a connection were closed."""

    __slots__ = ("_newest", "_older")

    def __init__(self) -> None:
        self._newest: dict[int, StreamState] = {}
        self._older: dict[int, StreamState] = {}

    def add(self, number: int, state: StreamState) -> None:
        """Remember how a stream was closed."""
        newest = self._newest
        newest[number] = state
        if len(newest) >= CLOSED_STREAMS:  # all at once: the oldest of a dict is slow to find
            self._older, self._newest = newest, {}

    def state_of(self, number: int) -> StreamState:
        """How a stream was closed; SKIPPED if that is forgotten, or it was never opened."""
        state = self._newest.get(number) or self._older.get(number)
        return state or StreamState.SKIPPED


class Reaction(Enum):
    """What the server does with a frame. The errors are those of section 5.4."""

    PROCESS = "process it"
    IGNORE = "ignore it"
    RESET_STREAM = "stream error STREAM_CLOSED"
    STREAM_CLOSED = ErrorCode.STREAM_CLOSED
    PROTOCOL_ERROR = ErrorCode.PROTOCOL_ERROR


_S, _R = StreamState, Reaction

# For the frames that belong to a stream. PRIORITY is allowed in every state and has no effect
# (5.3.2); CONTINUATION continues a HEADERS frame and counts as a part of it (6.10).
REACTIONS: dict[int, dict[StreamState, Reaction]] = {
    HEADERS: {
        _S.IDLE: _R.PROCESS,
        _S.OPEN: _R.PROCESS,  # trailers
        _S.HALF_CLOSED: _R.RESET_STREAM,
        _S.RESET_BY_HOST: _R.RESET_STREAM,
        _S.RESET: _R.IGNORE,  # sent before our RST_STREAM arrived
        _S.ENDED: _R.STREAM_CLOSED,
        _S.SKIPPED: _R.PROTOCOL_ERROR,  # 5.1.1: identifiers grow
    },
    DATA: {
        _S.IDLE: _R.PROTOCOL_ERROR,
        _S.OPEN: _R.PROCESS,
        _S.HALF_CLOSED: _R.RESET_STREAM,
        _S.RESET_BY_HOST: _R.RESET_STREAM,
        _S.RESET: _R.IGNORE,
        _S.ENDED: _R.STREAM_CLOSED,
        _S.SKIPPED: _R.STREAM_CLOSED,
    },
    RST_STREAM: {
        _S.IDLE: _R.PROTOCOL_ERROR,
        _S.OPEN: _R.PROCESS,
        _S.HALF_CLOSED: _R.PROCESS,
        _S.RESET_BY_HOST: _R.IGNORE,
        _S.RESET: _R.IGNORE,
        _S.ENDED: _R.IGNORE,
        _S.SKIPPED: _R.IGNORE,
    },
    WINDOW_UPDATE: {
        _S.IDLE: _R.PROTOCOL_ERROR,
        _S.OPEN: _R.PROCESS,
        _S.HALF_CLOSED: _R.PROCESS,
        _S.RESET_BY_HOST: _R.IGNORE,
        _S.RESET: _R.IGNORE,
        _S.ENDED: _R.IGNORE,
        _S.SKIPPED: _R.IGNORE,
    },
}
