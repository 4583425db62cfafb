"""The run that every source over a network is checked with: numbered rows at 1 kHz for 20 s, while
the server is restarted twice and the network between it and the plugin is cut once.

    async def write(numbers):          # to the server itself, not through the proxy
        ...
        return numbers                 # those that the server has taken

    with Redis() as server, Proxy(server.port) as proxy:
        async with serve_in_memory(…, settings={"port": proxy.port}) as grafana:
            viewer = await grafana.follow("entries/orders")
            outcome = await run_outages(write, viewer_numbers(viewer), server.restart, proxy)
    assert outcome.is_exact, outcome

A source that cannot resume loses the rows of each outage, and has to say so: `outcome.gaps` are the
ranges that it has lost, for a comparison with its notices and counters.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from aiostream_ds.testing import Viewer
from tests.servers import Proxy

RATE = 1_000
"""Rows a second."""

SECONDS = 20.0
"""Seconds in which rows are written."""

TICK = 0.01
"""Seconds between two writes."""

SETTLE = 30.0
"""Seconds after the last write in which the last rows must arrive."""

Write = Callable[[Sequence[int]], Awaitable[Sequence[int]]]
"""Writes rows with these numbers in order, each once, and returns the numbers that the server has
taken. A writer of a system that stores rows waits until the server is back."""


class Outcome(NamedTuple):
    """What came of the numbers that were written.

    `gaps` are the ranges of lost numbers, from the first to the last one; numbers that were not
    written do not divide a range.
    """

    written: int
    received: int
    lost: int
    doubled: int
    out_of_order: int
    unknown: int
    gaps: list[tuple[int, int]]

    @property
    def is_exact(self) -> bool:
        """Whether each number has arrived once, in order."""
        return self.written > 0 and not any(self[2:6])


def compare(written: Sequence[int], received: Sequence[int]) -> Outcome:
    """Compare the numbers that were written, in order, with those that were received."""
    found, known = set(received), set(written)
    gaps: list[tuple[int, int]] = []
    before = -1  # index in `written` of the last lost number
    for index, number in enumerate(written):
        if number in found:
            continue
        if gaps and before == index - 1:
            gaps[-1] = gaps[-1][0], number
        else:
            gaps.append((number, number))
        before = index
    return Outcome(
        written=len(written),
        received=len(received),
        lost=len(known - found),
        doubled=len(received) - len(found),
        out_of_order=sum(b < a for a, b in zip(received, received[1:], strict=False)),
        unknown=len(found - known),
        gaps=gaps,
    )


def viewer_numbers(viewer: Viewer, column: str = "n") -> Callable[[], list[int]]:
    """The numbers that a viewer has received, for `run_outages`."""
    return lambda: [int(row[column]) for row in viewer.rows]


async def run_outages(
    write: Write,
    received: Callable[[], Sequence[int]],
    restart: Callable[[], None],
    proxy: Proxy,
    *,
    cut: float = 1.0,
) -> Outcome:
    """Write rows during the outages and wait until one that is written later has arrived.

    Rows that are written before the stream runs are warm-up: they have numbers below zero and are
    not compared.

    Args:
        write: writes numbered rows to the server.
        received: returns the numbers that a panel has so far.
        restart: ends the server and starts it again; called in a thread.
        proxy: the connection between the source and the server.
        cut: seconds for which the network is cut: bytes are held for half of them, then
            connections are refused.
    """
    await _warm_up(write, received)
    start = time.monotonic()
    written: list[int] = []
    number, end = 0, round(RATE * SECONDS)
    async with asyncio.TaskGroup() as tasks:  # a server that does not start again ends the writer
        tasks.create_task(_play(start, restart, proxy, cut))
        while number < end:
            due = min(end, round((time.monotonic() - start) * RATE))
            if due > number:
                written += await write(range(number, due))
                number = due
            await asyncio.sleep(TICK)
    await _until_later(received, write)
    return compare(written, [number for number in received() if 0 <= number < end])


async def _warm_up(write: Write, received: Callable[[], Sequence[int]]) -> None:
    """Write rows until one arrives: from then on the stream runs. All of them must arrive."""
    number = -1_000_000
    deadline = time.monotonic() + SETTLE
    await write([number])
    while not received():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no row arrived within {SETTLE} s")
        await asyncio.sleep(0.05)
        number += 1
        await write([number])
    while number not in received():
        if time.monotonic() > deadline:
            raise TimeoutError(f"row {number} did not arrive within {SETTLE} s")
        await asyncio.sleep(0.01)


async def _play(start: float, restart: Callable[[], None], proxy: Proxy, cut: float) -> None:
    """The outages, at fixed times of the run."""

    async def wait_until(share: float) -> None:
        await asyncio.sleep(max(0.0, start + share * SECONDS - time.monotonic()))

    await wait_until(0.2)
    await asyncio.to_thread(restart)
    await wait_until(0.45)
    proxy.hold()
    await asyncio.sleep(cut / 2)
    proxy.refuse()
    await asyncio.sleep(cut / 2)
    proxy.restore()
    await wait_until(0.7)
    await asyncio.to_thread(restart)


async def _until_later(received: Callable[[], Sequence[int]], write: Write) -> None:
    """Wait for a number that is written after all others: of concurrent writers the greatest number
    may arrive before others, and any may be lost."""
    deadline = time.monotonic() + SETTLE
    first = later = round(RATE * SECONDS)
    while not any(number >= first for number in received()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no later row arrived within {SETTLE} s")
        await write([later])
        later += 1
        await asyncio.sleep(0.1)
