"""Outages in which messages may have been lost, because the server keeps none."""

import time
from collections import OrderedDict, deque
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiostream_ds._telemetry import current_counters

__all__ = ["FORGOTTEN_AFTER", "Gap", "Gaps", "now_ms"]

REMEMBERED = 100
"""Gaps that are listed in the details of "Save & test", and addresses that wait for their end."""

FORGOTTEN_AFTER = 60_000
"""Milliseconds after the last attempt to subscribe after which nobody waits any more: a stream that
has viewers tries again at least every 30 s."""


class Gap(NamedTuple):
    """What was sent to `address` from `start` to `end` (Unix ms) may be lost."""

    address: str
    start: int
    end: int
    reason: str

    @property
    def text(self) -> str:
        """The gap in words."""
        return (
            f"messages from {_clock(self.start)} to {_clock(self.end)} UTC may be missing: the"
            f" connection was lost, and {self.reason}"
        )


class Gaps:
    """The gaps of one data source. Each is counted in `aiostream_ds_gaps_total`.

    How many messages were lost is not known: the server does not count them.

    Args:
        reason: why the server does not send them afterwards, as "Redis keeps nothing of what it
            publishes".
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._lost: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._gaps: deque[Gap] = deque(maxlen=REMEMBERED)
        self.count = 0

    def begin(self, address: str, since: int) -> None:
        """The subscription of an address was lost. Everything up to `since` (Unix ms) was
        received."""
        first, _ = self._lost.pop(address, (since, 0))
        self._lost[address] = first, now_ms()
        while len(self._lost) > REMEMBERED:
            self._lost.popitem(last=False)

    def extend(self, address: str) -> None:
        """The address could not be subscribed again."""
        if address in self._lost:
            self.begin(address, 0)

    def end(self, address: str, reason: str | None = None) -> Gap | None:
        """The address is subscribed: its gap, if the subscription was lost before. `reason`: as in
        `Gaps`, for this gap."""
        found = self._lost.pop(address, None)
        now = now_ms()
        if found is None or now - found[1] > FORGOTTEN_AFTER:
            return None
        gap = Gap(address, found[0], now, reason or self._reason)
        self._gaps.append(gap)
        self.count += 1
        current_counters().gaps += 1
        return gap

    def forget(self, address: str) -> None:
        """Nobody waits for the address any more."""
        self._lost.pop(address, None)

    def text(self) -> str:
        """The number of gaps, for the message of "Save & test"; empty if there are none."""
        noun = "outage" if self.count == 1 else "outages"
        return f"{self.count:,} {noun} in which messages may be missing" if self.count else ""

    def details(self) -> list[dict[str, Any]]:
        """The newest gaps, for the details of "Save & test"."""
        return [
            {"address": gap.address, "from": gap.start, "to": gap.end, "text": gap.text}
            for gap in self._gaps
        ]


def now_ms() -> int:
    """The Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def _clock(ms: int) -> str:
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.strftime("%H:%M:%S.%f")[:-3]
