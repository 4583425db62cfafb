"""A browser that draws exact streams: the rules F1–F10 of the exact protocol, and no more.

`Tab` is one browser tab, `Tap` its one raw subscription of a channel, `ExactPanel` one query of a
panel. They know time only by anyio, and Grafana only as a `Backend`: they run in virtual time over
the Grafana in memory and in real time over the Go host. Every frame that is drawn is kept as an
`Emission`; what breaks the protocol is kept in `faults`.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from .packets import Message, cursors_of, packet_faults

POLL = 2.0  # seconds between two looks whether the socket is of use (F8)
LINGER = 10.0  # seconds that a tap stays after its last panel (F9)
REOPEN = 3.0  # seconds until a completed subscription is opened again (F9)
STASH = 500  # packets that wait while rows are fetched (F5)
RETRY = (0.5, 4.0)  # seconds between failed calls: the first and the longest wait (F6)
LATE = (0.1, 2.0)  # the same for a server that has not read so far yet (F6)
RELOADS = (2.0, 30.0)  # the same between reloads, but for the first (F7)
CALM = 30.0  # seconds without a disagreement after which a reload is the first again

T = TypeVar("T")
Row = Sequence[Any]
Tell = Callable[[str | None, Message | None], None]
"""Takes what a raw subscription tells: a status ("connected", "connecting") or None, a message."""


class Down(Exception):
    """A call failed: no plugin, no server, or an answer that is an error."""


class History(NamedTuple):
    """The frame of an exact query: its columns' names, its rows, `meta.custom.cursor`."""

    names: tuple[str, ...]
    rows: Sequence[Row]
    cursor: dict[str, Any]


class Backend(Protocol):
    """What a tab asks of Grafana. Calls raise Down when they fail."""

    def now(self) -> int:
        """Unix ms of the browser's clock."""
        ...

    async def query(self, ask: Message, start: int, end: int, points: int) -> History:
        """QueryData with `exact`; times in Unix ms."""
        ...

    async def follow(self, path: str, tell: Tell) -> None:
        """A raw subscription; returns when it completes, ends by cancellation else."""
        ...

    async def rows_after(self, path: str, after: int) -> Message:
        """The resource `replay/rows`."""
        ...


class Emission(NamedTuple):
    """One frame as it was drawn. `gap`: with the notice that rows are missing."""

    now: int
    cutoff: int
    epoch: str
    cursor: int
    rows: tuple[Row, ...]
    gap: bool


class Tap:
    """The tab's one raw subscription of a channel, shared by its panels (F9)."""

    def __init__(self, tab: "Tab", channel: str) -> None:
        self.channel = channel
        self.path = channel.split("/", 2)[2]
        self.connected = False
        self._tab = tab
        self._panels: dict[ExactPanel, None] = {}
        self._position: Message | None = None
        self._scope = anyio.CancelScope()
        self._empty_since = 0.0

    def join(self, panel: "ExactPanel") -> None:
        self._panels[panel] = None
        if self._position is not None:
            panel.offer(self._position)

    def leave(self, panel: "ExactPanel") -> None:
        if self._panels.pop(panel, self) is self or self._panels:
            return
        self._empty_since = anyio.current_time()
        self._tab.tasks.start_soon(self._linger, self._empty_since)

    async def run(self) -> None:
        with self._scope:
            while True:
                await self._tab.backend.follow(self.path, self._tell)
                self.connected = False
                await anyio.sleep(REOPEN)

    async def _linger(self, since: float) -> None:
        await anyio.sleep(LINGER)
        if not self._panels and self._empty_since == since:
            self._tab.taps.pop(self.channel, None)
            self._scope.cancel()

    def _tell(self, status: str | None, message: Message | None) -> None:
        if status is not None:
            self.connected = status == "connected"
        if message is not None and "cursor" in message:  # F2
            cursor = message["cursor"]
            self._position = {"cursor": {**cursor, "prev": cursor["last"]}}
            for panel in tuple(self._panels):
                panel.offer(message)


