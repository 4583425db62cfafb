"""`aiostream-ds push PATH [FILE]`: pushes the rows that a program prints, or those of a file.

    my_program | aiostream-ds push lab/run-1
    aiostream-ds push lab/run-1 log.ndjson --follow

Exit status: 0 all rows were taken; 1 some were refused or not sent, or no line was a row; 2 wrong
usage; 130 Ctrl-C, 143 SIGTERM. A line that is not a row is reported and left out.
"""

import argparse
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiostream_ds.cli.command_errors import CommandError, UsageError
from aiostream_ds.cli.push_lines import LINE_LIMIT, Line, read_file, read_pipe
from aiostream_ds.cli.push_rows import FORMATS, BadLine, LineRows
from aiostream_ds.cli.push_signals import PushSignals

if TYPE_CHECKING:
    from aiostream_ds.push import Push

__all__ = ["arguments", "run"]

WAIT = 30.0
"""Seconds to wait at the end for rows without an answer."""

PROGRESS_INTERVAL = 0.5
"""Seconds between two lines of progress on a terminal."""

REPORTED_LINES = 5
"""Lines that are not rows, of which each is reported; the rest is counted."""

_STEP = 0.5  # seconds that a full buffer blocks before signals are looked at


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument(
        "operands",
        nargs="+",
        metavar="PATH [FILE]",
        help="the channel, such as lab/run-1, and a file instead of standard input; with --follow"
        " FILE alone is enough: its name is the channel",
    )
    command.add_argument("--follow", action="store_true", help="wait for more lines of the file")
    server = command.add_argument_group("the server")
    server.add_argument(
        "--url",
        help="Grafana, the page of the data source in it, or the console; default:"
        " AIOSTREAM_DS_PUSH_URL, or the console on this machine",
    )
    server.add_argument("--uid", help="the uid of the data source in Grafana")
    server.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the token of a service account; default: AIOSTREAM_DS_PUSH_TOKEN",
    )
    server.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates (PEM) that sign the server's"
    )
    rows = command.add_argument_group("rows")
    rows.add_argument(
        "--format", choices=FORMATS, default="auto", help="of the lines; default: %(default)s"
    )
    rows.add_argument(
        "--names", metavar="A,B,…", default="", help="the columns of CSV without a header"
    )
    rows.add_argument(
        "--time", metavar="KEY", default="time", help="the key of the time; default: %(default)s"
    )
    rows.add_argument(
        "--time-unit",
        choices=("auto", "s", "ms", "us", "ns"),
        default="auto",
        help="of times that are numbers; default: auto, by their size",
    )
    command.add_argument(
        "--drop-oldest",
        action="store_true",
        help="lose the oldest rows when too many wait; default: the program waits",
    )
    command.add_argument(
        "--wait",
        type=_seconds,
        default=WAIT,
        metavar="S",
        help="seconds to wait for the server at the end; default: %(default)g",
    )
    command.add_argument("--tee", action="store_true", help="copy the input to standard output")
    command.add_argument("--quiet", action="store_true", help="print errors only")


def run(parsed: argparse.Namespace) -> int:
    """Push until the input ends."""
    path, file = _operands(parsed)
    screen = _Screen(parsed.quiet)
    with PushSignals() as signals:
        return _Run(parsed, path, file, screen, signals).run()


def _operands(parsed: argparse.Namespace) -> tuple[str, Path | None]:
    """The channel, and the file. Raises UsageError."""
    operands = parsed.operands
    if len(operands) > 2:
        raise UsageError(f"expected PATH or PATH FILE, got {' '.join(operands)!r}")
    if len(operands) == 2:
        return operands[0], Path(operands[1])
    if parsed.follow:
        file = Path(operands[0])
        return file.name.partition(".")[0], file
    return operands[0], None


