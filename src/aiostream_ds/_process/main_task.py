"""The plugin's main task, which an author's code cannot end.

It can stop the event loop, raise SystemExit or KeyboardInterrupt in a task or callback of its own,
or cancel all tasks (see `keep_running`). The loop then goes on.
"""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any

from aiostream_ds._author_code import cancel
from aiostream_ds._loggers import get_logger

__all__ = ["run_main_task"]

log = get_logger(__name__)


def run_main_task(runner: asyncio.Runner, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end.

    Raises KeyboardInterrupt after Ctrl-C, which cancels the task; a second one raises at once.
    """
    loop = runner.get_loop()
    task = loop.create_task(work, name="main")
    interrupts = _Interrupts(loop, task)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            if interrupts.count > 1:
                raise KeyboardInterrupt from error
            if task.done():
                break
            log.error("an author's code has stopped the event loop; it goes on", exc_info=error)
    if interrupts.count:
        raise KeyboardInterrupt
    task.result()


class _Interrupts:
    """The first Ctrl-C cancels the main task, the second ends the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
        self.count = 0
        self._loop = loop
        self._task = task
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(cancel, self._task)
