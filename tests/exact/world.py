"""The upstream systems in virtual time, the plugin that reads them, and Grafana's servers."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup, TaskStatus
from grpclib.client import UnaryStreamMethod
from grpclib.config import Configuration
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds import (
    Buffer,
    Cursor,
    DataSource,
    HistoryPage,
    HistoryRange,
    Row,
    Rows,
    Settings,
    UpstreamError,
    stream,
)
from aiostream_ds._channels.policy import Replay
from aiostream_ds._grafana.application import Application, background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing.grafana import Grafana, QueryFailed, open_grafana
from aiostream_ds.testing.viewer import Refused, Viewer

from .client import CallFailed, History
from .network import Receive
from .packets import Message, RunCheck

START = 4_102_444_800_000  # Unix ms at the loop's time 0: in the future, so each range ends now
READ = 0.1  # seconds between two reads of the log
SUBSCRIBE = 1.0  # seconds until a subscription to new rows takes effect
WINDOW = 65_535  # bytes of a connection's flow-control window
BUFFER_ROWS = 40  # rows that are queued for a slow subscriber
PAGE_LINES = 7  # rows with the same first number of a cursor of two
KEY_ROWS = 40  # rows after which a varying log has another column
LOG_ROWS = 30  # rows in the log of a feed's channel


Pair = tuple[int, int]


def now_ms() -> int:
    return START + round(anyio.current_time() * 1000)


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


class Line(Row):
    """A row of a log; `log` is its epoch."""

    time: datetime
    n: int
    log: str
    offset: int
    pad: str = ""


class PairLine(Row):
    """A row of a log whose cursor has two columns: the page, and the line on it."""

    time: datetime
    n: int
    log: str
    page: int
    line: int
    pad: str = ""


class TextLine(Row):
    """A row of a log whose cursor is a text: the page and the line."""

    time: datetime
    n: int
    log: str
    id: str
    pad: str = ""


class FeedRow(Row):
    """A row of a feed: the process and the run that yielded it, and its number in this run."""

    time: datetime
    process: int
    run: int
    n: int


def pair_of(offset: int) -> Pair:
    """The cursor of an offset in two columns."""
    return (-1, -1) if offset < 0 else divmod(offset // 10, PAGE_LINES)


def offset_of(cursor: Any) -> int:
    """The offset of a cursor on the wire, of one in two columns or of a text."""
    if isinstance(cursor, str):
        cursor = tuple(map(int, cursor.split("-"))) if cursor not in ("-1", "") else (-1, -1)
    if not isinstance(cursor, tuple):
        return int(cursor)
    page, line = cursor
    return -1 if page < 0 else 10 * (PAGE_LINES * page + line)


def with_pair(item: Line | Cursor) -> PairLine | Cursor[Pair]:
    """A row, or a cursor, of a log with the cursor in two columns."""
    if isinstance(item, Cursor):
        return Cursor(item.epoch, pair_of(item.value))
    page, line = pair_of(item.offset)
    return PairLine(item.time, item.n, item.log, page, line, item.pad)


def text_of(offset: int) -> str:
    """The cursor of an offset as a text."""
    return "" if offset < 0 else "{}-{}".format(*pair_of(offset))


def with_text(item: Line | Cursor) -> TextLine | Cursor[str]:
    """A row, or a cursor, of a log with the cursor as a text."""
    if isinstance(item, Cursor):
        return Cursor(item.epoch, text_of(item.value))
    return TextLine(item.time, item.n, item.log, text_of(item.offset), item.pad)


class Log:
    """Numbered rows at increasing offsets; a log that replaces another has another `epoch`."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.lines: list[Line] = []
        self.times: list[int] = []
        self.offsets: list[int] = []

    def append(self, now: int, count: int, pad: int = 0) -> None:
        for _ in range(count):
            n = len(self.lines) + 1
            self.lines.append(Line(moment(now), n, self.epoch, 10 * n, "x" * pad))
            self.times.append(now)
            self.offsets.append(10 * n)

    def until(self, now: int) -> list[Line]:
        """The rows up to this time."""
        return self.lines[: bisect_right(self.times, now)]

    def between(self, cutoff: int, cursor: int) -> list[int]:
        """The numbers of the rows from a time up to a cursor."""
        first, end = bisect_left(self.times, cutoff), bisect_right(self.offsets, cursor)
        return list(range(first + 1, end + 1))


