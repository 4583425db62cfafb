"""Ctrl-C and SIGTERM while rows are pushed: the first one ends the input, the second one all."""

import os
import signal
import time
from types import FrameType
from typing import Any, Self

__all__ = ["PushSignals"]


class PushSignals:
    """Handles SIGINT and SIGTERM in the main thread while the block runs.

    `number` is that of the first signal, else 0; `wake` is readable when it has come. A second one
    raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.number = 0
        self.since = 0.0
        self.wake, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # as of a program in the background of a shell
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self.wake)
        os.close(self._write)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        self.since = time.monotonic()
        os.write(self._write, b"!")
