"""The smallest data source: a sine that ticks as often as the path says."""

from datetime import UTC, datetime
from math import sin
from typing import Annotated

import anyio
from msgspec import Meta

from aiostream_ds import DataSource, Rows, serve, stream


class Clock(DataSource):
    @stream("ticks/{hz:int}")
    async def ticks(self, hz: Annotated[int, Meta(ge=1, le=1000)]) -> Rows:
        while True:
            now = datetime.now(UTC)
            yield {"time": now, "value": sin(now.timestamp())}
            await anyio.sleep(1 / hz)


if __name__ == "__main__":
    serve(Clock)
