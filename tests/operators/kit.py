"""Sources and times for the tests of operators."""

from datetime import UTC, datetime, timedelta

import anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


class Source:
    """An async generator that yields (delay, row) pairs; it counts its `finally`."""

    def __init__(self, *rows, error=None):
        self.rows, self.error = rows, error
        self.closed = self.read = 0

    async def __call__(self):
        try:
            for delay, row in self.rows:
                await anyio.sleep(delay)
                self.read += 1
                yield row
            if self.error is not None:
                raise self.error
        finally:
            await anyio.sleep(0.1)
            self.closed += 1


async def collect(rows):
    return [row async for row in rows]


def ticks(*times):
    return [{"time": at(time), "v": time} for time in times]
