"""Frames as bytes: types, flags, error codes and settings, with the sections of RFC 9113."""

from enum import IntEnum
from functools import lru_cache
from struct import Struct

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "DEFAULT_FRAME_SIZE",
    "DEFAULT_WINDOW",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEADER",
    "GOAWAY",
    "HEADERS",
    "LARGEST_FRAME_SIZE",
    "LARGEST_WINDOW",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "ErrorCode",
    "Setting",
    "frame",
    "header_frame_start",
    "header_frames",
    "settings_frame",
    "window_update",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # 3.4

# 6: the frame types that are defined; others are ignored (5.5)
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20

FRAME_HEADER = Struct(">BHBBI")  # 4.1: length in 24 bits, type, flags, stream with a reserved bit

LARGEST_WINDOW = 2**31 - 1  # 6.9.1, and the largest stream identifier
DEFAULT_WINDOW, DEFAULT_FRAME_SIZE, LARGEST_FRAME_SIZE = 65_535, 2**14, 2**24 - 1  # 6.5.2


class ErrorCode(IntEnum):
    """Why a stream or a connection has ended (7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    """The settings that have a meaning here (6.5.2; RFC 8441, 3). Others are ignored."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """One frame; `number` is its stream, 0 for the connection."""
    size = len(payload)
    return FRAME_HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def window_update(number: int, size: int) -> bytes:
    """WINDOW_UPDATE: `size` more bytes of DATA may be sent (6.9)."""
    return frame(WINDOW_UPDATE, 0, number, size.to_bytes(4, "big"))


def settings_frame(settings: dict[Setting, int]) -> bytes:
    """SETTINGS with these values (6.5)."""
    values = (key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in settings.items())
    return frame(SETTINGS, 0, 0, b"".join(values))


@lru_cache(maxsize=64)
def header_frame_start(size: int, flags: int) -> bytes:
    """The bytes of a HEADERS frame before the number of its stream."""
    return size.to_bytes(3, "big") + bytes((HEADERS, flags))


def header_frames(number: int, block: bytes, limit: int, *, end: bool) -> bytes:
    """HEADERS, and CONTINUATION for what is above `limit` bytes (6.2, 6.10)."""
    flags = END_STREAM if end else 0
    if len(block) <= limit:
        return frame(HEADERS, flags | END_HEADERS, number, block)
    frames, kind = b"", HEADERS
    while block:
        part, block = block[:limit], block[limit:]
        frames += frame(kind, flags if block else flags | END_HEADERS, number, part)
        kind, flags = CONTINUATION, 0
    return frames
