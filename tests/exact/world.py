"""What is behind the panels in virtual time: logs that are known whole, a plugin that reads them,
and one or two Grafana servers that can be hurt.

A log is there for every server and every process, as a file would be. A feed is not: its rows
exist for who listens, and the runtime numbers them. Both are class attributes of a source made for
one world by `source_of`, so that histories do not see each other.
"""

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
)
from aiostream_ds import stream as mark
from aiostream_ds._channels.policy import Replay
from aiostream_ds._grafana.application import Application, background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing.grafana import Grafana, QueryFailed, open_grafana
from aiostream_ds.testing.viewer import Refused, Viewer

from .client import Down, History
from .net import Receive
from .packets import Message, RunCheck

START = 4_102_444_800_000  # Unix ms at the loop's time 0: not past, so each range ends now
READ = 0.1  # seconds between two reads of the log
WINDOW = 65_535  # bytes that a connection takes in before Grafana reads them
MAILBOX = 40  # rows that wait for a slow reader
KEY_ROWS = 40  # rows after which a wild log has another key
RING = 30  # rows that a feed's channel keeps


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


class Part(Row):
    """A row of a feed: the process and the run that gave it, and its number in this run."""

    time: datetime
    process: int
    run: int
    n: int


class Log:
    """Numbered rows at growing offsets; `epoch` is another for each that took the place."""

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
        """The rows that are not younger."""
        return self.lines[: bisect_right(self.times, now)]

    def expected(self, cutoff: int, cursor: int, points: int) -> list[int]:
        """The numbers of the rows that a panel has to draw."""
        first, end = bisect_left(self.times, cutoff), bisect_right(self.offsets, cursor)
        return list(range(first + 1, end + 1))[-points:]


class World:
    """All logs by name, `epochs` also with those that were replaced; and the feed."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.epochs: dict[str, Log] = {}
        self.fed = 0
        self.down = False
        self.lags: dict[int, float] = {}  # seconds, by server
        self.given: dict[tuple[int, str], tuple[int, int]] = {}  # the newest row of each feed
        self._made = itertools.count(1)
        self._changed = anyio.Event()

    def append(self, name: str, count: int, pad: int = 0) -> None:
        self.log(name).append(now_ms(), count, pad)
        self.touch()

    def feed(self, count: int = 1) -> None:
        self.fed += count
        self.touch()

    def lag(self, server: int, seconds: float) -> None:
        """From now on this server's plugin reads so late."""
        self.lags[server] = seconds
        self.touch()

    def upstream(self, down: bool) -> None:
        """What every plugin reads from cannot be reached, or can again."""
        self.down = down
        self.touch()

    def ask_upstream(self) -> None:
        if self.down:
            raise UpstreamError("the upstream is down")

    def touch(self) -> None:
        """There is something to read."""
        self._changed.set()
        self._changed = anyio.Event()

    async def change(self, server: int) -> None:
        """Until a plugin of this server has to look again."""
        if not self.lags.get(server):
            await self._changed.wait()
        await anyio.sleep(READ)

    def log(self, name: str) -> Log:
        if name not in self.logs:
            self.replace(name)
        return self.logs[name]

    def replace(self, name: str) -> None:
        """Another log takes the place: truncated, or another file."""
        log = self.logs[name] = Log(f"{name}-{next(self._made)}")
        self.epochs[log.epoch] = log
        self.touch()


class Shown(Settings):
    title: str = ""


class _Source(DataSource[Shown]):
    world: World
    server: int
    process: int
    runs: Any

    @mark("log/{name}", cursor="offset", buffer=Buffer(rows=MAILBOX))
    async def log(self, after: Cursor | None, name: str) -> Rows[Line | Cursor]:
        async with aclosing(self.read(after, name)) as items:
            async for item in items:
                yield item

    @mark("wild/{name}", cursor="offset", buffer=Buffer(rows=MAILBOX))
    async def wild(self, after: Cursor | None, name: str) -> Rows:
        async with aclosing(self.read(after, name)) as items:
            async for item in items:
                yield wild(item) if isinstance(item, Line) else item

    async def read(self, after: Cursor | None, name: str) -> AsyncGenerator[Line | Cursor, None]:
        epoch, cursor = after if after is not None else ("", -1)
        while True:
            log = self.world.log(name)
            if log.epoch != epoch:
                epoch, cursor = log.epoch, -1
            yield Cursor(epoch, cursor)
            while self.world.log(name) is log:
                self.world.ask_upstream()
                for line in behind(self.visible(log), cursor):
                    cursor = line.offset
                    yield line
                await self.world.change(self.server)

    @wild.history
    async def wild_past(self, history_range: HistoryRange, name: str) -> HistoryPage:
        page = await self.past(history_range, name)
        return msgspec.structs.replace(page, rows=list(map(wild, page.rows)))

    @log.history
    async def past(self, history_range: HistoryRange, name: str) -> HistoryPage:
        self.world.ask_upstream()
        log = self.world.log(name)
        lines = self.visible(log)
        if history_range.after is None:
            until_end = [line for line in lines if line.time <= history_range.end]
            found = [line for line in until_end if line.time >= history_range.start]
            last = until_end[-1].offset if until_end else None
            return HistoryPage(found[-history_range.limit :], epoch=log.epoch, last=last)
        found = list(behind(lines, history_range.after))
        if history_range.upto is not None:
            found = [line for line in found if line.offset <= history_range.upto]
        return HistoryPage(found[: history_range.limit], epoch=log.epoch)

    def visible(self, log: Log) -> Sequence[Line]:
        return log.until(now_ms() - round(self.world.lags.get(self.server, 0.0) * 1000))

    @mark("feed/{name}", replay=Replay(rows=RING))
    async def feed(self, name: str) -> Rows[Part]:
        run, fed = next(self.runs), self.world.fed
        numbers = itertools.count(1)
        while True:
            self.world.ask_upstream()
            while fed < self.world.fed:
                fed += 1
                n = next(numbers)
                yield Part(moment(now_ms()), self.process, run, n)
                self.world.given[self.process, name] = (run, n)
            await self.world.change(self.server)


