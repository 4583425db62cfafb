"""Checks of the exact protocol: of one packet, and of the packets of one RunStream call.

{"cursor":{"epoch":"…","prev":4,"last":6},"data":{"values":[…]}}    rows 5 and 6
{"cursor":{"epoch":"…","prev":6,"last":6}}                          a hello, or a heartbeat
{"status":{"severity":"warning","text":"…"},"cursor":{…}}           with the stream's status
"""

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


def cursors_of(message: Message) -> list[int]:
    """The cursor of each row of a packet."""
    cursor, values = message["cursor"], message["data"]["values"]
    ids = cursor.get("column")
    if ids is None:
        return list(range(cursor["prev"] + 1, cursor["last"] + 1))
    return list(ids) if isinstance(ids, list) else list(values[ids])


def packet_faults(message: Message) -> list[str]:
    """What of the protocol one packet, or one answer of the resource, does not keep."""
    if set(message) == {"status"}:
        return []  # nobody knows where the stream stands
    cursor = message["cursor"]
    epoch, prev, last = cursor["epoch"], cursor["prev"], cursor["last"]
    faults = []
    if set(message) - {"cursor", "status", "data", "more", "truncated", "first"}:
        faults.append(f"keys {sorted(message)}")
    if not isinstance(epoch, str) or not epoch:
        faults.append(f"epoch {epoch!r}")
    if not (isinstance(prev, int) and isinstance(last, int) and -1 <= prev <= last < 2**53):
        return [*faults, f"prev {prev!r}, last {last!r}"]
    if "data" not in message:
        return faults if prev == last or message.get("truncated") else [*faults, "no rows, no data"]
    values = message["data"]["values"]
    if len({len(column) for column in values}) != 1:
        return [*faults, "columns of unequal length"]
    cursors = cursors_of(message)
    if len(cursors) != len(values[0]):
        faults.append(f"{len(cursors)} cursors for {len(values[0])} rows")
    if not cursors or not _rise([prev, *cursors]) or cursors[-1] > last:
        faults.append(f"cursors {cursors[:3]}…{cursors[-3:]} not in ({prev}, {last}]")
    return faults


def _rise(numbers: Sequence[int]) -> bool:
    return all(a < b for a, b in zip(numbers, numbers[1:], strict=False))


class RunCheck:
    """What one RunStream must keep: a hello first, then packets without a hole between them.

    `holes` counts what a reader that was too slow has lost; anything else is in `faults`.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.holes = 0
        self._former: dict[str, Any] | None = None

    def see(self, message: Message) -> None:
        self.faults += packet_faults(message)
        if "cursor" not in message:
            return
        cursor, former = message["cursor"], self._former
        if former is None and "data" in message:
            self.faults.append("rows before the hello")
        if former is not None and former["epoch"] == cursor["epoch"]:
            if cursor["prev"] < former["last"]:
                self.faults.append(f"prev {cursor['prev']} after last {former['last']}")
            self.holes += cursor["prev"] > former["last"]
        self._former = cursor
