"""A client that follows exact channels by the rules of docs/exact.md, as the frontend does.

`Tab` is a browser tab, `ChannelSubscription` its raw subscription to a channel, `ExactPanel` one
query of a panel. They measure time with anyio and call Grafana through a `Backend`: they run in
virtual time with the Grafana in memory and in real time with the Go host. Each drawn frame is
recorded as a `Drawing`, each violation of the protocol in `faults`.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from .packets import Cursor, Message, cursors_of, packet_faults

POLL_INTERVAL = 2.0  # seconds between two checks whether packets arrive
LINGER = 10.0  # seconds that a subscription stays open after its last panel
REOPEN_DELAY = 3.0  # seconds until a completed subscription is opened again
QUEUE_LIMIT = 500  # queued packets; the oldest are dropped and fetched later
RETRY_BACKOFF = (0.5, 4.0)  # seconds between failing calls: first and longest delay
LAG_BACKOFF = (0.1, 2.0)  # the same for a server that has not read those rows yet
RELOAD_BACKOFF = (2.0, 30.0)  # the same between reloads, after the first
QUIET = 30.0  # seconds without a request after which a reload may follow at once again
LIVE_ROWS = 10  # rows that are drawn for each of a history that is thinned

T = TypeVar("T")
Row = Sequence[Any]
OnEvent = Callable[[str | None, Message | None], None]
"""Receives an event: the connection's state ("connected", "connecting") or None, and a message."""


class CallFailed(Exception):
    """A call failed: no plugin, no server, or an error."""


class History(NamedTuple):
    """The frame of an exact query: column names, rows, and `meta.custom.cursor`."""

    names: tuple[str, ...]
    rows: Sequence[Row]
    cursor: dict[str, Any]


class Backend(Protocol):
    """The calls of a tab to Grafana. They raise CallFailed."""

    def now(self) -> int:
        """Unix ms of the browser's clock."""
        ...

    async def query(self, query: Message, start: int, end: int, points: int) -> History:
        """QueryData with `exact`; times in Unix ms."""
        ...

    async def follow(self, path: str, on_event: OnEvent) -> None:
        """A raw subscription, until it completes or is cancelled."""
        ...

    async def rows_after(self, path: str, after: Cursor) -> Message:
        """The resource `replay/rows`."""
        ...


class Load(NamedTuple):
    """A history that was loaded: its range from `cutoff` on, up to and with `cursor`."""

    cutoff: int
    cursor: Cursor
    is_thinned: bool


class Drawing(NamedTuple):
    """One drawn frame. `gap`: it has the notice that rows are missing."""

    now: int
    cutoff: int
    epoch: str
    cursor: Cursor
    rows: tuple[Row, ...]
    gap: bool
    load: Load


class ReloadLimiter:
    """Allows a reload of the history at once, then 2, 4 … 30 s apart."""

    def __init__(self) -> None:
        self._allowed_at = self._requested_at = -QUIET
        self._wait = 0.0

    def allow(self) -> bool:
        now = anyio.current_time()
        if now - self._requested_at >= QUIET:
            self._allowed_at = now
            self._wait = RELOAD_BACKOFF[0]
        self._requested_at = now
        if now < self._allowed_at:
            return False
        self._allowed_at = now + self._wait
        self._wait = min(2 * self._wait, RELOAD_BACKOFF[1])
        return True


class ChannelSubscription:
    """The tab's raw subscription to a channel, shared by its panels."""

    def __init__(self, tab: "Tab", channel: str) -> None:
        self.channel = channel
        self.path = channel.split("/", 2)[2]
        self.connected = False
        self._tab = tab
        self._panels: dict[ExactPanel, None] = {}
        self._last_cursor: Message | None = None
        self._scope = anyio.CancelScope()
        self._empty_since = 0.0

    def join(self, panel: "ExactPanel") -> None:
        self._panels[panel] = None
        if self._last_cursor is not None:
            panel.receive(self._last_cursor)

    def leave(self, panel: "ExactPanel") -> None:
        if self._panels.pop(panel, self) is self or self._panels:
            return
        self._empty_since = anyio.current_time()
        self._tab.tasks.start_soon(self._linger, self._empty_since)

    async def run(self) -> None:
        with self._scope:
            while True:
                await self._tab.backend.follow(self.path, self._on_event)
                self.connected = False
                await anyio.sleep(REOPEN_DELAY)

    async def _linger(self, since: float) -> None:
        await anyio.sleep(LINGER)
        if not self._panels and self._empty_since == since:
            self._tab.subscriptions.pop(self.channel, None)
            self._scope.cancel()

    def _on_event(self, status: str | None, message: Message | None) -> None:
        if status is not None:
            self.connected = status == "connected"
        if message is not None and "cursor" in message:
            cursor = message["cursor"]
            self._last_cursor = {"cursor": {**cursor, "prev": cursor["last"]}}
            for panel in tuple(self._panels):
                panel.receive(message)


