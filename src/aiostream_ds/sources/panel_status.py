"""The status of one stream of a panel, of several causes, some of which end after a while."""

from collections.abc import AsyncIterator
from math import inf
from typing import TypeVar

import anyio

from aiostream_ds._channels.status import Status

__all__ = ["SHOWN", "PanelStatus"]

SHOWN = 30.0
"""Seconds for which a loss of rows is shown."""

MessageT = TypeVar("MessageT")

_SEVERITIES = ("error", "warning", "info")


class PanelStatus:
    """Collects what is to be shown; `change` returns it when it is different."""

    __slots__ = ("_active", "_shown")

    def __init__(self) -> None:
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

    async def next_message(self, messages: AsyncIterator[MessageT]) -> MessageT | None:
        """The next message; None after a second without one, while a status is shown: it may end.
        The iterator must lose no message when it is cancelled, as those of an `Upstream`."""
        with anyio.move_on_after(inf if self.is_empty else 1.0):
            return await anext(messages)
        return None

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
