"""A growing file of lines: what tells it from others, rows forwards and backwards by byte offset.

Everything here blocks: call it in a thread. A row's offset is where its line ends, newline
included; a line without its newline is none yet. Work is bounded: no call reads a large file whole.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from aiostream_ds.errors import UpstreamError
from aiostream_ds.sources.file.records import BadLine, Csv, LineReader, Ndjson, RecordSettings

__all__ = [
    "HEAD",
    "Forward",
    "LogFile",
    "Piece",
    "Skipped",
    "Start",
    "begins_before",
    "newest",
    "oldest",
]

BLOCK = 1 << 16
"""Bytes of one step backwards, and of disorder that is tolerated around a bound in time."""

CHUNK = 1 << 17
"""Bytes of one step forwards."""

HEAD = 1 << 16
"""Most bytes that tell a file from others; a CSV header has to end within them."""

SCAN = 1 << 28
"""Bytes after which a look for rows gives up: of a file that has hardly any."""

LOOK = 1 << 22
"""Bytes in which a search by time has to find a row, else it takes the place for a later one."""

Row = dict[str, Any]


class Skipped(NamedTuple):
    """A line that is no row: where it ends, and why."""

    offset: int
    reason: str


class Start(NamedTuple):
    """How a file begins. `epoch` is the name of its numbering, `data` where its first row does."""

    head: bytes
    epoch: str
    data: int
    reader: LineReader


class Piece(NamedTuple):
    """Some lines, read: their rows oldest first, what was left out, whether more is there."""

    rows: list[Row]
    skipped: list[Skipped]
    more: bool


class LogFile:
    """One open file. Close it, or use it in a `with`."""

    __slots__ = ("_fd", "_start", "csv", "key", "max_line", "settings", "unfit")

    def __init__(self, path: str, settings: RecordSettings, *, is_csv: bool, max_line: int) -> None:
        """Opens the file. Raises OSError, and UpstreamError for what is no regular file."""
        # a named pipe would wait for its writer here
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise UpstreamError("it is no regular file")
        self.key = found.st_dev, found.st_ino
        """Which file it is on this machine, whatever its name."""
        self.csv = is_csv
        self.settings = settings
        self.max_line = max_line
        self.unfit: list[Skipped] = []
        """What `start` found before the first row."""
        self._start: Start | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the file back; to be called once."""
        os.close(self._fd)

    def size(self) -> int:
        """Bytes in it now."""
        return os.fstat(self._fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from there; fewer only where the file ends."""
        data = os.pread(self._fd, size, offset)
        while data and len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def start(self) -> Start | None:
        """How it begins; None until its first row is there.

        Files are told apart by their bytes up to the end of the first row, so by its time: the same
        on all machines that see the file, and another after each rotation.
        """
        if self._start is None:
            self.unfit.clear()
            self._start = self._find_start()
        return self._start

    def _find_start(self) -> Start | None:
        head = self.read(HEAD, 0)
        data = end = 0
        reader: LineReader = Ndjson(self.settings)
        if self.csv:
            data = head.find(b"\n") + 1
            if not data:
                if len(head) == HEAD:
                    raise UpstreamError(f"its CSV header is longer than {HEAD} bytes")
                return None
            reader = Csv(self.settings, head[: data - 1])
            end = data
        while newline := head.find(b"\n", end) + 1:
            line, end = head[end : newline - 1], newline
            try:
                row = reader.read(line, end)
            except BadLine as error:
                self.unfit.append(Skipped(end, str(error)))
                row = None
            if row is not None:
                head = head[:end]
                break
            data = end
        else:
            if len(head) < HEAD:
                return None
        reader.replaced = 0
        return Start(head, hashlib.sha256(head).hexdigest()[:16], data, reader)

    def still_begins(self, start: Start) -> bool:
        """Whether it is still the file that began so; not after it was emptied and written anew."""
        return os.pread(self._fd, len(start.head), 0) == start.head

    def is_boundary(self, offset: int) -> bool:
        """Whether a line ends (or the file begins) there."""
        return offset == 0 or os.pread(self._fd, 1, offset - 1) == b"\n"

    def line_start(self, offset: int) -> int:
        """Where the line begins that has the byte before `offset`; `offset` if a line ends there.

        Behind the end of the file there is no line: then it is the end of its last one.
        """
        end = min(offset, self.size())
        while end > 0:
            begin = max(0, end - BLOCK)
            newline = self.read(end - begin, begin).rfind(b"\n") + 1
            if newline:
                return begin + newline
            end = begin
        return 0


class Forward:
    """Reads lines from an offset on, as far as the file goes; `position` is where it has got."""

    __slots__ = ("_in_long", "log", "position", "start")

    def __init__(self, log: LogFile, start: Start, position: int) -> None:
        self.log = log
        self.start = start
        self.position = max(position, start.data)
        self._in_long = False  # amid a line that is too long

    def read(self, limit: int = 1 << 62, upto: int | None = None) -> Piece:
        """The next lines, at most `limit` rows, none that ends behind `upto`."""
        log, position = self.log, self.position
        there = max(0, log.size() - position)
        size = CHUNK
        data = log.read(min(there, size), position)
        if b"\n" not in data and there > size and not self._in_long:
            size = log.max_line + 1
            data = log.read(min(there, size), position)
        if b"\n" not in data:
            if self._in_long or len(data) > log.max_line:
                self._in_long = True
                self.position += len(data)
                return Piece([], [], more=there > len(data))
            return Piece([], [], more=False)
        skipped: list[Skipped] = []
        if self._in_long:
            head, _, data = data.partition(b"\n")
            position += len(head) + 1
            if upto is not None and position > upto:
                return Piece([], [], more=False)
            self._in_long = False
            skipped.append(Skipped(position, f"longer than {log.max_line} bytes"))
        rows, found, end = _parse(log, self.start.reader, data, position, limit, upto)
        self.position = end
        more = end < position + data.rfind(b"\n") + 1 or there > size
        return Piece(rows, skipped + found, more and len(rows) < limit)


def _parse(
    log: LogFile, reader: LineReader, data: bytes, offset: int, limit: int, upto: int | None
) -> tuple[list[Row], list[Skipped], int]:
    """The rows of the complete lines in `data`, which lies at `offset`; and where that ends."""
    rows: list[Row] = []
    skipped: list[Skipped] = []
    lines = data.split(b"\n")
    lines.pop()
    for line in lines:
        end = offset + len(line) + 1
        if len(rows) >= limit or (upto is not None and end > upto):
            break
        offset = end
        if len(line) > log.max_line:
            skipped.append(Skipped(end, f"longer than {log.max_line} bytes"))
            continue
        try:
            row = reader.read(line, end)
        except BadLine as error:
            skipped.append(Skipped(end, str(error)))
            continue
        if row is not None:
            rows.append(row)
    return rows, skipped, offset


def oldest(
    log: LogFile, start: Start, after: int, upto: int | None, limit: int
) -> tuple[list[Row], int]:
    """The first `limit` rows behind the offset `after`, and up to where that tells everything."""
    forward = Forward(log, start, log.line_start(after))
    begun = forward.position
    rows: list[Row] = []
    while len(rows) < limit and forward.position - begun < SCAN:
        before = forward.position
        piece = forward.read(limit - len(rows), upto)
        rows += piece.rows
        if not piece.more or forward.position == before:
            break
    return rows, log.line_start(forward.position)


def newest(log: LogFile, start: Start, first: int, last: int, limit: int) -> tuple[list[Row], int]:
    """The newest `limit` rows with first <= time <= last (Unix ms), oldest first; and up to where
    the file was read: its end, or before the first row that `last` cut off.

    Times are to rise roughly: rows may be out of order by 64 KiB of the file, not more.
    """
    end = log.line_start(log.size())
    begin = start.data
    latest = next((rows[-1] for rows in _blocks(log, start, begin, end) if rows), None)
    bound = end
    if latest is not None and latest["time"] > last:
        bound = min(end, log.line_start(_later(log, start, begin, end, last) + BLOCK))
    found: list[Row] = []
    cut = bound < end
    for rows in _blocks(log, start, begin, bound):
        fitting = [row for row in rows if first <= row["time"] <= last]
        cut = cut or any(row["time"] > last for row in rows)
        found[:0] = fitting[max(0, len(fitting) - (limit - len(found))) :]
        if len(found) >= limit or (rows and all(row["time"] < first for row in rows)):
            break
    if cut:
        end = found[-1]["offset"] if found else begin
    return found, end


def begins_before(log: LogFile, start: Start, first: int) -> bool:
    """Whether its first row is from before this moment (Unix ms)."""
    rows, _ = oldest(log, start, 0, None, 1)
    return bool(rows) and rows[0]["time"] < first


def _blocks(log: LogFile, start: Start, begin: int, end: int) -> Iterator[list[Row]]:
    """The rows between two line ends, block by block backwards, each block oldest first."""
    last = max(begin, end - SCAN)
    while end > last:
        size = BLOCK
        while True:
            low = max(begin, end - size)
            data = log.read(end - low, low)
            # the newline at the very end belongs to the last line
            newline = data.find(b"\n", 0, len(data) - 1) + 1 if low > begin else 0
            if newline or low == begin or size > log.max_line:
                break
            size *= 2
        if not newline and low > begin:
            end = max(begin, log.line_start(low))  # one line that is too long
            yield []
            continue
        low += newline
        yield _parse(log, start.reader, data[newline:], low, 1 << 62, None)[0]
        end = low


def _later(log: LogFile, start: Start, begin: int, end: int, last: int) -> int:
    """An offset around which the rows later than `last` begin."""
    low, high = begin, end
    while high - low > BLOCK:
        middle = log.line_start((low + high) // 2)
        forward = Forward(log, start, middle)
        row = _first(forward, high)
        if row is None or row["time"] > last:
            high = (low + high) // 2
        else:
            low = max(row["offset"], low + 1)
    return high


def _first(forward: Forward, end: int) -> Row | None:
    end = min(end, forward.position + LOOK)
    while forward.position < end:
        before = forward.position
        piece = forward.read(1, end)
        if piece.rows:
            return piece.rows[0]
        if forward.position == before:
            return None
    return None
