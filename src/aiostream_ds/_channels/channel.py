"""One channel: its subscriptions, and the states of the stream that feeds them.

    opening ──▶ running ⇄ lingering ──▶ closing ──▶ closed
       │           └─ returned, raised ────────────────▲
       └─ no subscriber left, superseded ──────────────┘

opening: the previous stream of this key still closes, no task exists yet. closing: cancelled; no
other stream of this key starts before the task is done. stuck: closing, and still alive when its
third cancellation is due. A stream that ends by itself is closed in the last step of its task.
"""

import asyncio
import contextvars
import enum
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Protocol

from aiostream_ds._author_code import cancel, contained
from aiostream_ds._channels.exceptions import ChannelClosed
from aiostream_ds._channels.log import Log
from aiostream_ds._channels.memory_pool import MemoryPool
from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._channels.policy import (
    AHEAD_BYTES,
    BROWSER_QUEUE,
    DEMAND_WAIT,
    PATIENCE,
    Policy,
)
from aiostream_ds._channels.status import Status, Statuses, partition
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._loggers import get_logger
from aiostream_ds._loop_calls import resolve

__all__ = ["Channel", "ChannelOwner", "Runner", "State"]

log = get_logger(__name__)

Runner = Callable[["Channel"], Awaitable[None]]
"""A stream: a coroutine function that emits packets into its channel until it is cancelled."""

_LONGEST_WAIT = 8
"""A stuck stream is cancelled again after 2, 4, 8, 8, … times the close timeout."""


class State(enum.Enum):
    """The state of a channel; the module's docstring has the transitions."""

    OPENING = "opening"
    RUNNING = "running"
    LINGERING = "lingering"
    CLOSING = "closing"
    CLOSED = "closed"


class ChannelOwner(Protocol):
    """The registry of a channel: what a channel needs of it, and the notifications it gets."""

    loop: asyncio.AbstractEventLoop
    observer: Observer
    close_timeout: float
    callback_context: contextvars.Context  # one for all channels: left out, each would have a copy

    def memory_of(self, instance: Hashable) -> MemoryPool:
        """The pool from which the queues of an instance reserve memory."""

    def linger(self, key: ChannelKey, seconds: float) -> float:
        """Seconds for which the stream of a channel goes on that the last subscriber has left, if
        those of its policy are `seconds`."""

    def channel_closing(self, channel: "Channel") -> None:
        """The stream is being cancelled; its task is still alive."""

    def channel_closed(self, channel: "Channel") -> None:
        """The task is done, or there never was one."""

    def channel_stuck(self, channel: "Channel") -> None:
        """The stream was still alive when its third cancellation was due."""


