"""The packets of exact channels: JSON with the object `cursor`, and the epoch that it names.

    {"cursor":{"epoch":"…","prev":4,"last":6},"data":{…}}              rows 5 and 6
    {"cursor":{"epoch":"…","prev":4,"last":9,"column":2},"data":{…}}   cursors in the third column
    {"cursor":{"epoch":"…","prev":9,"last":9}}                         no rows: a heartbeat

    {"status":{"severity":"warning","text":"reconnecting (3)"},"cursor":{…}}           see `Status`

The rows of a packet are those with prev < cursor <= last.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._frames.packet import Schema

__all__ = [
    "SchemaColumns",
    "columns_of",
    "cursor_object",
    "exact_packet",
    "short_hash",
    "wire_epoch",
    "with_status",
]


class SchemaColumns(NamedTuple):
    """The columns of a schema; `hash` covers their names and types, equal in every process."""

    hash: str
    names: tuple[str, ...]


class _Type(msgspec.Struct, frozen=True):
    frame: str = ""


class _Field(msgspec.Struct, rename="camel"):
    name: str = ""
    type_info: _Type = _Type()


class _Schema(msgspec.Struct):
    fields: list[_Field] = []


_NO_COLUMNS = SchemaColumns("", ())


def short_hash(content: bytes) -> str:
    """Eight hexadecimal digits, equal in every process."""
    import hashlib  # needed only by plugins that stream

    return hashlib.blake2b(content, digest_size=4).hexdigest()


def columns_of(schema: Schema | None) -> SchemaColumns:
    """The columns of a schema; without one, no columns."""
    return _columns(schema.body) if schema is not None and schema.body else _NO_COLUMNS


@lru_cache(maxsize=1024)
def _columns(body: bytes) -> SchemaColumns:
    fields = msgspec.json.decode(body, type=_Schema).fields
    if not fields:
        return _NO_COLUMNS
    pairs: list[Any] = [(field.name, field.type_info.frame) for field in fields]
    content = msgspec.json.encode(pairs)
    return SchemaColumns(short_hash(content), tuple(field.name for field in fields))


def wire_epoch(epoch: str, schema: Schema | None) -> str:
    """The epoch as the browser gets it: it covers the columns too, as far as they are known."""
    return f"{epoch}.{columns_of(schema).hash}"


def cursor_object(epoch: str, prev: int, last: int, column: int | None = None) -> bytes:
    """The object `cursor`; `column` is the index of the column that holds the cursors."""
    more = b"" if column is None else b',"column":%d' % column
    return b'{"epoch":"%b","prev":%d,"last":%d%b}' % (epoch.encode(), prev, last, more)


def exact_packet(cursor: bytes, data: bytes = b"") -> bytes:
    """A packet of an exact channel, from its object `cursor` and the rows, if it has any."""
    if not data:
        return b'{"cursor":%b}' % cursor
    return b'{"cursor":%b,"data":%b}' % (cursor, data)


def with_status(packet: bytes, status: bytes) -> bytes:
    """The same packet with the stream's status; an empty packet becomes the status alone."""
    return b'{"status":%b,%b' % (status, packet[1:]) if packet else b'{"status":%b}' % status
