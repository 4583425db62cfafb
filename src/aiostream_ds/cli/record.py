"""`aiostream-ds record [FILE.py[:Class]] PATH OUT`: the live packets of one path, in a file.

The source `recorded` plays it. Its format is described in sources/recorded/recording.py.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import IO

import anyio

from aiostream_ds.cli.arguments import add_count, add_settings, add_words, split_words
from aiostream_ds.cli.live import follow
from aiostream_ds.cli.opened import open_target, run_loop
from aiostream_ds.cli.target import CommandError
from aiostream_ds.sources.recorded.recording import Recorder
from aiostream_ds.testing.viewer import Viewer

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add_words(command, "PATH", "OUT")
    add_count(command, "end after so many rows or more")
    command.add_argument(
        "--seconds", type=_seconds, default=None, metavar="S", help="end after so many seconds"
    )
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Record until there is enough, the stream ends, or Ctrl-C."""
    file, (path, out) = split_words(parsed)
    opened = open_target(file, parsed)
    recording = _Recording(path, Path(out), parsed.count, parsed.seconds)

    async def record() -> None:
        async with opened.grafana() as grafana:
            await recording.run(await follow(grafana, path))

    try:
        run_loop(record)
    except KeyboardInterrupt:
        if recording.recorder is None:
            raise
    finally:
        recording.close()
    print(recording.summary(), file=sys.stderr)
    return 0


class _Recording:
    """One file while it is written; `recorder` once the viewer was let in."""

    def __init__(self, path: str, out: Path, count: int, seconds: float | None) -> None:
        self.recorder: Recorder | None = None
        self._path = path
        self._out = out
        self._count = count
        self._seconds = seconds
        self._file: IO[bytes] | None = None

    def open(self) -> Recorder:
        """Makes the file. Raises CommandError when it is there, or cannot be made."""
        try:
            self._file = self._out.open("xb")
        except OSError as error:
            raise CommandError(f"{str(self._out)!r} cannot be made: {error.strerror}") from None
        self.recorder = Recorder(self._file, self._path, time.time_ns() // 1_000_000)
        return self.recorder

    def close(self) -> None:
        """Closes the file, which is whole then."""
        if self._file is not None:
            self._file.close()

    def summary(self) -> str:
        """What is in the file."""
        found = self.recorder
        rows, packets = (found.rows, found.packets) if found is not None else (0, 0)
        return f"{rows} rows in {packets} packets: {self._out}"

    async def run(self, viewer: Viewer) -> None:
        """Write what the viewer receives."""
        recorder = self.open()
        begun = anyio.current_time()
        with anyio.move_on_after(self._seconds):
            try:
                while not self._count or recorder.rows < self._count:
                    await viewer.next(timeout=None)
                    t = anyio.current_time() - begun
                    for payload in viewer.packets:
                        self._add(recorder, payload, t)
                    await viewer.take(len(viewer.rows) - 1)
                    viewer.forget()
            except anyio.EndOfStream as ended:
                print(f"{ended}.", file=sys.stderr)

    def _add(self, recorder: Recorder, payload: bytes, t: float) -> None:
        try:
            recorder.add(payload, t)
        except OSError as error:
            raise CommandError(f"{str(self._out)!r}: {error.strerror}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
