"""InfluxDB's line protocol: `cpu,host=a usage=0.5,cores=4i 1700000000000000000`.

The grammar is that of InfluxData's line-protocol.ebnf. Texts in quotes may contain line breaks.
"""

import re
from collections.abc import Iterator
from math import isinf
from typing import Any, NamedTuple

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown

__all__ = ["Point", "points"]


class Point(NamedTuple):
    """One point. `timestamp` is None if the line has none."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Any]
    timestamp: int | None


# possessive quantifiers: no text takes more than linear time
_ESCAPED = r"\\++[^\\\x00-\x1f\x7f]"
_NAME = rf"(?:[^ ,\\\x00-\x1f\x7f]++|{_ESCAPED})++"
_KEY = rf"(?:[^ ,=\\\x00-\x1f\x7f]++|{_ESCAPED})++"
_EMPTY = re.compile(r" *(?:#[^\x00-\x08\x0a-\x1f\x7f]*)?\r?(?:\n|$)")
_MEASUREMENT = re.compile(rf" *({_NAME})")
_TAG = re.compile(rf",({_KEY})=({_KEY})")
_FIELD_KEY = re.compile(rf"({_KEY})=")
_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.S)
_VALUE = re.compile(r"[^, \r\n]+")
_TIMESTAMP = re.compile(r"-?\d+", re.ASCII)
_END = re.compile(r" *\r?(?:\n|$)")
_LINE = re.compile(r"[^\n]*\n?")
_SPACES = re.compile(r" +")

_FLOAT = re.compile(r"-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)", re.ASCII)
_INTEGER = re.compile(r"(?:(-?\d+)i|(\d+)u)", re.ASCII)
_INTEGERS = {"i": (-(2**63), 2**63 - 1), "u": (0, 2**64 - 1)}
_BOOLEANS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
_DIGITS = 20  # of an integer: more are out of its range

_ESCAPE_IN_NAME = re.compile(r"\\([, ])")
_ESCAPE_IN_KEY = re.compile(r"\\([,= ])")
_ESCAPE_IN_STRING = re.compile(r'\\([\\"nrt])')
_STRING_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def points(text: str) -> Iterator[Point | BadRecord]:
    """The points of a text, and for each line that is not one, why. The next line goes on."""
    at, end = 0, len(text)
    while at < end:
        empty = _EMPTY.match(text, at)
        if empty is not None:
            at = empty.end()
            continue
        try:
            point, at = _point(text, at)
        except BadRecord as error:
            yield error
            line = _LINE.match(text, at)
            at = end if line is None else line.end()
        else:
            yield point


def _point(text: str, at: int) -> tuple[Point, int]:
    head = _MEASUREMENT.match(text, at)
    if head is None:
        raise _expected("a measurement", text, at)
    tags: dict[str, str] = {}
    at = head.end()
    while (tag := _TAG.match(text, at)) is not None:
        key = _unescaped(tag[1])
        if key in tags:
            raise BadRecord(f"expected each tag once, got {shown(key)} twice")
        tags[key] = _unescaped(tag[2])
        at = tag.end()
    at = _spaces(text, at, "a tag `,key=value`, or a space and a field")
    fields, at = _fields(text, at)
    timestamp = None
    if (end := _END.match(text, at)) is None:
        at = _spaces(text, at, "a space and a timestamp")
        found = _TIMESTAMP.match(text, at)
        if found is None:
            raise _expected("a timestamp", text, at)
        timestamp = _integer(found[0], "i")
        end = _END.match(text, found.end())
        if end is None:
            raise _expected("the end of the line", text, found.end())
    name = _ESCAPE_IN_NAME.sub(r"\1", head[1]) if "\\" in head[1] else head[1]
    return Point(name, tags, fields, timestamp), end.end()


def _fields(text: str, at: int) -> tuple[dict[str, Any], int]:
    fields: dict[str, Any] = {}
    while True:
        key = _FIELD_KEY.match(text, at)
        if key is None:
            raise _expected("a field `key=value`", text, at)
        value, at = _value(text, key.end())
        fields[_unescaped(key[1])] = value
        if not text.startswith(",", at):
            return fields, at
        at += 1


def _value(text: str, at: int) -> tuple[Any, int]:
    if text.startswith('"', at):
        quoted = _STRING.match(text, at)
        if quoted is None:
            raise _expected("a closing quote", text, at)
        return _ESCAPE_IN_STRING.sub(_string_escape, quoted[1]), quoted.end()
    found = _VALUE.match(text, at)
    value = "" if found is None else found[0]
    end = at + len(value)
    if _FLOAT.fullmatch(value):
        return _float(value), end
    if value in _BOOLEANS:
        return _BOOLEANS[value], end
    if _INTEGER.fullmatch(value):
        return _integer(value[:-1], value[-1]), end
    raise BadRecord(
        f"expected a number, an integer with i or u, true, false or a text in quotes, got"
        f" {shown(value)}"
    )


def _float(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise BadRecord(f"expected a float of 64 bits, got {shown(digits)}")
    return number


def _integer(digits: str, kind: str) -> int:
    low, high = _INTEGERS[kind]
    number = int(digits) if len(digits.lstrip("-0")) <= _DIGITS else high + 1
    if not low <= number <= high:
        raise BadRecord(f"expected an integer of 64 bits, got {shown(digits)}")
    return number


def _spaces(text: str, at: int, expected: str) -> int:
    found = _SPACES.match(text, at)
    if found is None:
        raise _expected(expected, text, at)
    return found.end()


def _unescaped(text: str) -> str:
    return _ESCAPE_IN_KEY.sub(r"\1", text) if "\\" in text else text


def _string_escape(match: re.Match[str]) -> str:
    return _STRING_ESCAPES.get(match[1], match[1])


def _expected(what: str, text: str, at: int) -> BadRecord:
    rest = text[at : at + 60].split("\n", 1)[0]
    return BadRecord(f"expected {what}, got {shown(rest)}" if rest else f"expected {what}")
