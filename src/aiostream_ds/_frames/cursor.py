"""The packets of exact channels: JSON with the object `cursor`, and the epoch that it names.

    {"cursor":{"epoch":"…","prev":4,"last":6},"data":{…}}              rows 5 and 6
    {"cursor":{"epoch":"…","prev":4,"last":9,"column":2},"data":{…}}   cursors in the third column
    {"cursor":{"epoch":"…","prev":9,"last":9}}                         no rows: a heartbeat
    {"cursor":{"epoch":"…","prev":"…04-…00","last":"…04-…07","column":[1,2]},"data":{…}}   pairs
    {"cursor":{"epoch":"…","prev":"…04-…00","last":"…04-…07","column":1},"data":{…}}   texts: "4-7"

    {"status":{"severity":"warning","text":"reconnecting (3): …"},"cursor":{…}}         see `Status`

The rows of a packet are those with prev < cursor <= last.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._frames.packet import Schema

__all__ = [
    "SchemaColumns",
    "column_conflict",
    "columns_of",
    "cursor_object",
    "exact_packet",
    "extends",
    "short_hash",
    "wire_epoch",
    "with_status",
]


_SHOWN = 10  # columns in a message


class SchemaColumns(NamedTuple):
    """The columns of a schema.

    `kinds` are their types in the browser: numbers are numbers. `hash` covers names and kinds,
    equal in every process. `types` are the types of the frame, for messages.
    """

    hash: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    types: tuple[str, ...]


class _Type(msgspec.Struct, frozen=True):
    frame: str = ""


class _Field(msgspec.Struct, rename="camel"):
    name: str = ""
    type: str = ""
    type_info: _Type = _Type()


class _Schema(msgspec.Struct):
    fields: list[_Field] = []


_NO_COLUMNS = SchemaColumns("", (), (), ())


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
    names = tuple(field.name for field in fields)
    kinds = tuple(field.type for field in fields)
    types = tuple(field.type_info.frame for field in fields)
    content = msgspec.json.encode(list(zip(names, kinds, strict=True)))
    return SchemaColumns(short_hash(content), names, kinds, types)


def extends(schema: Schema, other: Schema) -> bool:
    """Whether a schema has the columns of another one, perhaps with further ones."""
    mine, theirs = columns_of(schema), columns_of(other)
    return set(zip(theirs.names, theirs.kinds, strict=True)) <= set(
        zip(mine.names, mine.kinds, strict=True)
    )


def column_conflict(history: Schema, live: Schema) -> str | None:
    """Why the rows of a history cannot be joined with live rows: the columns that differ, with both
    types. None: they can be."""
    found, wanted = columns_of(history), columns_of(live)
    if found.hash == wanted.hash:
        return None
    common = set(zip(found.names, found.kinds, strict=True)) & set(
        zip(wanted.names, wanted.kinds, strict=True)
    )
    expected, got = _described(wanted, common), _described(found, common)
    if not expected and not got:  # another order
        expected, got = _described(wanted, ()), _described(found, ())
    return (
        "a history must have the columns of the live rows,"
        f" {expected or 'without others'}, got {got or 'none of these'}"
    )


def _described(columns: SchemaColumns, without: Collection[tuple[str, str]]) -> str:
    rows = zip(columns.names, columns.kinds, columns.types, strict=True)
    found = [f"{name} ({kind})" for name, short, kind in rows if (name, short) not in without]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ", ".join([*found[:_SHOWN], *more])


def wire_epoch(epoch: str, schema: Schema | None) -> str:
    """The epoch as the browser gets it: it covers the columns too, as far as they are known."""
    return f"{epoch}.{columns_of(schema).hash}"


def cursor_object(
    epoch: str, prev: int | str, last: int | str, column: int | list[int] | None = None
) -> bytes:
    """The object `cursor`; `column` is the index of the column that holds the cursors, or those of
    both columns."""
    found: dict[str, Any] = {"epoch": epoch, "prev": prev, "last": last}
    if column is not None:
        found["column"] = column
    return msgspec.json.encode(found)


def exact_packet(cursor: bytes, data: bytes = b"") -> bytes:
    """A packet of an exact channel, from its object `cursor` and the rows, if it has any."""
    if not data:
        return b'{"cursor":%b}' % cursor
    return b"".join((b'{"cursor":', cursor, b',"data":', data, b"}"))


def with_status(packet: bytes, status: bytes) -> bytes:
    """The same packet with the stream's status; an empty packet becomes the status alone."""
    return b'{"status":%b,%b' % (status, packet[1:]) if packet else b'{"status":%b}' % status
