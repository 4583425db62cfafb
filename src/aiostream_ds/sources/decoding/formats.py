"""Decodes a message of a format to values, and finds the format of a message by its content.

The result is a `Document`: what a message contains, before its objects become rows.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown
from aiostream_ds.sources.decoding.decoding_settings import (
    DecodingSettings,
    Format,
    series_labels,
)
from aiostream_ds.sources.decoding.lenient_json import decode_leniently
from aiostream_ds.sources.decoding.line_protocol import points
from aiostream_ds.sources.decoding.plain_values import plain
from aiostream_ds.sources.decoding.text_cells import (
    DELIMITERS,
    comma_cell,
    distinct,
    point,
    text_cell,
    text_number,
)

__all__ = ["Document", "decode", "format_of_content_type"]

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


def decode(payload: bytes, kind: Format, settings: DecodingSettings) -> Document:
    """The content of a message. Raises BadRecord."""
    return _DECODERS[kind](payload, settings)


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRecord("expected text in UTF-8") from None


def _json(payload: bytes, settings: DecodingSettings) -> Document:
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        lines = [line for line in payload.splitlines() if line.strip()]
        if len(lines) > 1 and _starts_json(lines[0]) and _starts_json(lines[1]):
            try:
                first = msgspec.json.decode(lines[0])
            except (ValueError, RecursionError):
                pass
            else:
                return _json_lines(first, lines)
        return decode_leniently(payload)[0]


def _starts_json(line: bytes) -> bool:
    return line.lstrip()[:1] in (b"{", b"[")


def _json_lines(first: Any, lines: list[bytes]) -> Iterator[Any]:
    yield first
    for line in lines[1:]:
        try:
            yield _json_line(line)
        except BadRecord as error:
            yield error


def _json_line(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return decode_leniently(line)[0]


def _influx(payload: bytes, settings: DecodingSettings) -> Document:
    return _point_rows(_text(payload), settings)


def _point_rows(text: str, settings: DecodingSettings) -> Iterator[Any]:
    labels = series_labels(settings)
    for found in points(text):
        if isinstance(found, BadRecord):
            yield found
            continue
        row: dict[str, Any] = {"measurement": found.measurement}
        if found.timestamp is not None:
            row[settings.time] = found.timestamp
        values = [*found.fields.items()]
        if "tags" in labels:
            row["tags"] = found.tags
        else:
            values[:0] = found.tags.items()
        for name, value in values:
            row[name + "_" if name in row else name] = value
        yield row


def _csv(payload: bytes, settings: DecodingSettings) -> Document:
    text = _text(payload)
    delimiter = _delimiter(text.split("\n", 1)[0], len(settings.names))
    rows = _csv_reader(text, delimiter)
    names = settings.names or [name.strip() for name in _next(rows) or []]
    return _csv_rows(rows, list(distinct(names)), delimiter == ";", settings)


def _delimiter(line: str, cells: int) -> str:
    """The delimiter of a first line: the one that makes so many cells, else the most frequent.
    Between semicolons, commas may be decimal."""
    by_rank = sorted(DELIMITERS, key=",".__eq__)
    fitting = [each for each in by_rank if line.count(each) == cells - 1 > 0]
    return fitting[0] if fitting else max(by_rank, key=line.count)


def _csv_reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _next(rows: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise BadRecord(f"invalid CSV: {error}") from None


def _csv_rows(
    rows: Iterator[list[str]], names: list[str], has_commas: bool, settings: DecodingSettings
) -> Iterator[Any]:
    read: Callable[[str], Any] = comma_cell if has_commas else text_cell
    readers = [_raw(settings, name, has_commas) or read for name in names]
    while True:
        try:
            cells = _next(rows)
        except BadRecord as error:
            yield error
            return  # where the next row begins is not known
        if cells is None:
            return
        if len(cells) == len(names):
            yield {n: r(c) for n, r, c in zip(names, readers, cells, strict=True)}
        elif cells:
            yield BadRecord(f"expected {len(names)} cells, got {len(cells)}")


def _raw(settings: DecodingSettings, name: str, has_commas: bool) -> Callable[[str], Any] | None:
    """A cell of the time, or of a column of fixed type, is read later."""
    if name == settings.time or settings.columns.get(name) == "number":
        return point if has_commas else str
    return str if name in settings.columns else None


def _msgpack(payload: bytes, settings: DecodingSettings) -> Document:
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
_REFUSED_TAGS = dict.fromkeys((5, 25, 28, 29, 35, 36, 256), _refused)


def _cbor(payload: bytes, settings: DecodingSettings) -> Document:
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


def _number(payload: bytes, settings: DecodingSettings) -> Document:
    text = _text(payload)
    number = text_number(text)
    if number is None:
        raise BadRecord(f"expected a number, got {shown(text)}")
    return {"value": number}


def _plain_text(payload: bytes, settings: DecodingSettings) -> Document:
    return {"text": _text(payload)}


_BINARY_OBJECT = frozenset([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""First bytes of objects and arrays in MessagePack."""


def _auto(payload: bytes, settings: DecodingSettings) -> Document:
    first = payload[:1]
    if first in (b"{", b"["):
        return _json(payload, settings)
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _binary(payload, settings)
    stripped = text.strip()
    if stripped[:1] in ("{", "[", '"') or stripped in ("true", "false", "null"):
        return _json_or_text(payload, stripped, settings)
    number = text_number(stripped)
    if number is not None:
        return {"value": number}
    if "=" in stripped and (found := _as_points(text, settings)) is not None:
        return found
    if settings.names or _is_csv(stripped):
        return _csv(payload, settings)
    return {"text": text}


def _binary(payload: bytes, settings: DecodingSettings) -> Document:
    if payload[0] in _BINARY_OBJECT:
        try:
            return _msgpack(payload, settings)
        except BadRecord:
            pass  # arrays of CBOR begin with the same bytes
    try:
        return _cbor(payload, settings)
    except BadRecord:
        raise BadRecord("expected text in UTF-8, MessagePack or CBOR, got other bytes") from None


def _json_or_text(payload: bytes, text: str, settings: DecodingSettings) -> Document:
    try:
        return _json(payload, settings)
    except BadRecord:
        if text[:1] == '"':
            return {"text": text}
        raise


def _as_points(text: str, settings: DecodingSettings) -> Document | None:
    """The points of a text, if its first line is one."""
    if not isinstance(next(points(text), None), tuple):
        return None
    return _point_rows(text, settings)


def _is_csv(text: str) -> bool:
    """Whether the first two lines have as many cells, and the first has no number."""
    delimiter = _delimiter(text.split("\n", 1)[0], 0)
    try:
        lines = list(islice(_csv_reader(text, delimiter), 2))
    except csv.Error:
        return False
    if len(lines) < 2 or len(lines[0]) < 2 or len(lines[0]) != len(lines[1]):
        return False
    return all(name.strip() and text_number(name) is None for name in lines[0])


_DECODERS: Mapping[Format, Callable[[bytes, DecodingSettings], Document]] = {
    "auto": _auto,
    "json": _json,
    "influx": _influx,
    "csv": _csv,
    "msgpack": _msgpack,
    "cbor": _cbor,
    "number": _number,
    "text": _plain_text,
}
