"""Where rows stand, as exact packets say it: the JSON object `seam`, and what it is made of.

    {"seam":{"epoch":"…","prev":4,"last":6},"data":{…}}           rows 5 and 6
    {"seam":{"epoch":"…","prev":4,"last":9,"ids":2},"data":{…}}   their numbers: the third column

    {"state":{"severity":"warning","text":"reconnecting (3)"},"seam":{…}}         see `Status`

The epoch names the numbering and the columns, so that other columns are another epoch. Imports its
own room, msgspec.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._frames.packet import Schema

__all__ = ["Shape", "digest", "epoch_of", "head", "payload", "shape_of", "stated"]


class Shape(NamedTuple):
    """A schema's columns: a short hash of their names and types, the same in every process."""

    hash: str
    names: tuple[str, ...]


class _Type(msgspec.Struct, frozen=True):
    frame: str = ""


class _Field(msgspec.Struct, rename="camel"):
    name: str = ""
    type_info: _Type = _Type()


class _Schema(msgspec.Struct):
    fields: list[_Field] = []


_NONE = Shape("", ())


def digest(content: bytes) -> str:
    """A short hash, the same in every process."""
    import hashlib  # only who streams needs it

    return hashlib.blake2b(content, digest_size=4).hexdigest()


def shape_of(schema: Schema | None) -> Shape:
    """The columns of a schema; of none, nothing."""
    return _shape(schema.body) if schema is not None and schema.body else _NONE


@lru_cache(maxsize=1024)
def _shape(body: bytes) -> Shape:
    fields = msgspec.json.decode(body, type=_Schema).fields
    if not fields:
        return _NONE
    pairs: list[Any] = [(field.name, field.type_info.frame) for field in fields]
    return Shape(digest(msgspec.json.encode(pairs)), tuple(field.name for field in fields))


def epoch_of(numbering: str, schema: Schema | None) -> str:
    """The epoch's text: which numbering, and which columns as far as they are known."""
    return f"{numbering}.{shape_of(schema).hash}"


def head(epoch: str, prev: int, last: int, ids: int | None = None) -> bytes:
    """The object `seam`; `ids` is the index of the column that holds the numbers."""
    more = b"" if ids is None else b',"ids":%d' % ids
    return b'{"epoch":"%b","prev":%d,"last":%d%b}' % (epoch.encode(), prev, last, more)


def stated(payload: bytes, state: bytes) -> bytes:
    """The same packet with how the stream is doing; of no packet, that alone."""
    return b'{"state":%b,%b' % (state, payload[1:]) if payload else b'{"state":%b}' % state


def payload(seam: bytes, data: bytes = b"") -> bytes:
    """An exact packet: rows and their place, or the place alone."""
    if not data:
        return b'{"seam":%b}' % seam
    return b'{"seam":%b,"data":%b}' % (seam, data)
