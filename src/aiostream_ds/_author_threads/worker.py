"""A thread that runs one call of an author's code after the other."""

import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import anyio

__all__ = ["Job", "Worker"]

_PACKAGE = os.path.dirname(__file__)


class Job:
    """One call of an author's code in a thread. `ended` is called there; it must not raise."""

    __slots__ = ("began", "context", "ended", "limiter", "name", "thread_id", "work")

    def __init__(
        self,
        name: str,
        work: Callable[[], Any],
        ended: Callable[[], None],
        context: Context,
        limiter: "anyio.CapacityLimiter | None",
    ) -> None:
        self.name = name
        self.limiter = limiter  # against which it counts
        self.work = work
        self.ended = ended
        self.context = context
        self.began = monotonic()
        self.thread_id = 0

    def run(self) -> None:
        self.thread_id = threading.get_ident()
        try:
            self.context.run(self.work)  # catches what the author raises
        finally:
            self.ended()

    @property
    def stack(self) -> str:
        """Where the thread is, innermost call last, from the author's first frame on."""
        frame = sys._current_frames().get(self.thread_id)
        if frame is None:
            return ""
        found = traceback.extract_stack(frame)
        own = [each.filename.startswith(_PACKAGE) for each in found]
        start = own.index(True) if True in own else 0
        while start < len(own) and own[start]:
            start += 1
        return "".join(traceback.format_list(found[start:])).rstrip()

    def __str__(self) -> str:
        return f"{self.name} ({monotonic() - self.began:.0f} s)"


class Worker(threading.Thread):
    """A thread that runs one job after the other, until it gets None."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            job.run()
            del job  # it may refer to large results
