"""Wrong uses of the public API. Both type checkers must report each of them. Never run."""
# pyright: strict

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict

from aiostream_ds import (
    Broadcast,
    Buffer,
    Cursor,
    DataSource,
    Frame,
    Health,
    HistoryRange,
    InstanceSettings,
    LiveChannel,
    Query,
    Response,
    Retry,
    Row,
    Rows,
    Secret,
    Settings,
    Upstream,
    UpstreamError,
    User,
    query,
    resource,
    secret,
    serve,
    stream,
)
from aiostream_ds.operators import resample
from aiostream_ds.push import AsyncPush, Push


class Broker(Settings):
    url: str
    keep_alive: int = 60
    password: Secret = secret()


class Reading(Row):
    time: datetime
    celsius: float


class Pair(NamedTuple):
    time: datetime
    celsius: float


class Known(TypedDict):
    celsius: float


class Pick(Query):
    sensor: str = ""


class Kept(DataSource):
    def __init__(self) -> None:
        self.state = {}  # wrong: only its keys can be set


class Sensors(DataSource[Broker]):
    @stream("sensors/{id}")
    async def sensor(self, id: str) -> Rows[Reading]:
        yield Reading(datetime.now(UTC), 20.5)

    @stream("ticks/{hz:int}")
    async def ticks(self, hz: int) -> Rows:
        yield {"value": hz}

    @stream("rows")
    async def rows(self) -> Rows[Reading]:
        yield {"celsius": 1.0}  # wrong: another row than in the annotation

    @stream  # wrong: not a generator
    async def bare(self, x: int) -> int:
        return x

    @stream
    async def cpu(self, host: str, core: int = 0) -> Rows[Reading]:
        yield Reading(datetime.now(UTC), 20.5)

    @cpu.subscribe  # wrong: the type of a parameter of the stream
    async def may_cpu(self, user: User | None, host: int, core: int = 0) -> None: ...

    @stream("pairs")
    async def pairs(self) -> Rows[Pair]:
        yield datetime.now(UTC), 1.0  # wrong: a tuple is not the named tuple

    @stream("known")
    async def known(self) -> Rows[Known]:
        yield {"fahrenheit": 1.0}  # wrong: no such key

    @stream("value/{x:int}")  # wrong: not a generator
    async def value(self, x: int) -> int:
        return x

    @sensor.subscribe  # wrong: the type of the path's field
    async def may_read(self, user: User | None, id: int) -> None: ...

    @ticks.subscribe  # wrong: there may be no user
    async def may_tick(self, user: User, hz: int) -> None: ...

    @sensor.suggest("id")  # wrong: `typed` is a string
    async def ids(self, typed: int) -> list[str]:
        return []

    @ticks.suggest("hz")  # wrong: neither strings nor numbers
    async def rates(self, typed: str) -> list[None]:
        return []

    @ticks.history  # wrong: the range comes first
    async def ticked(self, hz: int, history_range: HistoryRange) -> Frame:
        return Frame()

    @sensor.history  # wrong: neither a frame nor rows
    async def past(self, history_range: HistoryRange, id: str) -> int:
        return 1

    @query
    async def text(self, sensor: str, limit: int = 10) -> Frame:
        return await self.text("a", limit="10")  # wrong: the type of the argument

    @query("number")  # wrong: neither a frame nor a LiveChannel
    async def number(self, q: Pick) -> int:
        return 1

    @query("numbers")  # wrong: a dict of numbers, not of tables
    async def numbers(self, q: Pick) -> dict[str, int]:
        return {"n": 1}

    @resource("a", method="FETCH")  # wrong: no such HTTP method
    async def fetch(self) -> None: ...

    def health(self, deep: bool) -> Health:  # wrong: an argument
        return Health()

    @query
    async def pick(self, q: Pick) -> LiveChannel:
        print(q.sensors)  # wrong: no such field
        print(self.settings.keepalive)  # wrong: no such setting
        print(self.settings.password + "")  # wrong: a secret is not a string
        async for row in self.sensor("a"):
            print(row.fahrenheit)  # wrong: no such column
        async for row in self.ticks("a"):  # wrong: the argument's type
            print(row)
        return LiveChannel(Sensors.sensor, id=q.sensor)


def live() -> list[Any]:
    return [
        LiveChannel(Sensors.sensor, nope="a"),  # wrong: no such path argument
        LiveChannel(Sensors.sensor, id=3),  # wrong: its type
        LiveChannel(Sensors.ticks),  # wrong: it is missing
        LiveChannel(Sensors.cpu, host=1),  # wrong: its type
        LiveChannel(Sensors.cpu, core=1),  # wrong: the host is missing
        LiveChannel(Pick, id="a"),  # wrong: not a stream
        LiveChannel(Sensors.sensor, id="a").with_history([]),  # wrong: not a frame
        Sensors.ticks.path("a"),  # wrong: its type
    ]