class _Screen:
    """Standard error: messages, and a line of progress if it is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._has_progress = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._next = 0.0
        self._shown = ""

    def error(self, text: str) -> None:
        self._write(f"{self._clear()}aiostream-ds push: {text}\n")

    def note(self, text: str) -> None:
        if not self._quiet:
            self.error(text)

    def progress(self, push: "Push", bad: int) -> None:
        now = time.monotonic()
        if not self._has_progress or now < self._next:
            return
        self._next = now + PROGRESS_INTERVAL
        text = _summary(push, bad)
        self._write(f"{self._clear()}{text}")
        self._shown = text

    def _clear(self) -> str:
        shown, self._shown = self._shown, ""
        return "\r\x1b[K" if shown else ""

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            self._has_progress = False  # nobody reads it any more: rows are pushed nevertheless


class _LogToScreen(logging.Handler):
    """The client's log: what it repeats, drops and refuses."""

    def __init__(self, screen: _Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.error(record.getMessage())


class _Run:
    """One push, from its input to the last answer."""

    def __init__(
        self,
        parsed: argparse.Namespace,
        path: str,
        file: Path | None,
        screen: _Screen,
        signals: PushSignals,
    ) -> None:
        self._parsed = parsed
        self._file = file
        self._screen = screen
        self._signals = signals
        self._tees = parsed.tee
        self._lines = 0
        self._bad = 0
        self._ends = 0  # of a file, after a signal
        names = [name.strip() for name in parsed.names.split(",")] if parsed.names else []
        self._names = names
        self._push = self._client(path)
        self._rows = LineRows(parsed.format, names, parsed.time)

    def _client(self, path: str) -> "Push":
        from aiostream_ds.push import Push
        from aiostream_ds.push.addresses import read_token

        parsed = self._parsed
        try:
            return Push(
                parsed.url,
                path,
                uid=parsed.uid,
                token=read_token(parsed.token_file) if parsed.token_file else None,
                time=parsed.time,
                time_unit=parsed.time_unit,
                full="drop_oldest" if parsed.drop_oldest else "block",
                ca_file=parsed.ca_file,
            )
        except OSError as error:
            raise CommandError(f"{str(parsed.token_file)!r}: {error.strerror}") from None
        except (ValueError, ModuleNotFoundError) as error:
            raise CommandError(str(error)) from None

    @property
    def _left_out(self) -> int:
        return self._bad + self._rows.left_out

    def _begin(self) -> None:
        """Read the lines of another file: it may have another header."""
        self._bad = self._left_out
        self._rows = LineRows(self._parsed.format, self._names, self._parsed.time)

    def run(self) -> int:
        """Push all lines. Returns the exit status."""
        from aiostream_ds.push import PushError, PushRejected

        logger = logging.getLogger("aiostream_ds.push")
        handler = _LogToScreen(self._screen)
        logger.addHandler(handler)
        logger.propagate = False
        failed = False
        try:
            for line in self._input():
                if line is not None:
                    self._send(line)
                self._screen.progress(self._push, self._left_out)
                if self._signals.number and self._is_over(line):
                    break
            self._rows.end()
            self._push.close(self._time_left())
        except PushRejected:
            failed = True  # it is logged
        except PushError as error:
            self._screen.error(str(error))
            failed = True
        except KeyboardInterrupt:
            waiting = self._push.counts.waiting
            self._screen.error(f"stopped; {waiting:,} rows have no answer")
        finally:
            self._stop()
            logger.removeHandler(handler)
            logger.propagate = True
        return self._status(failed)

    def _stop(self) -> None:
        """End without waiting: what could be sent was sent."""
        try:
            self._push.close(0.0)
        except Exception:
            pass  # it is reported

    def _status(self, failed: bool) -> int:
        counts = self._push.counts
        self._screen.note(_summary(self._push, self._left_out))
        if self._signals.number:
            return 128 + self._signals.number
        lost = counts.refused or counts.dropped or counts.waiting
        is_nothing = self._left_out > 0 and not counts.sent
        return 1 if failed or lost or is_nothing else 0

    def _input(self) -> Iterator[Line | None]:
        wake = self._signals.wake
        if self._file is None:
            if self._parsed.follow:
                raise UsageError("--follow needs a FILE")
            if sys.stdin is None:
                raise CommandError("there is no standard input")
            return _in_words("standard input", read_pipe(sys.stdin.fileno(), wake))
        follow = self._parsed.follow
        lines = read_file(self._file, wake, follow=follow, replaced=self._begin)
        return _in_words(repr(str(self._file)), lines)

    def _send(self, line: Line) -> None:
        self._lines += 1
        if self._tees:
            self._copy(line)
        try:
            if line.is_long:
                raise BadLine(f"expected at most {LINE_LIMIT:,} bytes, got more")
            for row in self._rows.read(line.text):
                self._send_row(row)
        except (BadLine, ValueError, TypeError) as error:
            self._bad += 1
            if self._bad <= REPORTED_LINES:
                self._screen.error(f"line {line.number}: {error}")
            if self._bad == REPORTED_LINES:
                self._screen.note("further lines that are not rows are only counted")

    def _send_row(self, row: dict[str, Any]) -> None:
        while True:
            try:
                self._push.send(row, timeout=_STEP)
                return
            except TimeoutError:
                self._screen.progress(self._push, self._left_out)
                if self._signals.number and self._time_left() == 0:
                    raise

    def _copy(self, line: Line) -> None:
        try:
            sys.stdout.buffer.write(line.data + b"\n")
            sys.stdout.buffer.flush()
        except (OSError, ValueError):
            self._tees = False  # the next program has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def _is_over(self, line: Line | None) -> bool:
        """Whether the input ends after a signal: a pipe when the program before it has ended, which
        may have got the signal, too, and prints its last rows; a file that is followed at the end
        of what was written before the signal; a file at once."""
        if self._time_left() == 0:
            return True
        if self._file is None:
            return not _is_pipe(sys.stdin.fileno())
        if line is None:
            self._ends += 1
        return not self._parsed.follow or self._ends > 1  # the first end may be of before

    def _time_left(self) -> float:
        """The seconds to wait for the last rows; after a signal from then on."""
        wait: float = self._parsed.wait
        if not self._signals.number:
            return wait
        return max(0.0, self._signals.since + wait - time.monotonic())


def _in_words(name: str, lines: Iterator[Line | None]) -> Iterator[Line | None]:
    """The lines. Raises CommandError where these raise OSError."""
    try:
        yield from lines
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}") from None


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _summary(push: "Push", bad: int) -> str:
    counts = push.counts
    parts = [_counted(counts.taken, "row") + " taken"]
    for number, text in (
        (counts.waiting, "not answered yet"),
        (counts.refused, "refused"),
        (counts.dropped, "dropped"),
    ):
        if number:
            parts.append(f"{number:,} {text}")
    if bad:
        parts.append(_counted(bad, "line") + " left out")
    text = ", ".join(parts)
    return f"{text}; {counts.last_error}" if counts.last_error else text


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds of at least 0, got {text!r}")
    return seconds