class World:
    """The upstream systems: logs that can be read again, by name, and a feed that cannot.

    `epochs` also has the logs that were replaced.
    """

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.epochs: dict[str, Log] = {}
        self.fed = 0
        self.down = False
        self.lags: dict[int, float] = {}  # seconds, by server
        self.emitted: dict[tuple[int, str], tuple[int, int]] = {}  # the newest row of each feed
        self._made = itertools.count(1)
        self._changed = anyio.Event()

    def append(self, name: str, count: int, pad: int = 0) -> None:
        self.log(name).append(now_ms(), count, pad)
        self.notify()

    def feed(self, count: int = 1) -> None:
        self.fed += count
        self.notify()

    def lag(self, server: int, seconds: float) -> None:
        """From now on this server's plugin reads rows this much later."""
        self.lags[server] = seconds
        self.notify()

    def upstream(self, down: bool) -> None:
        """Make the upstream systems unreachable, or reachable again."""
        self.down = down
        self.notify()

    def check_upstream(self) -> None:
        if self.down:
            raise UpstreamError("the upstream system is down")

    def notify(self) -> None:
        """Wake the waiting plugins."""
        self._changed.set()
        self._changed = anyio.Event()

    async def change(self, server: int) -> None:
        """Wait until a plugin of this server has to read again."""
        if not self.lags.get(server):
            await self._changed.wait()
        await anyio.sleep(READ)

    def log(self, name: str) -> Log:
        if name not in self.logs:
            self.replace(name)
        return self.logs[name]

    def replace(self, name: str) -> None:
        """Replace a log: it was truncated, or is another file."""
        log = self.logs[name] = Log(f"{name}-{next(self._made)}")
        self.epochs[log.epoch] = log
        self.notify()


class Titled(Settings):
    title: str = ""


