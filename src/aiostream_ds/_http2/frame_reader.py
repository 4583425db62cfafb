"""Received bytes become frames: the preface, sizes, the stream of each type, header blocks."""

from collections.abc import Iterator
from typing import NamedTuple

from aiostream_ds._http2 import rate_limits
from aiostream_ds._http2.protocol_errors import Http2Error, RateLimitExceeded
from aiostream_ds._http2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    END_HEADERS,
    FRAME_HEADER,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
)

__all__ = ["Frame", "FrameReader", "check_priority", "unpadded"]

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream and payload; a header block is in one frame."""

# The size of the payload of each type (6.1 to 6.10), None if it varies …
_SIZES = (None, None, 5, 4, None, None, 8, None, 4, None)
# … and whether it needs a stream; None: WINDOW_UPDATE may have one.
_NEEDS_STREAM = (True, True, True, True, False, True, False, False, None, True)
_TYPES = len(_SIZES)
_HEADER_SIZE = FRAME_HEADER.size
_PLAIN = END_HEADERS | PADDED | PRIORITY_FLAG  # of which most HEADERS have the first only
_unpack = FRAME_HEADER.unpack_from


class _Block(NamedTuple):
    """A header block whose last CONTINUATION has not arrived (4.3)."""

    number: int
    flags: int
    fragments: list[bytes]


class FrameReader:
    """Splits the bytes of a connection into frames.

    `read` raises Http2Error for what is wrong whatever the state of the connection. Frames of
    types that are not defined are ignored (5.5).
    """

    __slots__ = ("_between_blocks", "_block", "_preface", "_rest", "_settings_seen")

    def __init__(self) -> None:
        self._rest = b""
        self._preface = PREFACE  # what is left of it
        self._settings_seen = False
        self._block: _Block | None = None
        self._between_blocks = False  # SETTINGS was received, and no header block is incomplete

    def read(self, data: bytes) -> Iterator[Frame]:
        """The frames that end in `data`; their beginnings may have come before."""
        if self._preface:
            data = self._after_preface(data)
        if self._rest:
            data = self._rest + data
        position, size = 0, len(data)
        while size - position >= _HEADER_SIZE:
            high, low, kind, flags, number = _unpack(data, position)
            length = high << 16 | low
            if length > DEFAULT_FRAME_SIZE:  # 4.2; the server announces no larger one
                raise Http2Error(
                    ErrorCode.FRAME_SIZE_ERROR,
                    f"a frame must have at most {DEFAULT_FRAME_SIZE} bytes, got {length}",
                )
            start = position + _HEADER_SIZE
            position = start + length
            if position > size:
                position = start - _HEADER_SIZE
                break
            number &= LARGEST_WINDOW  # 4.1: the reserved bit is ignored
            payload = data[start:position]
            if self._between_blocks and (
                (kind == DATA and number)
                or (kind == HEADERS and number and flags & _PLAIN == END_HEADERS)
                or (kind == WINDOW_UPDATE and length == 4)
            ):
                yield kind, flags, number, payload  # nearly every frame: its shape is right
                continue
            frame = self._checked(kind, flags, number, payload)
            if frame is not None:
                yield frame
        self._rest = data[position:]

    def _after_preface(self, data: bytes) -> bytes:
        """What follows the connection preface (3.4)."""
        expected = self._preface[: len(data)]
        if not data.startswith(expected):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"expected {PREFACE!r}, got {data[:24]!r}")
        self._preface = self._preface[len(expected) :]
        return data[len(expected) :]

    def _checked(self, kind: int, flags: int, number: int, payload: bytes) -> Frame | None:
        """The frame, if it is whole, has a defined type and the right shape."""
        if self._block is not None:
            return self._continued(self._block, kind, flags, number, payload)
        if not self._settings_seen:
            if kind != SETTINGS or flags & ACK:  # 3.4
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS as the first frame")
            self._settings_seen = self._between_blocks = True
        if kind >= _TYPES:
            return None
        if kind != HEADERS or not number:
            _check_shape(kind, flags, number, payload)
        if kind == HEADERS:
            payload = _header_fragment(flags, number, payload)
            if not flags & END_HEADERS:
                self._block, self._between_blocks = _Block(number, flags, [payload]), False
                return None
        return kind, flags, number, payload

    def _continued(
        self, block: _Block, kind: int, flags: int, number: int, payload: bytes
    ) -> Frame | None:
        """The HEADERS frame of `block` with its whole block, once that is complete (6.10)."""
        if kind != CONTINUATION or number != block.number:
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR,
                f"expected CONTINUATION of stream {block.number}, got frame type {kind} of stream "
                f"{number}",
            )
        if len(block.fragments) > rate_limits.CONTINUATION_LIMIT:
            raise RateLimitExceeded(
                f"more than {rate_limits.CONTINUATION_LIMIT} CONTINUATION frames of one request"
            )
        block.fragments.append(payload)
        if not flags & END_HEADERS:
            return None
        self._block, self._between_blocks = None, True
        return HEADERS, block.flags, number, b"".join(block.fragments)


def _check_shape(kind: int, flags: int, number: int, payload: bytes) -> None:
    """Raises Http2Error for the wrong stream or size of a type, and for a type that is not sent by
    a client."""
    needs_stream = _NEEDS_STREAM[kind]
    if needs_stream is not None and needs_stream is not bool(number):
        place = "a stream" if needs_stream else "stream 0"
        raise Http2Error(
            ErrorCode.PROTOCOL_ERROR, f"frame type {kind} must be on {place}, got stream {number}"
        )
    size, length = _SIZES[kind], len(payload)
    if size is not None and length != size:
        raise Http2Error(
            ErrorCode.FRAME_SIZE_ERROR, f"frame type {kind} must have {size} bytes, got {length}"
        )
    if kind == SETTINGS and (length % 6 or (flags & ACK and length)):  # 6.5
        raise Http2Error(
            ErrorCode.FRAME_SIZE_ERROR,
            f"SETTINGS must have 6 bytes for each setting and none with ACK, got {length}",
        )
    if kind == GOAWAY and length < 8:  # 6.8
        raise Http2Error(
            ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY must have at least 8 bytes, got {length}"
        )
    if kind in (CONTINUATION, PUSH_PROMISE):  # 6.10, 8.4
        name = "CONTINUATION without HEADERS" if kind == CONTINUATION else "PUSH_PROMISE"
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a client must not send {name}")


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding (6.1)."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "expected the length of the padding, got none")
    end = len(payload) - payload[0]
    if end < 1:
        raise Http2Error(
            ErrorCode.PROTOCOL_ERROR,
            f"padding must be shorter than its frame of {len(payload)} bytes, got {payload[0]}",
        )
    return payload[1:end]


def _header_fragment(flags: int, number: int, payload: bytes) -> bytes:
    """The part of the header block in a HEADERS frame (6.2). Priorities are ignored (5.3.2)."""
    payload = unpadded(flags, payload)
    if not flags & PRIORITY_FLAG:
        return payload
    check_priority(number, payload)
    return payload[5:]


def check_priority(number: int, payload: bytes) -> None:
    """Raises Http2Error for a stream that depends on itself (RFC 7540, 5.3.1)."""
    if len(payload) < 5:
        raise Http2Error(
            ErrorCode.FRAME_SIZE_ERROR, f"a priority must have 5 bytes, got {len(payload)}"
        )
    if int.from_bytes(payload[:4], "big") & LARGEST_WINDOW == number:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"stream {number} depends on itself")
