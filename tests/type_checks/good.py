"""Right uses of the public API. Neither type checker may report a line. Never run."""
# pyright: strict

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    TypeVar,
    assert_type,
)

from msgspec import Meta, Struct

from aiostream_ds import (
    Allow,
    BadQuery,
    Broadcast,
    Buffer,
    Columns,
    ConfigError,
    Cursor,
    DataSource,
    DeclaredErrors,
    Field,
    FieldConfig,
    FieldType,
    Frame,
    Health,
    HistoryPage,
    HistoryRange,
    LiveChannel,
    NotFound,
    PermissionDenied,
    PluginError,
    Query,
    Quota,
    Request,
    Response,
    Retention,
    Retry,
    Row,
    Rows,
    Secret,
    Settings,
    Status,
    Upstream,
    UpstreamError,
    User,
    query,
    resource,
    secret,
    serve,
    stream,
)
from aiostream_ds.operators import combine_latest, merge, resample, tumbling
from aiostream_ds.push import AsyncPush, Push, PushCounts, PushRejected, PushUnsent
from aiostream_ds.stores import AppendResult, SqliteStore
from aiostream_ds.testing import Grafana, UpstreamDouble


class Broker(Settings):
    url: str
    keep_alive: Annotated[int, Meta(ge=1)] = 60
    password: Secret = secret()
    token: Secret | None = None


class Reading(Row):
    time: datetime
    celsius: Annotated[float, FieldConfig(unit="celsius")]
    note: str | None = None


class Command(Struct):
    on: bool


class Compare(Query):
    sensors: list[str] = []
    agg: Literal["mean", "max"] = "mean"


class Blocking(DataSource[Broker]):
    @contextmanager
    def lifespan(self) -> Generator[None]:
        yield

    def health(self) -> Health:
        return Health(message=self.settings.url)

    @stream("a/{id}")
    def generated(self, id: str) -> Iterator[Reading]:
        yield Reading(datetime.now(UTC), 1.0)

    @generated.history
    def past(self, history_range: HistoryRange, id: str) -> list[Reading]:
        return [Reading(history_range.start, 1.0)]

    @generated.subscribe
    def may_read(self, user: User | None, id: str) -> None:
        raise PermissionDenied(id)

    @generated.suggest("id")
    def ids(self, typed: str) -> list[str]:
        return [typed]

    @generated.publish
    def command(self, data: Command, user: User | None, id: str) -> dict[str, bool]:
        return {id: data.on}

    @stream("log", cursor="id")
    def log(self, after: Cursor) -> Generator[dict[str, int] | Cursor, None, None]:
        yield {"id": after.value + 1}

    @log.last
    def newest(self) -> int | None:
        return None

    @log.history
    def logged(self, history_range: HistoryRange) -> list[dict[str, int]]:
        return []

    @stream("lines")
    def lines(self) -> Iterator[dict[str, str]]:
        return iter([{"line": "a"}])

    @query
    def one(self, q: Query) -> Frame:
        return Frame()

    @query("other")
    def two(self, q: Compare) -> list[Frame | LiveChannel]:
        return [LiveChannel(Blocking.generated, id=q.sensors[0])]

    @query
    def fields(self, sensor: str, limit: int = 10) -> list[Reading]:
        return []

    @query("ranged")
    async def with_range(self, q: Query, sensor: str = "a") -> Frame:
        assert_type(self.fields(sensor, limit=3), list[Reading])
        return await self.with_range(q, sensor)

    @query
    async def bare(self) -> Frame:
        return Frame()

    @resource("body")
    def body(self) -> Iterator[bytes]:
        yield b"part"

    async def derived(self) -> None:
        async for row in self.generated("a"):
            assert_type(row, Reading)
        assert_type(self.ids("a"), list[str])