def wild(line: Line) -> dict[str, Any]:
    """The same row as a dict, with a key that only some rows have."""
    row = {name: getattr(line, name) for name in line.__struct_fields__}
    return {**row, f"only{line.n // KEY_ROWS}": line.n}


def behind(lines: Sequence[Line], cursor: int) -> Sequence[Line]:
    return lines[bisect_right(lines, cursor, key=lambda line: line.offset) :]


def source_of(world: World, server: int, process: int) -> type[DataSource[Shown]]:
    """The plugin's class in one process."""
    runs = itertools.count(1)
    members = {"world": world, "server": server, "process": process, "runs": runs}
    return type("Source", (_Source,), members)


class Server:
    """One Grafana server with its plugin process, a `net.Node`. Made by `open_servers`.

    `checks` has what was seen of each RunStream; while `held`, Grafana reads none of them.
    """

    def __init__(self, world: World, grafana: Grafana, tasks: TaskGroup, number: int) -> None:
        self.grafana = grafana
        self.checks: list[RunCheck] = []
        self.held = False
        self.process = self._number = number
        self._world, self._tasks = world, tasks
        self._viewers: dict[Receive, Viewer] = {}
        self._receivers: dict[str, dict[Receive, None]] = {}
        grafana._receive = self._receive  # type: ignore[method-assign]
        grafana._connect = self._connect  # type: ignore[method-assign]
        self._connect(grafana.plugin)

    async def kill(self) -> None:
        """The plugin's process dies; another comes."""
        self.process += 10
        source = source_of(self._world, self._number, self.process)
        await self.grafana.replace_plugin(await self._tasks.start(_process, source))

    def now(self) -> int:
        return now_ms()

    async def query(self, ask: Message, start: int, end: int, points: int) -> History:
        try:
            (frame,) = await self.grafana.query(
                {**ask, "exact": True},
                start=moment(start),
                end=moment(end),
                max_data_points=points,
                as_json=True,
            )
        except (QueryFailed, GRPCError, StreamTerminatedError) as error:
            raise Down(str(error)) from error
        assert frame.meta is not None and not frame.meta.channel
        names = tuple(field.name for field in frame.fields)
        rows = list(zip(*(field.values for field in frame.fields), strict=True))
        return History(names, rows, frame.meta.custom["cursor"])

    async def rows_after(self, path: str, after: int) -> Message:
        url = f"replay/rows?path={quote(path, safe='')}&after={after}"
        try:
            reply = await self.grafana.resource(url)
        except (GRPCError, StreamTerminatedError) as error:
            raise Down(str(error)) from error
        if reply.status != 200:
            raise Down(f"{url}: {reply.status} {reply.body!r}")
        page: Message = msgspec.json.decode(reply.body)
        return page

    async def subscribe(self, path: str, receive: Receive) -> Message | None:
        try:
            viewer = await self.grafana.follow(path)
        except (Refused, GRPCError, StreamTerminatedError) as error:
            raise Down(str(error)) from error
        self._viewers[receive] = viewer  # Grafana sees somebody present
        self._receivers.setdefault(path, {})[receive] = None
        # nothing is said while the log cannot be read: who may follow it is let in all the same
        return await viewer.message() if viewer.packets else None

    def unsubscribe(self, path: str, receive: Receive) -> None:
        self._receivers[path].pop(receive, None)
        self._viewers.pop(receive).leave()

    def _connect(self, application: Application) -> None:
        """With the windows of Grafana's client: so a plugin feels that it does not read."""
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
                while self.held:
                    await anyio.sleep(READ)
                message = msgspec.json.decode(packet.data)
                check.see(message)
                for receive in tuple(self._receivers.get(run.path, ())):
                    receive(message)
                await anyio.lowlevel.checkpoint()


async def _process(source: Any, *, task_status: TaskStatus[Application]) -> None:
    async with open_application(Catalog(source)) as application:
        task_status.started(application)
        await anyio.sleep_forever()


@asynccontextmanager
async def open_servers(world: World, count: int = 1) -> AsyncIterator[list[Server]]:
    """Grafana servers in a cluster, each with a plugin process of its own."""
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(background_tasks())
        servers = []
        for number in range(count):
            application = await tasks.start(_process, source_of(world, number, number))
            grafana = await stack.enter_async_context(open_grafana(application))
            servers.append(Server(world, grafana, tasks, number))
        yield servers