def values() -> list[Any]:
    return [
        Broker(),  # wrong: the required setting is missing
        Broker("x"),  # wrong: settings take keywords only
        Broker(url=3),  # wrong: its type
        Broker(url="x", nope=3),  # wrong: no such setting
        Reading(datetime.now(UTC)),  # wrong: a column is missing
        Reading(datetime.now(UTC), "warm"),  # wrong: the column's type
        Buffer(full="explode"),  # wrong: no such policy
        Retry(max="1"),  # wrong: no such option
        Response(status="200"),  # wrong: its type
    ]


def change(broker: Broker, q: Pick) -> None:
    broker.url = "y"  # wrong: settings are frozen
    q.sensor = "y"  # wrong: queries are frozen


class Forwarding(DataSource[Broker]):
    def __init__(self, settings: Broker, instance: InstanceSettings) -> None:
        super().__init__(settings, instance)  # wrong: they are set, not passed


class Other(DataSource):
    @stream("a", everything=True)  # wrong: no such option
    async def a(self) -> AsyncIterator[Any]:
        yield 1

    @stream("d", share="everything")  # wrong: no such value
    async def d(self) -> AsyncIterator[Any]:
        yield 1

    @stream("c", store=True)  # wrong: not a Retention
    async def c(self) -> Rows:
        yield 1

    @stream("b", buffer="latest")  # wrong: not a Buffer
    async def b(self) -> Rows:
        yield 1


class Published(DataSource):
    readings = Broadcast[Reading]()

    def on_message(self, text: str) -> None:
        self.readings.publish(text)  # wrong: not a Reading
        self.readings.publish(Reading(celsius=1.0), timeout=1)  # wrong: no such option

    @stream("published")
    async def published(self) -> Rows[Reading]:
        async for reading in self.readings:  # wrong: it subscribes with a call
            yield reading


class Following(Sensors):
    @stream("following")
    async def following(self) -> Rows[dict[str, Any]]:
        async for row in self.follow(Sensors.ticks, hz="fast"):  # wrong: its type
            yield row
        async for row in resample([{}], 1, {"value": "average"}):  # wrong: no such aggregate
            yield row


class Log(DataSource):
    @stream("log", cursor="offset")
    async def log(self, after: Cursor) -> Rows:
        async for row in self.log(None):  # wrong: a cursor is never None
            yield row

    @stream(cursor=("partition", "offset"))  # wrong: the value is a pair
    async def pairs(self, after: Cursor) -> Rows:
        yield 1

    @stream(cursor="id")  # wrong: two numbers are two columns, or a text
    async def floats(self, after: Cursor[tuple[int, int]]) -> Rows:
        yield 1

    @stream(cursor=("partition", "offset"))  # wrong: a text is one column
    async def texts(self, after: Cursor[str]) -> Rows:
        yield 1

    @stream(cursor="id")
    async def entries(self, after: Cursor[str]) -> Rows:
        async for row in self.entries(Cursor("", 3)):  # wrong: the value is a text
            yield row

    @entries.last  # wrong: the value is a text
    async def newest(self) -> int:
        return 1

    @entries.history  # wrong: the value is a text
    async def past_entries(self, history_range: HistoryRange) -> Frame:
        return Frame()

    @stream(cursor=("a", "b", "c"))  # wrong: at most two columns
    async def three(self, after: Cursor[tuple[int, int]]) -> Rows:
        yield 1

    @log.history  # wrong: the cursor is one number
    async def past_log(self, history_range: HistoryRange[tuple[int, int]]) -> Frame:
        return Frame()

    @stream("bare", cursor="offset")  # wrong: it takes a Cursor
    async def bare(self) -> Rows:
        yield 1


class Declaring(DataSource):
    declared_errors = {OSError: OSError}  # wrong: not a PluginError


class Naming(Upstream[str, str]):
    declared_errors = {"OSError": UpstreamError}  # wrong: not an exception class


Push(path="a", full="wait")  # wrong: not one of the two
Push(path="a", time_unit="m")  # wrong: not a unit
Push(path="a", on_refused=print, batch_rows="5")  # wrong: not an integer


async def pushes() -> None:
    async with AsyncPush(path="a") as push:
        push.send({"n": 1})  # wrong: it must be awaited


class NotSettings(DataSource[int]):  # wrong: not a Settings class
    pass


serve(Broker)  # wrong: not a DataSource class
