"""Gaps in what was received: outages in which the server keeps nothing, and missing numbers."""

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
    text: str
    """The gap in words."""


class Gaps:
    """The gaps of one data source. Each is counted in `aiostream_ds_gaps_total`.

    How many messages were lost is known only if they are numbered: servers do not count them.

    Args:
        reason: why the server does not send them afterwards, as "Redis keeps nothing of what it
            publishes".

    Attributes:
        count: the gaps.
        missing: the rows that are known to be missing.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._lost: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._gaps: deque[Gap] = deque(maxlen=REMEMBERED)
        self.count = self.missing = 0

    def begin(self, address: str, since: int | None) -> None:
        """The subscription of an address was lost: everything up to `since` (Unix ms) was received.
        None: the address could not be subscribed to, perhaps again."""
        found = self._lost.pop(address, None)
        if found is not None:
            since, _ = found
        if since is None:
            return
        self._lost[address] = since, now_ms()
        while len(self._lost) > REMEMBERED:
            self._lost.popitem(last=False)

    def end(self, address: str) -> Gap | None:
        """The address is subscribed: its gap, if the subscription was lost before."""
        found = self._lost.pop(address, None)
        if found is None or now_ms() - found[1] > FORGOTTEN_AFTER:
            return None
        return self.add_outage(address, found[0])

    def add_outage(self, address: str, since: int, reason: str | None = None) -> Gap:
        """The connection was lost from `since` (Unix ms) until now. `reason`: as in `Gaps`, for
        this gap."""
        now = now_ms()
        text = (
            f"messages from {_clock(since)} to {_clock(now)} UTC may be missing: the connection was"
            f" lost, and {reason or self._reason}"
        )
        return self._add(Gap(address, since, now, text), 0)

    def add_missing(self, address: str, rows: int, text: str) -> Gap:
        """So many rows are missing, as the numbers of those that were received show."""
        now = now_ms()
        return self._add(Gap(address, now, now, text), rows)

    def _add(self, gap: Gap, missing: int) -> Gap:
        self._gaps.append(gap)
        self.count += 1
        self.missing += missing
        counters = current_counters()
        counters.gaps += 1
        counters.rows_missing += missing
        return gap

    def forget(self, address: str) -> None:
        """Nobody waits for the address any more."""
        self._lost.pop(address, None)

    def text(self) -> str:
        """The number of gaps, for the message of "Save & test"; empty if there are none."""
        if not self.count:
            return ""
        noun = "gap" if self.count == 1 else "gaps"
        text = f"{self.count:,} {noun} in which messages may be missing"
        return f"{text}; {self.missing:,} rows are missing" if self.missing else text

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
