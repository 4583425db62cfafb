"""`Broadcast`: rows from callbacks and threads, for the streams of a data source.

    any thread, callback, coroutine ──▶ publish ──▶ a queue for each subscription ──▶ a stream

A lock guards the queues; no call holds it while it waits. A subscriber that waits is woken once,
by its event loop's `call_soon_threadsafe`: no task or callback is made for a row.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final
from weakref import ref

import anyio
from msgspec import Struct

from aiostream_ds._author_code import to_plugin_error
from aiostream_ds._author_threads import in_event_loop, in_stream_thread
from aiostream_ds._channels.policy import Buffer
from aiostream_ds._declared_errors import table_of
from aiostream_ds._encoding.published_rows import copy_published
from aiostream_ds._loggers import get_logger
from aiostream_ds._loop_calls import wake
from aiostream_ds._run_scope import close_with_run
from aiostream_ds._subscriber_queue import QueueOwner, SubscriberQueue
from aiostream_ds.errors import unwrap

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    RowT = DefaultTypeVar("RowT", default=Any)
else:
    RowT = TypeVar("RowT")

__all__ = ["Broadcast", "BroadcastStatistics", "BroadcastSubscription"]

log = get_logger(__name__)

_BUFFER = Buffer(rows=1_000)

_forks = 0  # of the process since it began; a child continues the count of its parent


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class BroadcastStatistics(Struct, frozen=True):
    """The counts of a broadcast, in rows.

    `unmatched` rows had no subscriber, `dropped` ones were lost by slow subscribers, `ignored` ones
    were published after it was closed.
    """

    subscribers: int
    published: int
    unmatched: int
    dropped: int
    ignored: int


@final
class Broadcast(Generic[RowT]):
    """Rows that callbacks, threads and coroutines publish, for all streams that subscribe.

        class Press(DataSource):
            readings = Broadcast[Reading]()

            @stream("press")
            async def press(self) -> Rows[Reading]:
                async for reading in self.readings.subscribe():
                    yield reading

    and in a callback or thread: `self.readings.publish(Reading(bar=2.5))`.

    Declared in the class body, each instance has its own, which is closed after its lifespan. One
    that is an attribute of `self`, or in a list or dict that is one, is closed then, too; not one
    that is in `self.state`, which outlives the instance.

    `publish`, `fail`, `close` and `statistics` are thread-safe. `subscribe` and `send` are called
    in an event loop. A row that is a dict, a list, a `Row` or another object with declared fields
    is copied when it is published; what it contains, and arrays, must not be changed afterwards.
    All subscribers get the same copy, which they must not change.

    Args:
        buffer: the bounds of each subscription's queue; bytes are not counted. With
            full="block" a publisher waits for the slowest subscriber.
        replay: the number of newest rows that a later subscriber gets first; 1: the last value.
        name: the name in messages and in the log; by default that of the class attribute.

    Raises:
        TypeError: `buffer` is not a Buffer.
        ValueError: `replay` is not an integer from 0 to `buffer.rows`.
    """

    __slots__ = (
        "__weakref__",
        "_attribute",
        "_blocks",
        "_buffer",
        "_dropped",
        "_fork",
        "_ignored",
        "_is_closed",
        "_lock",
        "_name",
        "_owner",
        "_published",
        "_replay",
        "_senders",
        "_space",
        "_subscriptions",
        "_unmatched",
        "_waiting",
    )

    def __init__(self, *, buffer: Buffer = _BUFFER, replay: int = 0, name: str = "") -> None:
        if not isinstance(buffer, Buffer):
            raise TypeError(f"buffer must be a Buffer, got {buffer!r}")
        if type(replay) is not int or not 0 <= replay <= buffer.rows:
            raise ValueError(
                f"replay must be an integer from 0 to buffer.rows ({buffer.rows}), got {replay!r}"
            )
        self._buffer = buffer
        self._blocks = buffer.full == "block"
        self._name = name
        self._replay: deque[RowT] = deque(maxlen=replay)
        # re-entrant: a log handler or a finalizer that runs in `publish` may publish
        self._lock = threading.RLock()
        self._space = threading.Condition(self._lock)  # notified when blocked publishers may go on
        self._senders: deque[asyncio.Future[None]] = deque()
        self._subscriptions: tuple[ref[BroadcastSubscription[RowT]], ...] = ()
        self._attribute = ""  # of the class in whose body this was declared
        self._owner: type = object  # the class of the instance that it belongs to
        self._is_closed = False
        self._waiting = 0  # publishers
        self._fork = _forks
        self._published = self._unmatched = self._dropped = self._ignored = 0

    # -- one for each instance of a data source ------------------------------------------------

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name
        self._name = self._name or f"{owner.__name__}.{name}"

    def __get__(self, instance: object, owner: Any = None) -> "Broadcast[RowT]":
        if instance is None or not self._attribute:
            return self
        own: Broadcast[RowT] = Broadcast(
            buffer=self._buffer, replay=self._replay.maxlen or 0, name=self._name
        )
        own._owner = type(instance)
        # Python finds it there from now on; two threads may both be the first
        return cast("Broadcast[RowT]", vars(instance).setdefault(self._attribute, own))

    # -- publishing ----------------------------------------------------------------------------

    def publish(self, row: RowT) -> None:
        """Give a row to all current subscribers. Thread-safe.

        It does not wait, except with `full="block"`: then it blocks the calling thread while the
        queue of a subscriber is full; one that takes nothing for `Buffer.stall_timeout` seconds
        gets an UpstreamError and is not waited for. After `close` the row is ignored and counted.

        Raises:
            RuntimeError: with `full="block"`, in a thread that runs an event loop; in a process
                forked from the one that created the broadcast; on the class.
            TypeError: the class of the row has declared fields and is a mapping or a list.
        """
        if self._attribute or self._fork != _forks:
            raise self._misuse("publish")
        row = copy_published(row)
        with self._lock:
            if self._blocks:
                self._wait_for_space()
            is_first_ignored = self._put(row)
        if is_first_ignored:
            self._log_ignored()

    async def send(self, row: RowT) -> None:
        """Give a row to all current subscribers, and wait for space with `full="block"`: for
        coroutines. With another policy it is `publish`.

        Safe to cancel: the row is then not sent.

        Raises:
            RuntimeError: as `publish`, except in an event loop.
            TypeError: as `publish`.
        """
        if self._attribute or self._fork != _forks:
            raise self._misuse("send")
        row = copy_published(row)
        while True:
            with self._lock:
                full = self._full() if self._blocks else {}
                if not full:
                    is_first_ignored = self._put(row)
                    break
                space = asyncio.get_running_loop().create_future()
                self._senders.append(space)
                self._waiting += 1
            try:
                with anyio.move_on_after(self._buffer.stall_timeout) as scope:
                    await space
            finally:
                with self._lock:
                    self._waiting -= 1
                    if space in self._senders:
                        self._senders.remove(space)
            if scope.cancelled_caught:
                self._evict(full)
        if is_first_ignored:
            self._log_ignored()

    def fail(self, error: Exception) -> None:
        """Raise `error` in all current subscribers, after the rows that they have not read: the
        connection is lost, for example. Thread-safe.

        Later subscribers get the rows that are published from then on. An UpstreamError lets the
        streams be retried; another PluginError ends them with its message. An exception of a client
        becomes what `declared_errors` of the data source states, else an UpstreamError.

        Raises:
            TypeError: `error` is not an Exception.
        """
        if not isinstance(error, Exception):
            raise TypeError(f"error must be an Exception, got {error!r}")
        found = unwrap(table_of(self._owner).find(error))
        shown = to_plugin_error(found, str(self))  # the author's `__str__`: not while locked
        with self._lock:
            for subscription in self._end_all():
                subscription.end(shown)

    def close(self) -> None:
        """End all subscriptions, present and later ones: their loops end after the rows that they
        have not read. Thread-safe; a second call does nothing.

        The runtime calls it when the instance has closed.
        """
        with self._lock:
            self._is_closed = True
            for subscription in self._end_all():
                subscription.end(None)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called: a thread that publishes should end. Thread-safe."""
        return self._is_closed

    @property
    def subscribers(self) -> int:
        """The number of subscriptions. Thread-safe: a publisher may pause while there are none."""
        return len(self._subscriptions)

    # -- subscribing ---------------------------------------------------------------------------

    def subscribe(self) -> "BroadcastSubscription[RowT]":
        """Subscribe: an async iterator over the rows that are published from now on, after those
        of `replay`. In a stream that is a `def` it is an iterator, which waits for the next row.

        It ends when the broadcast is closed. The subscription ends with the run of the stream that
        made it, or when nothing refers to it any more. Safe to cancel: a timeout around `anext`
        loses no row.

        Raises:
            RuntimeError: no event loop runs in this thread, which is not that of a stream either,
                or it is called on the class.
        """
        return in_event_loop(f"{self}.subscribe()", self._subscribe)

    def _subscribe(self) -> "BroadcastSubscription[RowT]":
        if self._attribute or self._fork != _forks:
            raise self._misuse("subscribe")
        with self._lock:
            subscription = BroadcastSubscription(self, self._replay)
            if self._is_closed:
                subscription.end(None)
            else:
                self._subscriptions = (*self._subscriptions, ref(subscription, self._remove))
        close_with_run(subscription)
        return subscription

    def statistics(self) -> BroadcastStatistics:
        """The current counts. Thread-safe."""
        with self._lock:
            return BroadcastStatistics(
                subscribers=len(self._subscriptions),
                published=self._published,
                unmatched=self._unmatched,
                dropped=self._dropped,
                ignored=self._ignored,
            )

    def __str__(self) -> str:
        return self._name or "Broadcast"

    def __repr__(self) -> str:
        return f"<{self}: {len(self._subscriptions)} subscribers>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self} cannot be copied or sent to another process;"
            " publish in the process of the plugin what another one sends through a queue"
        )

    # -- internal ------------------------------------------------------------------------------

    def _misuse(self, method: str) -> RuntimeError:
        """The error where no subscriber can get rows: on the class, and in a forked process, in
        which the lock may be held for ever."""
        if self._attribute:
            return RuntimeError(
                f"expected self.{self._attribute}.{method}(), the broadcast of an instance, got"
                f" {self}.{method}(), that of the class"
            )
        return RuntimeError(
            f"{self}.{method}() was called in a forked process, where no stream runs; send the"
            " rows to the plugin's process through a multiprocessing.Queue"
        )

    def _alive(self) -> "Iterator[BroadcastSubscription[RowT]]":
        for reference in self._subscriptions:
            subscription = reference()
            if subscription is not None:
                yield subscription

    def _put(self, row: RowT) -> bool:
        """Queue a row. Returns whether it is the first one that is ignored."""
        if self._is_closed:
            self._ignored += 1
            return self._ignored == 1
        self._published += 1
        if self._replay.maxlen:
            self._replay.append(row)
        if not self._subscriptions:
            self._unmatched += 1
        for reference in self._subscriptions:
            subscription = reference()
            if subscription is not None:
                self._dropped += subscription.put(row)
        return False

    def _log_ignored(self) -> None:
        log.warning(
            "%s: a row was published after the broadcast was closed; it is ignored."
            " Stop the publisher when `lifespan` ends",
            self,
        )

    def _full(self) -> "dict[ref[BroadcastSubscription[RowT]], int]":
        """The subscriptions for which a publisher has to wait, with what each has taken so far.

        Weak references: one that is not used any more is not waited for.
        """
        return {ref(each): each.taken for each in self._alive() if each.is_full}

    def _wait_for_space(self) -> None:
        """Block the thread until no queue is full. The caller holds the lock."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError(
                f'{self}.publish() must not be called in an event loop with full="block", where it'
                " would block all streams; use `await send(row)`, or another Buffer(full=…)"
            )
        while full := self._full():
            self._waiting += 1
            try:
                has_space = self._space.wait(self._buffer.stall_timeout)
            finally:
                self._waiting -= 1
            if not has_space:
                self._evict(full)

    def _evict(self, full: "dict[ref[BroadcastSubscription[RowT]], int]") -> None:
        """Fail the subscriptions whose subscribers have taken nothing since."""
        with self._lock:
            for reference, taken in full.items():
                subscription = reference()
                if subscription is None or subscription.taken > taken:
                    continue
                self.forget(subscription)
                subscription.end_stalled(self._buffer.stall_timeout)

    def _end_all(self) -> "list[BroadcastSubscription[RowT]]":
        """Remove all subscriptions. The caller ends them."""
        subscriptions = list(self._alive())
        self._subscriptions = ()
        self.notify_publishers()
        return subscriptions

    def _remove(self, reference: "ref[BroadcastSubscription[RowT]]") -> None:
        with self._lock:
            self._subscriptions = tuple(r for r in self._subscriptions if r is not reference)
            self.notify_publishers()

    # For the subscriptions

    @property
    def buffer(self) -> Buffer:
        """The bounds of each subscription's queue."""
        return self._buffer

    @property
    def lock(self) -> Any:
        """The lock of all queues."""
        return self._lock

    def forget(self, subscription: "BroadcastSubscription[RowT]") -> None:
        """Remove a subscription. The caller holds the lock."""
        self._subscriptions = tuple(r for r in self._subscriptions if r() is not subscription)
        self.notify_publishers()

    def notify_publishers(self) -> None:
        """Publishers that wait for space check again. The caller holds the lock."""
        if self._waiting:
            self._space.notify_all()
            while self._senders:
                wake(self._senders.popleft())


