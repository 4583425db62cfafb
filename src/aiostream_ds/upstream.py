"""One connection to an outside system for many streams: who follows what, and who gets what.

    idle ──▶ connecting ──▶ connected ⇄ lingering ──▶ idle
                 └──────────────┴─ lost: everybody is told; who comes next waits for the next try

One task drives the connection, in the task group of whoever entered the `Upstream`. To follow and
to stop following never waits for the outside. Imports channels, telemetry and the ground.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from aiostream_ds._channels.policy import Buffer, Retry
from aiostream_ds._telemetry import counters_here
from aiostream_ds._upstream_queue import Follower, Statistics
from aiostream_ds.errors import PluginError, UpstreamError, unwrap

__all__ = ["TURN_MESSAGES", "Upstream"]

log = logging.getLogger(__name__)

TURN_MESSAGES = 64
"""Messages after which an upstream that never waits lets those who follow it have a turn."""

KeyT = TypeVar("KeyT", bound=Hashable)
MessageT = TypeVar("MessageT")

_BUFFER, _RETRY = Buffer(rows=1_000), Retry()


class Upstream(ABC, Generic[KeyT, MessageT]):
    """One connection, shared by all streams of a data source. Subclass it, and enter it in
    `lifespan`:

        async with Feeds(self.settings.url) as self.feeds:
            yield

    and in a stream:

        async with self.feeds.follow(topic) as messages:
            async for message in messages:
                yield {"text": message}

    It connects for the first who follows, subscribes to a key for the first who follows that, and
    gives each of them every message of the key. When the connection is lost, everybody who follows
    gets a UpstreamError, so that each stream is retried; however many they are, the outside sees
    one attempt to connect at a time, and the waits of `retry` between.

    Args:
        linger: how many seconds a key stays subscribed after its last follower has left, and with
            it the connection.
        buffer: bounds what one follower may be behind; its rows are messages, its bytes are not
            counted. With "block" the slowest one holds up the connection.
        retry: the waits between attempts to connect.
    """

    def __init__(
        self, *, linger: float = 0.0, buffer: Buffer = _BUFFER, retry: Retry = _RETRY
    ) -> None:
        self._linger = linger
        self._buffer = buffer
        self._retry = retry
        self._followers: dict[KeyT, dict[Follower[MessageT], None]] = {}
        self._subscribed: set[KeyT] = set()
        self._leaving: dict[KeyT, float] = {}  # keys that linger, and until when
        self._changed = anyio.Event()
        self._driving = False
        self._failures = 0
        self._not_before = 0.0
        self._connects = self._messages = self._unasked = self._dropped = 0
        self._counters = counters_here()
        self._stack: AsyncExitStack | None = None
        self._tasks: TaskGroup | None = None

    # -- what an author says -------------------------------------------------------------------

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Any]:
        """Open the connection, and close it again. What is raised here ends the attempt."""

    @abstractmethod
    def messages(self, connection: Any) -> AsyncGenerator[tuple[KeyT, MessageT], None]:
        """All messages of the connection, each with its key, as an async generator. It ends, or
        raises, when the connection is lost."""

    async def subscribe(self, connection: Any, key: KeyT) -> None:
        """Ask the outside for a key. A PluginError is told to those who follow this key; anything
        else is the end of the connection."""

    async def unsubscribe(self, connection: Any, key: KeyT) -> None:
        """Nobody follows the key any more."""

    def keys_for(self, address: KeyT) -> Iterable[KeyT]:
        """The followed keys that a message is for: itself, unless keys are patterns."""
        return (address,)

    # -- for streams ---------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self, key: KeyT) -> AsyncGenerator[AsyncIterator[MessageT]]:
        """The messages of a key from now on, once it is subscribed to.

        Raises:
            UpstreamError: the outside cannot be reached or has been lost; also out of the
                iterator, as is what `subscribe` raised, and that this one is behind when the
                buffer says "fail".
        """
        follower: Follower[MessageT] = Follower(self._buffer, self._count_dropped, str(key))
        self._join(key, follower)
        try:
            await follower.until_ready()
            yield follower
        finally:
            self._leave(key, follower)

    def statistics(self) -> Statistics:
        """The counts as they are now."""
        return Statistics(
            followers=sum(map(len, self._followers.values())),
            keys=len(self._subscribed),
            connects=self._connects,
            messages=self._messages,
            unasked=self._unasked,
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
        self._tell_all(UpstreamError("the data source is closing"))
        tasks.cancel_scope.cancel()
        await stack.__aexit__(None, None, None)

    # -- who follows ---------------------------------------------------------------------------

    def _join(self, key: KeyT, follower: Follower[MessageT]) -> None:
        if self._tasks is None:
            raise RuntimeError("an Upstream is entered in `lifespan`, with `async with`")
        self._followers.setdefault(key, {})[follower] = None
        if key in self._subscribed:
            follower.begin()
        self._changed.set()
        if not self._driving:
            self._driving = True
            self._tasks.start_soon(self._drive)

    def _leave(self, key: KeyT, follower: Follower[MessageT]) -> None:
        follower.close()
        those = self._followers.get(key)
        if those is None or those.pop(follower, self) is self or those:
            return
        del self._followers[key]
        self._leaving[key] = anyio.current_time() + self._linger
        self._changed.set()

    def _tell_all(self, error: Exception) -> None:
        followers, self._followers = self._followers, {}
        for those in followers.values():
            for follower in those:
                follower.fail(error)

    def _count_dropped(self, count: int) -> None:
        self._dropped += count
        self._counters.count_dropped("upstream", count)

    # -- the connection ------------------------------------------------------------------------

    async def _drive(self) -> None:
        try:
            while self._followers:
                await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))
                if self._followers:
                    await self._connection()
        finally:
            self._driving = False

    async def _connection(self) -> None:
        """One connection, from the attempt to its end."""
        self._connects += 1
        began = anyio.current_time()
        try:
            async with self.connect() as connection, anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_subscribed, connection, tasks)
                tasks.start_soon(self._read, connection)
            self._failures = 0
        except Exception as error:
            if anyio.current_time() - began > self._retry.max_delay:
                self._failures = 0
            self._failures += 1
            self._not_before = anyio.current_time() + self._retry.delay(self._failures)
            self._tell_all(_explained(error))
        finally:
            self._subscribed.clear()
            self._leaving.clear()

    async def _read(self, connection: Any) -> None:
        async with aclosing(self.messages(connection)) as messages:
            count = 0
            async for address, message in messages:
                self._messages += 1
                asked = False
                for key in self.keys_for(address):
                    for follower in tuple(self._followers.get(key, ())):
                        asked = True
                        if follower.is_full:
                            await follower.room()
                        follower.put(message)
                self._unasked += not asked
                count += 1
                if count >= TURN_MESSAGES:
                    count = 0
                    await anyio.lowlevel.checkpoint()
        raise UpstreamError("the outside system has closed the connection")

    async def _keep_subscribed(self, connection: Any, tasks: TaskGroup) -> None:
        """Subscribe to what is followed and to nothing else; end when nothing is."""
        while True:
            self._changed = anyio.Event()
            for key in tuple(self._followers):
                if key not in self._subscribed:
                    await self._begin(connection, key)
            now = anyio.current_time()
            for key in [key for key, until in self._leaving.items() if until <= now]:
                del self._leaving[key]
                if key in self._subscribed and key not in self._followers:
                    self._subscribed.discard(key)
                    await self.unsubscribe(connection, key)
            if not self._followers and not self._leaving:
                return tasks.cancel_scope.cancel()
            until = min(self._leaving.values(), default=float("inf"))
            with anyio.move_on_after(until - now):
                await self._changed.wait()

    async def _begin(self, connection: Any, key: KeyT) -> None:
        try:
            await self.subscribe(connection, key)
        except PluginError as error:
            for follower in self._followers.pop(key, {}):
                follower.fail(error)
            return
        self._subscribed.add(key)
        if key not in self._followers and key not in self._leaving:
            self._leaving[key] = anyio.current_time()
        for follower in self._followers.get(key, ()):
            follower.begin()


def _explained(error: Exception) -> UpstreamError:
    found = unwrap(error)
    if isinstance(found, UpstreamError):
        return found
    told = UpstreamError(f"the outside system: {found}")
    told.__cause__ = found
    if not isinstance(found, OSError | PluginError):
        log.error("an upstream failed", exc_info=found)
    return told
