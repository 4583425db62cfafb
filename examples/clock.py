"""The smallest data source: a sine wave with the rate that the path names."""

from math import sin
from typing import Literal

import anyio

from aiostream_ds import DataSource, Rows, serve, stream


class Clock(DataSource):
    @stream
    async def ticks(self, hz: Literal[1, 10, 100] = 10) -> Rows:
        while True:
            yield {"value": sin(anyio.current_time())}
            await anyio.sleep(1 / hz)


if __name__ == "__main__":
    serve(Clock)
