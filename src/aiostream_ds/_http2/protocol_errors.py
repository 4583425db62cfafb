"""Errors of an HTTP/2 connection (RFC 9113, 5.4)."""

from aiostream_ds._http2.wire import ErrorCode

__all__ = ["Http2Error", "RateLimitExceeded", "StreamClosedError"]


class Http2Error(Exception):
    """A connection error: what the host has sent ends the connection with GOAWAY `code`."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class RateLimitExceeded(Http2Error):
    """The host sends more than it may: GOAWAY ENHANCE_YOUR_CALM."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.ENHANCE_YOUR_CALM, reason)


class StreamClosedError(Exception):
    """Nothing can be sent: the host has reset the stream, or the connection is lost."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stream {number} is closed")
