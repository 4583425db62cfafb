"""A channel that sends fewer packets: its policy has `flush` or `max_hz`.

    demand ──▶ waits until a packet is due ──▶ asks the runner ──▶ one packet with all rows since

A packet is due `flush` seconds after the first waiting row, and not before 1/`max_hz` seconds after
the last packet.
"""

import asyncio
from math import inf
from typing import Any

from aiostream_ds._channels.channel import Channel
from aiostream_ds._frames.packet import Packet

__all__ = ["PacedChannel"]


class PacedChannel(Channel):
    """A channel that has demand only when a packet is due."""

    __slots__ = ("_due", "_gap", "_last", "_pace_timer")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gap = 1 / self._policy.max_hz if self._policy.max_hz else 0.0
        self._last = -inf  # when rows were emitted
        self._due: float | None = None  # None: no row is known to wait
        self._pace_timer: asyncio.TimerHandle | None = None

    @property
    def has_demand(self) -> bool:
        """Whether some subscriber has taken everything, and a packet is due."""
        return super().has_demand and self._is_due()

    def emit(self, *packets: Packet) -> tuple[int, int]:
        """As `Channel.emit`: emitted packets are sent, due or not."""
        if any(packet.rows for packet in packets):
            self._last = self.time()
            self._reset()
        return super().emit(*packets)

    def _is_due(self) -> bool:
        now = self.time()
        if self._due is None:
            self._due = max(now + self._policy.flush, self._last + self._gap)
        if now >= self._due:
            return True
        if self._pace_timer is None:
            self._pace_timer = self._owner.loop.call_at(self._due, self._due_now)
        return False

    def subscription_drained(self) -> None:
        """A subscriber has taken everything from its queue."""
        self._wake_drain()
        if self.on_demand is not None and self._is_due():
            self.request_rows()

    def _due_now(self) -> None:
        self._pace_timer = None
        if super().has_demand:  # otherwise `subscription_drained` asks
            self.request_rows()
            self._reset()

    def _reset(self) -> None:
        self._due = None
        if self._pace_timer is not None:
            self._pace_timer.cancel()
            self._pace_timer = None

    def finish(self, error: BaseException | None) -> None:
        """As `Channel.finish`; stops the timer."""
        self._reset()
        super().finish(error)
