"""What travels in a channel: bytes, encoded once, with the schema kept apart from the data.

A packet knows no values. `render` joins schema and data into one `StreamPacket` payload; whether
the schema goes along is decided by each reader's mailbox, at delivery.
"""

from typing import NamedTuple

import msgspec

__all__ = ["Packet", "CursorRange", "Schema", "render"]


class Schema(msgspec.Struct, frozen=True, eq=False):
    """The frame without values: its JSON object; equal fingerprints mean equal schemas."""

    body: bytes
    fingerprint: str


class CursorRange(NamedTuple):
    """Where rows stand in a numbered stream: all those with prev < cursor <= last."""

    epoch: str
    prev: int
    last: int


class Packet(msgspec.Struct, frozen=True, eq=False, gc=False):
    """`rows` rows under `schema`; `data` is the JSON object of `values` and what goes along.

    `cursors` is the range of cursors of these rows, if they have one. A packet with cursors and no
    rows reports how far the stream has come.
    """

    schema: Schema
    data: bytes
    rows: int
    cursors: CursorRange | None = None


def render(schema: Schema | None, packet: Packet | None) -> bytes:
    """The JSON of one stream packet: schema only (initial data), data only, or both."""
    if packet is None:
        if schema is None:
            raise ValueError("a stream packet needs a schema, data or both")
        return b'{"schema":%b}' % schema.body
    if schema is None:
        return b'{"data":%b}' % packet.data
    return b'{"schema":%b,"data":%b}' % (schema.body, packet.data)