class Tab:
    """One browser tab."""

    def __init__(self, backend: Backend, tasks: TaskGroup) -> None:
        self.backend = backend
        self.tasks = tasks
        self.subscriptions: dict[str, ChannelSubscription] = {}

    def open(
        self,
        query: Message,
        width: float,
        points: int = 100_000,
        on_draw: Callable[["ExactPanel", Drawing], None] | None = None,
    ) -> "ExactPanel":
        """Open a panel of the last `width` seconds; `on_draw` is called with each drawn frame."""
        panel = ExactPanel(self, query, width, points, on_draw)
        self.tasks.start_soon(panel.run)
        return panel

    def subscription(self, channel: str) -> ChannelSubscription:
        subscription = self.subscriptions.get(channel)
        if subscription is None:
            subscription = self.subscriptions[channel] = ChannelSubscription(self, channel)
            self.tasks.start_soon(subscription.run)
        return subscription


class ExactPanel:
    """One exact query of a panel of the last `width` seconds.

    `gap` is the notice that rows are missing. `fetches`, `reloads` and `thinnings` count calls.
    """

    def __init__(
        self,
        tab: Tab,
        query: Message,
        width: float,
        points: int,
        on_draw: Callable[["ExactPanel", Drawing], None] | None,
    ) -> None:
        self.query, self.width, self.points = query, width, points
        self.names: tuple[str, ...] = ()
        self.epoch = ""
        self.cursor: Any = -1
        self.rows: list[Row] = []
        self.gap = False
        self.drawings: list[Drawing] = []
        self.faults: list[str] = []
        self.fetches = self.reloads = self.thinnings = 0
        self.loaded = anyio.Event()
        self._tab, self._backend, self._on_draw = tab, tab.backend, on_draw
        self._subscription: ChannelSubscription | None = None
        self._queue: deque[Message] = deque(maxlen=QUEUE_LIMIT)
        self._more = anyio.Event()
        self._scope = anyio.CancelScope()
        self._epoch_differs = False  # packets have another epoch than the history
        self._truncated = False  # rows after the cursor are lost; no reload is allowed yet
        self._continued = False  # a packet or page has continued the history
        self._poll_at = 0.0
        self._load_of_rows = Load(0, -1, False)
        self._live = 0  # rows since the history was loaded
        self._reloads, self._thinnings = ReloadLimiter(), ReloadLimiter()

    def close(self) -> None:
        self._scope.cancel()

    def receive(self, message: Message) -> None:
        """Queue a packet."""
        self._queue.append(message)
        self._more.set()

    async def run(self) -> None:
        with self._scope:
            try:
                await self._load()
                while True:
                    await self._step()
            finally:
                if self._subscription is not None:
                    self._subscription.leave(self)

    async def _step(self) -> None:
        if not self._queue:
            self._more = anyio.Event()
            with anyio.move_on_after(max(0.0, self._poll_at - anyio.current_time())):
                await self._more.wait()
        if anyio.current_time() >= self._poll_at:
            self._poll_at = anyio.current_time() + POLL_INTERVAL
            connected = self._subscription is not None and self._subscription.connected
            if self._epoch_differs or self._truncated or not connected:
                await self._fetch(self.cursor)
        elif self._queue:
            await self._handle(self._queue.popleft())
        if self._live > self.points and len(self.rows) > 2 * self.points:
            if self._load_of_rows.is_thinned and self._thinnings.allow():
                self.thinnings += 1
                await self._load()

    async def _load(self) -> None:
        """Load the history of the current range."""
        now = self._backend.now()
        start, former = now - round(self.width * 1000), self._times()
        names, rows, cursor = await self._retry(
            lambda: self._backend.query(self.query, start, now, self.points)
        )
        self.names, self.rows = names, list(rows)
        self.epoch, self.cursor = cursor["epoch"], cursor["last"]
        self._epoch_differs = self._truncated = self._continued = False
        self._load_of_rows = Load(start, self.cursor, cursor.get("thinned", False))
        self._live = 0
        first = self.rows[0][names.index("time")] if self.rows else now
        self.gap = any(start <= time < first for time in former)
        self._draw()
        self.loaded.set()
        subscription = self._tab.subscription(cursor["channel"])
        if subscription is not self._subscription:
            if self._subscription is not None:
                self._subscription.leave(self)
            self._subscription = subscription
            subscription.join(self)

    async def _handle(self, message: Message) -> None:
        cursor = message["cursor"]
        if cursor["epoch"] != self.epoch:
            await self._change_epoch()
            return
        self._epoch_differs = False
        if self._truncated:
            return
        while cursor["prev"] > self.cursor:
            await self._fetch(cursor["prev"])
            waits = (
                self._epoch_differs
                or self._truncated
                or self._queue_has_other_epoch()
                or self.faults
            )
            if waits or cursor["epoch"] != self.epoch:
                return
        self._append(message)

    async def _fetch(self, target: Any) -> None:
        """Fetch the rows after the cursor until it has reached `target`; at least one call."""
        wait = LAG_BACKOFF[0]
        while True:
            self.fetches += 1
            page = await self._retry(self._rows_after)
            self._add_faults(packet_faults(page))
            cursor = page["cursor"]
            if cursor["epoch"] != self.epoch:
                await self._change_epoch()
                return
            if page["truncated"]:
                await self._handle_truncation(page)
                return
            if cursor["prev"] != self.cursor:
                self._add_faults(
                    [f"expected rows after {self.cursor}, got rows after {cursor['prev']}"]
                )
            before = self.cursor
            self._append(page)
            if page["more"]:
                if self.cursor == before:
                    self._add_faults(["expected more rows, got none"])
                    return
                continue
            if self.cursor >= target or self._queue_has_other_epoch():
                return
            await anyio.sleep(wait)
            wait = min(2 * wait, LAG_BACKOFF[1])

    async def _rows_after(self) -> Message:
        if self._subscription is None:
            raise RuntimeError("no history was loaded")
        return await self._backend.rows_after(self._subscription.path, self.cursor)

    def _queue_has_other_epoch(self) -> bool:
        return bool(self._queue) and self._queue[-1]["cursor"]["epoch"] != self.epoch

    def _append(self, message: Message) -> None:
        """Append the rows after the cursor."""
        cursor = message["cursor"]
        self._continued = True
        if cursor["last"] <= self.cursor:
            return
        values = message["data"]["values"]
        if len(values) != len(self.names):
            self._add_faults([f"{len(values)} columns, the history has {len(self.names)}"])
        pairs = zip(cursors_of(message), zip(*values, strict=True), strict=True)
        rows = [row for cursor, row in pairs if cursor > self.cursor]
        self.rows += rows
        self._live += len(rows)
        self.cursor = cursor["last"]
        self._draw()

    async def _change_epoch(self) -> None:
        """Reload if it is allowed; until then poll."""
        if self._may_reload():
            await self._load()
        else:
            self._epoch_differs = True

    async def _handle_truncation(self, page: Message) -> None:
        """Rows after the cursor are lost from the log; the history may have them."""
        if self._continued:
            if self._may_reload():
                await self._load()
            else:
                self._truncated = True
            return
        self.gap = True
        self.cursor = page["cursor"]["prev"]
        if "data" in page:
            self._append(page)
        else:
            self._draw()

    def _may_reload(self) -> bool:
        is_allowed = self._reloads.allow()
        self.reloads += is_allowed
        return is_allowed

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call until it succeeds, with back-off."""
        wait = RETRY_BACKOFF[0]
        while True:
            try:
                return await call()
            except CallFailed:
                await anyio.sleep(wait)
                wait = min(2 * wait, RETRY_BACKOFF[1])

    def _times(self) -> list[int]:
        """The rows' times; a frame without rows may have no columns."""
        if not self.rows:
            return []
        time = self.names.index("time")
        return [row[time] for row in self.rows]

    def _draw(self) -> None:
        """Trim the rows and draw them."""
        now = self._backend.now()
        cutoff, rows, times = now - round(self.width * 1000), self.rows, self._times()
        limit = self.points * (LIVE_ROWS if self._load_of_rows.is_thinned else 1)
        start = max(0, len(rows) - limit)
        while start < len(rows) and times[start] < cutoff:
            start += 1
        del rows[:start]
        drawing = Drawing(
            now, cutoff, self.epoch, self.cursor, tuple(rows), self.gap, self._load_of_rows
        )
        self.drawings.append(drawing)
        if self._on_draw is not None:
            self._on_draw(self, drawing)

    def _add_faults(self, faults: Iterable[str]) -> None:
        self.faults += faults
