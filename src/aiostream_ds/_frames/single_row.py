"""Writes a row that is alone in its packet, the most frequent packet of slow streams: by a function
that is written for the types of its values, as Python code, once for all channels.
"""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from math import inf
from typing import Any

import orjson

from aiostream_ds._frames.columns import RANGES, FieldType
from aiostream_ds._frames.times import DAY, EPOCH

__all__ = ["WriteRow", "row_function"]

WriteRow = Callable[..., bytes | None]
"""Writes the data of a packet from the values of its only row. None: not the common case."""


@lru_cache(maxsize=1024)
def row_function(
    kinds: tuple[type, ...], types: tuple[FieldType, ...], nullable: frozenset[int] = frozenset()
) -> WriteRow:
    """The function for values of these classes in columns of these types: datetime or int for
    times, int, float, bool, str and None. Those with an index in `nullable`, except for times, may
    also be None."""
    space: dict[str, Any] = {"_dumps": orjson.dumps, "_epoch": EPOCH, "_inf": inf}
    exec(_source(kinds, types, nullable), space)
    function: WriteRow = space["write"]
    return function


def _source(kinds: tuple[type, ...], types: tuple[FieldType, ...], nullable: frozenset[int]) -> str:
    names = [f"v{n}" for n in range(len(kinds))]
    cells: list[str] = []
    values: list[str] = []
    lines = [f"def write({', '.join(names)}):", " try:"]
    for n, (name, kind, field_type) in enumerate(zip(names, kinds, types, strict=True)):
        optional = n in nullable and kind in _VALUES and field_type is not FieldType.TIME
        cells.append("%b" if optional else _CELLS.get(kind, "%b"))
        if kind in _VALUES:
            values.append(f"_dumps({name})" if optional else _VALUES[kind].format(name))
        if kind is datetime:
            lines += _TIME.format(name).splitlines()
        check = f"  if {name} is not None and not" if optional else "  if not"
        if kind is datetime or kind is int:
            low, high = RANGES[field_type]
            lines.append(f"{check} {low} <= {name} <= {high}: return None")
        elif kind is float:  # JSON has neither NaN nor infinities
            lines.append(f"{check} -_inf < {name} < _inf: return None")
    found = f'{{"values":[[{"],[".join(cells)}]]'
    nanos = [f"nanos_{name}" for name, kind in zip(names, kinds, strict=True) if kind is datetime]
    if nanos:
        below = ",".join(["%b" if kind is datetime else "null" for kind in kinds])
        texts = [f'b"[%d]" % {each} if {each} else b"null"' for each in nanos]
        whole = _format(f'{found},"nanos":[{below}]}}', [*values, *texts])
        lines.append(f"  if {' or '.join(nanos)}: return {whole}")
    lines.append(f"  return {_format(found + '}', values)}")
    # a datetime without a time zone, a str that UTF-8 cannot encode
    lines.append(" except TypeError: return None")
    return "\n".join(lines)


def _format(text: str, values: list[str]) -> str:
    """The expression that formats values."""
    return f"b'{text}' % ({', '.join(values)},)" if values else f"b'{text}'"


_CELLS: dict[type, str] = {datetime: "%d", int: "%d", type(None): "null"}
"""How a cell is formatted, by the class of its value; others by %b."""

_VALUES: dict[type, str] = {
    datetime: "{}",
    int: "{}",
    float: "_dumps({})",
    str: "_dumps({})",
    bool: "b'true' if {} else b'false'",
}
"""What is formatted, by the class of the value."""

_TIME = f"""\
  since = {{0}} - _epoch
  micros = since.microseconds
  {{0}} = since.days * {DAY} + since.seconds * 1000 + micros // 1000
  nanos_{{0}} = micros % 1000 * 1000
"""
"""Milliseconds since 1970, and the rest in nanoseconds: `divmod` takes longer for timedeltas."""
