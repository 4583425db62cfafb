"""WINDOW_UPDATE and PING, which a host sends all the time while it reads a stream, read without
objects of h2.

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

_HEADER = 9
_WINDOW_UPDATE = b"\0\0\x04\x08"  # length and type
_PING = b"\0\0\x08\x06\0\0\0\0\0"  # the whole frame header
_PING_ACK = b"\0\0\x08\x06\x01\0\0\0\0"
_MAXIMUM = 2**31 - 1  # of a window and of a stream identifier, whose highest bit is reserved
_OPEN = frozenset({StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})


def read_control_frames(
    h2: "RateLimitedConnection", connection: "Http2Connection", data: bytes
) -> int:
    """Process the control frames at the start of `data`. Return how many bytes they have.

    Raises DenialOfServiceError when a rate limit is exceeded.
    """
    buffer = h2.incoming_buffer
    if (
        buffer._data
        or buffer._headers_buffer
        or buffer._preamble_len
        or h2.state_machine.state is not ConnectionState.SERVER_OPEN
    ):
        return 0
    offset = 0
    while True:
        if data.startswith(_WINDOW_UPDATE, offset) and len(data) >= offset + _HEADER + 4:
            number = int.from_bytes(data[offset + 5 : offset + _HEADER], "big") & _MAXIMUM
            size = int.from_bytes(data[offset + _HEADER : offset + _HEADER + 4], "big")
            if not 0 < size <= _MAXIMUM or not _increment_window(h2, connection, number, size):
                return offset
            offset += _HEADER + 4
        elif data.startswith(_PING, offset) and len(data) >= offset + _HEADER + 8:
            h2.limits.count_control()
            payload = data[offset + _HEADER : offset + _HEADER + 8]
            connection.write_buffer.write(_PING_ACK + payload)
            offset += _HEADER + 8
        else:
            return offset


def _increment_window(
    h2: "RateLimitedConnection", connection: "Http2Connection", number: int, size: int
) -> bool:
    if not number:
        window = h2.outbound_flow_control_window + size
        if window > _MAXIMUM:
            return False
        h2.outbound_flow_control_window = window
        if connection.blocked:
            connection.wake_blocked()
        return True
    stream = h2.streams.get(number)
    if stream is None or stream.state_machine.state not in _OPEN:
        return False
    window = stream.outbound_flow_control_window + size
    if window > _MAXIMUM:
        return False
    stream.outbound_flow_control_window = window
    connection.wake(number)
    return True
