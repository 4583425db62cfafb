"""One channel: who reads it, and the life of the stream that fills it.

    opening ──▶ running ⇄ lingering ──▶ closing ──▶ closed
       │           └─ returned, raised ────────────────▲
       └─ nobody left, superseded ─────────────────────┘

opening: the predecessor still closes, no task exists yet. closing: told to end; the key is free for
nobody until the task is done. stuck: closing, and alive after a second cancel. An end of its own
goes straight to closed, in the task's last step. Imports its own room, `frames` and the ground.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from operator import attrgetter

from aiostream_ds._channels.exceptions import ChannelClosed
from aiostream_ds._channels.log import Ring
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Policy
from aiostream_ds._channels.state import Owner, State, cancelled_from_within
from aiostream_ds._channels.status import Status, Statuses, partition
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.packet import CursorRange, Packet, Schema

__all__ = ["Channel", "Runner"]

log = logging.getLogger(__name__)

Runner = Callable[["Channel"], Awaitable[None]]
"""A stream: a coroutine function that emits packets into its channel until it is cancelled."""

_get_rows, _get_data = attrgetter("rows"), attrgetter("data")

_LONGEST_WAIT = 8
"""A stuck stream is cancelled again after 2, 4, 8, 8, … times the close timeout."""

_RUNNING, _LINGERING = State.RUNNING, State.LINGERING  # looked up for each packet


class Channel:
    """What a runner sees: where to emit, and whether someone wants rows.

    `failed` is whether `fail` ended it. `ring` keeps what was emitted, where that is wanted;
    `place` is where the last rows stood, of a stream whose rows have a cursor. `on_demand` is the
    runner's to set: it is called when a mailbox ran dry and before a reader joins, and should emit
    what the runner holds back. A reader that takes at once calls it at the end of `emit`, when
    everybody has been given everything. `on_status` is its to set, too: called when `status` is
    another one.
    """

    __slots__ = (
        "__weakref__", "_blocks", "_cancels", "_closing_since", "_policy", "_readers", "_owner",
        "_room", "_run", "_statuses", "_task", "_timer", "failed", "generation", "key",
        "on_demand", "on_status", "place", "ring", "schema", "state",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, key: ChannelKey, run: Runner, policy: Policy,
        generation: int,
    ) -> None:  # fmt: skip
        self.key = key
        self.generation = generation
        self.state = State.OPENING
        self.schema: Schema | None = None
        self.place: CursorRange | None = None
        self.ring: Ring | None = None
        self.failed = False
        self.on_demand: Callable[[], None] | None = None
        self.on_status: Callable[[], None] | None = None
        self._owner = owner
        self._run = run
        self._policy = policy
        self._blocks = policy.buffer.full == "block"
        self._readers: dict[Subscription, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._cancels = 0
        self._closing_since = 0.0
        self._statuses: Statuses | None = None  # few channels have something to tell

    # For the runner

    @property
    def open(self) -> bool:
        """Whether rows are asked for: the stream runs and was not told to end."""
        return self.state is _RUNNING or self.state is _LINGERING

    @property
    def has_demand(self) -> bool:
        """Whether some reader has fetched all it was given, or nobody listens."""
        for reader in self._readers:  # a loop: nearly every packet of every stream comes by here
            if not reader._queue:
                return True
        return not self._readers

    @property
    def full(self) -> bool:
        """Whether the policy is "block" and some reader's mailbox is full."""
        return self._blocks and any(reader._is_full() for reader in self._readers)

    @property
    def can_send(self) -> bool:
        """Whether rows are asked for, and no reader is full."""
        state = self.state
        return (state is _RUNNING or state is _LINGERING) and not (self._blocks and self.full)

    @property
    def above_high_water(self) -> bool:
        """Whether some reader's mailbox is half full."""
        return any(reader._above_high_water() for reader in self._readers)

    @property
    def stuck(self) -> bool:
        """Whether the stream is closing, was cancelled twice and is still alive."""
        return self.state is State.CLOSING and self._cancels > 2

    def emit(self, *packets: Packet) -> tuple[int, int]:
        """Give packets to every reader. Never waits. Returns how many rows and bytes they have.

        Packets of one call belong together: a mailbox that is full drops older ones, never these.
        A packet without rows only changes the schema that later rows, and `peek`, bring along; one
        that says a place, as the last of its call, goes to the readers that want places.

        Raises:
            ChannelClosed: the channel is told to close, or closed.
        """
        state = self.state
        if state is not _RUNNING and state is not _LINGERING:
            raise ChannelClosed(f"{self.key.path}: the channel is {state.value}")
        if len(packets) != 1 or not packets[0].rows:
            return self._emit_several(packets)
        packet = packets[0]
        rows, size = packet.rows, len(packet.data)
        self.schema = packet.schema
        if packet.cursors is not None:
            self.place = packet.cursors
        self._owner.observer.on_emit(self.key, 1, rows, size)
        if self._statuses is not None:
            self._statuses.rows_came()
        self._give(packets, rows, size)
        return rows, size

    def _emit_several(self, packets: tuple[Packet, ...]) -> tuple[int, int]:
        if not packets:
            return 0, 0
        last: Packet | None = packets[-1]
        rows, size = sum(map(_get_rows, packets)), sum(map(len, map(_get_data, packets)))
        empty = 0 in map(_get_rows, packets)
        self._owner.observer.on_emit(self.key, len(packets), rows, size)
        if self._statuses is not None and rows:
            self._statuses.rows_came()
        filled, filled_size = packets, size
        if empty:
            said, filled, filled_size, last = partition(packets)
            for status in said:
                self.statuses.says(status)
        if last is not None:
            if last.schema.body:
                self.schema = last.schema
            if last.cursors is not None:
                self.place = last.cursors
        if filled:
            self._give(filled, rows, filled_size)
        if empty and last is not None and not last.rows and last.cursors is not None:
            self._tell_place(last)
        return rows, size

    def _give(self, packets: tuple[Packet, ...], rows: int, size: int) -> None:
        now = self._owner.loop.time()
        if self.ring is not None:
            self.ring.append(packets, rows, size, now)
        single = packets[0] if len(packets) == 1 else None
        waiting: list[Subscription] = []
        for reader in tuple(self._readers):  # a reader that is too slow leaves meanwhile
            if single is None or not reader._push_direct(single, now):
                reader._put(packets, rows, size)
                waiting.append(reader)
        for reader in waiting:  # they may take now, and make the runner emit more
            reader._wake()

    @property
    def status(self) -> Status | None:
        """How the stream is doing, as viewers are to see it; None: it is live."""
        return None if self._statuses is None else self._statuses.shown

    @property
    def statuses(self) -> Statuses:
        """All that is to be told of it, made when it is first asked for."""
        if self._statuses is None:
            self._statuses = Statuses(
                self._owner.loop, self._status_changed, self._caught_up, self._policy.stale
            )
        return self._statuses

    def _status_changed(self) -> None:
        for reader in tuple(self._readers):
            if reader.exact:
                reader._tell_news()
        if self.on_status is not None and self.open:
            self.on_status()

    def _tell_place(self, packet: Packet) -> None:
        readers = tuple(reader for reader in self._readers if reader.exact)
        for reader in readers:
            reader._put((packet,), 0, 0)
        for reader in readers:
            reader._wake()

    def show_schema(self) -> None:
        """Someone is about to follow this path: each reader gets the schema with its next rows."""
        for reader in self._readers:
            reader.show_schema()

    def fail(self, error: Exception) -> None:
        """End every reader with `error` now; the runner is cancelled and closes in its own time."""
        if self.open:
            self.failed = True
            self._owner.observer.on_fail(self.key, error)
            self._end_readers(error)
            self._close()

    async def room(self) -> None:
        """Wait until no reader is full; returns at once unless the policy is "block".

        A reader that takes nothing for the policy's `stall_timeout` is ended: it holds up all.
        """
        loop = self._owner.loop
        while self.open and self.full:
            self._room = room = loop.create_future()
            stalls_at = min(reader._stalls_at() for reader in self._readers if reader._is_full())
            timer = loop.call_at(stalls_at, self._end_stalled, room)
            try:
                await room
            finally:
                timer.cancel()
                self._room = None

    def _end_stalled(self, room: asyncio.Future[None]) -> None:
        for reader in tuple(self._readers):
            if reader._is_full() and reader._is_stalled():
                reader._stall()
        if not room.done():  # look again
            room.set_result(None)

    # For the mailboxes

    def _now(self) -> float:
        return self._owner.loop.time()

    def _waiter(self) -> asyncio.Future[None]:
        return self._owner.loop.create_future()

    def _drained(self) -> None:
        if self._room is not None:
            self._make_room()
        if self.on_demand is not None:
            self._ask()

    def _left(self, reader: Subscription) -> None:
        if self._readers.pop(reader, self) is self:
            return
        self._owner.observer.on_leave(self.key)
        self._make_room()
        if self._readers:
            return
        if self.state is State.OPENING:
            self._finish(None)
        elif self.state is State.RUNNING:
            if self._policy.linger > 0:
                self.state = State.LINGERING
                self._timer = self._owner.loop.call_later(self._policy.linger, self._close)
            else:
                self._close()

    def _dropped(self, rows: int, packets: int) -> None:
        self._owner.observer.on_drop(self.key, rows, packets)
        if self._policy.buffer.full != "latest" and self.statuses.dropped(rows, packets):
            self._owner.observer.on_behind(self.key)

    def _caught_up(self, rows: int, packets: int) -> None:
        self._owner.observer.on_caught_up(self.key, rows, packets)

    # Life

    def _ask(self) -> None:
        """Let the runner emit what it holds back."""
        if self.on_demand is None or not self.open:
            return
        try:
            self.on_demand()
        except Exception as error:  # the runner's fault, not the reader's who happened to come by
            self.fail(error)

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done() and not self.full:
            self._room.set_result(None)

    def _add(self, *, exact: bool) -> Subscription:
        reader = Subscription(self, self._policy.buffer, exact=exact)
        self._readers[reader] = None
        if self.state is State.LINGERING:
            self._stop_timer()
            self.state = State.RUNNING
        self._owner.observer.on_join(self.key)
        return reader

    def _start(self) -> None:
        self.state = State.RUNNING
        if self._policy.stale:
            _ = self.statuses
        self._owner.observer.on_start(self.key)
        # An empty context: the first reader's user and trace must not leak into the shared stream.
        task = self._owner.loop.create_task(
            self._drive(), name=f"stream {self.key.path}", context=contextvars.Context()
        )
        if self.state is not State.CLOSED:  # an eager task may be over already
            self._task = task
            task.add_done_callback(self._done)

    async def _drive(self) -> None:
        error: BaseException | None = None
        try:
            await self._run(self)
        except asyncio.CancelledError as caught:
            if self.state is not State.CLOSING:
                error = cancelled_from_within(caught)
        except (Exception, SystemExit) as caught:  # one stream never ends the plugin
            error = caught
        try:
            # In the last step of the task, so that join never meets a channel that is over.
            self._finish(error)
        finally:
            del error  # error → traceback → this frame → error would be a cycle

    def _done(self, task: asyncio.Task[None]) -> None:
        if self.state is State.CLOSED:
            return
        # Cancelled before its first step, or ended by a signal: `_drive` did not get to its end.
        error = None if task.cancelled() else task.exception()
        if self.state is not State.CLOSING and error is None:
            error = cancelled_from_within(None)
        try:
            self._finish(error)
        finally:
            del error

    def _close(self) -> None:
        self._stop_timer()
        self.state = State.CLOSING
        self._closing_since = self._now()
        self._owner._retire(self)
        self._cancel()

    def _cancel(self) -> None:
        if self._task is None:
            return
        self._cancels += 1
        wait = self._owner.close_timeout * min(2 ** (self._cancels - 1), _LONGEST_WAIT)
        self._timer = self._owner.loop.call_later(wait, self._cancel_again)
        self._task.cancel()

    def _cancel_again(self) -> None:
        self._timer = None
        self._cancel()
        if self._cancels == 3:
            seconds = self._now() - self._closing_since
            log.error("stream %s does not end; cancelled %.1f s ago", self.key.path, seconds)
            self._owner.observer.on_stuck(self.key, seconds)
            self._owner._give_up_waiting(self)

    def _finish(self, error: BaseException | None) -> None:
        self._stop_timer()
        asked = self.state is State.CLOSING
        started = self.state is not State.OPENING
        self.state, self._task = State.CLOSED, None
        self.on_demand = self.on_status = None
        if error is not None and asked:
            log.error("stream %s failed while it closed", self.key.path, exc_info=error)
        self._end_readers(error)
        if self._statuses is not None:
            self._statuses.close()
        if started:
            self._owner.observer.on_end(self.key, error)
        self._owner._forget(self)

    def _end_readers(self, error: BaseException | None) -> None:
        readers, self._readers = self._readers, {}
        for reader in readers:
            reader._end(error)
            self._owner.observer.on_leave(self.key)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
