"""`aiostream-ds record [FILE.py[:Class]] PATH OUT`: writes the live packets of a path to a file.

The source `recorded` plays it. The file's format is described in sources/recorded/recording.py.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import IO

import anyio

from aiostream_ds.cli.arguments import add_count, add_operands, add_settings, split_operands
from aiostream_ds.cli.live import follow, until_refused
from aiostream_ds.cli.local_plugin import load_plugin, run_async
from aiostream_ds.cli.target import CommandError
from aiostream_ds.sources.recorded.recording import Recorder
from aiostream_ds.testing.viewer import Viewer

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_operands(command, "PATH", "OUT")
    add_count(command, "stop after at least N rows")
    command.add_argument(
        "--seconds", type=_seconds, default=None, metavar="S", help="stop after S seconds"
    )
    add_settings(command)


def run(parsed: argparse.Namespace) -> int:
    """Record until the limit, the stream's end or Ctrl-C."""
    file, (path, out) = split_operands(parsed)
    plugin = load_plugin(file, parsed)
    recording = _Recording(plugin.path(path), Path(out), parsed.count, parsed.seconds)

    async def record() -> None:
        async with plugin.grafana() as (grafana, status):
            viewer = await follow(grafana, recording.path)
            async with until_refused(recording.path, status):
                await recording.run(viewer)

    try:
        run_async(record)
    except KeyboardInterrupt:
        if recording.recorder is None:
            raise
    finally:
        recording.close()
    print(recording.summary(), file=sys.stderr)
    return 0


class _Recording:
    """A file that is being written; `recorder` is None until the subscription is accepted."""

    def __init__(self, path: str, out: Path, count: int, seconds: float | None) -> None:
        self.recorder: Recorder | None = None
        self.path = path
        self._out = out
        self._count = count
        self._seconds = seconds
        self._file: IO[bytes] | None = None

    def open(self) -> Recorder:
        """Create the file.

        Raises:
            CommandError: It exists, or cannot be created.
        """
        try:
            self._file = self._out.open("xb")
        except OSError as error:
            raise CommandError(f"{str(self._out)!r} cannot be created: {error.strerror}") from None
        self.recorder = Recorder(self._file, self.path, time.time_ns() // 1_000_000)
        return self.recorder

    def close(self) -> None:
        """Close the file; all its lines are complete."""
        if self._file is not None:
            self._file.close()

    def summary(self) -> str:
        """The numbers of rows and packets in the file."""
        found = self.recorder
        rows, packets = (found.rows, found.packets) if found is not None else (0, 0)
        return f"{rows} rows in {packets} packets: {self._out}"

    async def run(self, viewer: Viewer) -> None:
        """Write the packets that the viewer receives."""
        recorder = self.open()
        started = anyio.current_time()
        with anyio.move_on_after(self._seconds):
            try:
                while not self._count or recorder.rows < self._count:
                    await viewer.next(timeout=None)
                    t = anyio.current_time() - started
                    for payload in viewer.packets:
                        self._add(recorder, payload, t)
                    await viewer.take(len(viewer.rows) - 1)
                    viewer.forget()
            except anyio.EndOfStream as end:
                print(f"{end}.", file=sys.stderr)

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
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return seconds