class Sensors(DataSource[Broker]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        assert_type(self.settings, Broker)
        yield

    @stream(
        "sensors/{id}",
        linger=1,
        buffer=Buffer(rows=1_000, full="drop_oldest"),
        retry=Retry(max_delay=30),
    )
    async def sensor(self, id: str) -> Rows[Reading]:
        if not id:
            raise UpstreamError("nobody there")
        yield Reading(datetime.now(UTC), celsius=20.5)

    @sensor.history
    async def past(self, history_range: HistoryRange, id: str) -> list[Reading]:
        return [Reading(history_range.start, 1.0)][: history_range.limit]

    @sensor.subscribe
    async def may_read(self, user: User | None, id: str) -> None:
        if user is None:
            raise PermissionDenied("nobody")
        raise NotFound(f"no sensor {id!r} for {user.login}")

    @sensor.suggest("id")
    async def ids(self, typed: str, user: User | None) -> list[str]:
        return [typed, user.login if user else ""]

    @sensor.publish
    async def command(self, data: Command, id: str) -> dict[str, bool]:
        return {id: data.on}

    @stream("ticks/{hz:int}/{factor:float}")
    async def ticks(self, hz: int, factor: float = 1.0) -> Rows:
        yield {"value": hz * factor}

    @ticks.history
    async def ticked(self, history_range: HistoryRange, hz: int, factor: float = 1.0) -> Frame:
        return Frame(Field("time", [history_range.start]), Field("value", [hz * factor]))

    @stream
    async def cpu(self, host: str, core: int = 0) -> Rows[Reading]:
        """A path from the signature."""
        yield Reading(datetime.now(UTC), float(core))

    @cpu.history
    async def past_cpu(
        self, history_range: HistoryRange, host: str, core: int = 0
    ) -> list[Reading]:
        return [row async for row in self.cpu(host, core)]

    @stream(linger=3)
    async def memory(self, host: str | None) -> Rows:
        yield {"host": host}

    @stream()
    async def disk(self) -> AsyncGenerator[dict[str, int]]:
        yield {"free": 1}

    @stream("lists/{topic:any}")
    async def lists(self, topic: str) -> AsyncIterator[list[Reading]]:
        yield [Reading(datetime.now(UTC), 1.0)]

    @stream("frames/{rest:rest}")
    async def frames(self, rest: str) -> AsyncGenerator[Frame]:
        yield Frame(Field("n", [1], FieldType.INT64, nullable=False))

    @query
    async def compare(self, q: Compare) -> LiveChannel:
        assert_type(q.max_data_points, int)
        return LiveChannel(Sensors.sensor, id=q.sensors[0]).with_history(Frame())

    @query("both")
    async def more(self, q: Compare) -> list[Frame | LiveChannel]:
        return [Frame(), LiveChannel(Sensors.ticks, 10)]

    @query("frames")
    async def some(self, q: Compare) -> list[Frame]:
        if q.with_streaming:
            raise BadQuery("no")
        return [Frame()]

    @query("either")
    async def either(self, q: Query) -> Frame | LiveChannel:
        return (
            Frame() if q.time_range.start < q.time_range.end else LiveChannel(Sensors.sensor, "a")
        )

    @resource
    async def details(self, id: str) -> dict[str, str]:
        return {"id": id}

    @resource(method="POST")
    async def store(self, request: Request) -> None: ...

    @resource("sensors")
    async def names(self) -> list[str]:
        return [self.settings.url]

    @resource("sensors/{id}", method="POST")
    async def show(self, id: str, request: Request) -> Response:
        return Response(body=id.encode(), status=200, headers={"X-Path": request.path})

    @resource("dump")
    async def dump(self) -> AsyncIterator[bytes]:
        yield b""

    async def health(self) -> Health:
        if not self.settings.password.reveal():
            raise ConfigError("no password")
        return Health(message="fine", details={"seen": 3})

    async def inside(self) -> None:
        async for reading in self.sensor("a"):
            assert_type(reading, Reading)
        async for ticks in self.ticks(1):
            print(ticks["value"])
        async for reading in self.cpu("a", core=1):
            assert_type(reading, Reading)
        await self.may_read(None, "a")
        assert_type(await self.details("a"), dict[str, str])
        assert_type(Sensors.cpu.path("a"), str)
        assert_type(Sensors.memory.path(host=None), str)
        answer = await self.compare(Compare(ref_id="B"))
        assert_type(answer, LiveChannel)
        assert_type(Sensors.sensor.path(id="a"), str)


class More(Sensors):
    @stream("sensors/{id}", linger=5)
    async def sensor(self, id: str) -> Rows[Reading]:
        async for row in super().sensor(id):
            yield row

    async def may_read(self, user: User | None, id: str) -> None:
        await super().may_read(user, id)

    async def compare(self, q: Compare) -> LiveChannel:
        return await super().compare(q)


class Guarded(Sensors):
    @Sensors.ticks.subscribe
    async def may_tick(self, user: User | None, hz: int, factor: float = 1.0) -> None: ...


class Feeds(Upstream[str, bytes]):
    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[int]:
        yield 1

    async def messages(self, connection: int) -> AsyncGenerator[tuple[str, bytes], None]:
        self.fail("gone", UpstreamError("the topic was deleted"))
        yield "topic", b"text"

    def keys_for(self, address: str) -> Iterable[str]:
        return (key for key in self.followed if key == address)


class FeedsDouble(UpstreamDouble[str, bytes], Feeds):
    pass


async def play_feeds(feeds: FeedsDouble) -> None:
    feeds.send("topic", b"one", b"two")
    feeds.disconnect()
    await feeds.check()
    assert_type(feeds.subscribed, set[str])


class Published(DataSource):
    readings = Broadcast[Reading](buffer=Buffer(full="block"), replay=1)
    anything = Broadcast()

    @stream("published")
    async def published(self) -> Rows[Reading]:
        assert_type(self.readings, Broadcast[Reading])
        async for reading in self.readings.subscribe():
            assert_type(reading, Reading)
            yield reading

    @stream
    def blocking(self) -> Iterator[Reading]:
        for reading in self.readings.subscribe():
            assert_type(reading, Reading)
            yield reading

    @stream
    def followed(self) -> Iterator[dict[str, Any]]:
        for row in resample(self.follow(Published.published), 60, {"celsius": "mean"}):
            assert_type(row, dict[str, Any])
        for row in self.follow("published"):
            assert_type(row, dict[str, Any])
            yield row

    async def send(self, reading: Reading) -> None:
        self.anything.publish({"celsius": 21.5})
        await self.readings.send(reading)
        assert_type(self.readings.statistics().dropped, int)


class Derived(Sensors):
    @stream("means/{hz:int}")
    async def means(self, hz: int) -> Rows[dict[str, Any]]:
        ticks = self.follow(Sensors.ticks, hz=hz)
        rows: AsyncIterator[dict[str, Any]] = ticks
        assert_type(await anext(rows), dict[str, Any])
        async for row in resample(
            ticks, 60, {"value": "mean", "peak": ("value", "max")}, by="host"
        ):
            assert_type(row, dict[str, Any])
            yield row

    async def windows(self, readings: Broadcast[Reading]) -> None:
        async for window in tumbling(readings.subscribe(), 10):
            assert_type(window.rows, list[Reading])
            assert_type(window.start, datetime)
        async for one, two in combine_latest(readings.subscribe(), self.follow("ticks/1")):
            assert_type(one, Reading)
            assert_type(two, dict[str, Any])
        async for reading in merge(readings.subscribe(), list[Reading]()):
            assert_type(reading, Reading)


async def test_published(grafana: Grafana) -> None:
    source = await grafana.data_source(Published)
    assert_type(source, Published)


class Pressed(DataSource):
    allow = (Allow(roles=("Admin",), paths=("mail/{me:user}",)),)
    quota = Quota(channels=5)
    feeds: Feeds

    @stream(
        "mail/{login:user}",
        allow=[Allow(logins=("ann",))],
        max_hz=5,
        status_column="status",
        thin=False,
        share="cluster",
    )
    async def mail(self, login: str) -> Rows[Reading | Status]:
        async with self.feeds.follow(login) as messages:
            async for message in messages:
                assert_type(message, bytes)
                yield Status("warning", message.decode())

    @mail.publish
    async def send(self, data: str, user: User | None, login: str) -> None: ...


class Plain(DataSource):
    def __init__(self) -> None:
        assert_type(self.settings, Settings)
        assert_type(self.instance.uid, str)
        self.walked = 0

    @stream("walk")
    async def walk(self) -> Rows:
        assert_type(self.settings, Settings)
        yield {"value": 1}


@dataclass
class Measured:
    time: datetime
    celsius: Annotated[float, FieldConfig(unit="celsius")]


class TimedPair(NamedTuple):
    time: datetime
    celsius: float


class Known(TypedDict):
    time: datetime
    celsius: NotRequired[float]


class Kinds(DataSource):
    @stream("measured")
    async def measured(self) -> Rows[Measured | list[Measured]]:
        yield Measured(datetime.now(UTC), 1.0)
        yield [Measured(datetime.now(UTC), 1.0)]

    @measured.history
    async def past(self, history_range: HistoryRange) -> list[Measured]:
        return [Measured(history_range.start, 1.0)]

    @stream("pairs")
    async def pairs(self) -> Rows[TimedPair]:
        yield TimedPair(datetime.now(UTC), 1.0)

    @stream("known")
    async def known(self) -> Rows[Known | list[Known] | Status]:
        yield {"time": datetime.now(UTC)}
        yield [{"time": datetime.now(UTC), "celsius": 1.0}]
        yield Status()

    @stream("readings")
    async def readings(self) -> Rows[Reading | Columns[Reading] | list[Reading]]:
        yield Reading.from_columns(time=[1], celsius=[1.0], note=[None])

    @query
    async def rows(self, q: Query) -> list[Measured]:
        return [Measured(q.time_range.start, 1.0)]

    @query("dicts")
    async def dicts(self, q: Query) -> list[dict[str, float]]:
        return [{"celsius": 1.0}]

    @query("named")
    async def named(self, q: Query) -> dict[str, list[TimedPair]]:
        return {"pairs": [TimedPair(q.time_range.start, 1.0)]}

    @query("columns")
    async def columns(self, q: Query) -> Columns[Reading]:
        return Reading.from_columns(time=[1], celsius=[1.0], note=[None])

    async def inside(self) -> None:
        async for measured in self.measured():
            assert_type(measured, Measured | list[Measured])


class Line(Row):
    time: datetime
    offset: int


Pair = tuple[int, int]


class Part(Row):
    time: datetime
    partition: int
    offset: int


class Log(DataSource):
    @stream("log/{name}", cursor="offset")
    async def log(self, after: Cursor, name: str) -> Rows[Line | Cursor]:
        assert_type(after.value, int)
        yield Cursor(after.epoch, after.value)

    @stream(cursor="offset")
    async def rows(self, after: Cursor, name: str) -> Rows[Line]:
        yield Line(datetime.now(UTC), after.value + 1)

    @rows.history
    async def past_rows(self, history_range: HistoryRange, name: str) -> list[Line]:
        return [row async for row in self.rows(Cursor("", -1), name)]

    @stream(cursor=("partition", "offset"))
    async def partitions(
        self, after: Cursor[tuple[int, int]]
    ) -> Rows[Part | Cursor[tuple[int, int]]]:
        partition, offset = after.value
        assert_type(offset, int)
        yield Cursor("", (partition, offset))

    @partitions.history
    async def read_partitions(
        self, history_range: HistoryRange[tuple[int, int]]
    ) -> HistoryPage[tuple[int, int]]:
        assert_type(history_range.after, tuple[int, int] | None)
        assert_type(history_range.points, int)
        assert_type(history_range.interval, timedelta)
        return HistoryPage([Part(datetime.now(UTC), 1, 2)], last=(1, 2), total=100)

    @partitions.last
    async def newest_partition(self) -> tuple[int, int] | None:
        return 1, 2

    @stream("maybe/{name}", cursor="offset")
    async def maybe(self, after: Cursor | None, name: str) -> Rows[Line]:
        yield Line(datetime.now(UTC), 0)

    @log.history
    async def lines(self, history_range: HistoryRange, name: str) -> list[Line]:
        return [row async for row in self.log(Cursor("", -1), name) if isinstance(row, Line)]

    @query
    async def tail(self, q: Query) -> LiveChannel:
        return LiveChannel(Log.log, name="app")


class Texts(DataSource):
    @stream(cursor="id")
    async def entries(self, after: Cursor[str], name: str) -> Rows[dict[str, Any] | Cursor[str]]:
        assert_type(after.value, str)
        yield {"id": "1700000000000-3"}
        yield Cursor("epoch", "1700000000000-4")

    @entries.last
    async def newest(self, name: str) -> str | None:
        return None

    @entries.history
    async def read(self, history_range: HistoryRange[str], name: str) -> HistoryPage[str]:
        after = history_range.after or "0-0"
        assert_type(after, str)
        return HistoryPage([{"id": after}], first="1-0")

    @stream(cursor="id")
    def blocking(self, after: Cursor[str]) -> Iterator[dict[str, str]]:
        yield {"id": after.value}

    @blocking.last
    def last(self) -> Cursor[str]:
        return Cursor("", "1-0")

    @blocking.history
    def past(self, history_range: HistoryRange[str]) -> list[dict[str, str]]:
        return []

    async def derived(self) -> None:
        async for row in self.entries(Cursor("", "1-0"), "orders"):
            assert_type(row, dict[str, Any] | Cursor[str])


class Socket:
    async def __aenter__(self) -> "Socket":
        return self

    async def __aexit__(self, *error: object) -> None: ...


class Shared(Upstream[str, Reading]):
    def connect(self) -> Socket:
        return Socket()

    async def messages(self, socket: Socket) -> AsyncGenerator[tuple[str, Reading]]:
        yield "a", Reading(datetime.now(UTC), 1.0)


class Sharing(DataSource):
    def lifespan(self) -> Shared:
        self.shared = Shared(name="shared")
        return self.shared

    @stream(cursor="n")
    async def readings(self, after: Cursor, name: str) -> Rows[Reading]:
        async for reading in self.shared.follow(name):
            yield reading
        async with self.shared.follow(name) as readings:
            assert_type(await anext(readings), Reading)

    @readings.history
    async def read(self, history_range: HistoryRange, name: str) -> list[Reading]:
        log = [Reading(datetime.now(UTC), 1.0)]
        return history_range.select(log, cursor="n", time="time")


class Coded(Exception):
    code = 0


def by_code(error: Coded) -> type[PluginError] | None:
    return ConfigError if error.code == 1 else None


ERRORS: DeclaredErrors = {Coded: by_code, (OSError, EOFError): UpstreamError}


class Declaring(DataSource[Broker]):
    declared_errors = {Coded: by_code, (OSError, EOFError): UpstreamError, KeyError: NotFound}


class Inheriting(Declaring):
    declared_errors = {**Declaring.declared_errors, ValueError: BadQuery}


class SharingErrors(DataSource):
    declared_errors = ERRORS


class Connecting(Upstream[str, str]):
    declared_errors = {Coded: by_code, EOFError: lambda error: ConfigError(str(error))}


S = TypeVar("S", bound=Broker)


class Open(DataSource[S], Generic[S]):
    @stream("open")
    async def opened(self) -> Rows:
        yield {"value": self.settings.keep_alive}


class Special(Broker):
    extra: int = 1


class Closed(Open[Special]):
    async def health(self) -> Health:
        return Health(message=str(self.settings.extra))


class Recorded(DataSource[Broker]):
    def __init__(self) -> None:
        self.store_directory = self.settings.url

    @stream("recorded/{name}", store=Retention(rows=5), keep_running=60)
    async def recorded(self, name: str) -> Rows[Reading]:
        yield Reading(time=datetime.now(UTC), celsius=1.0)

    @stream(store=Retention(seconds=60.0))
    def blocking(self) -> Iterator[dict[str, float]]:
        yield {"n": 1.0}

    @resource("recorded/{name}", method="DELETE")
    async def forget(self, name: str) -> dict[str, bool]:
        path = assert_type(Recorded.recorded.path(name), str)
        return {"deleted": await self.row_store.delete(path)}


class Stored(DataSource[Broker]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        async with SqliteStore("rows", name="a", sync="full") as self.store:
            yield

    @stream("stored/{name}", cursor="cursor")
    async def stored(self, after: Cursor, name: str) -> Rows[list[dict[str, Any]] | Cursor]:
        async for rows in self.store.follow(name, after):
            yield rows

    @stored.last
    async def newest(self, name: str) -> Cursor:
        return await self.store.newest(name)

    @stored.history
    async def read(self, history_range: HistoryRange, name: str) -> HistoryPage:
        return await self.store.history(name, history_range)

    async def put(self, rows: list[dict[str, Any]]) -> bool:
        result = await self.store.append("a", rows, key="k")
        assert_type(result, AppendResult)
        return result.repeated


def report_refused(row: Any, reason: str) -> None:
    print(row, reason)


def pushes(rows: list[Reading]) -> None:
    with Push("http://localhost:3030", "lab/run-1", full="drop_oldest", time_unit="ms") as push:
        push.send({"loss": 0.1}, timeout=1.0)
        push.send(rows)
        push.flush()
        assert_type(push.counts, PushCounts)
    try:
        Push(path="a", on_refused=report_refused).close(1.0)
    except PushRejected as error:
        assert_type(error.status, int)
    except PushUnsent as error:
        assert_type(error.rows, int)


async def pushes_async() -> None:
    async with AsyncPush(path="lab/run-1", uid="u", token="glsa_x") as push:
        await push.send({"loss": 0.1})
        await push.flush()


if __name__ == "__main__":
    serve(Sensors)
    serve({"sensors": Sensors, "plain": Plain, "late": "package.module:Class"}, by="source")
