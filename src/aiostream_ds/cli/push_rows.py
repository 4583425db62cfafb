"""Lines of a program or a file as rows: JSON, numbers, key=value and CSV.

Each line is a row by itself, except that the first line of CSV is its header. In `auto` each line
may have another of the formats: programs print other lines, too.
"""

import csv
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.lenient_json import decode_leniently
from aiostream_ds.sources.decoding.text_cells import DELIMITERS, distinct, is_empty, text_number

__all__ = ["FORMATS", "BadLine", "LineFormat", "LineRows"]

LineFormat = Literal["auto", "json", "csv", "pairs", "number"]

FORMATS: Sequence[LineFormat] = get_args(LineFormat)

Rows = list[dict[str, Any]]

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_PAIR = re.compile(r"""(?<![\w.=/?&-])([A-Za-z_][\w./-]*)=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;]+)""")
_NAME = re.compile(r"[^\W\d].*")
_ESCAPE = re.compile(r"\\(.)")
_LONGEST = 80  # characters of a line in a message


class BadLine(Exception):
    """A line that is not a row; the message has the reason."""


class LineRows:
    """Reads lines of one program or file.

    Args:
        kind: the format of the lines.
        names: the names of CSV columns, of lines without a header.
        time: the key of the time, to which nothing but its own text is done.
    """

    def __init__(
        self, kind: LineFormat = "auto", names: Sequence[str] = (), time: str = "time"
    ) -> None:
        self._kind = kind
        self._names = list(distinct(names))
        self._time = time
        self._delimiter = ""
        self._is_first = True
        self._header = ""  # what may be one: the next line decides
        self.left_out = 0
        """Lines of which it was found out later that they are not rows: such as `Hello, you`, which
        may be a header."""

    def read(self, line: str) -> Rows:
        """The rows of a line; [] for an empty one and the header of CSV. Raises BadLine."""
        text = line.strip()
        if not text:
            return []
        header, self._header = self._header, ""
        if header and not self._adopt(header, text):
            self.left_out += 1
        try:
            return self._readers[self._kind](self, text)
        finally:
            self._is_first = False

    def end(self) -> None:
        """There are no more lines."""
        self.left_out += bool(self._header)
        self._header = ""

    def _adopt(self, header: str, text: str) -> bool:
        """Whether a line is the header of the next one, which has as many cells."""
        if text[0] in "{[" or _PAIR.search(text):
            return False
        self._delimiter = max(DELIMITERS, key=header.count)
        names = self._cells(header)
        if len(self._cells(text)) != len(names):
            self._delimiter = ""
            return False
        self._names = list(distinct(names))
        return True

    def _json(self, text: str) -> Rows:
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            try:
                value = decode_leniently(text.encode("utf-8", "surrogatepass"))[0]
            except BadRecord:
                raise BadLine(f"expected JSON, got {_shown(text)}") from None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return [{"value": value}]
        rows = value if isinstance(value, list) else [value]
        if not rows or not all(isinstance(row, dict) and row for row in rows):
            raise BadLine(f"expected an object of JSON with values, got {_shown(text)}")
        return rows

    def _number(self, text: str) -> Rows:
        number = _number_of(text)
        if number is None:
            raise BadLine(f"expected a number, got {_shown(text)}")
        return [{"value": number}]

    def _pairs(self, text: str) -> Rows:
        row: dict[str, Any] = {key: _value(value) for key, value in _PAIR.findall(text)}
        if not row:
            raise BadLine(f"expected key=value, got {_shown(text)}")
        return [row]

    def _csv(self, text: str) -> Rows:
        if not self._delimiter:
            self._delimiter = max(DELIMITERS, key=text.count)
        cells = self._cells(text)
        if not self._names:
            if any(_number_of(cell) is not None for cell in cells):
                raise BadLine(f"expected the header of CSV, got {_shown(text)}; use --names")
            self._names = list(distinct(cells))
            return []
        if len(cells) != len(self._names):
            raise BadLine(f"expected {len(self._names)} cells, got {len(cells)}: {_shown(text)}")
        row = {
            name: _value(cell)
            for name, cell in zip(self._names, cells, strict=True)
            if not is_empty(cell)
        }
        if not row.keys() - {self._time}:
            raise BadLine(f"expected a value in one of the cells, got {_shown(text)}")
        return [row]

    def _cells(self, text: str) -> list[str]:
        try:
            return [cell.strip() for cell in next(csv.reader([text], delimiter=self._delimiter))]
        except (csv.Error, StopIteration):
            raise BadLine(f"expected cells of CSV, got {_shown(text)}") from None

    def _auto(self, text: str) -> Rows:
        if text[0] in "{[":
            try:
                return self._json(text)
            except BadLine:
                if not _PAIR.search(text):  # such as `[epoch 3] loss=0.1`
                    raise
        number = _number_of(text)
        if number is not None and len(self._names) < 2:
            return [{"value": number}]
        if self._names and (len(self._names) > 1 or number is not None):
            if not self._delimiter:
                self._delimiter = max(DELIMITERS, key=text.count)
            cells = self._cells(text)
            if len(cells) == len(self._names):
                return self._csv(text)
        if _PAIR.search(text):
            return self._pairs(text)
        if self._is_first and self._may_be_header(text):
            self._header = text
            return []
        if len(self._names) > 1:
            raise BadLine(f"expected {len(self._names)} cells, got {_shown(text)}")
        raise BadLine(
            f"expected JSON, a number, key=value, or CSV after a header, got {_shown(text)}"
        )

    def _may_be_header(self, text: str) -> bool:
        """Whether the first line can be one of CSV: two names or more, and no number."""
        self._delimiter = max(DELIMITERS, key=text.count)
        cells = self._cells(text) if self._delimiter in text else []
        self._delimiter = ""
        return len(cells) > 1 and all(_NAME.fullmatch(cell) for cell in cells)

    _readers: dict[LineFormat, "Callable[[LineRows, str], Rows]"] = {
        "auto": _auto,
        "json": _json,
        "csv": _csv,
        "pairs": _pairs,
        "number": _number,
    }


def _number_of(text: str) -> int | float | None:
    return int(text) if _INTEGER.fullmatch(text) else text_number(text)


def _value(text: str) -> Any:
    if text[:1] in "\"'" and len(text) > 1 and text[-1] == text[0]:
        inner = text[1:-1]
        return _ESCAPE.sub(r"\1", inner) if text[0] == '"' else inner
    number = _number_of(text)
    if number is not None:
        return number
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return None if is_empty(text) else text


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
