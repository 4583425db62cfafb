"""Frames as JSON: what streams send."""

from aiostream_ds._frames.json.encoder import (
    FrameEncoder,
    data,
    decode,
    decode_rows,
    encode,
    fingerprint,
    packet,
    schema,
)

__all__ = [
    "FrameEncoder",
    "data",
    "decode",
    "decode_rows",
    "encode",
    "fingerprint",
    "packet",
    "schema",
]
