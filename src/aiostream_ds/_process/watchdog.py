"""Logs author's code that blocks the event loop: every stream and every call waits for it.

A thread checks a heartbeat that a task of the event loop updates. When the heartbeat is late and
the loop's thread runs author's code, the thread logs its stack, which has the line that blocks; a
stream then lets the event loop run at its next `yield`. A loop that is late without it waits for a
processor: the machine is busy.
"""

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import anyio

from aiostream_ds._loggers import get_logger

__all__ = ["BLOCKED_AFTER", "watch_loop"]

log = get_logger(__name__)

BLOCKED_AFTER = 0.5
"""Seconds without an iteration of the event loop after which it counts as blocked."""

SAME_LINE_AGAIN = 60.0
"""Seconds for which the same line that blocks the event loop again is not logged."""

_LIBRARIES = ("anyio", "grpclib", "h2", "hpack", "hyperframe", "starlette", "uvicorn", "websockets")
_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(anyio.__file__))) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_RUNTIME = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *(_PACKAGES + library + os.sep for library in _LIBRARIES),
    "<frozen",
)


def _is_author_file(file: str) -> bool:
    """Whether it is not of the runtime, of Python or of a library that drives the event loop."""
    if file.startswith(_RUNTIME):
        return False
    # packages may be installed in a folder of Python's library
    return file.startswith(_PACKAGES) or not file.startswith(_PYTHON)


def _outer_frames() -> set[FrameType]:
    """The frames of the caller and below it, down to the program's: they start the loop."""
    found: set[FrameType] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found.add(frame)
        frame = frame.f_back
    return found


class _Watch:
    def __init__(self) -> None:
        self.outer_frames = _outer_frames()
        self.last_heartbeat = time.monotonic()
        self.thread_id = threading.get_ident()
        self.done = threading.Event()
        self._logged: dict[tuple[str, int], float] = {}  # when, by the line of the author

    def run(self) -> None:
        reported = 0.0
        while not self.done.wait(BLOCKED_AFTER / 2):
            last_heartbeat = self.last_heartbeat
            if time.monotonic() - last_heartbeat > BLOCKED_AFTER:
                innermost = sys._current_frames().get(self.thread_id)
                line = self._authors_line(innermost)
                if line is not None:
                    _pause_generator(innermost)
                if last_heartbeat != reported:  # once for each time it is blocked
                    reported = last_heartbeat
                    self._report(innermost, line)

    def _report(self, innermost: FrameType | None, line: tuple[str, int] | None) -> None:
        if line is None:
            log.debug("the event loop waits for a processor for %.1f s", BLOCKED_AFTER)
            return
        now = time.monotonic()
        if now - self._logged.get(line, -SAME_LINE_AGAIN) < SAME_LINE_AGAIN:
            return
        self._logged[line] = now
        log.warning(
            "the event loop is blocked for more than %.1f s, and every stream of the "
            "plugin waits; use await, or write the method as a `def`, which runs in a thread",
            BLOCKED_AFTER,
            extra={"stack": "".join(traceback.format_stack(innermost)[-6:])},
        )

    def _authors_line(self, innermost: FrameType | None) -> tuple[str, int] | None:
        """File and line of the innermost code of an author. None: the runtime's own code runs."""
        frame = innermost
        while frame is not None and frame not in self.outer_frames:
            if _is_author_file(frame.f_code.co_filename):
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back
        return None


def _pause_generator(innermost: FrameType | None) -> None:
    if "aiostream_ds._streams.producer" in sys.modules:  # else no stream runs
        from aiostream_ds._streams.producer import pause_generator

        pause_generator(innermost)


async def _beat(watch: _Watch) -> None:
    while True:
        watch.last_heartbeat = time.monotonic()
        await asyncio.sleep(BLOCKED_AFTER / 5)


@contextmanager
def _thread(watch: _Watch) -> Iterator[None]:
    thread = threading.Thread(target=watch.run, name="loop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.done.set()
        thread.join()


async def watch_loop() -> None:
    """Watch the running event loop until cancelled."""
    watch = _Watch()
    with _thread(watch):
        await _beat(watch)