class _Source(DataSource[Titled]):
    world: World
    server: int
    process: int
    runs: Any

    @stream("log/{name}", cursor="offset", buffer=Buffer(rows=BUFFER_ROWS))
    async def log(self, after: Cursor, name: str) -> Rows[Line | Cursor]:
        async with aclosing(self.read(after, name)) as items:
            async for item in items:
                yield item

    @stream("varying/{name}", cursor="offset", buffer=Buffer(rows=BUFFER_ROWS))
    async def varying(self, after: Cursor, name: str) -> Rows:
        async with aclosing(self.read(after, name)) as items:
            async for item in items:
                yield with_varying_columns(item) if isinstance(item, Line) else item

    @stream("pairs/{name}", cursor=("page", "line"), buffer=Buffer(rows=BUFFER_ROWS))
    async def pairs(self, after: Cursor[Pair], name: str) -> Rows[PairLine | Cursor[Pair]]:
        async with aclosing(self.read(Cursor(after.epoch, offset_of(after.value)), name)) as items:
            async for item in items:
                yield with_pair(item)

    @stream("texts/{name}", cursor="id", buffer=Buffer(rows=BUFFER_ROWS))
    async def texts(self, after: Cursor[str], name: str) -> Rows[TextLine | Cursor[str]]:
        async with aclosing(self.read(Cursor(after.epoch, offset_of(after.value)), name)) as items:
            async for item in items:
                yield with_text(item)

    @stream("following/{name}", cursor="offset", buffer=Buffer(rows=BUFFER_ROWS))
    async def following(self, after: Cursor, name: str) -> Rows[Line | Cursor]:
        """Only rows that are written after a slow subscription, whatever `after` is."""
        epoch = after.epoch
        await anyio.sleep(SUBSCRIBE)
        log = self.world.log(name)
        visible = self.visible(log)
        cursor = visible[-1].offset if visible else -1
        while True:
            if log.epoch != epoch:
                epoch = log.epoch
                yield Cursor(epoch, -1)
            while self.world.log(name) is log:
                self.world.check_upstream()
                for line in lines_after(self.visible(log), cursor):
                    cursor = line.offset
                    yield line
                await self.world.change(self.server)
            log, cursor = self.world.log(name), -1

    async def read(self, after: Cursor, name: str) -> AsyncGenerator[Line | Cursor, None]:
        epoch, cursor = after
        while True:
            log = self.world.log(name)
            if log.epoch != epoch:
                epoch, cursor = log.epoch, -1
            yield Cursor(epoch, cursor)
            while self.world.log(name) is log:
                self.world.check_upstream()
                for line in lines_after(self.visible(log), cursor):
                    cursor = line.offset
                    yield line
                await self.world.change(self.server)

    @varying.history
    async def read_varying(self, history_range: HistoryRange, name: str) -> HistoryPage:
        page = await self.read_history(history_range, name)
        return msgspec.structs.replace(page, rows=list(map(with_varying_columns, page.rows)))

    @pairs.history
    async def read_pairs(self, history_range: HistoryRange[Pair], name: str) -> HistoryPage[Pair]:
        after, upto = (
            None if value is None else offset_of(value)
            for value in (history_range.after, history_range.upto)
        )
        wanted: Any = msgspec.structs.replace(history_range, after=after, upto=upto)
        page = await self.read_history(wanted, name)
        last = None if page.last is None else pair_of(page.last)
        return HistoryPage([*map(with_pair, page.rows)], epoch=page.epoch, last=last)

    @texts.history
    async def read_texts(self, history_range: HistoryRange[str], name: str) -> HistoryPage[str]:
        after, upto = (
            None if value is None else offset_of(value)
            for value in (history_range.after, history_range.upto)
        )
        wanted: Any = msgspec.structs.replace(history_range, after=after, upto=upto)
        page = await self.read_history(wanted, name)
        last = None if page.last is None else text_of(page.last)
        return HistoryPage([*map(with_text, page.rows)], epoch=page.epoch, last=last)

    @texts.last
    async def newest_text(self, name: str) -> Cursor[str]:
        found = await self.newest(name)
        return Cursor(found.epoch, text_of(found.value))

    @pairs.last
    async def newest_pair(self, name: str) -> Cursor[Pair]:
        found = await self.newest(name)
        return Cursor(found.epoch, pair_of(found.value))

    @following.history
    @log.history
    async def read_history(self, history_range: HistoryRange, name: str) -> HistoryPage:
        self.world.check_upstream()
        log = self.world.log(name)
        lines = self.visible(log)
        if history_range.after is None:
            until_end = [line for line in lines if line.time <= history_range.end]
            found = [line for line in until_end if line.time >= history_range.start]
            last = until_end[-1].offset if until_end else None
            return HistoryPage(found[-history_range.limit :], epoch=log.epoch, last=last)
        found = list(lines_after(lines, history_range.after))
        if history_range.upto is not None:
            found = [line for line in found if line.offset <= history_range.upto]
        return HistoryPage(found[: history_range.limit], epoch=log.epoch)

    @log.last
    @varying.last
    @following.last
    async def newest(self, name: str) -> Cursor:
        self.world.check_upstream()
        log = self.world.log(name)
        lines = self.visible(log)
        return Cursor(log.epoch, lines[-1].offset if lines else -1)

    def visible(self, log: Log) -> Sequence[Line]:
        return log.until(now_ms() - round(self.world.lags.get(self.server, 0.0) * 1000))

    @stream("feed/{name}", replay=Replay(rows=LOG_ROWS))
    async def feed(self, name: str) -> Rows[FeedRow]:
        run, fed = next(self.runs), self.world.fed
        numbers = itertools.count(1)
        while True:
            self.world.check_upstream()
            while fed < self.world.fed:
                fed += 1
                n = next(numbers)
                yield FeedRow(moment(now_ms()), self.process, run, n)
                self.world.emitted[self.process, name] = (run, n)
            await self.world.change(self.server)


def with_varying_columns(line: Line) -> dict[str, Any]:
    """The row as a dict, with a key that only some rows have."""
    row = {name: getattr(line, name) for name in line.__struct_fields__}
    return {**row, f"only{line.n // KEY_ROWS}": line.n}


def lines_after(lines: Sequence[Line], cursor: int) -> Sequence[Line]:
    return lines[bisect_right(lines, cursor, key=lambda line: line.offset) :]


def source_of(world: World, server: int, process: int) -> type[DataSource[Titled]]:
    """The data source class of one plugin process."""
    runs = itertools.count(1)
    members = {"world": world, "server": server, "process": process, "runs": runs}
    return type("Source", (_Source,), members)


