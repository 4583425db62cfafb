"""The standard streams of a plugin process: one handshake line for the host, then JSON log lines.

The host reads one line of stdout and JSON lines on stderr, and waits for both pipes to close before
it restarts a plugin. So both pipes are moved to descriptors that no child inherits, and descriptors
1 and 2 become a pipe of this process: a thread makes log lines of what prints, C libraries and
child processes write there.
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
from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, Any, cast

from aiostream_ds._redaction import redact, settled
from aiostream_ds._telemetry import JsonLines

__all__ = ["StandardStreams", "redact_output"]

LINE_LIMIT = 4 * 1024
"""Characters of output in one log line; under 60 KiB even if JSON takes twelve bytes for each."""

UNSPLIT_LIMIT = 1 << 20
"""Characters of output without a line break that wait for the end of a secret."""

FLUSH_TIMEOUT = 0.2
"""Seconds that `StandardStreams.close` waits for output that is still in the pipe."""


class StandardStreams:
    """Descriptors 1 and 2 of a plugin process.

    Create it as early as possible, and only under a host: what Python has buffered for stdout
    becomes log lines, too. `log` is the host's stderr, for log lines. The end of the process closes
    it.
    """

    def __init__(self) -> None:
        self._handshake = os.dup(1)  # dup and pipe create descriptors that no child inherits
        self._stderr = os.dup(2)
        self._source, pipe = os.pipe()
        os.dup2(pipe, 1)
        os.dup2(pipe, 2)
        os.close(pipe)
        self._file = _LogFile(self._stderr)
        self.log = cast("IO[str]", self._file)
        self._end = os.urandom(16).hex()  # a line that nothing else writes
        self._closed = False
        _reopen("stdout", 1)
        _reopen("stderr", 2)
        with contextlib.suppress(OSError, RuntimeError):
            faulthandler.enable(self._stderr)  # a crash ends the thread, too
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._release_in_child)
        self._thread = threading.Thread(target=self._forward, name="output", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def announce(self, line: str) -> None:
        """Write the handshake line, the only one on the host's stdout."""
        os.write(self._handshake, line.encode() + b"\n")

    def close(self) -> None:
        """Forward the remaining output, then connect 1 and 2 to the host's stderr again.

        Blocks for up to FLUSH_TIMEOUT seconds. May be called again. Children that are still running
        write to a closed pipe from then on.
        """
        if self._closed:
            return
        self._closed = True
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # an author's code may have replaced it by None
                stream.flush()
        with contextlib.suppress(OSError, ValueError):
            # children may keep the pipe open, so wait for the end line; a full pipe has no reader
            if select.select((), (1,), (), FLUSH_TIMEOUT)[1]:
                os.write(1, f"\n{self._end}\n".encode())
                self._thread.join(FLUSH_TIMEOUT)
        os.dup2(self._stderr, 1)
        os.dup2(self._stderr, 2)

    def _release_in_child(self) -> None:
        # a fork keeps every descriptor: send its log lines through the pipe, as other output
        if not self._closed:
            self._closed = True
            self._file.renew_lock()
            os.close(self._handshake)
            os.close(self._source)
            os.dup2(2, self._stderr, inheritable=False)

    def _forward(self) -> None:
        formatter = JsonLines()
        for text in _split_lines(iter(partial(os.read, self._source, 64 * 1024), b"")):
            if text == self._end:
                return
            # not through a logger: an author's handler may write to stderr, which arrives here
            record = logging.LogRecord(
                "aiostream_ds.output", logging.INFO, "", 0, "%s", (text,), None
            )
            with contextlib.suppress(OSError):  # the host has exited; writers must not block
                self.log.write(formatter.format(record) + "\n")


def _reopen(name: str, descriptor: int) -> None:
    """Replace sys.stdout or sys.stderr: the old object may have an offset in a file, which a pipe
    has not. Output that it has buffered becomes log lines, too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        getattr(sys, name).flush()
    stream = open(
        descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def redact_output(*names: str) -> None:
    """Redact what Python code prints to these streams of a process that no host has started.

    Tracebacks of threads and of `traceback.print_exc` are printed, too, instead of logged.
    """
    for name in names:
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _RedactedStream):
            setattr(sys, name, _RedactedStream(stream))


class _RedactedStream:
    """A text stream that redacts whole lines. Thread-safe."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a signal handler may print while a line is written
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the complete lines; the rest waits for more, or for `flush`."""
        with self._lock:
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            if newline:
                self._stream.write(redact(lines) + newline)
            if len(self._rest) > UNSPLIT_LIMIT:
                self._write_rest()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write everything."""
        with self._lock:
            self._write_rest()
        self._stream.flush()

    def _write_rest(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, ""
            self._stream.write(redact(rest))


class _LogFile:
    """The host's stderr. Thread-safe; nothing is buffered."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.renew_lock()

    def renew_lock(self) -> None:
        self._lock = threading.Lock()  # in a forked child another thread may have held the old one

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]
        return len(text)

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""


def _split_lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """The lines of a byte stream, without empty ones; longer ones in parts of LINE_LIMIT."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        if len(rest) >= LINE_LIMIT:
            # not within a secret, of which neither part would be found
            whole = settled(rest) or (len(rest) if len(rest) > UNSPLIT_LIMIT else 0)
            lines, rest = [*lines, rest[:whole]], rest[whole:]
        for line in lines:
            yield from _split_line(line)
    yield from _split_line(rest + decoder.decode(b"", final=True))


def _split_line(line: str) -> Iterator[str]:
    line = redact(line.rstrip("\r"))  # before it is split
    for start in range(0, len(line), LINE_LIMIT):
        yield line[start : start + LINE_LIMIT]
