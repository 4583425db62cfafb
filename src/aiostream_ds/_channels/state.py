"""The states of a channel's life, and what a channel asks of the registry that owns it.

Imports its own room; the picture of the states is in channel.py.
"""

import asyncio
import enum
from typing import TYPE_CHECKING, Protocol

from aiostream_ds._channels.observer import Observer

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Owner", "State", "cancelled_from_within"]


class State(enum.Enum):
    """Where a channel is in its life."""

    OPENING = "opening"
    RUNNING = "running"
    LINGERING = "lingering"
    CLOSING = "closing"
    CLOSED = "closed"


class Owner(Protocol):
    """What a channel asks of the registry it belongs to, and tells it. `channel` is a Channel."""

    loop: asyncio.AbstractEventLoop
    observer: Observer
    close_timeout: float

    def _retire(self, channel: "Any") -> None: ...
    def _forget(self, channel: "Any") -> None: ...
    def _give_up_waiting(self, former: "Any") -> None: ...


def cancelled_from_within(cause: BaseException | None) -> RuntimeError:
    """What a stream ends with whose awaited task or future was cancelled."""
    error = RuntimeError("the stream was cancelled, but not by its readers: what it awaited was")
    error.__cause__ = cause
    return error
