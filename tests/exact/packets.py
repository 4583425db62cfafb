"""Checks of the exact protocol: of one packet, and of the packets of one RunStream call.

{"cursor":{"epoch":"…","prev":4,"last":6},"data":{"values":[…]}}    rows 5 and 6
{"cursor":{"epoch":"…","prev":6,"last":6}}                          a hello, or a heartbeat
{"status":{"severity":"warning","text":"…"},"cursor":{…}}           with the stream's status
"""

import re
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

Cursor = int | str
"""On the wire: a number, or two of 16 digits with a hyphen between them; without the leading zeros
in a column of texts."""


def cursors_of(message: Message) -> list[Any]:
    """The cursor of each row of a packet."""
    cursor, values = message["cursor"], message["data"]["values"]
    column = cursor.get("column")
    if column is None:
        return list(range(cursor["prev"] + 1, cursor["last"] + 1))
    if isinstance(column, list):
        pairs = zip(*(values[each] for each in column), strict=True)
        return [f"{first:016d}-{second:016d}" for first, second in pairs]
    return [_padded(value) if isinstance(value, str) else value for value in values[column]]


def _padded(id: str) -> str:
    return "-".join(number.zfill(16) for number in id.split("-"))


def packet_faults(message: Message) -> list[str]:
    """How one packet, or one answer of `replay/rows`, violates the protocol."""
    if set(message) == {"status"}:
        return []  # the cursor is unknown: the log cannot be read
    cursor = message["cursor"]
    epoch, prev, last = cursor["epoch"], cursor["prev"], cursor["last"]
    faults = []
    if set(message) - {"cursor", "status", "data", "more", "truncated", "first"}:
        faults.append(f"keys {sorted(message)}")
    if not isinstance(epoch, str) or not epoch:
        faults.append(f"epoch {epoch!r}")
    if not (_is_cursor(prev) and type(last) is type(prev) and _is_cursor(last) and prev <= last):
        return [*faults, f"prev {prev!r}, last {last!r}"]
    if "data" not in message:
        return faults if prev == last or message.get("truncated") else [*faults, "no rows, no data"]
    values = message["data"]["values"]
    if len({len(column) for column in values}) != 1:
        return [*faults, "columns of unequal length"]
    cursors = cursors_of(message)
    if len(cursors) != len(values[0]):
        faults.append(f"{len(cursors)} cursors for {len(values[0])} rows")
    if not cursors or not _increase([prev, *cursors]) or cursors[-1] > last:
        faults.append(f"cursors {cursors[:3]}…{cursors[-3:]} not in ({prev}, {last}]")
    return faults


def _is_cursor(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\d{16}-\d{16}|-1", value) is not None
    return isinstance(value, int) and -1 <= value < 2**53


def _increase(numbers: Sequence[Any]) -> bool:
    return all(a < b for a, b in zip(numbers, numbers[1:], strict=False))


class RunCheck:
    """Checks one RunStream: a hello first, then packets that continue each other.

    `gaps` counts the gaps of a slow subscriber; all else is in `faults`.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.gaps = 0
        self._previous: dict[str, Any] | None = None

    def check(self, message: Message) -> None:
        self.faults += packet_faults(message)
        if "cursor" not in message:
            return
        cursor, previous = message["cursor"], self._previous
        if previous is None and "data" in message:
            self.faults.append("rows before the hello")
        if previous is not None and previous["epoch"] == cursor["epoch"]:
            if cursor["prev"] < previous["last"]:
                self.faults.append(f"prev {cursor['prev']} after last {previous['last']}")
            self.gaps += cursor["prev"] > previous["last"]
        self._previous = cursor
