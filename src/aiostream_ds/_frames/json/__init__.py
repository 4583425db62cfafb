"""Frames as Grafana's frame JSON, the format of streams.

    {"schema":{"name"?,"refId"?,"meta"?,"fields":[…]},"data":{"values":[…],"entities"?,"nanos"?}}

JSON has no NaN and no infinities: they are written as null, and `entities` lists their rows. Times
are Unix milliseconds; `nanos` has the nanoseconds below them.
"""

from aiostream_ds._frames.json.decoder import decode, decode_rows
from aiostream_ds._frames.json.encoder import (
    FrameEncoder,
    data,
    encode,
    fingerprint,
    make_schema,
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
    "make_schema",
    "packet",
    "schema",
]
