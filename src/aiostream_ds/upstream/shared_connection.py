"""One connection that distributes its messages to the subscribers of keys.

    idle ──▶ opening ──▶ open ──▶ closing ──▶ idle
                └─────────┴─ an error: all subscribers get it; the next attempt begins after a
                             delay, when a key has a subscriber again

The connection closes when the last key has had no subscriber for `linger` seconds.

One task runs the connection, in the task group of the task that entered the `Upstream`; within it,
one task reads the messages and one serves each key.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Set,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from math import inf
from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from msgspec import Struct

from aiostream_ds._author_code import contained, isolate, to_plugin_error
from aiostream_ds._channels.policy import HEALTHY_AFTER, Buffer, Retry
from aiostream_ds._declared_errors import NO_ERRORS, DeclaredErrors, check_instance, table_of
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import PluginError, UpstreamError, copy_error, unwrap
from aiostream_ds.upstream.followed_key import FollowedKey
from aiostream_ds.upstream.followed_messages import FollowedMessages
from aiostream_ds.upstream.message_queue import MessageQueue
from aiostream_ds.upstream.outages import Outages, worth_traceback

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
    """One connection, shared by all streams of a data source. Subclass it, and enter the upstream
    in `lifespan`:

        def lifespan(self):
            self.feeds = Feeds(self.settings.url)
            return self.feeds

    and in a stream:

        async for message in self.feeds.follow(topic):
            yield {"text": message}

    It connects for the first subscriber, subscribes to a key for the first subscriber of that key,
    and gives each of them every message of the key. When the connection is lost, all subscribers
    get an UpstreamError, so that their streams are retried. However many they are, there is one
    attempt to connect at a time, with the delays of `retry`, and one log line for an outage.

    Subscribers follow keys, messages have addresses. An address is itself the key of its messages,
    unless `keys_for` returns other keys for it, such as the patterns that it matches.

    Not thread-safe: use it in the event loop's thread.

    Args:
        linger: seconds for which a key stays subscribed after its last subscriber has left, and
            with the last key the connection.
        buffer: the bounds of each subscriber's queue. Its rows are messages; bytes are counted if
            the subclass defines `message_bytes`, and are also the bound of a key's `last_values`.
            With "block" the slowest subscriber delays the connection; one that takes nothing for
            `Buffer.stall_timeout` seconds gets an UpstreamError.
        retry: the delays between attempts to connect. They start again after a connection that
            received messages more than `HEALTHY_AFTER` seconds after it was opened, or lasted
            longer than `max_delay`.
        timeout: seconds that each of these may take: opening the connection, closing it, one call
            of `subscribe`, one of `unsubscribe`.
        concurrency: the maximum number of calls of `subscribe` and `unsubscribe` at a time, each
            for another key; 1 for clients that handle one request at a time.
        last_values: the number of addresses of a key whose last message a later subscriber of the
            key gets first; for systems that do not send a current value themselves.
        name: the name in messages and in the log; by default that of the class.

    Attributes:
        name: the name, for messages of the subclass.

    Raises:
        ValueError: an argument is out of range.
    """

    declared_errors: ClassVar[DeclaredErrors] = NO_ERRORS
    """Which exceptions of the client library are which errors, as `DataSource.declared_errors`:
    those of `connect`, `messages` and `subscribe`, and those that are passed to `fail`. Messages
    begin with the name of the upstream. Any other exception is an UpstreamError, and its traceback
    is logged once for an outage."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        table_of(cls)

    def __init__(
        self,
        *,
        linger: float = 0.0,
        buffer: Buffer = _BUFFER,
        retry: Retry = _RETRY,
        timeout: float = 10.0,
        concurrency: int = 32,
        last_values: int = 0,
        name: str = "",
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be a number above 0, got {timeout!r}")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency!r}")
        if not 0 <= last_values <= buffer.rows:
            raise ValueError(
                f"last_values must be from 0 to buffer.rows ({buffer.rows}), got {last_values!r}"
            )
        self._linger = linger
        self._buffer = buffer
        counts_bytes = type(self).message_bytes is not Upstream.message_bytes
        self._size_of = self.message_bytes if counts_bytes else None
        self._retry = retry
        self._timeout = timeout
        self._concurrency = concurrency
        self._last_values = last_values
        self.name = name or type(self).__name__
        self._keys: dict[KeyT, FollowedKey[MessageT]] = {}
        self._new_keys: deque[KeyT] = deque()  # the connection has no task for them yet
        self._checks: dict[MessageQueue[MessageT], None] = {}  # one for each waiting `check`
        self._changed = anyio.Event()
        self._next_message: anyio.Event | None = None  # set by `_read`, if `_end_outage` waits
        self._declared = table_of(type(self))
        self._outages = Outages(self.name, retry, self._declared)
        self._is_running = self._has_cleanup_failed = False
        self._phase: Literal["idle", "opening", "open", "closing"] = "idle"
        self._scope = anyio.CancelScope()  # the connection runs in it; each phase sets its deadline
        self._loss_cause: Exception | None = None  # None if the connection closes on purpose
        self._connects = self._messages = self._unmatched = self._dropped = 0
        self._stack: AsyncExitStack | None = None
        self._tasks: TaskGroup | None = None

    # -- for subclasses ------------------------------------------------------------------------

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Any]:
        """Open the connection, and close it again: an async context manager, as that of a client or
        of an async generator with `asynccontextmanager`.

        An exception ends the attempt to connect, which is retried. A permanent PluginError, such
        as ConfigError for a wrong password, is not: subscribers get it until the settings change.
        An exception of `messages` is raised at the `yield`, so that it can be replaced there. The
        connection counts as lost also if `connect` suppresses it.
        """

    @abstractmethod
    def messages(self, connection: Any, /) -> AsyncGenerator[tuple[KeyT, MessageT], None]:
        """Yield all messages of the connection, each with its address. Return or raise when the
        connection is lost. For one key that the upstream system ends, call `fail`."""

    async def subscribe(self, connection: Any, key: KeyT, /) -> None:
        """Request the messages of a key. Calls for other keys may run at the same time.

        An exception is raised in the subscribers of this key only: a PluginError as it is, any
        other as an UpstreamError, so that their streams are retried. `unsubscribe` is not called
        then. To end the whole connection, let `messages` raise.
        """

    async def unsubscribe(self, connection: Any, key: KeyT, /) -> None:
        """The key has no subscriber any more. An exception has no other effect than a log line: one
        for each connection, of the first exception of `unsubscribe` or of closing."""

    def keys_for(self, address: KeyT, /) -> Iterable[KeyT]:
        """The subscribed keys that a message is for, each once. Override it when keys are
        patterns: `(key for key in self.followed if matches(key, address))`."""
        return (address,)

    def message_bytes(self, message: MessageT, /) -> int:
        """The size of a message, which `Buffer.bytes` bounds for each queue. Override it where
        messages may be large; without an override sizes are not counted."""
        return 0

    @property
    def followed(self) -> Set[KeyT]:
        """The keys that have subscribers, or linger: a live view, in the order in which they were
        followed."""
        return self._keys.keys()

    def fail(self, key: KeyT, error: Exception) -> None:
        """End the subscription to one key: its subscribers get `error`, as from `subscribe`, after
        the messages that they have not read.

        The key is subscribed again for its next subscriber. A key without subscribers is ignored.
        """
        state = self._keys.get(key)
        if state is not None:
            state.fail(self._to_plugin_error(error))

    # -- for streams ---------------------------------------------------------------------------

    def follow(self, key: KeyT) -> FollowedMessages[MessageT]:
        """Subscribe to a key: an async iterator over its messages from now on.

            async for message in self.topics.follow(topic): ...

        It subscribes when the first message is asked for, until the run of the stream ends or
        nothing refers to it any more. As an async context manager it returns when the key is
        subscribed, and the subscription ends with the block. Safe to cancel: no message is lost.
        The iterator and the context manager raise what follows.

        Raises:
            UpstreamError: the upstream system cannot be reached, or the connection was lost; also
                raised by the iterator, as is the exception of `subscribe`. With `full="fail"` the
                iterator raises it when the queue is full.
            PluginError: the permanent error of `connect` or `subscribe`.
            RuntimeError: the Upstream has not been entered.
        """

        def join() -> tuple[MessageQueue[MessageT], FollowedKey[MessageT]]:
            queue: MessageQueue[MessageT] = self._make_queue(str(key))
            return queue, self._join(key, queue)

        return FollowedMessages(join)

    async def check(self) -> None:
        """Return if there is a connection or one can be opened; for `DataSource.health`.

        It is one attempt, without the messages of any key. While the delay after a failed attempt
        lasts, and after a permanent error, it raises that error without another attempt. Safe to
        cancel.

        Raises:
            PluginError: why there is no connection, as `follow` raises it.
            RuntimeError: the Upstream has not been entered.
        """
        self._require_entered()
        if self._phase == "open":
            return
        if self._outages.error is not None:
            raise copy_error(self._outages.error)
        queue = self._make_queue(self.name)
        self._checks[queue] = None
        self._start()
        try:
            await queue.wait_until_subscribed()
        finally:
            self._checks.pop(queue, None)
            self._changed.set()

    def statistics(self) -> UpstreamStatistics:
        """The current counts."""
        return UpstreamStatistics(
            subscribers=sum(len(state.queues) for state in self._keys.values()),
            keys=sum(state.is_subscribed for state in self._keys.values()),
            connects=self._connects,
            messages=self._messages,
            unmatched=self._unmatched,
            dropped=self._dropped,
        )

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError(
                f"{self.name} must be entered once at a time; make one in each `lifespan`"
            )
        check_instance(self)
        self._outages = Outages(self.name, self._retry, self._declared)
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
        if self._phase in ("idle", "opening"):
            # an open connection is not cancelled: it closes because it has no subscribers
            tasks.cancel_scope.cancel()
        await stack.__aexit__(None, None, None)

    # -- subscribers ---------------------------------------------------------------------------

    def _make_queue(self, name: str) -> MessageQueue[MessageT]:
        return MessageQueue(self._buffer, name, self._size_of)

    def _require_entered(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError(
                f"expected {type(self).__name__} to be entered in `lifespan` with `async with`"
            )
        return self._tasks

    def _join(self, key: KeyT, queue: MessageQueue[MessageT]) -> FollowedKey[MessageT]:
        self._require_entered()
        if self._outages.refusal is not None:
            raise copy_error(self._outages.refusal)
        state = self._keys.get(key)
        if state is None:
            most_bytes = self._buffer.bytes
            state = self._keys[key] = FollowedKey(self._last_values, most_bytes, self._size_of)
            self._new_keys.append(key)
        state.join(queue)
        self._start()
        return state

    def _start(self) -> None:
        self._changed.set()
        if not self._is_running:
            self._is_running = True
            self._require_entered().start_soon(self._run)

    def _fail_all(self, error: Exception) -> None:
        keys, self._keys = self._keys, {}
        checks, self._checks = self._checks, {}
        self._new_keys.clear()
        for state in keys.values():
            state.fail(error)
        for queue in checks:
            queue.fail(error)
        self._changed.set()

    # -- the connection ------------------------------------------------------------------------

    @property
    def _is_wanted(self) -> bool:
        return bool(self._keys or self._checks)

    async def _run(self) -> None:
        try:
            while self._is_wanted:
                await anyio.sleep(self._outages.wait)
                self._forget_unfollowed_keys()
                if self._is_wanted:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._fail_overdue)
                        await self._run_connection()
                        tasks.cancel_scope.cancel()
        finally:
            self._is_running = False

    async def _fail_overdue(self) -> None:
        """Fail the subscribers that wait for a call which ignores its cancellation.

        The call may wait for a thread, for example. No new call starts in its place until it
        ends.
        """
        while True:
            with anyio.move_on_after(self._timeout):
                await anyio.sleep_forever()
            # most calls end soon after their deadline, when they are cancelled
            overdue_before = anyio.current_time() - 1.0
            if self._scope.deadline < overdue_before and self._phase != "idle":
                self._fail_all(self._outages.failed(self._overdue(f"{self._phase} the connection")))
            for key, state in tuple(self._keys.items()):
                if state.deadline < overdue_before:
                    state.fail(self._overdue(f"the last call for {key!r}"))

    def _overdue(self, what: str) -> UpstreamError:
        return UpstreamError(
            f"{self.name}: {what} took longer than {self._timeout:g} s and cannot be cancelled"
        )

    def _forget_unfollowed_keys(self) -> None:
        """Forget the keys whose subscribers left while there was no connection."""
        self._keys = {key: state for key, state in self._keys.items() if state.queues}
        self._new_keys = deque(self._keys)

    async def _run_connection(self) -> None:
        """One connection, from the attempt to its end."""
        self._connects += 1
        self._has_cleanup_failed = False
        self._loss_cause = None
        self._scope = anyio.CancelScope()
        self._begin("opening")
        try:
            with isolate(), self._scope:
                async with self.connect() as connection:
                    self._begin("open")
                    await self._serve(connection)
                    self._begin("closing")
                    if self._loss_cause is not None:
                        raise self._loss_cause
            if self._scope.cancelled_caught:
                raise self._loss_cause or UpstreamError(
                    f"{self.name}: {self._phase} the connection took longer than "
                    f"{self._timeout:g} s"
                )
            if self._phase == "open":
                raise UpstreamError(f"{self.name}: connect() ended while it was open")
        except Exception as error:
            if self._phase != "closing" or self._loss_cause is not None:
                self._fail_all(self._outages.failed(error))
            else:
                self._log_cleanup("connect", error)  # no subscriber waits for this connection
        else:
            if self._loss_cause is not None:  # `connect` has suppressed it
                self._fail_all(self._outages.failed(self._loss_cause))
        finally:
            self._phase = "idle"
            self._loss_cause = None

    def _begin(self, phase: Literal["opening", "open", "closing"]) -> None:
        self._phase = phase
        limit = inf if phase == "open" else self._timeout
        self._scope.deadline = anyio.current_time() + limit

    async def _serve(self, connection: Any) -> None:
        """Distribute the messages until no key is followed, or the connection is lost."""
        for queue in self._checks:
            queue.set_subscribed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve_keys, connection, tasks)
            tasks.start_soon(self._end_outage)
            try:
                await self._read(connection)
            except BaseException as error:
                # every cancellation is raised: it may be that of a task group in `connect`
                failure = contained(error, requested=True)
                if failure is None:
                    raise
                if not tasks.cancel_scope.cancel_called:
                    self._begin("closing")
                    found = unwrap(failure)
                    self._loss_cause = found if isinstance(found, Exception) else failure
                    tasks.cancel_scope.cancel()
                else:  # the connection is already closing on purpose
                    self._log_cleanup("messages", failure)

    async def _read(self, connection: Any) -> None:
        async with aclosing(self.messages(connection)) as messages:
            count = 0
            async for address, message in messages:
                self._messages += 1
                if self._next_message is not None:
                    self._next_message.set()
                    self._next_message = None
                matched = False
                # a copy, because `keys_for` may be a generator over `followed`
                for key in tuple(self.keys_for(address)):
                    state = self._keys.get(key)
                    if state is None:
                        continue
                    if self._last_values:
                        state.remember(address, message)
                    for queue in tuple(state.queues):
                        matched = True
                        if queue.is_blocked:
                            await queue.drain()
                        self._dropped += queue.put(message)
                self._unmatched += not matched
                count += 1
                if count >= BATCH_MESSAGES:
                    count = 0
                    await anyio.lowlevel.checkpoint()
        raise UpstreamError(f"{self.name}: the upstream system has closed the connection")

    async def _end_outage(self) -> None:
        """End the outage when the connection is healthy, by the rule for the runs of a stream: it
        receives messages more than `HEALTHY_AFTER` seconds after it was opened, or is older than
        the longest delay."""
        with anyio.move_on_after(self._retry.max_delay):
            await anyio.sleep(HEALTHY_AFTER)
            self._next_message = anyio.Event()
            await self._next_message.wait()
        self._outages.recovered()

    # -- keys ----------------------------------------------------------------------------------

    async def _serve_keys(self, connection: Any, tasks: TaskGroup) -> None:
        """Serve each followed key in a task of its own; close the connection when there are
        none."""
        call_slots = anyio.Semaphore(self._concurrency, fast_acquire=True)
        while self._is_wanted:
            self._changed = anyio.Event()
            while self._new_keys:
                key = self._new_keys.popleft()
                tasks.start_soon(self._serve_key, connection, key, self._keys[key], call_slots)
            await self._changed.wait()
        self._begin("closing")
        tasks.cancel_scope.cancel()

    async def _serve_key(
        self, connection: Any, key: KeyT, state: FollowedKey[MessageT], call_slots: anyio.Semaphore
    ) -> None:
        """Keep a key subscribed while it has subscribers. If some join while it is unsubscribed, it
        is subscribed again."""
        while state.queues:
            state.reset()
            async with call_slots:
                if not state.queues:
                    break
                error = await self._call(self.subscribe, connection, key, state)
            if error is not None:
                state.fail(error)
                continue
            if not state.has_failed:
                state.set_subscribed()
                await state.wait_until_unused(self._linger)
            if not state.has_failed:
                state.reset()
                async with call_slots:
                    error = await self._call(self.unsubscribe, connection, key, state)
                if error is not None:
                    self._log_cleanup(f"unsubscribe({key!r})", error)
        if self._keys.get(key) is state:  # unless the Upstream is being closed
            del self._keys[key]
        self._changed.set()

    async def _call(
        self,
        method: Callable[[Any, KeyT], Awaitable[None]],
        connection: Any,
        key: KeyT,
        state: FollowedKey[MessageT],
    ) -> Exception | None:
        """Call one of the author's methods. Returns its error, as subscribers get it."""
        try:
            with isolate(), anyio.move_on_after(self._timeout) as scope:
                state.deadline = scope.deadline
                await method(connection, key)
        except Exception as error:
            return self._to_plugin_error(error)
        finally:
            state.deadline = inf
        if not scope.cancelled_caught:
            return None
        return UpstreamError(
            f"{self.name}: {method.__name__}({key!r}) did not return within {self._timeout:g} s"
        )

    def _to_plugin_error(self, error: Exception) -> PluginError:
        return to_plugin_error(unwrap(self._declared.find(error, self.name)), self.name)

    def _log_cleanup(self, what: str, error: BaseException) -> None:
        """Log an error that no subscriber gets: the first one of each connection."""
        if not self._has_cleanup_failed:
            self._has_cleanup_failed = True
            log.warning(
                "%s: %s failed: %s", self.name, what, error, exc_info=worth_traceback(error)
            )
