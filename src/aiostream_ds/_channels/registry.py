"""All channels of a process: at most one running stream for each key.

A channel that is opening, running or lingering is in `_open`; one that is closing is in `_closing`,
and a join meanwhile puts its successor, which waits, into `_open`. join and leave never wait, so
they cannot race.
"""

import asyncio
import contextvars
from collections.abc import Callable, Hashable
from functools import partial
from weakref import WeakValueDictionary

from aiostream_ds._author_code import cancel
from aiostream_ds._channels.channel import Channel, Runner, State
from aiostream_ds._channels.exceptions import (
    ChannelError,
    ShuttingDown,
    StreamStuck,
    Superseded,
)
from aiostream_ds._channels.log import Log, LogFactory, LogStore, memory_logs
from aiostream_ds._channels.memory_pool import MemoryPool
from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._channels.policy import CLOSE_TIMEOUT, Policy, Replay
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._frames.packet import CursorRange

__all__ = ["ChannelRegistry"]

_DEFAULT = Policy()


class ChannelRegistry:
    """All channels of a process: at most one running stream for each key.

    Not thread-safe: use it in the event loop's thread.

    Args:
        close_timeout: seconds after which a closing stream is cancelled a second time.
        observer: gets a call for each event.
        loop: the event loop; the running one when left out.
        make_log: makes the log of a channel; by default in memory.
        wrap_runner: called with the key and the runner of each channel that a join opens; returns
            the runner that feeds the channel. A cluster can run the stream elsewhere.
        memory: the memory for the queues of all subscriptions.

    Attributes:
        memory: the same.
        lingering: by instance, what replaces `linger` of its channels' policies: a function of the
            channel's key and those seconds.
        resume_points: where streams of a previous registry ended, by key. A stream with a cursor
            resumes there.
    """

    def __init__(
        self,
        close_timeout: float = CLOSE_TIMEOUT,
        observer: Observer | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        make_log: LogFactory | None = None,
        wrap_runner: Callable[[ChannelKey, Runner], Runner] | None = None,
        memory: MemoryPool | None = None,
    ) -> None:
        self.close_timeout = close_timeout
        self.observer = observer or Observer()
        self.loop = loop or asyncio.get_running_loop()
        self.callback_context = contextvars.Context()  # no other thread must enter it
        self.memory = memory or MemoryPool()
        self.memory.on_exhausted = partial(self._memory_exhausted, self.memory.limit, None)
        self._memories: WeakValueDictionary[Hashable, MemoryPool] = WeakValueDictionary()
        self.resume_points: dict[ChannelKey, CursorRange] = {}
        self.lingering: dict[Hashable, Callable[[ChannelKey, float], float]] = {}
        self._wrap_runner = wrap_runner
        self._open: dict[ChannelKey, Channel] = {}
        self._closing: dict[ChannelKey, Channel] = {}
        self._generations: dict[Hashable, int] = {}  # of the newest settings of each instance
        self._logs = LogStore(self.loop, make_log or memory_logs())
        self._closed = False

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All channels that are not closed, the closing ones first."""
        return (*self._closing.values(), *self._open.values())

    @property
    def running(self) -> int:
        """The number of streams with a task, closing ones included."""
        opening = sum(channel.state is State.OPENING for channel in self._open.values())
        return len(self._open) - opening + len(self._closing)

    @property
    def subscriptions(self) -> int:
        """The number of subscriptions of all channels."""
        return sum(channel.subscription_count for channel in self._open.values())

    @property
    def degraded(self) -> dict[str, int]:
        """The number of channels that are not healthy, by cause; a channel may have several."""
        found: dict[str, int] = {}
        for channel in self._open.values():
            for cause in channel.statuses.causes if channel.status is not None else ():
                found[cause] = found.get(cause, 0) + 1
        return found

    def join(
        self,
        key: ChannelKey,
        run: Runner,
        policy: Policy = _DEFAULT,
        generation: int = 0,
        *,
        exact: bool = False,
    ) -> Subscription:
        """Subscribe to a channel; its first subscriber starts the stream. Never waits.

        When Grafana calls it: for each RunStream call.

        Args:
            key: the channel.
            run: the stream; used if this join opens the channel.
            policy: how the channel treats its subscribers; used if this join opens the channel.
            generation: grows with the settings of the instance. A newer one ends the stream of an
                older one; an older one joins the newer stream. While a previous stream closes, the
                new one waits for it.
            exact: see `Subscription`.

        Raises:
            ShuttingDown: the registry is closed.
            StreamStuck: the previous stream of this channel does not end.
            Superseded: newer settings of this instance are known, and no stream of theirs runs.
        """
        if self._closed:
            raise ShuttingDown("the plugin is stopping")
        channel = self._open.get(key)
        if channel is not None:
            channel.request_rows()  # rows yielded before the join are sent before it
            channel = self._open.get(key)  # that may have ended the channel
        if channel is not None and channel.generation < generation:
            self._end(channel, Superseded(f"{key.path}: the settings have changed"))
            channel = None
        previous = self._closing.get(key)
        if previous is not None and previous.stuck:
            raise StreamStuck(_does_not_end(key))
        newest = self._generations.get(key.instance, generation)
        if channel is not None:
            self._generations[key.instance] = max(newest, generation)
            return channel.subscribe(exact=exact)
        if generation < newest:
            raise Superseded(f"{key.path}: the settings have changed")
        self._generations[key.instance] = generation
        if self._wrap_runner is not None:
            run = self._wrap_runner(key, run)
        channel = self._open[key] = _channel_class(policy)(self, key, run, policy, generation)
        if policy.replay is not None or key in self._logs:
            self.open_log(key, policy.replay or Replay(), generation)
        subscription = channel.subscribe(exact=exact)
        if previous is None:
            channel.start()  # after subscribe: an eager task emits at once
        return subscription

    def peek(self, key: ChannelKey) -> Channel | None:
        """The channel that a join would find. Starts nothing."""
        return self._open.get(key)

    def open_log(
        self,
        key: ChannelKey,
        replay: Replay,
        generation: int = 0,
        make_log: LogFactory | None = None,
    ) -> Log:
        """The log of a channel, made when there is none, by `make_log` or that of the registry.
        From then on emitted packets are kept."""
        channel = self._open.get(key)
        is_used = channel is not None and channel.generation == generation
        found = self._logs.get(key, replay, generation, make_log, is_used=is_used)
        if channel is not None and channel.generation == self._logs.generation(key):
            channel.log = found
            self._logs.retain(key)
        elif channel is not None and is_used and channel.log is not found:
            # it was made for another generation, and the stream does not append to it
            self._logs.release(key)
        return found

    def keep_logs(self, instance: Hashable, before: int, generation: int) -> None:
        """The settings of a generation are as those of the one before: the logs of the instance go
        on, and with them the numbers of their rows."""
        self._logs.keep(instance, before, generation)

    def has_log(self, key: ChannelKey) -> bool:
        """Whether the channel has a log, which may be empty."""
        return key in self._logs

    def is_busy(self, instance: Hashable) -> bool:
        """Whether some channel of this instance is not closed."""
        return any(
            key.instance == instance for table in (self._open, self._closing) for key in table
        )

    def supersede(self, instance: Hashable, generation: int) -> None:
        """End the streams of this instance that are older than `generation`: settings changed.

        Their subscribers get Superseded, so Grafana calls again. No older stream is started later.
        """
        self._generations[instance] = max(generation, self._generations.get(instance, generation))
        for channel in self._of(instance):
            if channel.generation < generation:
                self._end(channel, Superseded(f"{channel.key.path}: the settings have changed"))

    def close_instance(self, instance: Hashable) -> None:
        """End all streams of this instance and forget its generation: it was removed."""
        self._generations.pop(instance, None)
        for channel in self._of(instance):
            self._end(channel, Superseded(f"{channel.key.path}: the data source has closed"))

    async def aclose(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  (it gives up and reports, it does not raise)
    ) -> tuple[ChannelKey, ...]:
        """End all streams and wait for them. A join raises ShuttingDown from now on.

        Args:
            timeout: seconds; left out, three times the close timeout.

        Returns:
            The keys of the streams that have not ended in that time. They were cancelled once more.
        """
        self._closed = True
        self._logs.close()
        for channel in tuple(self._open.values()):
            self._end(channel, ShuttingDown("the plugin is stopping"))
        wait = 3 * self.close_timeout if timeout is None else timeout
        for last in (False, True):
            tasks = [channel.task for channel in self._closing.values() if channel.task]
            if tasks:
                await asyncio.wait(tasks, timeout=0 if last else wait)
            for channel in tuple(self._closing.values()):
                channel.stop_timer()
                if channel.task is not None and not last:
                    cancel(channel.task)
        return tuple(self._closing)

    # For the channels

    def memory_of(self, instance: Hashable) -> MemoryPool:
        """The pool from which the queues of an instance reserve memory; kept while one is used."""
        memory = self._memories.get(instance)
        if memory is None:
            memory = self._memories[instance] = self.memory.of_instance()
            memory.on_exhausted = partial(self._memory_exhausted, memory.limit, instance)
        return memory

    def _memory_exhausted(self, limit: int, instance: Hashable | None) -> None:
        self.observer.on_memory_exhausted(instance, limit)

    def linger(self, key: ChannelKey, seconds: float) -> float:
        """See `ChannelOwner.linger`."""
        found = self.lingering.get(key.instance)
        return seconds if found is None else found(key, seconds)

    def channel_closing(self, channel: Channel) -> None:
        """Let a join open a successor, which waits until this channel is closed."""
        del self._open[channel.key]
        self._logs.release(channel.key)
        self._closing[channel.key] = channel

    def channel_closed(self, channel: Channel) -> None:
        """Remove the channel, and start its successor."""
        key = channel.key
        if self._open.get(key) is channel:
            del self._open[key]
            self._logs.release(key)
        if self._closing.get(key) is channel:
            del self._closing[key]
            successor = self._open.get(key)
            if successor is not None:
                if successor.generation < self._generations.get(key.instance, successor.generation):
                    self._end(successor, Superseded(f"{key.path}: the settings have changed"))
                else:
                    successor.start()

    def channel_stuck(self, channel: Channel) -> None:
        """End the successor of a channel that does not end."""
        successor = self._open.get(channel.key)
        if successor is not None:
            self._end(successor, StreamStuck(_does_not_end(channel.key)))

    def _of(self, instance: Hashable) -> list[Channel]:
        return [channel for channel in self._open.values() if channel.key.instance == instance]

    def _end(self, channel: Channel, error: ChannelError) -> None:
        channel.request_rows()
        channel.end_subscriptions(error)
        if channel.state is State.OPENING:
            channel.finish(None)
        elif channel.open:
            channel.close()


def _channel_class(policy: Policy) -> type[Channel]:
    if not policy.is_paced:
        return Channel
    from aiostream_ds._channels.paced import PacedChannel  # rarely used: imported on demand

    return PacedChannel


def _does_not_end(key: ChannelKey) -> str:
    return f"{key.path}: the previous stream was cancelled and has not ended"
