"""How much a node asks of the engine at a time.

After an outage, a reconnection or a start all channels of a node have calls to make. If all of
these were sent at once, the last ones would be answered after their time limit, when the work for
them is done. They would be repeated, and no channel would ever be done. So they wait for each other
in this process, where waiting is not a failure. The slower the answers are, the fewer calls are
sent at a time: renewals of the lease, and other nodes, wait in the same queue of the server.
"""

import asyncio
from collections import deque
from typing import Protocol

__all__ = ["CallSlots", "JoinTurns"]

_MOST = 64  # calls that wait for an answer, of all channels of a node; not appends and takeovers
_FEWEST = 24


class Slot:
    """One of the calls. A context manager: the call ends with its context."""

    __slots__ = ("_began", "_is_held", "_slots", "_timer")

    def __init__(self, slots: "CallSlots", seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._slots, self._is_held, self._began = slots, True, loop.time()
        self._timer = loop.call_later(seconds, self._release)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        now = asyncio.get_running_loop().time()
        self._slots.measured(now - self._began, now)
        self._release()

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._slots.release()


class CallSlots:
    """Limits the calls that wait for an answer. The first one that waits is the first one that goes
    on.

    Args:
        seconds: after which a call is not counted any more. An engine may have stopped to answer
            for some of the channels only.
        slow: seconds of a call with which fewer are sent at a time.

    Attributes:
        limit: how many may be sent at a time.
    """

    def __init__(self, seconds: float, slow: float) -> None:
        self.limit = float(_MOST)
        self._seconds, self._slow = seconds, slow
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slower_at = 0.0  # when the limit may become lower again

    def is_full(self) -> bool:
        """Whether another call would have to wait."""
        return self._running >= self.limit

    async def begin(self) -> Slot:
        """Wait until another call may be sent: `with await slots.begin()`."""
        if not self.is_full():
            self._running += 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it was this call's turn
                    self.release()
                raise
        return Slot(self, self._seconds)

    def release(self) -> None:
        """A call has ended, or is not counted any more."""
        self._running -= 1
        while self._waiting and not self.is_full():
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)

    def measured(self, seconds: float, now: float) -> None:
        """A call has taken so long. The limit is halved at most once for the calls that were sent
        at one time, and grows by one with each so many fast ones."""
        if seconds <= self._slow:
            self.limit = min(self.limit + 1 / self.limit, _MOST)
        elif now - seconds >= self._slower_at:
            self.limit = max(self.limit / 2, _FEWEST)
            self._slower_at = now


class Waiting(Protocol):
    """A channel that waits for its turn."""

    def wake(self) -> None:
        """It has its turn now."""


class JoinTurns:
    """Limits the channels that join to half of the calls. A channel whose upstream runs on this
    node alone lets it run until its turn.

    Args:
        calls: the limit of these.

    Attributes:
        successes, failures: how often a channel that had a turn has joined, or could not.
    """

    def __init__(self, calls: CallSlots) -> None:
        self._calls = calls
        self.successes = self.failures = 0
        self._joining: set[Waiting] = set()
        self._waiting: dict[Waiting, None] = {}

    @property
    def _has_place(self) -> bool:
        return len(self._joining) < self._calls.limit / 2

    def ask(self, channel: Waiting) -> bool:
        """Whether it is the channel's turn. If not, it is woken then."""
        if channel in self._joining:
            return True
        if self._has_place:
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
            while self._waiting and self._has_place:
                following = next(iter(self._waiting))
                del self._waiting[following]
                self._joining.add(following)
                following.wake()
