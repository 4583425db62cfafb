"""Everything that a data source can have, over an upstream that is simulated here.

Try it:  aiostream-ds dev examples/sensors.py --path sensors/kitchen --secret password=swordfish
"""

import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Literal

import anyio
from msgspec import Meta, Struct

from aiostream_ds import (
    ConfigError,
    DataSource,
    FieldConfig,
    Frame,
    Health,
    HistoryRange,
    LiveChannel,
    NotFound,
    PermissionDenied,
    Query,
    Request,
    Row,
    Rows,
    Secret,
    Settings,
    UpstreamError,
    User,
    query,
    resource,
    secret,
    serve,
    stream,
)


class House(Settings):
    """What an admin fills in."""

    rooms: tuple[str, ...] = ("kitchen", "cellar")
    interval: Annotated[float, Meta(gt=0)] = 1.0
    password: Secret = secret()


class Reading(Row):
    """A row whose schema is known before the first one comes."""

    time: datetime
    celsius: Annotated[float, FieldConfig(unit="celsius", decimals=1)]
    heating: bool


class Command(Struct):
    """What may be published to a sensor: `{"target": 21.5}`."""

    target: Annotated[float, Meta(ge=5, le=30)]


class Compare(Query):
    """A query of its own: one figure for each of several sensors."""

    sensors: list[str] = []
    agg: Literal["mean", "max"] = "mean"


class Room:
    """One simulated sensor: keeps its last readings and wakes up whoever waits for the next."""

    def __init__(self) -> None:
        self.target, self.celsius = 20.0, 15.0
        self.readings: deque[Reading] = deque(maxlen=3_600)
        self.news = anyio.Event()

    def measure(self) -> None:
        self.celsius += (self.target - self.celsius) / 20 + random.uniform(-0.2, 0.2)
        heating = self.celsius < self.target
        self.readings.append(Reading(time=datetime.now(UTC), celsius=self.celsius, heating=heating))
        self.news.set()
        self.news = anyio.Event()


class Sensors(DataSource[House]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """As long as the data source lives: here a task that produces readings."""
        if not self.settings.rooms:
            raise ConfigError("rooms is empty; name at least one")
        self.rooms = {name: Room() for name in self.settings.rooms}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._measure)
            yield
            tasks.cancel_scope.cancel()

    async def _measure(self) -> None:
        while True:
            for room in self.rooms.values():
                room.measure()
            await anyio.sleep(self.settings.interval)

    def _room(self, id: str) -> Room:
        if id not in self.rooms:
            raise NotFound(f"no sensor {id!r}; there are: {', '.join(self.rooms)}")
        return self.rooms[id]

    @stream("sensors/{id}")
    async def sensor(self, id: str) -> Rows[Reading]:
        """Each reading as it comes."""
        room = self._room(id)
        while True:
            await room.news.wait()
            yield room.readings[-1]

    @sensor.history
    async def past(self, span: HistoryRange, id: str) -> list[Reading]:
        """The rows of a panel's time range, oldest first."""
        found = [r for r in self._room(id).readings if span.start <= r.time <= span.end]
        return found[-span.limit :]

    @sensor.subscribe
    async def may_read(self, user: User | None, id: str) -> None:
        """The cellar is for editors and admins; background work (user None) is let in."""
        self._room(id)
        if id == "cellar" and user is not None and user.role == "Viewer":
            raise PermissionDenied("the cellar is not for viewers")

    @sensor.publish
    async def command(self, data: Command, id: str) -> None:
        """Set a room's target temperature."""
        self._room(id).target = data.target

    @query
    async def compare(self, q: Compare) -> Frame:
        """One row for each sensor."""
        names = q.sensors or list(self.rooms)
        columns: dict[str, list[float]] = {}
        for name in names:
            values = [r.celsius for r in self._room(name).readings]
            if not values:
                raise UpstreamError(f"{name} has not measured yet")
            columns[name] = [max(values) if q.agg == "max" else sum(values) / len(values)]
        return Frame.from_columns(columns)

    @query
    async def warmest(self, q: Query) -> LiveChannel:
        """Follow the sensor that is the warmest now."""
        return LiveChannel(
            Sensors.sensor, id=max(self.rooms, key=lambda name: self.rooms[name].celsius)
        )

    @resource("sensors/{id}")
    async def show(self, id: str) -> dict[str, float]:
        """GET …/resources/sensors/kitchen"""
        room = self._room(id)
        return {"celsius": room.celsius, "target": room.target}

    @resource("login", method="POST")
    async def login(self, request: Request) -> dict[str, bool]:
        """POST …/resources/login with {"password": "…"}"""
        given = request.json(dict[str, str]).get("password", "")
        return {"welcome": given == self.settings.password.reveal()}

    async def health(self) -> Health:
        """Save & test."""
        if not self.settings.password:
            return Health(ok=False, message="no password is set")
        return Health(message=f"{len(self.rooms)} sensors", details={"sensors": list(self.rooms)})


if __name__ == "__main__":
    serve(Sensors)
