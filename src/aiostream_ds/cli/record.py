"""`aiostream-ds record [FILE.py[:Class]] PATH OUT`: the live packets of one path, in a file.

The source `recorded` plays it. Its format is described in sources/recording.py.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import IO

import anyio

from aiostream_ds import telemetry
from aiostream_ds.cli.live import follow
from aiostream_ds.cli.target import CommandError, add_settings, find_target, pairs, positive
from aiostream_ds.grafana.application import background_tasks, open_application
from aiostream_ds.grafana.watchdog import watch_loop
from aiostream_ds.plugin.catalog import Catalog
from aiostream_ds.sources.recording import Recorder
from aiostream_ds.testing.grafana import open_grafana
from aiostream_ds.testing.viewer import Viewer

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument(
        "words", nargs="+", metavar="[FILE.py[:Class]] PATH OUT",
        help="an author's file (default: the built-in plugin), the path to follow, the new file",
    )  # fmt: skip
    command.add_argument("--count", type=positive, default=0, help="end after so many rows or more")
    command.add_argument(
        "--seconds", type=_seconds, default=None, metavar="S", help="end after so many seconds"
    )
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Record until there is enough, the stream ends, or Ctrl-C."""
    words = parsed.words
    if not 2 <= len(words) <= 3:
        print(f"aiostream-ds record: give PATH and OUT, not {words}", file=sys.stderr)
        return 2
    *file, path, out = words
    target, by = find_target(file[0] if file else None)
    telemetry.configure(text=True)
    settings, secure = pairs(parsed.settings), pairs(parsed.secret, plain=True)
    recording = _Recording(path, Path(out), parsed.count, parsed.seconds)

    async def record() -> None:
        catalog = Catalog(target, by)
        async with background_tasks() as tasks, open_application(catalog) as application:
            tasks.start_soon(watch_loop)
            async with open_grafana(
                application, settings=settings, secure=secure, uid="local"
            ) as grafana:
                await recording.run(await follow(grafana, path))

    try:
        anyio.run(record)
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
