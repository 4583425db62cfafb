"""Packets of a channel: bytes that are encoded once, with the schema apart from the data.

`render` joins schema and data into the payload of one `StreamPacket`. Each subscription decides at
delivery whether the payload includes the schema.
"""

from typing import NamedTuple

import msgspec

__all__ = ["CursorRange", "Packet", "Schema", "render"]


class Schema(msgspec.Struct, frozen=True, eq=False):
    """A frame without values: its JSON object. Equal fingerprints mean equal schemas."""

    body: bytes
    fingerprint: str


class CursorRange(NamedTuple):
    """The cursors of a packet's rows: all rows with prev < cursor <= last."""

    epoch: str
    prev: int
    last: int


class Packet(msgspec.Struct, frozen=True, eq=False, gc=False):
    """`rows` rows under `schema`; `data` is the JSON object with `values`, `entities` and `nanos`.

    `cursors` is set if the stream's rows have a cursor. A packet with cursors and without rows
    reports how far the stream has come. `continues`: the rows belong to those of the packet before,
    and are in a packet of their own because one would be too large.
    """

    schema: Schema
    data: bytes
    rows: int
    cursors: CursorRange | None = None
    continues: bool = False


def render(schema: Schema | None, packet: Packet | None) -> bytes:
    """The JSON of one stream packet: schema only (initial data), data only, or both."""
    if packet is None:
        if schema is None:
            raise ValueError("expected a schema, a packet or both, got None")
        return b'{"schema":%b}' % schema.body
    if schema is None:
        return b"".join((b'{"data":', packet.data, b"}"))
    return b"".join((b'{"schema":', schema.body, b',"data":', packet.data, b"}"))
