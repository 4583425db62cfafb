"""The source `recorded`: plays a file that `aiostream-ds record` wrote, for dev and tests.

Each viewer who starts the stream starts the recording from its beginning; who joins sees what is
played from then on.
"""

import time
from typing import Annotated

import anyio
import anyio.to_thread
from msgspec import Meta

from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.models import Health
from aiostream_ds.settings import Settings
from aiostream_ds.sources.recorded.recording import Reader

__all__ = ["Recorded", "RecordedSettings"]

READ = 64
"""Packets that are read from the file at a time."""


SHORTEST_GAP = 0.01
"""Seconds between the end of a recording and its beginning, at least."""


class RecordedSettings(Settings):
    """Which recording is played, and how."""

    file: str
    """The recording."""
    speed: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    """How much faster than it was it is played."""
    loop: bool = False
    """Whether it begins anew at its end, after a gap as its last one."""
    shift: bool = True
    """Whether times are those of now, as much closer to each other as the speed says; else they are
    as recorded."""


class Recorded(DataSource[RecordedSettings]):
    """What `aiostream-ds record` wrote, played again.

    Query type `replay`, without fields.
    """

    async def health(self) -> Health:
        """Green with what was recorded, when the file is a recording."""
        reader = await self._open()
        reader.close()
        return Health(message=f"a recording of {reader.path}")

    @stream("replay")
    async def replay(self) -> Rows[Frame]:
        """The packets of the recording, at their times; ends with it unless it is to loop."""
        speed = self.settings.speed
        again = True
        while again:
            reader = await self._open()
            clock = _Clock(reader.started, time.time() * 1000, speed)
            begun = anyio.current_time()
            before = last = None
            try:
                while packets := await anyio.to_thread.run_sync(reader.read, READ):
                    for packet in packets:
                        before, last = last, packet.t
                        await anyio.sleep_until(begun + packet.t / speed)
                        yield clock.shift(packet.frame) if self.settings.shift else packet.frame
            finally:
                reader.close()
            again = self.settings.loop and last is not None
            if again and last is not None:
                gap = last - before if before is not None else 0.0
                await anyio.sleep(max(gap / speed, SHORTEST_GAP))

    async def _open(self) -> Reader:
        return await anyio.to_thread.run_sync(Reader, self.settings.file)


class _Clock:
    """Recorded times as times of now; what was late then is as late, at the new speed."""

    __slots__ = ("_now", "_speed", "_started")

    def __init__(self, started: float, now: float, speed: float) -> None:
        self._started = started
        self._now = now
        self._speed = speed

    def shift(self, frame: Frame) -> Frame:
        fields = (
            Field(
                field.name,
                list(map(self._moment, field.values)),
                FieldType.TIME,
                labels=field.labels,
                config=field.config,
                nullable=field.nullable,
            )
            if field.type is FieldType.TIME
            else field
            for field in frame.fields
        )
        return Frame(*fields, name=frame.name, meta=frame.meta)

    def _moment(self, ms: int | None) -> int | None:
        return None if ms is None else round(self._now + (ms - self._started) / self._speed)
