"""The status of one stream of a panel, of several causes, some of which end after a while."""

from math import inf
from typing import TypeVar

import anyio

from aiostream_ds._channels.status import Status
from aiostream_ds.upstream.message_queue import MessageQueue

__all__ = ["SHOWN", "PanelStatus"]

SHOWN = 30.0
"""Seconds for which a loss of rows is shown."""

MessageT = TypeVar("MessageT")

_SEVERITIES = ("error", "warning", "info")


class PanelStatus:
    """Collects what is to be shown; `change` returns it when it is different."""

    __slots__ = ("_active", "_dropped", "_shown")

    def __init__(self) -> None:
        self._dropped = 0
        self._active: dict[str, tuple[Status, float]] = {}
        self._shown = Status()

    def set(self, cause: str, status: Status | None, seconds: float = inf) -> None:
        """Show a status of this cause, for so many seconds. One without text removes it; None
        changes nothing."""
        if status is None:
            return
        if not status.text:
            self._active.pop(cause, None)
        else:
            self._active[cause] = status, anyio.current_time() + seconds

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shown or to be shown."""
        return not self._active and not self._shown.text

    async def next_message(self, messages: MessageQueue[MessageT]) -> MessageT | None:
        """The next message; None after a second without one, while a status is shown: it may end.
        Messages that the queue has dropped are a status."""
        if self.is_empty:
            message = await anext(messages)
        else:
            message = None
            with anyio.move_on_after(1.0):
                message = await anext(messages)
        if messages.dropped > self._dropped:
            self._dropped = messages.dropped
            noun = "message was" if self._dropped == 1 else "messages were"
            text = f"{self._dropped:,} {noun} dropped: they arrive faster than they are read"
            self.set("dropped", Status("warning", text), SHOWN)
        return message

    def change(self) -> Status | None:
        """What is to be shown from now on; None: the same as before."""
        if self.is_empty:
            return None
        now = anyio.current_time()
        self._active = {cause: each for cause, each in self._active.items() if each[1] > now}
        found = sorted(
            (status for status, _ in self._active.values()),
            key=lambda status: _SEVERITIES.index(status.severity),
        )
        text = "; ".join(status.text for status in found)
        status = Status(found[0].severity, text) if found else Status()
        if status == self._shown:
            return None
        self._shown = status
        return status
