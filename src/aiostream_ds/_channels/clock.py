"""The clock and the timers of an event loop, as far as a channel's status and its log use them."""

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Clock", "Timer"]


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What an event loop has of a clock."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer: ...
