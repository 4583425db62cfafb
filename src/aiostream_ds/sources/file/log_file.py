"""A growing file of lines: its identity, and its rows forwards and backwards by byte offset.

A row's offset is the end of its line including the newline; a line is complete only with its
newline. All functions block: call them in a thread. No call reads a large file as a whole.
"""

import codecs
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

from aiostream_ds.errors import UpstreamError
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.file.records import Csv, LineReader, Ndjson
from aiostream_ds.sources.file.text_lines import TextReader
from aiostream_ds.sources.regular_file import open_beneath, open_regular

__all__ = [
    "HEAD",
    "ForwardReader",
    "LogFile",
    "Chunk",
    "SkippedLine",
    "SkippedLines",
    "FileStart",
    "Format",
    "Text",
    "begins_before",
    "newest_rows",
    "oldest_rows",
]

BLOCK = 1 << 16
"""Bytes of one read backwards. Within so many bytes, rows may be out of order."""

CHUNK = 1 << 17
"""Bytes of one read forwards."""

HEAD = 1 << 16
"""Maximum bytes of the head that identifies a file; a CSV header must end within them."""

SCAN = 1 << 28
"""Maximum bytes that a search for rows reads, in a file with few rows."""

LINE_SCAN = 1 << 26
"""Bytes in long lines after which a history gives up looking for their beginnings; and four times
`max_line`."""

SEARCH = 1 << 22
"""Maximum bytes that one step of a search by time reads; without a row it goes to earlier ones."""

Row = dict[str, Any]


class Text(NamedTuple):
    """The format of lines of text: only those that contain this, whatever the case."""

    contains: str = ""


Format = Literal["ndjson", "csv"] | Text


class SkippedLine(NamedTuple):
    """A line that is not a row: the offset of its end, and the reason."""

    offset: int
    reason: str


class SkippedLines:
    """The number of lines that a search left out because they are not rows, and the first ones."""

    __slots__ = ("count", "first")

    def __init__(self) -> None:
        self.count = 0
        self.first: SkippedLine | None = None

    def add(self, lines: Sequence[SkippedLine]) -> None:
        """Count these lines, which are in the order of the file."""
        self.count += len(lines)
        if lines and (self.first is None or lines[0].offset < self.first.offset):
            self.first = lines[0]


class FileStart(NamedTuple):
    """The beginning of a file. `epoch` is its hash, `data` the offset of the first row."""

    head: bytes
    epoch: str
    data: int
    reader: LineReader


class Chunk(NamedTuple):
    """The result of one read: rows (oldest first), skipped lines, and whether there is more."""

    rows: list[Row]
    skipped: list[SkippedLine]
    more: bool


