"""The settings that a host sends (RFC 9113, 6.5.2)."""

from struct import iter_unpack

from aiostream_ds._http2.protocol_errors import Http2Error
from aiostream_ds._http2.wire import (
    DEFAULT_FRAME_SIZE,
    LARGEST_FRAME_SIZE,
    LARGEST_WINDOW,
    ErrorCode,
    Setting,
)

__all__ = ["read_settings"]

_RANGES = {
    Setting.ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, LARGEST_WINDOW, ErrorCode.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (DEFAULT_FRAME_SIZE, LARGEST_FRAME_SIZE, ErrorCode.PROTOCOL_ERROR),
    Setting.ENABLE_CONNECT_PROTOCOL: (0, 1, ErrorCode.PROTOCOL_ERROR),  # RFC 8441, 3
}
"""The smallest and the largest value, and the error of another one."""


def read_settings(payload: bytes) -> dict[int, int]:
    """The values in a SETTINGS frame; of a setting that is given twice, the last one.

    Raises Http2Error for a value that is not allowed.
    """
    settings: dict[int, int] = {}
    for key, value in iter_unpack(">HI", payload):
        if key in _RANGES:
            lowest, highest, code = _RANGES[key]
            if not lowest <= value <= highest:
                raise Http2Error(
                    code, f"{Setting(key).name} must be {lowest} to {highest}, got {value}"
                )
        settings[key] = value
    return settings