@final
class BroadcastSubscription(SubscriberQueue[RowT]):
    """The rows of a `Broadcast` for one subscriber, as an async iterator, or an iterator in the
    thread of a stream: see its `subscribe`.

    One task reads it, in the event loop in which it was made.
    """

    __slots__ = ("__weakref__", "_broadcast", "_low")

    def __init__(self, broadcast: Broadcast[RowT], rows: "deque[RowT]") -> None:
        owner = QueueOwner(str(broadcast), "rows", "broadcast")
        super().__init__(broadcast.buffer, owner, broadcast.lock, rows)
        self._broadcast = broadcast
        self._low = self._most // 2  # publishers wait until so many are left: a burst is a packet

    def __next__(self) -> RowT:
        if in_stream_thread():  # a row that is queued needs no answer of the event loop
            with self._lock:
                if self._items:
                    self.taken += 1
                    row = self._items.popleft()
                    if self._blocks:
                        self._has_taken()
                    return row
        return super().__next__()

    async def aclose(self) -> None:
        """Leave: drop the rows in the queue. Needed only where something still refers to this."""
        with self._broadcast.lock:
            self.clear()
            self.end(None)
            self._broadcast.forget(self)

    def _has_taken(self) -> None:
        if len(self._items) <= self._low:
            self._broadcast.notify_publishers()

    def _has_failed(self) -> None:
        self._broadcast.forget(self)