class LogFile:
    """One open file, a context manager that closes it."""

    __slots__ = ("_fd", "_scanned", "_start", "format", "key", "max_line", "settings", "skipped")

    def __init__(
        self,
        path: str,
        settings: RowSettings,
        *,
        format: Format,
        max_line: int,
        directory: str | None = None,
    ) -> None:
        """Open the file; with a directory, in which no part of the path may be a link.

        Raises OSError, and UpstreamError if it is not a regular file.
        """
        if directory is None:
            self._fd = open_regular(path, links=False)
        else:
            self._fd = open_beneath(directory, path)
        found = os.fstat(self._fd)
        self._scanned = 0
        self.key = found.st_dev, found.st_ino
        """Identifies the file on this machine."""
        self.format = format
        self.settings = settings
        self.max_line = max_line
        self.skipped: list[SkippedLine] = []
        """The skipped lines before the first row, found by `start`."""
        self._start: FileStart | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Call it once."""
        os.close(self._fd)

    def size(self) -> int:
        """The current size in bytes."""
        return os.fstat(self._fd).st_size

    def modified(self) -> int:
        """When the file was last changed, in Unix ms."""
        return os.fstat(self._fd).st_mtime_ns // 1_000_000

    def read(self, size: int, offset: int) -> bytes:
        """Read `size` bytes at an offset; fewer only at the end of the file."""
        data = os.pread(self._fd, size, offset)
        while data and len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def start(self) -> FileStart | None:
        """The file's beginning, or None before its first row is complete.

        A file is identified by a hash of its bytes up to the end of the first row, which has a
        time: equal on all machines that read the file, and different after each rotation.
        """
        if self._start is None:
            self.skipped.clear()
            self._start = self._find_start()
        return self._start

    def _find_start(self) -> FileStart | None:
        head = self.read(HEAD, 0)
        if _is_utf16(head):
            raise UpstreamError("expected UTF-8, got UTF-16; convert the file")
        data = end = 0
        reader: LineReader = Ndjson(self.settings)
        if isinstance(self.format, Text):
            reader = TextReader(self.settings, self, self.format.contains)
        elif self.format == "csv":
            data = head.find(b"\n") + 1
            if not data:
                if len(head) == HEAD:
                    raise UpstreamError(f"the CSV header must have at most {HEAD} bytes")
                return None
            reader = Csv(self.settings, head[: data - 1])
            end = data
        while newline := head.find(b"\n", end) + 1:
            line, end = head[end : newline - 1], newline
            try:
                row = reader.read(line, end)
            except BadRecord as error:
                self.skipped.append(SkippedLine(end, str(error)))
                row = None
            if row is not None:
                head = head[:end]
                break
            data = end
        else:
            if len(head) < HEAD:
                return None
        reader.replaced = reader.left_out = 0
        return FileStart(head, hashlib.sha256(head).hexdigest()[:16], data, reader)

    def no_rows_reason(self) -> str | None:
        """Why the head of the file has lines but no row, or None."""
        start = self.start()
        if not self.skipped or (start is not None and b"\n" in start.head[start.data :]):
            return None
        return self.skipped[0].reason

    def still_begins(self, start: FileStart) -> bool:
        """Whether the file still has this beginning: False after it was truncated and rewritten."""
        return os.pread(self._fd, len(start.head), 0) == start.head

    def is_boundary(self, offset: int) -> bool:
        """Whether the offset is the end of a line or the beginning of the file."""
        return offset == 0 or os.pread(self._fd, 1, offset - 1) == b"\n"

    def line_start(self, offset: int) -> int:
        """The end of the last line that ends at or before `offset`, or 0.

        Raises UpstreamError when lines are so long that its searches have read LINE_SCAN bytes.
        """
        end = min(offset, self.size())
        while end > 0:
            begin = max(0, end - BLOCK)
            newline = self.read(end - begin, begin).rfind(b"\n") + 1
            if newline:
                return begin + newline
            end = begin
            self._scanned += BLOCK
            if self._scanned > LINE_SCAN + 4 * self.max_line:
                raise UpstreamError(
                    f"expected lines, got {self._scanned:,} bytes without a newline"
                )
        return 0


def _is_utf16(head: bytes) -> bool:
    """By its BOM, or by the zeros of ASCII characters."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return len(head) >= 4 and (head[:4:2] == b"\0\0") != (head[1:4:2] == b"\0\0")


class ForwardReader:
    """Reads lines from an offset to the end of the file. `offset` is the current offset."""

    __slots__ = ("_in_long", "log", "offset", "start")

    def __init__(self, log: LogFile, start: FileStart, offset: int) -> None:
        self.log = log
        self.start = start
        self.offset = max(offset, start.data)
        self._in_long = False  # inside a line that is too long

    def read(self, limit: int = 1 << 62, upto: int | None = None) -> Chunk:
        """The next lines: at most `limit` rows, and none that ends after `upto`."""
        log, offset = self.log, self.offset
        available = max(0, log.size() - offset)
        size = CHUNK
        data = log.read(min(available, size), offset)
        if b"\n" not in data and available > size and not self._in_long:
            size = log.max_line + 1
            data = log.read(min(available, size), offset)
        if b"\n" not in data:
            if self._in_long or len(data) > log.max_line:
                self._in_long = True
                self.offset += len(data)
                return Chunk([], [], more=available > len(data))
            return Chunk([], [], more=False)
        skipped: list[SkippedLine] = []
        if self._in_long:
            head, _, data = data.partition(b"\n")
            offset += len(head) + 1
            if upto is not None and offset > upto:
                return Chunk([], [], more=False)
            self._in_long = False
            skipped.append(_too_long(log, offset))
        rows, found, end = _parse(log, self.start.reader, data, offset, limit, upto)
        self.offset = end
        more = end < offset + data.rfind(b"\n") + 1 or available > size
        return Chunk(rows, skipped + found, more and len(rows) < limit)


def _too_long(log: LogFile, end: int) -> SkippedLine:
    return SkippedLine(end, f"longer than {log.max_line} bytes")


