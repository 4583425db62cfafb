"""Frames that a host sends, right and wrong ones, made without the code under test."""

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)
CONTINUATION, UNKNOWN = 9, 0x42
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20

CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/run"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def frame(kind, number=0, payload=b"", flags=0, size=None):
    size = len(payload) if size is None else size
    return size.to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def padded(data, size):
    return bytes((size,)) + data + bytes(size)


def settings(*pairs):
    payload = b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs)
    return frame(SETTINGS, payload=payload)


def window_update(number, size):
    return frame(WINDOW_UPDATE, number, size.to_bytes(4, "big"))


def reset(number, code=8):
    return frame(RST_STREAM, number, code.to_bytes(4, "big"))


def block(headers=CALL):
    """A header block that neither reads nor changes the dynamic table."""
    return Encoder().encode([(*pair, True) for pair in headers])


def request(number, headers=CALL, *, end=False, flags=0):
    return frame(HEADERS, number, block(headers), flags | END_HEADERS | (END_STREAM if end else 0))


START = PREFACE + settings()
