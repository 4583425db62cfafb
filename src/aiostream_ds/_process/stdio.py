"""What the process writes: one handshake line for the host, JSON log lines for everything else.

The host reads stdout for one line only and stderr for JSON lines; it waits for both to close before
it restarts a plugin. So both pipes move to descriptors that no child inherits, and 1 and 2 become a
pipe of our own: prints, C libraries and children write there, a thread makes log lines of it.
May import telemetry.
"""

import atexit
import codecs
import contextlib
import faulthandler
import logging
import os
import select
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import IO, cast

from aiostream_ds._telemetry import JsonLines

__all__ = ["StandardStreams"]

PIECE = 4 * 1024
"""Characters of output in one log line; even if JSON takes twelve bytes for each, under 60 KiB."""

FLUSH_TIMEOUT = 0.2
"""Seconds that `StandardStreams.close` waits for output that is still in the pipe."""


class StandardStreams:
    """Descriptors 1 and 2 of a plugin process, from its first moment to its last.

    Make one, as early as possible and only under a host: what Python had buffered for stdout
    becomes log lines too. `log` is where log lines go: the host's stderr. The end of the process
    closes it.
    """

    def __init__(self) -> None:
        self._handshake = os.dup(1)  # dup and pipe give descriptors that no child inherits
        self._stderr = os.dup(2)
        self._source, pipe = os.pipe()
        os.dup2(pipe, 1)
        os.dup2(pipe, 2)
        os.close(pipe)
        self._file = _LogFile(self._stderr)
        self.log = cast("IO[str]", self._file)
        self._end = os.urandom(16).hex()  # a line that nobody else writes
        self._closed = False
        _reopen("stdout", 1)
        _reopen("stderr", 2)
        with contextlib.suppress(OSError, RuntimeError):
            faulthandler.enable(self._stderr)  # a crash takes the thread with it
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._release_in_child)
        self._thread = threading.Thread(target=self._forward, name="output", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def announce(self, line: str) -> None:
        """Write the handshake line, the only one that the host's stdout ever gets."""
        os.write(self._handshake, line.encode() + b"\n")

    def close(self) -> None:
        """Forward what is left, then give 1 and 2 back to the host's stderr; idempotent.

        May wait FLUSH_TIMEOUT seconds. Children that outlive us write into a closed pipe.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            # the pipe does not end while children hold it; if it is full, its reader is stuck
            if select.select((), (1,), (), FLUSH_TIMEOUT)[1]:
                os.write(1, f"\n{self._end}\n".encode())
                self._thread.join(FLUSH_TIMEOUT)
        os.dup2(self._stderr, 1)
        os.dup2(self._stderr, 2)

    def _release_in_child(self) -> None:
        # a fork keeps every descriptor: let its log lines take the way of all other output
        if not self._closed:
            self._closed = True
            self._file.renew_lock()
            os.close(self._handshake)
            os.close(self._source)
            os.dup2(2, self._stderr, inheritable=False)

    def _forward(self) -> None:
        formatter = JsonLines()
        for text in _pieces(iter(partial(os.read, self._source, 64 * 1024), b"")):
            if text == self._end:
                return
            # straight to the file: a handler of the author's may write to stderr, which comes back
            record = logging.LogRecord(
                "aiostream_ds.output", logging.INFO, "", 0, "%s", (text,), None
            )
            with contextlib.suppress(OSError):  # the host is gone; writers must not block on us
                self.log.write(formatter.format(record) + "\n")


def _reopen(name: str, descriptor: int) -> None:
    """A new sys.stdout or sys.stderr: the old one may stand at a place in a file, a pipe has none.
    What was printed so far becomes log lines too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        getattr(sys, name).flush()
    fresh = open(
        descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    setattr(sys, name, fresh)
    setattr(sys, f"__{name}__", fresh)


class _LogFile:
    """The host's stderr: a line is written by one thread at a time, and at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.renew_lock()

    def renew_lock(self) -> None:
        self._lock = threading.Lock()  # in a forked child: another thread may have held the old one

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]
        return len(text)

    def flush(self) -> None:
        """Nothing is ever kept."""


def _pieces(chunks: Iterator[bytes]) -> Iterator[str]:
    """The lines of a byte stream as text, without empty ones, long ones in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        if len(rest) >= PIECE:
            whole = len(rest) - len(rest) % PIECE
            lines, rest = [*lines, rest[:whole]], rest[whole:]
        for line in lines:
            yield from _cut(line)
    yield from _cut(rest + decoder.decode(b"", final=True))


def _cut(line: str) -> Iterator[str]:
    line = line.rstrip("\r")
    for start in range(0, len(line), PIECE):
        yield line[start : start + PIECE]
