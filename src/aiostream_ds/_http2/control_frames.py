"""Fast path for WINDOW_UPDATE and PING: handles them without creating h2 event objects. A host
sends them all the time while it reads a stream.

Only the common case is handled here: complete frames at the start of the received bytes, on open
streams, with windows within their limits. h2 handles everything else and raises the errors. Relies
on private parts of h2 (see connection.py).
"""

from typing import TYPE_CHECKING

from h2.connection import ConnectionState
from h2.stream import StreamState

if TYPE_CHECKING:
    from aiostream_ds._http2.rate_limits import RateLimitedConnection
    from aiostream_ds._http2.stream import Http2Connection

__all__ = ["read_control_frames"]

_FRAME_HEADER_SIZE = 9
_WINDOW_UPDATE = b"\0\0\x04\x08"  # length and type
_PING = b"\0\0\x08\x06\0\0\0\0\0"  # the whole frame header
_PING_ACK = b"\0\0\x08\x06\x01\0\0\0\0"
_MAXIMUM = 2**31 - 1  # of a window and of a stream identifier, whose highest bit is reserved
_OPEN = frozenset({StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})
"""The states in which the server may still send DATA. In half-closed (local) it has sent its last
frame: the window no longer matters, and h2 reads such rare frames."""


def read_control_frames(
    h2_connection: "RateLimitedConnection", connection: "Http2Connection", data: bytes
) -> int:
    """Process the control frames at the start of `data`. Return the number of bytes consumed.

    Raises DenialOfServiceError when a rate limit is exceeded. Only PING counts, as each one is
    answered; WINDOW_UPDATE has no answer, and hosts send one for nearly every DATA frame.
    """
    buffer = h2_connection.incoming_buffer
    if (
        buffer._data
        or buffer._headers_buffer
        or buffer._preamble_len
        or h2_connection.state_machine.state is not ConnectionState.SERVER_OPEN
    ):
        return 0
    offset = 0
    while True:
        body = offset + _FRAME_HEADER_SIZE
        if data.startswith(_WINDOW_UPDATE, offset) and len(data) >= body + 4:
            number = int.from_bytes(data[offset + 5 : body], "big") & _MAXIMUM
            size = int.from_bytes(data[body : body + 4], "big")
            if not 0 < size <= _MAXIMUM:
                return offset
            if not _increment_window(h2_connection, connection, number, size):
                return offset
            offset = body + 4
        elif data.startswith(_PING, offset) and len(data) >= body + 8:
            h2_connection.limits.count_control()
            connection.write_buffer.write(_PING_ACK + data[body : body + 8])
            offset = body + 8
        else:
            return offset


def _increment_window(
    h2_connection: "RateLimitedConnection", connection: "Http2Connection", number: int, size: int
) -> bool:
    """Add to the window of a stream, or of the connection (0).

    False: nothing was changed. The window would be too large, or the stream is not in `_OPEN`: h2
    has to read the frame.
    """
    if not number:
        window = h2_connection.outbound_flow_control_window + size
        if window > _MAXIMUM:
            return False
        h2_connection.outbound_flow_control_window = window
        if connection.blocked:
            connection.wake_blocked()
        return True
    stream = h2_connection.streams.get(number)
    if stream is None or stream.state_machine.state not in _OPEN:
        return False
    window = stream.outbound_flow_control_window + size
    if window > _MAXIMUM:
        return False
    stream.outbound_flow_control_window = window
    connection.wake(number)
    return True
