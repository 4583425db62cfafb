"""Notices code that blocks the event loop: every stream and every answer waits for it.

A thread looks at a clock that the loop keeps winding. When it stands still, the thread logs where
the loop's thread is, which is the line that should have been an `await` or run in a thread.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["BLOCKED_AFTER", "watch_loop"]

log = logging.getLogger(__name__)

BLOCKED_AFTER = 0.5
"""Seconds without a turn of the loop after which it counts as blocked."""


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
                reported = last_heartbeat  # once for each time it stands still
                frame = sys._current_frames().get(self.thread_id)
                where = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""
                log.warning(
                    "the event loop is blocked for over %.1f s: every stream of the plugin waits. "
                    "Await it, or run it in a thread (anyio.to_thread.run_sync)",
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
    """Runs until cancelled, in the loop that it watches."""
    watch = _Watch()
    with _thread(watch):
        await _beat(watch)
