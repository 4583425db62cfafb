"""Every feature of a data source, with a simulated upstream system.

Try it:  aiostream-ds dev examples/sensors.py --path sensors/kitchen --secret password=swordfish
"""

import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Literal

import anyio
from msgspec import Struct

from aiostream_ds import (
    ConfigError,
    DataSource,
    FieldConfig,
    Frame,
    Health,
    HistoryRange,
    LiveChannel,
    Meta,
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
    """What an admin configures."""

    sensors: tuple[str, ...] = ("kitchen", "cellar")
    interval: Annotated[float, Meta(gt=0)] = 1.0
    password: Secret = secret()


class Reading(Row):
    """A row whose schema is known before the first one is yielded."""

    time: datetime
    celsius: Annotated[float, FieldConfig(unit="celsius", decimals=1)]
    heating: bool


class Command(Struct):
    """The data to publish to a sensor: `{"target": 21.5}`."""

    target: Annotated[float, Meta(ge=5, le=30)]


class Compare(Query):
    """A query with its own fields: one value for each of several sensors."""

    sensors: list[str] = []
    agg: Literal["mean", "max"] = "mean"


class Thermostat:
    """One simulated sensor, with its latest readings and an event for the next one."""

    def __init__(self) -> None:
        self.target, self.celsius = 20.0, 15.0
        self.readings: deque[Reading] = deque(maxlen=3_600)
        self.measured = anyio.Event()

    def measure(self) -> None:
        self.celsius += (self.target - self.celsius) / 20 + random.uniform(-0.2, 0.2)
        heating = self.celsius < self.target
        self.readings.append(Reading(time=datetime.now(UTC), celsius=self.celsius, heating=heating))
        self.measured.set()
        self.measured = anyio.Event()


class Sensors(DataSource[House]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Runs a task that measures, as long as the data source is in use."""
        if not self.settings.sensors:
            raise ConfigError("sensors must have at least one name, got none")
        self.thermostats = {name: Thermostat() for name in self.settings.sensors}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._measure)
            yield
            tasks.cancel_scope.cancel()

    async def _measure(self) -> None:
        while True:
            for thermostat in self.thermostats.values():
                thermostat.measure()
            await anyio.sleep(self.settings.interval)

    def _thermostat(self, id: str) -> Thermostat:
        if id not in self.thermostats:
            names = ", ".join(self.thermostats)
            raise NotFound(f"the sensor must be one of {names}, got {id!r}")
        return self.thermostats[id]

    @stream("sensors/{id}")
    async def sensor(self, id: str) -> Rows[Reading]:
        """Each reading of one sensor."""
        thermostat = self._thermostat(id)
        while True:
            await thermostat.measured.wait()
            yield thermostat.readings[-1]

    @sensor.history
    async def readings(self, history_range: HistoryRange, id: str) -> list[Reading]:
        """The rows of a panel's time range, oldest first."""
        start, end = history_range.start, history_range.end
        found = [r for r in self._thermostat(id).readings if start <= r.time <= end]
        return found[-history_range.limit :]

    @sensor.subscribe
    async def may_read(self, user: User | None, id: str) -> None:
        """Viewers may not read the cellar; background work (user None) may."""
        self._thermostat(id)
        if id == "cellar" and user is not None and user.role == "Viewer":
            raise PermissionDenied("the cellar is not for viewers")

    @sensor.publish
    async def command(self, data: Command, id: str) -> None:
        """Sets the target temperature of a sensor."""
        self._thermostat(id).target = data.target

    @query
    async def compare(self, q: Compare) -> Frame:
        """One row with a value for each sensor."""
        names = q.sensors or list(self.thermostats)
        columns: dict[str, list[float]] = {}
        for name in names:
            values = [r.celsius for r in self._thermostat(name).readings]
            if not values:
                raise UpstreamError(f"{name} has not measured yet")
            columns[name] = [max(values) if q.agg == "max" else sum(values) / len(values)]
        return Frame.from_columns(columns)

    @query
    async def warmest(self, q: Query) -> LiveChannel:
        """Follows the sensor with the highest temperature."""
        id = max(self.thermostats, key=lambda name: self.thermostats[name].celsius)
        return LiveChannel(Sensors.sensor, id=id)

    @resource("sensors/{id}")
    async def show(self, id: str) -> dict[str, float]:
        """GET …/resources/sensors/kitchen"""
        thermostat = self._thermostat(id)
        return {"celsius": thermostat.celsius, "target": thermostat.target}

    @resource("login", method="POST")
    async def login(self, request: Request) -> dict[str, bool]:
        """POST …/resources/login with {"password": "…"}"""
        password = request.json(dict[str, str]).get("password", "")
        return {"valid": password == self.settings.password.reveal()}

    async def health(self) -> Health:
        """Save & test."""
        if not self.settings.password:
            return Health(ok=False, message="no password is set")
        names = list(self.thermostats)
        return Health(message=f"{len(names)} sensors", details={"sensors": names})


if __name__ == "__main__":
    serve(Sensors)
