"""WINDOW_UPDATE and PING, which a host sends while it reads a stream, without objects of h2.

Only what is usual is done here: whole frames at the beginning of what came, on streams that are
open, with windows that stay in their range. Everything else is left to h2, which also finds the
words for what is wrong. Knows the insides of h2 (4.3, 4.4), see http2.py.
"""

from typing import TYPE_CHECKING

from h2.connection import ConnectionState
from h2.stream import StreamState

if TYPE_CHECKING:
    from aiostream_ds._http2.rate_limits import GuardedConnection
    from aiostream_ds._http2.stream import Http2Connection

__all__ = ["read_control"]

_HEAD = 9
_WINDOW_UPDATE, _PING = b"\0\0\x04\x08", b"\0\0\x08\x06\0\0\0\0\0"  # length and type; and the rest
_PONG = b"\0\0\x08\x06\x01\0\0\0\0"
_LARGEST = 2**31 - 1  # a window, and a stream's number, whose highest bit is reserved
_OPEN = frozenset({StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})


def read_control(h2: "GuardedConnection", connection: "Http2Connection", data: bytes) -> int:
    """Do what the frames at the beginning of `data` ask for; how many bytes they have.

    Raises DenialOfServiceError for a flood.
    """
    buffer = h2.incoming_buffer
    if (
        buffer._data
        or buffer._headers_buffer
        or buffer._preamble_len
        or h2.state_machine.state is not ConnectionState.SERVER_OPEN
    ):
        return 0
    at = 0
    while True:
        if data.startswith(_WINDOW_UPDATE, at) and len(data) >= at + _HEAD + 4:
            number = int.from_bytes(data[at + 5 : at + _HEAD], "big") & _LARGEST
            size = int.from_bytes(data[at + _HEAD : at + _HEAD + 4], "big")
            if not 0 < size <= _LARGEST or not _widen(h2, connection, number, size):
                return at
            at += _HEAD + 4
        elif data.startswith(_PING, at) and len(data) >= at + _HEAD + 8:
            h2.floods.count_control()
            connection.outbox.write(_PONG + data[at + _HEAD : at + _HEAD + 8])
            at += _HEAD + 8
        else:
            return at


def _widen(h2: "GuardedConnection", connection: "Http2Connection", number: int, size: int) -> bool:
    if not number:
        window = h2.outbound_flow_control_window + size
        if window > _LARGEST:
            return False
        h2.outbound_flow_control_window = window
        if connection.blocked:
            connection.wake_blocked()
        return True
    stream = h2.streams.get(number)
    if stream is None or stream.state_machine.state not in _OPEN:
        return False
    window = stream.outbound_flow_control_window + size
    if window > _LARGEST:
        return False
    stream.outbound_flow_control_window = window
    connection.wake(number)
    return True
