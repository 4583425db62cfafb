"""`Upstream`: one connection to an upstream system, shared by all streams of a data source.

    idle ──▶ connecting ──▶ connected ⇄ lingering ──▶ idle
                 └──────────────┴─ lost: all subscribers get an UpstreamError; the next attempt
                                         begins after a delay and when somebody subscribes

One task runs the connection, in the task group of the task that entered the `Upstream`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Hashable,
    Iterable,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from msgspec import Struct

from aiostream_ds._channels.policy import Buffer, Retry
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import current_counters
from aiostream_ds.errors import PluginError, UpstreamError, copy_error, unwrap

__all__ = ["BATCH_MESSAGES", "Upstream", "UpstreamStatistics"]

log = get_logger(__name__)

BATCH_MESSAGES = 64
"""Messages after which an upstream that never waits yields to the event loop."""

KeyT = TypeVar("KeyT", bound=Hashable)
MessageT = TypeVar("MessageT")

_BUFFER, _RETRY = Buffer(rows=1_000), Retry()


class UpstreamStatistics(Struct, frozen=True):
    """The counts of an upstream.

    `keys` is the number of subscribed keys, `connects` the number of attempts to connect.
    `unmatched` messages had no subscriber, `dropped` ones were lost by slow subscribers.
    """

    subscribers: int
    keys: int
    connects: int
    messages: int
    unmatched: int
    dropped: int


class Upstream(ABC, Generic[KeyT, MessageT]):
    """One connection, shared by all streams of a data source. Subclass it, and enter it in
    `lifespan`:

        async with Feeds(self.settings.url) as self.feeds:
            yield

    and in a stream:

        async with self.feeds.follow(topic) as messages:
            async for message in messages:
                yield {"text": message}

    It connects for the first subscriber, subscribes to a key for the first subscriber of that key,
    and gives each of them every message of the key. When the connection is lost, all subscribers
    get an UpstreamError, so that their streams are retried. However many they are, there is one
    attempt to connect at a time, with the delays of `retry`.

    Not thread-safe: use it in the event loop's thread.

    Args:
        linger: seconds for which a key stays subscribed after its last subscriber has left, and
            with the last key the connection.
        buffer: the bounds of each subscriber's queue. Its rows are messages; bytes are not counted.
            With "block" the slowest subscriber delays the connection.
        retry: the delays between attempts to connect.
    """

    def __init__(
        self, *, linger: float = 0.0, buffer: Buffer = _BUFFER, retry: Retry = _RETRY
    ) -> None:
        self._linger = linger
        self._buffer = buffer
        self._retry = retry
        self._queues: dict[KeyT, dict[_Queue[MessageT], None]] = {}
        self._subscribed: set[KeyT] = set()
        self._lingering: dict[KeyT, float] = {}  # keys without subscribers: when they end
        self._changed = anyio.Event()
        self._running = False
        self._failures = 0
        self._not_before = 0.0
        self._connects = self._messages = self._unmatched = self._dropped = 0
        self._counters = current_counters()
        self._stack: AsyncExitStack | None = None
        self._tasks: TaskGroup | None = None

    # -- for subclasses ------------------------------------------------------------------------

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Any]:
        """Open the connection, and close it again. An exception ends the attempt to connect."""

    @abstractmethod
    def messages(self, connection: Any) -> AsyncGenerator[tuple[KeyT, MessageT], None]:
        """Yield all messages of the connection, each with its key. Return or raise when the
        connection is lost."""

    async def subscribe(self, connection: Any, key: KeyT) -> None:
        """Request the messages of a key. A PluginError is raised in the subscribers of this key;
        any other exception ends the connection."""

    async def unsubscribe(self, connection: Any, key: KeyT) -> None:
        """The key has no subscriber any more."""

    def keys_for(self, address: KeyT) -> Iterable[KeyT]:
        """The subscribed keys that a message is for. Override it when keys are patterns."""
        return (address,)

    # -- for streams ---------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self, key: KeyT) -> AsyncGenerator[AsyncIterator[MessageT]]:
        """Subscribe to a key: an async iterator over its messages from now on.

        Returns when the key is subscribed. Safe to cancel: no message is lost.

        Raises:
            UpstreamError: the upstream system cannot be reached, or the connection was lost; also
                raised by the iterator, as is the exception of `subscribe`. With `full="fail"` the
                iterator raises it when the queue is full.
            RuntimeError: the Upstream has not been entered.
        """
        queue: _Queue[MessageT] = _Queue(self._buffer, self._count_dropped, str(key))
        self._join(key, queue)
        try:
            await queue.wait_until_subscribed()
            yield queue
        finally:
            self._leave(key, queue)

    def statistics(self) -> UpstreamStatistics:
        """The current counts."""
        return UpstreamStatistics(
            subscribers=sum(map(len, self._queues.values())),
            keys=len(self._subscribed),
            connects=self._connects,
            messages=self._messages,
            unmatched=self._unmatched,
            dropped=self._dropped,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, tasks = self._stack, self._tasks
        self._stack = self._tasks = None
        if stack is None or tasks is None:
            return
        self._fail_all(UpstreamError("the data source is closing"))
        tasks.cancel_scope.cancel()
        await stack.__aexit__(None, None, None)

    # -- subscribers ---------------------------------------------------------------------------

    def _join(self, key: KeyT, queue: "_Queue[MessageT]") -> None:
        if self._tasks is None:
            raise RuntimeError(
                f"expected {type(self).__name__} to be entered in `lifespan` with `async with`"
            )
        self._queues.setdefault(key, {})[queue] = None
        if key in self._subscribed:
            queue.set_subscribed()
        self._changed.set()
        if not self._running:
            self._running = True
            self._tasks.start_soon(self._run)

    def _leave(self, key: KeyT, queue: "_Queue[MessageT]") -> None:
        queue.close()
        queues = self._queues.get(key)
        if queues is None or queues.pop(queue, self) is self or queues:
            return
        del self._queues[key]
        self._lingering[key] = anyio.current_time() + self._linger
        self._changed.set()

    def _fail_all(self, error: Exception) -> None:
        all_queues, self._queues = self._queues, {}
        for queues in all_queues.values():
            for queue in queues:
                queue.fail(error)

    def _count_dropped(self, count: int) -> None:
        self._dropped += count
        self._counters.count_dropped("upstream", count)

    # -- the connection ------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self._queues:
                await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))
                if self._queues:
                    await self._run_connection()
        finally:
            self._running = False

    async def _run_connection(self) -> None:
        """One connection, from the attempt to its end."""
        self._connects += 1
        began = anyio.current_time()
        try:
            async with self.connect() as connection, anyio.create_task_group() as tasks:
                tasks.start_soon(self._update_subscriptions, connection, tasks)
                tasks.start_soon(self._read, connection)
            self._failures = 0
        except Exception as error:
            if anyio.current_time() - began > self._retry.max_delay:
                self._failures = 0
            self._failures += 1
            self._not_before = anyio.current_time() + self._retry.delay(self._failures)
            self._fail_all(_to_upstream_error(error))
        finally:
            self._subscribed.clear()
            self._lingering.clear()

    async def _read(self, connection: Any) -> None:
        async with aclosing(self.messages(connection)) as messages:
            count = 0
            async for address, message in messages:
                self._messages += 1
                matched = False
                for key in self.keys_for(address):
                    for queue in tuple(self._queues.get(key, ())):
                        matched = True
                        if queue.is_blocked:
                            await queue.drain()
                        queue.put(message)
                self._unmatched += not matched
                count += 1
                if count >= BATCH_MESSAGES:
                    count = 0
                    await anyio.lowlevel.checkpoint()
        raise UpstreamError("the upstream system has closed the connection")

    async def _update_subscriptions(self, connection: Any, tasks: TaskGroup) -> None:
        """Keep exactly the followed keys subscribed; close the connection when there are none."""
        while True:
            self._changed = anyio.Event()
            for key in tuple(self._queues):
                if key not in self._subscribed:
                    await self._subscribe(connection, key)
            now = anyio.current_time()
            for key in [key for key, until in self._lingering.items() if until <= now]:
                del self._lingering[key]
                if key in self._subscribed and key not in self._queues:
                    self._subscribed.discard(key)
                    await self.unsubscribe(connection, key)
            if not self._queues and not self._lingering:
                return tasks.cancel_scope.cancel()
            until = min(self._lingering.values(), default=float("inf"))
            with anyio.move_on_after(until - now):
                await self._changed.wait()

    async def _subscribe(self, connection: Any, key: KeyT) -> None:
        try:
            await self.subscribe(connection, key)
        except PluginError as error:
            for queue in self._queues.pop(key, {}):
                queue.fail(error)
            return
        self._subscribed.add(key)
        if key not in self._queues and key not in self._lingering:
            self._lingering[key] = anyio.current_time()
        for queue in self._queues.get(key, ()):
            queue.set_subscribed()


class _Queue(Generic[MessageT]):
    """The bounded queue of one subscriber: an async iterator over the messages of one key.

    A channel's `Subscription` has the same policies, but counts bytes and rows of packets.
    """

    __slots__ = (
        "_buffer",
        "_changed",
        "_drained",
        "_error",
        "_is_closed",
        "_is_subscribed",
        "_key",
        "_lost",
        "_messages",
        "_on_drop",
    )

    def __init__(self, buffer: Buffer, on_drop: Callable[[int], None], key: str) -> None:
        self._buffer = buffer
        self._on_drop = on_drop
        self._key = key
        self._messages: deque[MessageT] = deque()
        self._error: Exception | None = None
        self._is_subscribed = self._is_closed = False
        self._lost = 0  # messages, since the subscriber lags
        self._changed = anyio.Event()
        self._drained: anyio.Event | None = None

    # For the subscriber

    async def wait_until_subscribed(self) -> None:
        """Wait until the key is subscribed. Raises the error for which it cannot be."""
        while not self._is_subscribed:
            await self._wait()

    def __aiter__(self) -> "_Queue[MessageT]":
        return self

    async def __anext__(self) -> MessageT:
        while not self._messages:
            if self._lost:
                log.warning("%s: caught up; %d messages were dropped", self._key, self._lost)
                self._lost = 0
            await self._wait()
        message = self._messages.popleft()
        if self._drained is not None:
            self._drained.set()
        return message

    async def _wait(self) -> None:
        if self._error is not None:
            raise copy_error(self._error)
        if self._is_closed:
            raise RuntimeError("expected the messages to be read inside their `async with` block")
        self._changed = anyio.Event()
        await self._changed.wait()

    # For the upstream

    @property
    def is_blocked(self) -> bool:
        """Whether the policy is "block" and the queue is full."""
        return self._buffer.full == "block" and len(self._messages) >= self._buffer.rows

    async def drain(self) -> None:
        """Wait until the queue is not full, or is closed."""
        while self.is_blocked and not self._is_closed:
            self._drained = anyio.Event()
            await self._drained.wait()
        self._drained = None

    def set_subscribed(self) -> None:
        """The key is subscribed."""
        self._is_subscribed = True
        self._changed.set()

    def put(self, message: MessageT) -> None:
        """Queue a message. When the queue is full, apply the policy."""
        if self._error is not None or self._is_closed:
            return
        full = self._buffer.full
        dropped = 0
        if full == "latest":
            dropped = len(self._messages)
            self._messages.clear()
        elif len(self._messages) >= self._buffer.rows and full != "block":
            if full == "fail":
                dropped = len(self._messages) + 1
                self._messages.clear()
                most = self._buffer.rows
                self.fail(
                    UpstreamError(
                        f"{self._key}: expected at most {most} queued messages, got {dropped}"
                    )
                )
            else:
                self._messages.popleft()
                dropped = 1
        if dropped:
            self._on_drop(dropped)
            if full != "latest":
                if not self._lost:
                    log.warning("%s: a subscriber is too slow: messages are dropped", self._key)
                self._lost += dropped
        if self._error is None:
            self._messages.append(message)
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """No more messages will be queued; `error` is raised after the queued ones."""
        self._error = error
        self._changed.set()

    def close(self) -> None:
        """The subscriber has left."""
        self._is_closed = True
        self._messages.clear()
        if self._drained is not None:
            self._drained.set()


def _to_upstream_error(error: Exception) -> UpstreamError:
    found = unwrap(error)
    if isinstance(found, UpstreamError):
        return found
    converted = UpstreamError(f"the upstream system failed: {found}")
    converted.__cause__ = found
    if not isinstance(found, OSError | PluginError):
        log.error("an upstream failed", exc_info=found)
    return converted
