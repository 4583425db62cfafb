"""What one packet has to keep of the exact protocol, and what the packets of one RunStream have to.

{"seam":{"epoch":"…","prev":4,"last":6},"data":{"values":[…]}}    rows 5 and 6
{"seam":{"epoch":"…","prev":6,"last":6}}                          a hello, or a heartbeat
{"state":{"severity":"warning","text":"…"},"seam":{…}}            the same, and how the stream does
"""

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


def cursors_of(message: Message) -> list[int]:
    """The cursor of each row of a packet."""
    seam, values = message["seam"], message["data"]["values"]
    ids = seam.get("ids")
    if ids is None:
        return list(range(seam["prev"] + 1, seam["last"] + 1))
    return list(ids) if isinstance(ids, list) else list(values[ids])


def packet_faults(message: Message) -> list[str]:
    """What of the protocol one packet, or one answer of the resource, does not keep."""
    if set(message) == {"state"}:
        return []  # nobody knows where the stream stands
    seam = message["seam"]
    epoch, prev, last = seam["epoch"], seam["prev"], seam["last"]
    faults = []
    if set(message) - {"seam", "state", "data", "more", "truncated", "first"}:
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
        if "seam" not in message:
            return
        seam, former = message["seam"], self._former
        if former is None and "data" in message:
            self.faults.append("rows before the hello")
        if former is not None and former["epoch"] == seam["epoch"]:
            if seam["prev"] < former["last"]:
                self.faults.append(f"prev {seam['prev']} after last {former['last']}")
            self.holes += seam["prev"] > former["last"]
        self._former = seam
