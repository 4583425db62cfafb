"""The source `recorded`: plays a file that `aiostream-ds record` wrote, for development and tests.

Each run of the stream plays the recording from its beginning; a viewer who joins later gets the
rest.
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
from aiostream_ds.sources.recorded.recording import RecordingReader

__all__ = ["Recorded", "RecordedSettings"]

READ = 64
"""Packets read from the file at a time."""

MIN_GAP = 0.01
"""Minimum seconds between the end of a recording and its beginning, in a loop."""


class RecordedSettings(Settings):
    """Which recording is played, and how."""

    file: str
    """The path of the recording."""
    speed: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    """The speed of playing; 2 is twice as fast as recorded."""
    loop: bool = False
    """Whether to play it again from the beginning at its end."""
    shift: bool = True
    """Whether to move times to the present, scaled by the speed; else they are as recorded."""


class Recorded(DataSource[RecordedSettings]):
    """A recording of `aiostream-ds record`.

    Query type `replay`, without fields.
    """

    async def health(self) -> Health:
        """Check that the file is a recording; report its channel."""
        reader = await self._open()
        reader.close()
        return Health(message=f"a recording of {reader.path}")

    @stream("replay")
    async def replay(self) -> Rows[Frame]:
        """The packets of the recording at their recorded times."""
        speed = self.settings.speed
        again = True
        while again:
            reader = await self._open()
            clock = _Clock(reader.started, time.time() * 1000, speed)
            start = anyio.current_time()
            before = last = None
            try:
                while packets := await anyio.to_thread.run_sync(
                    reader.read, READ, limiter=self.threads
                ):
                    for packet in packets:
                        before, last = last, packet.t
                        await anyio.sleep_until(start + packet.t / speed)
                        yield clock.shift(packet.frame) if self.settings.shift else packet.frame
            finally:
                reader.close()
            again = self.settings.loop and last is not None
            if again and last is not None:
                gap = last - before if before is not None else 0.0
                await anyio.sleep(max(gap / speed, MIN_GAP))

    async def _open(self) -> RecordingReader:
        return await anyio.to_thread.run_sync(
            RecordingReader, self.settings.file, limiter=self.threads
        )


class _Clock:
    """Moves recorded times to the present, scaled by the speed."""

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