class Channel:
    """One path of one instance. A runner emits packets into it; subscriptions receive them.

    Not thread-safe: use it in the event loop's thread.

    Attributes:
        open: whether the stream runs and has not been cancelled: rows may be emitted.
        failed: whether `fail` ended the channel.
        log: where emitted packets are kept, if they are.
        cursors: the range of cursors of the last rows, of a stream whose rows have a cursor.
        on_demand: set by the runner. Called when a subscription's queue has been emptied and before
            a subscriber joins; it should emit what the runner holds back.
        on_status: set by the runner. Called when `status` has changed, in the next iteration of the
            loop: subscribers that keep up have received by then.

    `emit` is never re-entered: what it causes waits until each subscription has the packets.
    Otherwise later packets would reach some of them earlier.
    """

    __slots__ = (
        "__weakref__",
        "_blocks",
        "_cancellations",
        "_closing_since",
        "_demand_waits",
        "_drain_waiter",
        "_has_warned",
        "_is_emitting",
        "_memory",
        "_owner",
        "_policy",
        "_run",
        "_status_waits",
        "_statuses",
        "_subscriptions",
        "_timer",
        "cursors",
        "failed",
        "generation",
        "key",
        "log",
        "on_demand",
        "on_status",
        "open",
        "schema",
        "state",
        "task",
    )

    def __init__(
        self, owner: ChannelOwner, key: ChannelKey, run: Runner, policy: Policy, generation: int
    ) -> None:
        self.key = key
        self.generation = generation
        self._set_state(State.OPENING)
        self.schema: Schema | None = None
        self.cursors: CursorRange | None = None
        self.log: Log | None = None
        self.failed = False
        self.on_demand: Callable[[], None] | None = None
        self.on_status: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._owner = owner
        self._run = run
        self._policy = policy
        self._memory = owner.memory_of(key.instance)
        self._blocks = policy.buffer.full == "block"
        self._subscriptions: tuple[Subscription, ...] = ()  # replaced: `emit` iterates over it
        self._timer: asyncio.TimerHandle | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._cancellations = 0
        self._closing_since = 0.0
        self._statuses: Statuses | None = None  # made on first use: most channels are healthy
        self._is_emitting = self._has_warned = False
        self._status_waits = self._demand_waits = False  # for the end of `emit`

    def _set_state(self, state: State) -> None:
        self.state = state
        self.open = state is State.RUNNING or state is State.LINGERING  # asked for each packet

    # For the runner

    @property
    def has_demand(self) -> bool:
        """Whether some subscriber has taken everything, or nobody subscribes."""
        for subscription in self._subscriptions:  # for nearly each packet: no any() here
            if not subscription.queue:
                return True
        return not self._subscriptions

    @property
    def has_queued(self) -> bool:
        """Whether some subscriber has not taken everything."""
        return any(each.queue for each in self._subscriptions)

    @property
    def is_blocked(self) -> bool:
        """Whether the policy is "block" and some subscription's queue is full."""
        return self._blocks and any(each.is_full for each in self._subscriptions)

    @property
    def can_send(self) -> bool:
        """Whether the channel is open and not full."""
        return self.open and not (self._blocks and self.is_blocked)

    @property
    def above_high_water(self) -> bool:
        """Whether some subscription's queue is at least half full."""
        return any(each.above_high_water for each in self._subscriptions)

    def emit(self, *packets: Packet) -> tuple[int, int]:
        """Give packets to every subscription. Never waits. Returns the number of rows and bytes.

        Packets of one call belong together: a full queue drops older packets, never these. A packet
        without rows changes the schema that later rows, and `peek`, have; if it has cursors and is
        the last of its call, it goes to the subscriptions of the exact channel.

        Raises:
            ChannelClosed: the channel is closing or closed.
            RuntimeError: called from within itself.
        """
        if not self.open:
            raise ChannelClosed(f"{self.key.path}: the channel is {self.state.value}")
        if self._is_emitting:
            raise RuntimeError("emit must not be called from within itself")
        self._is_emitting = True
        try:
            if len(packets) != 1 or not packets[0].rows:
                return self._emit_several(packets)
            packet = packets[0]
            rows, size = packet.rows, len(packet.data)
            self.schema = packet.schema
            if packet.cursors is not None:
                self.cursors = packet.cursors
            self._owner.observer.on_emit(self.key, 1, rows, size)
            if self._statuses is not None:
                self._statuses.rows_emitted()
            now = self._owner.loop.time()
            if self.log is not None:
                self.log.append(packets, rows, size, now)
            queued: list[Subscription] = []
            for subscription in self._subscriptions:
                if not subscription.push_direct(packet, now):
                    subscription.put(packets, rows, size, now)
                    queued.append(subscription)
            if queued:
                _wake(queued)
            return rows, size
        finally:
            self._is_emitting = False
            if self._status_waits:
                self._call_soon()
            if self._demand_waits:
                self._demand_waits = False
                self._call(self.on_demand)

    def _emit_several(self, packets: tuple[Packet, ...]) -> tuple[int, int]:
        if not packets:
            return 0, 0
        last: Packet | None = packets[-1]
        counts = [packet.rows for packet in packets]
        rows, size = sum(counts), sum([len(packet.data) for packet in packets])
        some_without_rows = 0 in counts
        self._owner.observer.on_emit(self.key, len(packets), rows, size)
        if self._statuses is not None and rows:
            self._statuses.rows_emitted()
        with_rows, with_rows_size = packets, size
        if some_without_rows:
            found, with_rows, with_rows_size, last = partition(packets)
            for status in found:
                self.statuses.set_by_author(status)
        if last is not None:
            if last.schema.body:
                self.schema = last.schema
            if last.cursors is not None:
                self.cursors = last.cursors
        if with_rows:
            self._give(with_rows, rows, with_rows_size)
        if some_without_rows and last is not None and not last.rows and last.cursors is not None:
            self._give_cursors(last)
        return rows, size

    def _give(self, packets: tuple[Packet, ...], rows: int, size: int) -> None:
        now = self._owner.loop.time()
        if self.log is not None:
            self.log.append(packets, rows, size, now)
        queued: list[Subscription] = []
        for subscription in self._subscriptions:
            if not subscription.push_all_direct(packets, rows, size, now):
                subscription.put(packets, rows, size, now)
                queued.append(subscription)
        _wake(queued)

    def _give_cursors(self, packet: Packet) -> None:
        now = self._owner.loop.time()
        exact = tuple(each for each in self._subscriptions if each.exact)
        for subscription in exact:
            subscription.put_cursors(packet, now)
        _wake(exact)

    def warn_of_large_rows(self, packets: Sequence[Packet]) -> None:
        """Log a warning, once, if a packet is larger than what some versions of Grafana queue."""
        size = max(len(packet.data) for packet in packets)
        if size > BROWSER_QUEUE and not self._has_warned:
            self._has_warned = True
            log.warning(
                "a row has %d bytes as JSON: Grafana 9.4 disconnects each browser that gets more"
                " than %d at once, newer versions by `client_queue_max_size` (default: 4 MiB)",
                size,
                BROWSER_QUEUE,
                extra={"path": self.key.path},
            )

    def fail(self, error: BaseException) -> None:
        """End every subscription with `error` and cancel the runner.

        The channel is closed when the runner has ended. Does nothing if the channel is not open.
        """
        if self.open:
            self.failed = True
            failure = contained(error, requested=False) or RuntimeError(repr(error))
            self._owner.observer.on_fail(self.key, failure)
            self.end_subscriptions(failure)
            self.close()

    async def drain(self) -> None:
        """Wait until no subscription is full; return at once unless the policy is "block".

        A subscription whose subscriber takes nothing for `Buffer.stall_timeout` seconds is ended.
        Safe to cancel.
        """
        while self.open and self.is_blocked:
            stalls_at = min(each.stalls_at() for each in self._subscriptions if each.is_full)
            await self._wait_until_received(stalls_at)
            for subscription in self._subscriptions:
                if subscription.is_full:
                    subscription.evict_if_stalled()

    async def wait_for_demand(self) -> None:
        """With the policy "block" and more than `AHEAD_BYTES` in the queues of the instance, wait
        until some subscriber has taken everything, but not longer than `DEMAND_WAIT`. For a runner
        that never waits otherwise. Safe to cancel."""
        is_ahead = self._blocks and self._memory.used > AHEAD_BYTES
        if is_ahead and self.open and not self.has_demand:
            await self._wait_until_received(self.time() + DEMAND_WAIT)

    async def pace(self) -> None:
        """Wait until no queue is half full, with each policy: for a runner that emits many rows
        faster than any subscriber can receive them.

        A subscriber that has taken nothing for `PATIENCE` seconds is not waited for. Safe to
        cancel.
        """
        await asyncio.sleep(0)  # other tasks run, and a subscriber that keeps up receives
        await self.drain()
        while self.open and (until := self._patient_until()) is not None:
            await self._wait_until_received(until)

    def _patient_until(self) -> float | None:
        """Until when to wait for a subscriber that lags; None: there is none worth waiting for."""
        now = self.time()
        times = [
            each.waiting_since + PATIENCE for each in self._subscriptions if each.above_high_water
        ]
        return min((time for time in times if time > now), default=None)

    async def _wait_until_received(self, deadline: float) -> None:
        """Wait until some subscriber has received, or left, and no queue blocks the author."""
        loop = self._owner.loop
        self._drain_waiter = waiter = loop.create_future()
        timer = loop.call_at(deadline, resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._drain_waiter = None

    @property
    def status(self) -> Status | None:
        """The status that viewers see; None: the stream is healthy."""
        return None if self._statuses is None else self._statuses.current

    @property
    def statuses(self) -> Statuses:
        """All active statuses of the channel, made on first use."""
        if self._statuses is None:
            self._statuses = Statuses(
                self._owner.loop, self._status_changed, self._caught_up, self._policy.stale
            )
        return self._statuses

    def _status_changed(self) -> None:
        for subscription in self._subscriptions:
            if subscription.exact:
                subscription.notify_status()
        if self._is_emitting:
            self._status_waits = True
        else:
            self._call_soon()

    def _call_soon(self) -> None:
        """Call `on_status` after the subscribers that were just woken: they have received then."""
        self._status_waits = False
        self._owner.loop.call_soon(lambda: self._call(self.on_status))

    def _caught_up(self, rows: int, packets: int) -> None:
        self._owner.observer.on_caught_up(self.key, rows, packets)

    # For the subscriptions

    def time(self) -> float:
        """The event loop's time in seconds."""
        return self._owner.loop.time()

    def create_future(self) -> asyncio.Future[None]:
        """A future of the event loop."""
        return self._owner.loop.create_future()

    def subscription_drained(self) -> None:
        """A subscriber has taken everything from its queue."""
        if self._drain_waiter is not None:
            self._wake_drain()
        if self.on_demand is not None:
            self.request_rows()

    def subscription_left(self, subscription: Subscription) -> None:
        """The subscriber has left, or was evicted. A second call does nothing."""
        try:
            index = self._subscriptions.index(subscription)
        except ValueError:
            return
        self._subscriptions = self._subscriptions[:index] + self._subscriptions[index + 1 :]
        self._owner.observer.on_leave(self.key)
        self._wake_drain()
        if self._subscriptions:
            return
        if self.state is State.OPENING:
            self.finish(None)
        elif self.state is State.RUNNING:
            linger = self._owner.linger(self.key, self._policy.linger)
            if linger > 0:
                self._set_state(State.LINGERING)
                self._timer = self._owner.loop.call_later(linger, self.close)
            else:
                self.close()

    def rows_dropped(self, rows: int, packets: int) -> None:
        """A subscription has dropped rows because its subscriber lags."""
        self._owner.observer.on_drop(self.key, rows, packets)
        if self._policy.buffer.full != "latest" and self.statuses.rows_dropped(rows, packets):
            self._owner.observer.on_lagging(self.key)

    def _wake_drain(self) -> None:
        if self._drain_waiter is not None and not self.is_blocked:
            resolve(self._drain_waiter)

    # For the registry

    @property
    def stuck(self) -> bool:
        """Whether the stream was still alive when its third cancellation was due."""
        return self.state is State.CLOSING and self._cancellations > 2

    @property
    def subscription_count(self) -> int:
        """The number of subscriptions."""
        return len(self._subscriptions)

    def subscribe(self, *, exact: bool) -> Subscription:
        """Add a subscription. The caller starts the channel if it has no stream yet."""
        subscription = Subscription(self, self._policy.buffer, self._memory, exact=exact)
        self._subscriptions += (subscription,)
        if self.state is State.LINGERING:
            self.stop_timer()
            self._set_state(State.RUNNING)
        self._owner.observer.on_join(self.key)
        return subscription

    def repeat_schema(self) -> None:
        """Send the schema again with the next rows: a viewer is about to follow this path."""
        for subscription in self._subscriptions:
            subscription.repeat_schema()

    def request_rows(self) -> None:
        """Let the runner emit what it holds back."""
        if self._is_emitting:
            self._demand_waits = True
        else:
            self._call(self.on_demand)

    def _call(self, function: Callable[[], None] | None) -> None:
        """Call a function of the runner, which may emit."""
        if function is None or not self.open:
            return
        try:
            function()
        except BaseException as error:  # the runner's fault: it must not reach the caller
            self.fail(error)

    def start(self) -> None:
        """Create the task of the stream. An eager task may emit, and end, in this call."""
        self._set_state(State.RUNNING)
        if self._policy.stale:
            _ = self.statuses
        self._owner.observer.on_start(self.key)
        # An empty context: the first subscriber's user and trace must not leak into the stream.
        task = self._owner.loop.create_task(
            self._drive(), name=f"stream {self.key.path}", context=contextvars.Context()
        )
        if self.state is not State.CLOSED:  # an eager task may be done
            self.task = task
            task.add_done_callback(self._task_done, context=self._owner.callback_context)
            if self.state is State.CLOSING:  # closed in the first step of an eager task
                self._cancel()

    async def _drive(self) -> None:
        error: Exception | None = None
        try:
            await self._run(self)
        except BaseException as caught:  # one stream never ends the plugin
            error = contained(caught, requested=self.state is State.CLOSING)
            if isinstance(caught, GeneratorExit) and error is None:
                raise  # the event loop is gone
        try:
            # In the last step of the task: a join never finds a channel whose stream has ended.
            self.finish(error)
        finally:
            del error  # error → traceback → this frame → error would be a cycle

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if self.state is State.CLOSED:
            return
        # Cancelled before its first step: `_drive` did not reach its end.
        error = None if task.cancelled() else task.exception()
        if self.state is not State.CLOSING and error is None:
            error = RuntimeError("the author's code cancelled the stream before it began")
        try:
            self.finish(error)
        finally:
            del error

    def end_subscriptions(self, error: BaseException | None) -> None:
        """End all subscriptions: their subscribers get what is queued, then `error`."""
        subscriptions, self._subscriptions = self._subscriptions, ()
        for subscription in subscriptions:
            subscription.end(error)
            self._owner.observer.on_leave(self.key)

    def close(self) -> None:
        """Cancel the stream; again after the close timeout, as long as it is alive."""
        self.stop_timer()
        self._set_state(State.CLOSING)
        self._closing_since = self.time()
        self._owner.channel_closing(self)
        self._cancel()

    def _cancel(self) -> None:
        if self.task is None:
            return
        self._cancellations += 1
        wait = self._owner.close_timeout * min(2 ** (self._cancellations - 1), _LONGEST_WAIT)
        self._timer = self._owner.loop.call_later(wait, self._cancel_again)
        cancel(self.task)

    def _cancel_again(self) -> None:
        self._timer = None
        self._cancel()
        if self._cancellations == 3:
            seconds = self.time() - self._closing_since
            log.error("stream %s does not end; cancelled %.1f s ago", self.key.path, seconds)
            self._owner.observer.on_stuck(self.key, seconds)
            self._owner.channel_stuck(self)

    def finish(self, error: BaseException | None) -> None:
        """The stream has ended, or never started: end the subscriptions and close."""
        self.stop_timer()
        was_cancelled = self.state is State.CLOSING
        was_started = self.state is not State.OPENING
        self._set_state(State.CLOSED)
        self.task = None
        self.on_demand = self.on_status = None
        if error is not None and was_cancelled:
            log.error("stream %s failed while it closed", self.key.path, exc_info=error)
        self.end_subscriptions(error)
        if self._statuses is not None:
            self._statuses.close()
        if was_started:
            self._owner.observer.on_end(self.key, error)
        self._owner.channel_closed(self)

    def stop_timer(self) -> None:
        """Cancel the timer of lingering or of the next cancellation."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _wake(subscriptions: Sequence[Subscription]) -> None:
    """Notify those that have got packets in their queue, once each of them has."""
    for subscription in subscriptions:
        subscription.wake()