class Tab:
    """One browser tab."""

    def __init__(self, backend: Backend, tasks: TaskGroup) -> None:
        self.backend = backend
        self.tasks = tasks
        self.taps: dict[str, Tap] = {}

    def open(
        self,
        ask: Message,
        width: float,
        points: int = 100_000,
        watch: Callable[["ExactPanel", Emission], None] | None = None,
    ) -> "ExactPanel":
        """A panel of the last `width` seconds; `watch` is called with each frame it draws."""
        panel = ExactPanel(self, ask, width, points, watch)
        self.tasks.start_soon(panel.run)
        return panel

    def tap(self, channel: str) -> Tap:
        tap = self.taps.get(channel)
        if tap is None:
            tap = self.taps[channel] = Tap(self, channel)
            self.tasks.start_soon(tap.run)
        return tap


class ExactPanel:
    """One query that follows. `gap` is the notice: rows are missing that nobody has any more.

    Times, as `width`, are in seconds. `fills`, `reloads` and `emissions` tell what it took.
    """

    def __init__(
        self,
        tab: Tab,
        ask: Message,
        width: float,
        points: int,
        watch: Callable[["ExactPanel", Emission], None] | None,
    ) -> None:
        self.ask, self.width, self.points = ask, width, points
        self.names: tuple[str, ...] = ()
        self.epoch = ""
        self.cursor = -1
        self.rows: list[Row] = []
        self.gap = False
        self.emissions: list[Emission] = []
        self.faults: list[str] = []
        self.fills = self.reloads = 0
        self.loaded = anyio.Event()
        self._tab, self._backend, self._watch = tab, tab.backend, watch
        self._tap: Tap | None = None
        self._stash: deque[Message] = deque(maxlen=STASH)
        self._more = anyio.Event()
        self._scope = anyio.CancelScope()
        self._foreign = False  # the socket tells of another epoch than the history
        self._lost = False  # rows behind the cursor are gone, and it is too early to load again
        self._joined = False  # something has continued the history since it was loaded
        self._poll_at = 0.0
        self._reload_at = self._disagreed_at = -CALM
        self._reload_wait = 0.0

    def close(self) -> None:
        self._scope.cancel()

    def offer(self, message: Message) -> None:
        """A packet arrives; those that wait too long make room for newer ones (F5)."""
        self._stash.append(message)
        self._more.set()

    async def run(self) -> None:
        with self._scope:
            try:
                await self._load()
                while True:
                    await self._turn()
            finally:
                if self._tap is not None:
                    self._tap.leave(self)

    async def _turn(self) -> None:
        if not self._stash:
            self._more = anyio.Event()
            with anyio.move_on_after(max(0.0, self._poll_at - anyio.current_time())):
                await self._more.wait()
        if anyio.current_time() >= self._poll_at:  # F8
            self._poll_at = anyio.current_time() + POLL
            connected = self._tap is not None and self._tap.connected
            if self._foreign or self._lost or not connected:
                await self._fill(self.cursor)
        elif self._stash:
            await self._take(self._stash.popleft())

    async def _load(self) -> None:
        """F1, and again in F7: the range is that of this moment."""
        now = self._backend.now()
        start, former = now - round(self.width * 1000), self._times()
        names, rows, cursor = await self._insist(
            lambda: self._backend.query(self.ask, start, now, self.points)
        )
        self.names, self.rows = names, list(rows)
        self.epoch, self.cursor = cursor["epoch"], cursor["last"]
        self._foreign = self._lost = self._joined = False
        first = self.rows[0][names.index("time")] if self.rows else now
        self.gap = any(start <= time < first for time in former)
        self._emit()
        self.loaded.set()
        tap = self._tab.tap(cursor["channel"])
        if tap is not self._tap:
            if self._tap is not None:
                self._tap.leave(self)
            self._tap = tap
            tap.join(self)

    async def _take(self, message: Message) -> None:
        cursor = message["cursor"]
        if cursor["epoch"] != self.epoch:
            await self._disagree()
            return
        self._foreign = False
        if self._lost:
            return
        while cursor["prev"] > self.cursor:  # F5
            await self._fill(cursor["prev"])
            waits = self._foreign or self._lost or self._stash_is_foreign() or self.faults
            if waits or cursor["epoch"] != self.epoch:
                return
        self._append(message)

    async def _fill(self, wanted: int) -> None:
        """Rows behind the cursor, until it is at `wanted`; once at least."""
        wait = LATE[0]
        while True:
            self.fills += 1
            page = await self._insist(self._rows_after)
            self._note(packet_faults(page))
            cursor = page["cursor"]
            if cursor["epoch"] != self.epoch:
                await self._disagree()
                return
            if page["truncated"]:
                await self._lose(page)
                return
            if cursor["prev"] != self.cursor:
                self._note([f"asked for rows after {self.cursor}, given after {cursor['prev']}"])
            before = self.cursor
            self._append(page)
            if page["more"]:
                if self.cursor == before:
                    self._note(["more rows are promised, none was given"])
                    return
                continue
            if self.cursor >= wanted or self._stash_is_foreign():
                return
            await anyio.sleep(wait)
            wait = min(2 * wait, LATE[1])

    async def _rows_after(self) -> Message:
        if self._tap is None:
            raise RuntimeError("no history was loaded")
        return await self._backend.rows_after(self._tap.path, self.cursor)

    def _stash_is_foreign(self) -> bool:
        return bool(self._stash) and self._stash[-1]["cursor"]["epoch"] != self.epoch

    def _append(self, message: Message) -> None:
        """F3 and F4."""
        cursor = message["cursor"]
        self._joined = True
        if cursor["last"] <= self.cursor:
            return
        values = message["data"]["values"]
        if len(values) != len(self.names):
            self._note([f"{len(values)} columns, the history has {len(self.names)}"])
        pairs = zip(cursors_of(message), zip(*values, strict=True), strict=True)
        self.rows += [row for cursor, row in pairs if cursor > self.cursor]
        self.cursor = cursor["last"]
        self._emit()

    async def _disagree(self) -> None:
        """F7: load again, at most once, then 2, 4 … 30 s apart; meanwhile poll."""
        if self._may_reload():
            await self._load()
        else:
            self._foreign = True

    async def _lose(self, page: Message) -> None:
        """F7: rows behind the cursor are gone from the ring; the history may have them."""
        if self._joined:
            if self._may_reload():
                await self._load()
            else:
                self._lost = True
            return
        self.gap = True
        self.cursor = page["cursor"]["prev"]
        if "data" in page:
            self._append(page)
        else:
            self._emit()

    def _may_reload(self) -> bool:
        now = anyio.current_time()
        if now - self._disagreed_at >= CALM:
            self._reload_at = now
            self._reload_wait = RELOADS[0]
        self._disagreed_at = now
        if now < self._reload_at:
            return False
        self._reload_at = now + self._reload_wait
        self._reload_wait = min(2 * self._reload_wait, RELOADS[1])
        self.reloads += 1
        return True

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """F6: again and again, more and more slowly."""
        wait = RETRY[0]
        while True:
            try:
                return await call()
            except Down:
                await anyio.sleep(wait)
                wait = min(2 * wait, RETRY[1])

    def _times(self) -> list[int]:
        """Those of the rows; a frame without rows may have no columns."""
        if not self.rows:
            return []
        time = self.names.index("time")
        return [row[time] for row in self.rows]

    def _emit(self) -> None:
        """F10, and the frame goes to the panel."""
        now = self._backend.now()
        cutoff, rows, times = now - round(self.width * 1000), self.rows, self._times()
        start = max(0, len(rows) - self.points)
        while start < len(rows) and times[start] < cutoff:
            start += 1
        del rows[:start]
        emission = Emission(now, cutoff, self.epoch, self.cursor, tuple(rows), self.gap)
        self.emissions.append(emission)
        if self._watch is not None:
            self._watch(self, emission)

    def _note(self, faults: Iterable[str]) -> None:
        self.faults += faults
