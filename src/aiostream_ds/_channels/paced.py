"""A channel that asks for fewer packets: the policy has `flush` or `max_hz`.

    hungry ──▶ waits until due ──▶ asks the runner ──▶ one packet with all rows since

It is due `flush` seconds after the first row that waits, and not before 1/`max_hz` seconds after
the last packet. A channel without such a policy is a plain `Channel` and has nothing of this.
Imports its own room and `frames`.
"""

import asyncio
from math import inf
from typing import Any

from aiostream_ds._channels.channel import Channel
from aiostream_ds._frames.packet import Packet

__all__ = ["PacedChannel"]


class PacedChannel(Channel):
    """A channel whose readers are hungry only when a packet is due."""

    __slots__ = ("_due", "_gap", "_last", "_pace_timer")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gap = 1 / self._policy.max_hz if self._policy.max_hz else 0.0
        self._last = -inf  # when rows were emitted
        self._due: float | None = None  # None: no row is known to wait
        self._pace_timer: asyncio.TimerHandle | None = None

    @property
    def has_demand(self) -> bool:
        """Whether some reader has fetched all it was given, and a packet is due."""
        return super().has_demand and self._is_due()

    def emit(self, *packets: Packet) -> tuple[int, int]:
        """As `Channel.emit`: what is emitted leaves, due or not."""
        if any(packet.rows for packet in packets):
            self._last = self._now()
            self._reset()
        return super().emit(*packets)

    def _is_due(self) -> bool:
        now = self._now()
        if self._due is None:
            self._due = max(now + self._policy.flush, self._last + self._gap)
        if now >= self._due:
            return True
        if self._pace_timer is None:
            self._pace_timer = self._owner.loop.call_at(self._due, self._time_is_up)
        return False

    def _drained(self) -> None:
        self._make_room()
        if self.on_demand is not None and self._is_due():
            self._ask()

    def _time_is_up(self) -> None:
        self._pace_timer = None
        if super().has_demand:  # else who fetches asks
            self._ask()
            self._reset()

    def _reset(self) -> None:
        self._due = None
        if self._pace_timer is not None:
            self._pace_timer.cancel()
            self._pace_timer = None

    def _finish(self, error: BaseException | None) -> None:
        self._reset()
        super()._finish(error)