class Server:
    """One Grafana server with its plugin process, a `network.Node`. Made by `open_servers`.

    `checks` has the check of each RunStream. While `paused`, Grafana does not read.
    """

    def __init__(self, world: World, grafana: Grafana, tasks: TaskGroup, number: int) -> None:
        self.grafana = grafana
        self.checks: list[RunCheck] = []
        self.paused = False
        self.process = self._number = number
        self._world, self._tasks = world, tasks
        self._viewers: dict[Receive, Viewer] = {}
        self._receivers: dict[str, dict[Receive, None]] = {}
        grafana._receive = self._receive  # type: ignore[method-assign]
        grafana._connect = self._connect  # type: ignore[method-assign]
        self._connect(grafana.plugin)

    async def kill(self) -> None:
        """Kill the plugin's process and start another."""
        self.process += 10
        source = source_of(self._world, self._number, self.process)
        await self.grafana.replace_plugin(await self._tasks.start(_process, source))

    def now(self) -> int:
        return now_ms()

    async def query(self, query: Message, start: int, end: int, points: int) -> History:
        try:
            (frame,) = await self.grafana.query(
                {**query, "exact": True},
                start=moment(start),
                end=moment(end),
                max_data_points=points,
                as_json=True,
            )
        except (QueryFailed, GRPCError, StreamTerminatedError) as error:
            raise CallFailed(str(error)) from error
        assert frame.meta is not None and not frame.meta.channel
        names = tuple(field.name for field in frame.fields)
        rows = list(zip(*(field.values for field in frame.fields), strict=True))
        return History(names, rows, frame.meta.custom["cursor"])

    async def rows_after(self, path: str, after: int | str) -> Message:
        url = f"replay/rows?path={quote(path, safe='')}&after={after}"
        try:
            reply = await self.grafana.resource(url)
        except (GRPCError, StreamTerminatedError) as error:
            raise CallFailed(str(error)) from error
        if reply.status != 200:
            raise CallFailed(f"{url}: {reply.status} {reply.body!r}")
        page: Message = msgspec.json.decode(reply.body)
        return page

    async def subscribe(self, path: str, receive: Receive) -> Message | None:
        try:
            viewer = await self.grafana.follow(path)
        except (Refused, GRPCError, StreamTerminatedError) as error:
            raise CallFailed(str(error)) from error
        self._viewers[receive] = viewer  # a subscriber is present
        self._receivers.setdefault(path, {})[receive] = None
        # there is no initial data while the log cannot be read
        return await viewer.message() if viewer.packets else None

    def unsubscribe(self, path: str, receive: Receive) -> None:
        self._receivers[path].pop(receive, None)
        self._viewers.pop(receive).leave()

    def _connect(self, application: Application) -> None:
        """Connect with small flow-control windows, so that a paused Grafana blocks the plugin."""
        Grafana._connect(self.grafana, application)
        self.grafana._channel._config = Configuration(
            http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW
        ).__for_client__()

    async def _receive(self, run: Any) -> None:
        check = RunCheck()
        self.checks.append(check)
        method = "/pluginv2.Stream/RunStream"
        rpc = UnaryStreamMethod(self.grafana._channel, method, pb.RunStreamRequest, pb.StreamPacket)
        async with rpc.open() as call:
            context = self.grafana.context(run.user)
            request = pb.RunStreamRequest(plugin_context=context, path=run.path)
            await call.send_message(request, end=True)
            async for packet in call:
                while self.paused:
                    await anyio.sleep(READ)
                message = msgspec.json.decode(packet.data)
                check.check(message)
                for receive in tuple(self._receivers.get(run.path, ())):
                    receive(message)
                await anyio.lowlevel.checkpoint()


async def _process(source: Any, *, task_status: TaskStatus[Application]) -> None:
    async with open_application(Catalog(source)) as application:
        task_status.started(application)
        await anyio.sleep_forever()


@asynccontextmanager
async def open_servers(world: World, count: int = 1) -> AsyncIterator[list[Server]]:
    """Grafana servers in a cluster, each with its own plugin process."""
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(background_tasks())
        servers = []
        for number in range(count):
            application = await tasks.start(_process, source_of(world, number, number))
            grafana = await stack.enter_async_context(open_grafana(application))
            servers.append(Server(world, grafana, tasks, number))
        yield servers
