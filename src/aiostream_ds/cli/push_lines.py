"""The lines of standard input or of a file, also while the file grows."""

import os
import re
import select
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["LINE_LIMIT", "Line", "read_file", "read_pipe"]

LINE_LIMIT = 1_000_000
"""Bytes of a line; longer ones are left out."""

FOLLOW_INTERVAL = 0.1
"""Seconds between two looks at a file that grows."""

IDLE = 0.5
"""Seconds after which a reader without input yields None."""

_CHUNK = 1 << 16
_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # progress bars end their lines with \r


class Line(NamedTuple):
    """A line without its end. `is_long`: it is longer than LINE_LIMIT, and is cut."""

    number: int
    data: bytes
    is_long: bool = False

    @property
    def text(self) -> str:
        """Its text; other bytes than UTF-8 are replaced."""
        return self.data.decode("utf-8-sig" if self.number == 1 else "utf-8", "replace")


class _Lines:
    """Cuts bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._number = 0
        self._is_long = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        if self._is_long or len(self._rest) > LINE_LIMIT:
            self._is_long = True
            del self._rest[LINE_LIMIT:]
        self._rest += data
        *lines, rest = _END.split(bytes(self._rest))
        self._rest = bytearray(rest)
        for line in lines:
            yield self._line(line)

    def end(self) -> Iterator[Line]:
        """The last line, if it has no end."""
        if self._rest:
            yield self._line(bytes(self._rest.removesuffix(b"\r")))
            self._rest = bytearray()

    def _line(self, data: bytes) -> Line:
        self._number += 1
        is_long = self._is_long or len(data) > LINE_LIMIT
        self._is_long = False
        return Line(self._number, data[:LINE_LIMIT], is_long)


def read_pipe(descriptor: int, wake: int) -> Iterator[Line | None]:
    """The lines of standard input until its end; None when `wake` is readable, and each IDLE
    seconds without input."""
    lines = _Lines()
    while True:
        ready, _, _ = select.select([descriptor, wake], [], [], IDLE)
        if descriptor not in ready:
            _drain(wake, ready)
            yield None
            continue
        data = os.read(descriptor, _CHUNK)
        if not data:
            break
        yield from lines.feed(data)
    yield from lines.end()


def read_file(
    path: Path, wake: int, *, follow: bool, replaced: Callable[[], None]
) -> Iterator[Line | None]:
    """The lines of a file; with `follow` also those that are written later, of files that replace
    it, and after a truncation. Yields None at the end of what there is.

    `replaced` is called before the lines of another file, or of one that begins again. Raises
    OSError if the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = _Lines()
        while True:
            data = os.read(descriptor, _CHUNK)
            if data:
                yield from lines.feed(data)
                continue
            if not follow:
                yield from lines.end()
                return
            yield None
            ready, _, _ = select.select([wake], [], [], FOLLOW_INTERVAL)
            _drain(wake, ready)
            change = _change(path, descriptor)
            if not change:
                continue
            # what was written to the old file before it was replaced
            while data := os.read(descriptor, _CHUNK):
                yield from lines.feed(data)
            yield from lines.end()
            replaced()
            lines = _Lines()
            if change == "truncated":
                os.lseek(descriptor, 0, os.SEEK_SET)
            else:
                other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(other, descriptor, inheritable=False)
                os.close(other)
    finally:
        os.close(descriptor)


def _change(path: Path, descriptor: int) -> str:
    """What became of the file: "truncated", "replaced", or ""."""
    mine = os.fstat(descriptor)
    try:
        found = os.stat(path)
    except OSError:
        return ""  # between a rotation's rename and the new file
    if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
        return "replaced" if stat.S_ISREG(found.st_mode) else ""
    is_shorter = found.st_size < os.lseek(descriptor, 0, os.SEEK_CUR)
    return "truncated" if is_shorter else ""


def _drain(wake: int, ready: list[int]) -> None:
    if wake in ready:
        os.read(wake, 1024)
