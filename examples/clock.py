"""The smallest data source: a sine wave with the rate that the path names."""

from math import sin
from typing import Annotated

import anyio

from aiostream_ds import DataSource, Meta, Rows, serve, stream


class Clock(DataSource):
    @stream("ticks/{hz:int}")
    async def ticks(self, hz: Annotated[int, Meta(ge=1, le=1000)]) -> Rows:
        while True:
            yield {"value": sin(anyio.current_time())}
            await anyio.sleep(1 / hz)


if __name__ == "__main__":
    serve(Clock)
