"""The body of a push: its content type, and its bytes without gzip or deflate.

Decompression ends at the limit, so that a short body that expands without end takes no more memory.
"""

import zlib
from typing import Literal, NamedTuple

from aiostream_ds.models import Request
from aiostream_ds.sources.decoding.decoding_settings import Format
from aiostream_ds.sources.decoding.formats import format_of_content_type
from aiostream_ds.sources.push.push_errors import PushRefused, too_large

__all__ = ["ACCEPTED", "BodyKind", "PushBody", "body_kind", "read_body"]

BodyKind = Format | Literal["ndjson", "otlp", "arrow"]

ACCEPTED = (
    "application/json, application/x-ndjson, text/csv, text/plain (line protocol and others),"
    " application/msgpack, application/cbor, application/x-protobuf (OTLP metrics),"
    " application/vnd.apache.arrow.stream"
)
"""The content types that are taken, for messages."""

_OF_BODIES: dict[str, BodyKind] = {
    "application/x-protobuf": "otlp",
    "application/protobuf": "otlp",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/jsonlines": "ndjson",
    "application/vnd.influx.lineprotocol": "influx",
}

_ANY = frozenset(
    {
        "",
        "text/plain",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # what curl sends with -d
    }
)
"""Content types that do not name a format: it is that of the settings, or found by the content."""

_MEMBERS = 100  # of a body in gzip; each takes a copy of those after it


class PushBody(NamedTuple):
    """A body as it is decoded."""

    kind: BodyKind
    payload: bytes


def body_kind(content_type: str, default: Format) -> BodyKind:
    """The format that a content type names; that of the settings if it names none.

    Raises PushRefused: bodies of this type are not taken.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _ANY:
        return default
    found: BodyKind | None = _OF_BODIES.get(kind) or format_of_content_type(kind)
    if found is None:
        raise PushRefused(
            415,
            f"expected one of the content types {ACCEPTED}, got {kind[:100]!r}",
            headers={"Accept-Post": _accept_post()},
        )
    return found


def _accept_post() -> str:
    return "application/json, application/x-ndjson, text/csv, text/plain, application/x-protobuf"


def read_body(request: Request, kind: BodyKind, limit: int) -> PushBody:
    """The decompressed body of a request. Raises PushRefused."""
    body = request.body
    if len(body) > limit:
        raise too_large(limit, f"{len(body):,}")
    for coding in reversed(request.header("content-encoding").lower().split(",")):
        body = _decoded(body, coding.strip(), limit)
    return PushBody(kind, body)


def _decoded(body: bytes, coding: str, limit: int) -> bytes:
    if coding in ("", "identity"):
        return body
    if coding in ("gzip", "x-gzip"):
        return _decompressed(body, zlib.MAX_WBITS | 16, "gzip", limit)
    if coding == "deflate":
        # RFC 9110 means the form of zlib; some clients send the raw one
        is_zlib = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        return _decompressed(body, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS, coding, limit)
    raise PushRefused(
        415,
        f"expected the content encoding gzip, deflate or none, got {coding[:100]!r}",
        headers={"Accept-Encoding": "gzip, deflate, identity"},
    )


def _decompressed(body: bytes, form: int, name: str, limit: int) -> bytes:
    """All members of a compressed body, up to the limit. Raises PushRefused."""
    parts: list[bytes] = []
    free, rest = limit, body
    while rest:
        if len(parts) == _MEMBERS:
            raise PushRefused(400, f"expected at most {_MEMBERS} members in a body in {name}")
        decompressor = zlib.decompressobj(form)
        try:
            part = decompressor.decompress(rest, free + 1)
        except zlib.error as error:
            raise PushRefused(400, f"expected a body in {name}: {_reason(error)}") from None
        free -= len(part)
        if free < 0:
            raise too_large(limit, f"more after decompression, from {len(body):,} in {name}")
        if not decompressor.eof:
            raise PushRefused(400, f"expected a whole body in {name}, got one that is cut")
        parts.append(part)
        rest = decompressor.unused_data.lstrip(b"\0")  # padding
        if rest and name != "gzip":
            raise PushRefused(400, f"expected the end of the body in {name}, got more bytes")
    return b"".join(parts)


def _reason(error: zlib.error) -> str:
    return str(error).rpartition(": ")[2]
