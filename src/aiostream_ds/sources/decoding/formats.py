"""Decodes a message of a format to values, and finds the format of a message by its content.

The result is a `Document`: what a message contains, before its objects become rows.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown
from aiostream_ds.sources.decoding.csv_message import csv_rows, is_csv
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings, Format
from aiostream_ds.sources.decoding.lenient_json import decode_leniently
from aiostream_ds.sources.decoding.line_protocol import Point, points
from aiostream_ds.sources.decoding.own_names import own_name
from aiostream_ds.sources.decoding.plain_values import plain
from aiostream_ds.sources.decoding.text_cells import text_number

__all__ = ["Document", "FormatContext", "decode", "format_of_content_type", "json_lines"]

Document = Any
"""A value of JSON, or an iterator of objects and BadRecord: the lines of a message."""

_CONTENT_TYPES: Mapping[str, Format] = {
    "application/json": "json",
    "text/json": "json",
    "application/x-ndjson": "json",
    "application/jsonl": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
    "application/cbor": "cbor",
}


def format_of_content_type(content_type: str) -> Format | None:
    """The format that a content type names; None if it names none, as `text/plain`."""
    kind = content_type.partition(";")[0].strip().lower()
    suffix = kind.rpartition("+")[2]
    if suffix in ("json", "cbor"):
        return "json" if suffix == "json" else "cbor"
    return _CONTENT_TYPES.get(kind)


class FormatContext(NamedTuple):
    """How messages are decoded."""

    settings: DecodingSettings
    keeps_tags: bool
    """Whether the tags of line protocol stay one value, which is a label."""


def decode(payload: bytes, kind: Format, context: FormatContext) -> Document:
    """The content of a message. Raises BadRecord: it has not this format, or none that is known."""
    return _DECODERS[kind](payload, context)


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRecord("expected text in UTF-8") from None


def _json(payload: bytes, context: FormatContext) -> Document:
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        lines = [line for line in payload.splitlines() if line.strip()]
        if len(lines) > 1 and all(map(_starts_json, lines[:2])) and any(map(_is_json, lines[:2])):
            return json_lines(lines)
        return decode_leniently(payload)[0]


def _starts_json(line: bytes) -> bool:
    return line.lstrip()[:1] in (b"{", b"[")


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return False
    return True


def json_lines(lines: Iterable[bytes]) -> Iterator[Any]:
    """The value of each line, and for each line that is not JSON, why."""
    for line in lines:
        try:
            yield _json_line(line)
        except BadRecord as error:
            yield error


def _json_line(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return decode_leniently(line)[0]


def _influx(payload: bytes, context: FormatContext) -> Document:
    return _point_rows(points(_text(payload)), context)


def _point_rows(
    found: Iterable[Point | BadRecord], context: FormatContext
) -> Iterator[dict[str, Any] | BadRecord]:
    for point in found:
        if isinstance(point, BadRecord):
            yield point
            continue
        try:
            yield _point_row(point, context)
        except BadRecord as error:
            yield error


def _point_row(point: Point, context: FormatContext) -> dict[str, Any]:
    """The row of a point. Raises BadRecord."""
    row: dict[str, Any] = {"measurement": point.measurement}
    if point.timestamp is not None:
        row[context.settings.time] = point.timestamp
    if context.keeps_tags:
        row["tags"] = point.tags
    else:
        _add(row, point.tags)
    _add(row, point.fields)
    return row


def _add(row: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        row[own_name(name, row) if name in row else name] = value


def _csv(payload: bytes, context: FormatContext) -> Document:
    return csv_rows(_text(payload), context.settings)


def _msgpack(payload: bytes, context: FormatContext) -> Document:
    try:
        return plain(msgspec.msgpack.decode(payload))
    except BadRecord:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise BadRecord("invalid MessagePack") from None


_DEPTH = 64  # of CBOR, whose tags are levels, too


def _refused(decoder: Any, *_: Any) -> Any:
    raise ValueError("shared values, patterns and big floats are not read")


# references make a short message expand without a limit
_REFUSED_TAGS: dict[int, Any] = dict.fromkeys((5, 25, 28, 29, 35, 36, 256), _refused)


def _cbor(payload: bytes, context: FormatContext) -> Document:
    try:
        import cbor2  # few messages are CBOR
    except ImportError:
        raise BadRecord("CBOR needs the package cbor2, which is not installed") from None

    stream = io.BytesIO(payload)
    try:
        decoder = cbor2.CBORDecoder(stream, max_depth=_DEPTH, semantic_decoders=_REFUSED_TAGS)
        value = plain(decoder.decode())
    except BadRecord:
        raise
    except (ValueError, TypeError, ArithmeticError, RecursionError, EOFError, cbor2.CBORError):
        raise BadRecord("invalid CBOR") from None
    if stream.read(1):
        raise BadRecord("expected the end of the CBOR, got more bytes")
    return value


def _number(payload: bytes, context: FormatContext) -> Document:
    text = _text(payload)
    number = text_number(text)
    if number is None:
        raise BadRecord(f"expected a number, got {shown(text)}")
    return {"value": number}


def _plain_text(payload: bytes, context: FormatContext) -> Document:
    return {"text": _text(payload)}


_BINARY_OBJECT = frozenset([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""First bytes of objects and arrays in MessagePack."""


def _auto(payload: bytes, context: FormatContext) -> Document:
    first = payload[:1]
    if first in (b"{", b"["):
        return _json(payload, context)
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _binary(payload, context)
    stripped = text.strip()
    if stripped[:1] in ("{", "[", '"') or stripped in ("true", "false", "null"):
        return _json_or_text(payload, stripped, context)
    number = text_number(stripped)
    if number is not None:
        return {"value": number}
    if "=" in stripped and (found := _as_points(text, context)) is not None:
        return found
    if context.settings.names or is_csv(stripped):
        return _csv(payload, context)
    return {"text": text}


def _binary(payload: bytes, context: FormatContext) -> Document:
    if payload[0] in _BINARY_OBJECT:
        try:
            return _msgpack(payload, context)
        except BadRecord:
            pass  # arrays of CBOR begin with the same bytes
    try:
        return _cbor(payload, context)
    except BadRecord:
        raise BadRecord("expected text in UTF-8, MessagePack or CBOR, got other bytes") from None


def _json_or_text(payload: bytes, text: str, context: FormatContext) -> Document:
    try:
        return _json(payload, context)
    except BadRecord:
        if text[:1] == '"':
            return {"text": text}
        raise


def _as_points(text: str, context: FormatContext) -> Document | None:
    """The points of a text, if its first line is one."""
    found = points(text)
    first = next(found, None)
    return _point_rows(chain((first,), found), context) if isinstance(first, Point) else None


_DECODERS: Mapping[Format, Callable[[bytes, FormatContext], Document]] = {
    "auto": _auto,
    "json": _json,
    "influx": _influx,
    "csv": _csv,
    "msgpack": _msgpack,
    "cbor": _cbor,
    "number": _number,
    "text": _plain_text,
}
