"""A dashboard of @grafana/scenes in a tab, and a judge of what its panels draw.

The rows of `counting_plugin.py` have the numbers 1, 2, 3 … in each log, so that a record shows each
missing and doubled row.
"""

from typing import Any, NamedTuple

import anyio

from .stage import TIMEOUT, Message, Tab, last

WIDTH = 300
"""Seconds of the range: no row leaves it during a test."""


class Drawn(NamedTuple):
    """The worst frame: how many rows were drawn before and are missing, how many are doubled or out
    of order. And how many frames are blank after rows have been drawn."""

    missing: int
    doubled: int
    blank: int


NONE_LOST = Drawn(0, 0, 0)


def ticks(name: str, ms: int, **fields: Any) -> list[Message]:
    """The query of a stream with a row after each so many milliseconds."""
    return [{"refId": "A", "queryType": "ticks", "name": name, "ms": ms, **fields}]


class Dashboard:
    """The scene of one tab: panels of a data source, and panels that share their rows."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    async def open(self, *parts: Message) -> None:
        parts = tuple({"uid": "exact", **part} for part in parts)
        await self.tab.call("openScene", last(WIDTH), list(parts))

    async def do(self, name: str, *arguments: Any) -> None:
        await self.tab.call("scene", name, *arguments)

    async def records(self, key: str) -> list[Message]:
        """What a panel has drawn since the last call."""
        found: list[Message] = await self.tab.call("sceneRecords", key)
        return found

    async def until(self, key: str, rows: int) -> None:
        """Wait until a panel has drawn so many rows."""
        with anyio.fail_after(TIMEOUT):
            while await self.tab.call("sceneRows", key) < rows:
                await anyio.sleep(0.05)

    async def until_exactly(self, key: str, rows: int) -> None:
        """Wait until a panel draws so many rows."""
        with anyio.fail_after(TIMEOUT):
            while await self.tab.call("sceneRows", key) != rows:
                await anyio.sleep(0.05)

    def calls(self, path: str) -> int:
        """How many calls of Grafana's API with this path there were."""
        return sum(path in call for call in self.tab.server.wire.calls)


def numbers_of(record: Message) -> list[int]:
    return [n for run in record["runs"] for n in range(run["first"], run["last"] + 1)]


def judge(records: list[Message]) -> Drawn:
    """Compare each record with those before it; all of one log."""
    drawn: set[int] = set()
    missing = doubled = blank = 0
    for record in records:
        numbers = numbers_of(record)
        if drawn and not numbers:
            blank += 1
            continue
        missing = max(missing, len(drawn.difference(numbers)))
        doubled = max(doubled, sum(a >= b for a, b in zip(numbers, numbers[1:], strict=False)))
        drawn.update(numbers)
    return Drawn(missing, doubled, blank)
