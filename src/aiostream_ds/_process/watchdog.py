"""Logs code that blocks the event loop: every stream and every call waits for it.

A thread checks a heartbeat that a task of the event loop updates. When the heartbeat is late, the
thread logs the stack of the loop's thread, which has the line that blocks.
"""

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from aiostream_ds._loggers import get_logger

__all__ = ["BLOCKED_AFTER", "watch_loop"]

log = get_logger(__name__)

BLOCKED_AFTER = 0.5
"""Seconds without an iteration of the event loop after which it counts as blocked."""


class _Watch:
    def __init__(self) -> None:
        self.last_heartbeat = time.monotonic()
        self.thread_id = threading.get_ident()
        self.done = threading.Event()

    def run(self) -> None:
        reported = 0.0
        while not self.done.wait(BLOCKED_AFTER / 2):
            last_heartbeat = self.last_heartbeat
            if time.monotonic() - last_heartbeat > BLOCKED_AFTER and last_heartbeat != reported:
                reported = last_heartbeat  # once for each time it is blocked
                frame = sys._current_frames().get(self.thread_id)
                where = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""
                log.warning(
                    "the event loop is blocked for more than %.1f s, and every stream of the "
                    "plugin waits; use await, or run the code in a thread "
                    "(anyio.to_thread.run_sync)",
                    BLOCKED_AFTER,
                    extra={"stack": where},
                )


async def _beat(watch: _Watch) -> None:
    while True:
        watch.last_heartbeat = time.monotonic()
        await anyio.sleep(BLOCKED_AFTER / 5)


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