def _parse(
    log: LogFile, reader: LineReader, data: bytes, offset: int, limit: int, upto: int | None
) -> tuple[list[Row], list[SkippedLine], int]:
    """The rows of the complete lines in `data`, which starts at `offset`; and their end."""
    rows: list[Row] = []
    skipped: list[SkippedLine] = []
    lines = data.split(b"\n")
    lines.pop()
    for line in lines:
        end = offset + len(line) + 1
        if len(rows) >= limit or (upto is not None and end > upto):
            break
        offset = end
        if len(line) > log.max_line:
            skipped.append(_too_long(log, end))
            continue
        try:
            row = reader.read(line, end)
        except BadRecord as error:
            skipped.append(SkippedLine(end, str(error)))
            continue
        if row is not None:
            rows.append(row)
    return rows, skipped, offset


def oldest_rows(
    log: LogFile, start: FileStart, after: int, upto: int | None, limit: int
) -> tuple[list[Row], int]:
    """The first `limit` rows after an offset, and the offset up to which they are complete."""
    forward = ForwardReader(log, start, log.line_start(after))
    begin = forward.offset
    rows: list[Row] = []
    while len(rows) < limit and forward.offset - begin < SCAN:
        before = forward.offset
        chunk = forward.read(limit - len(rows), upto)
        rows += chunk.rows
        if not chunk.more or forward.offset == before:
            break
    return rows, log.line_start(forward.offset)


def newest_rows(
    log: LogFile,
    start: FileStart,
    first: int,
    last: int,
    limit: int,
    skipped: SkippedLines | None = None,
) -> tuple[list[Row], int]:
    """The newest `limit` rows with first <= time <= last (Unix ms), oldest first; and the offset up
    to which the file was read: its end, or before the first row later than `last`.

    Times must rise except within BLOCK bytes. `skipped` counts the lines there that are not rows.
    """
    end = log.line_start(log.size())
    begin = start.data
    latest = next((rows[-1] for rows in _blocks(log, start, begin, end) if rows), None)
    bound = end
    if latest is not None and latest["time"] > last:
        bound = min(end, log.line_start(_later(log, start, begin, end, last) + BLOCK))
    found: list[Row] = []
    cut = bound < end
    for rows in _blocks(log, start, begin, bound, skipped):
        fitting = [row for row in rows if first <= row["time"] <= last]
        cut = cut or any(row["time"] > last for row in rows)
        found[:0] = fitting[max(0, len(fitting) - (limit - len(found))) :]
        if len(found) >= limit or (rows and all(row["time"] < first for row in rows)):
            break
    if cut:
        end = found[-1]["offset"] if found else begin
    return found, end


def begins_before(log: LogFile, start: FileStart, first: int) -> bool:
    """Whether the file's first row is earlier than this time (Unix ms)."""
    rows, _ = oldest_rows(log, start, 0, None, 1)
    return bool(rows) and rows[0]["time"] < first


def _blocks(
    log: LogFile, start: FileStart, begin: int, end: int, skipped: SkippedLines | None = None
) -> Iterator[list[Row]]:
    """The rows between two line ends: blocks from the last to the first, each oldest first."""
    last = max(begin, end - SCAN)
    while end > last:
        size = BLOCK
        while True:
            low = max(begin, end - size)
            data = log.read(end - low, low)
            # the newline at the end of the data belongs to the last line
            newline = data.find(b"\n", 0, len(data) - 1) + 1 if low > begin else 0
            if newline or low == begin or size > log.max_line:
                break
            size *= 2
        if not newline and low > begin:
            if skipped is not None:
                skipped.add([_too_long(log, end)])
            end = max(begin, log.line_start(low))
            yield []
            continue
        low += newline
        rows, bad, _ = _parse(log, start.reader, data[newline:], low, 1 << 62, None)
        if skipped is not None:
            skipped.add(bad)
        yield rows
        end = low


def _later(log: LogFile, start: FileStart, begin: int, end: int, last: int) -> int:
    """An offset near the first row later than `last`, by binary search: by all lines, since those
    that a filter leaves may be far apart."""
    if isinstance(start.reader, TextReader):
        start = start._replace(reader=start.reader.of_all_lines())
    low, high = begin, end
    while high - low > BLOCK:
        middle = log.line_start((low + high) // 2)
        forward = ForwardReader(log, start, middle)
        row = _first(forward, high)
        if row is None or row["time"] > last:
            high = (low + high) // 2
        else:
            low = max(row["offset"], low + 1)
    return high


def _first(forward: ForwardReader, end: int) -> Row | None:
    end = min(end, forward.offset + SEARCH)
    while forward.offset < end:
        before = forward.offset
        chunk = forward.read(1, end)
        if chunk.rows:
            return chunk.rows[0]
        if forward.offset == before:
            return None
    return None
