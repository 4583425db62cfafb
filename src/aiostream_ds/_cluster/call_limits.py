"""How much a node asks of the engine at a time.

After an outage, a reconnection or a start all channels of a node have calls to make. If all of
these were sent at once, the last ones would be answered after their time limit, when the work for
them is done. They would be repeated, and no channel would ever be done. So they wait for each other
in this process, where waiting is not a failure.
"""

import asyncio
from typing import Protocol

__all__ = ["CallSlots", "JoinTurns"]

_CALLS = 64  # that wait for an answer, of all channels of a node; appends are not counted
_JOINS = 32  # channels that join


class Slot:
    """One of the calls. `end` may be called twice."""

    __slots__ = ("_free", "_timer")

    def __init__(self, free: asyncio.Semaphore, seconds: float) -> None:
        self._free: asyncio.Semaphore | None = free
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        """The call has ended."""
        if self._free is not None:
            self._timer.cancel()
            self._free.release()
            self._free = None


class CallSlots:
    """Limits the calls that wait for an answer.

    Args:
        seconds: after which a call is not counted any more. An engine may have stopped to answer
            for some of the channels only.
    """

    def __init__(self, seconds: float) -> None:
        self._free, self._seconds = asyncio.Semaphore(_CALLS), seconds

    async def begin(self) -> Slot:
        """Wait until another call may be sent. The first one that waits is the first one that goes
        on; it ends what it gets."""
        await self._free.acquire()
        return Slot(self._free, self._seconds)


class Waiting(Protocol):
    """A channel that waits for its turn."""

    def wake(self) -> None:
        """It has its turn now."""


class JoinTurns:
    """Limits the channels that join. A channel whose upstream runs on this node alone lets it run
    until its turn.

    Attributes:
        failures: how often a channel that had a turn could not join.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._joining: set[Waiting] = set()
        self._waiting: dict[Waiting, None] = {}

    def ask(self, channel: Waiting) -> bool:
        """Whether it is the channel's turn. If not, it is woken then."""
        if channel in self._joining:
            return True
        if len(self._joining) < _JOINS:
            self._waiting.pop(channel, None)
            self._joining.add(channel)
            return True
        self._waiting[channel] = None
        return False

    def end(self, channel: Waiting) -> None:
        """The channel has joined, or does not want to. May be called twice."""
        self._waiting.pop(channel, None)
        if channel in self._joining:
            self._joining.remove(channel)
            if self._waiting:
                following = next(iter(self._waiting))
                del self._waiting[following]
                self._joining.add(following)
                following.wake()
