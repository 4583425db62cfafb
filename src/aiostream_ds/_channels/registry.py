"""All channels of a process: at most one running stream for each key.

A channel that opens, runs or lingers is in `_open`; one that closes is in `_closing`, and whoever
joins meanwhile waits in `_open` as its successor. join and leave never wait, so they cannot race.
Imports its own room and the ground.
"""

import asyncio
from collections.abc import Hashable

from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.exceptions import (
    ChannelClosed,
    ChannelError,
    ShuttingDown,
    SlowSubscriber,
    StalledSubscriber,
    StreamFailed,
    StreamStuck,
    Superseded,
)
from aiostream_ds._channels.log import Ring, Rings
from aiostream_ds._channels.observer import ChannelKey, Observer
from aiostream_ds._channels.policy import CLOSE_TIMEOUT, Policy, Replay
from aiostream_ds._channels.state import State
from aiostream_ds._channels.subscription import Subscription, SubscriptionStatistics
from aiostream_ds._frames.packet import CursorRange

__all__ = [
    "Channel",
    "ChannelClosed",
    "ChannelError",
    "ChannelKey",
    "ChannelRegistry",
    "Observer",
    "Runner",
    "ShuttingDown",
    "SlowSubscriber",
    "StalledSubscriber",
    "State",
    "StreamFailed",
    "StreamStuck",
    "Subscription",
    "SubscriptionStatistics",
    "Superseded",
]

_DEFAULT = Policy()


class ChannelRegistry:
    """All channels of a process: at most one running stream for each key.

    Args:
        close_timeout: seconds before a closing stream is cancelled a second time.
        observer: is told what happens.
        loop: the event loop; the running one when left out.

    `former` is where the streams of a registry stood that this one stands in for: each goes on
    there, where its rows can be read again.
    """

    def __init__(
        self,
        close_timeout: float = CLOSE_TIMEOUT,
        observer: Observer | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.close_timeout = close_timeout
        self.observer = observer or Observer()
        self.loop = loop or asyncio.get_running_loop()
        self._open: dict[ChannelKey, Channel] = {}
        self._closing: dict[ChannelKey, Channel] = {}
        self._newest: dict[Hashable, int] = {}
        self._rings = Rings(self.loop)
        self._closed = False
        self.former: dict[ChannelKey, CursorRange] = {}

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All of now: those that close, and those that are open or wait for one that closes."""
        return (*self._closing.values(), *self._open.values())

    def readers(self, channel: Channel) -> int:
        """How many read a channel now."""
        return len(channel._readers)

    @property
    def running(self) -> int:
        """Streams with a task, closing ones included."""
        opening = sum(channel.state is State.OPENING for channel in self._open.values())
        return len(self._open) - opening + len(self._closing)

    @property
    def subscriptions(self) -> int:
        """Readers of all channels."""
        return sum(len(channel._readers) for channel in self._open.values())

    @property
    def causes(self) -> dict[str, int]:
        """How many channels are not plainly live, by cause; one may have several."""
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
        """Subscribe to a channel; its first reader starts the stream. Never waits.

        `generation` grows with the settings of the instance: a newer one ends the stream of an
        older one, an older one joins the newer stream. While a former stream closes, the new one
        waits for it. `run` and `policy` count only when this join starts the stream. For
        `exact` see `Subscription`.

        When Grafana calls it: at each RunStream.

        Raises:
            ShuttingDown: the registry is closed.
            StreamStuck: the former stream of this channel has not ended.
            Superseded: newer settings of this instance are known, and no stream of theirs runs.
        """
        if self._closed:
            raise ShuttingDown("the plugin is stopping")
        channel = self._open.get(key)
        if channel is not None:
            channel._ask()  # rows yielded before the join go out before it;
            channel = self._open.get(key)  # one of them may have ended the channel
        if channel is not None and channel.generation < generation:
            self._end(channel, Superseded(f"{key.path}: the settings have changed"))
            channel = None
        former = self._closing.get(key)
        if former is not None and former.stuck:
            raise StreamStuck(_does_not_end(key))
        newest = self._newest.get(key.instance, generation)
        if channel is not None:
            self._newest[key.instance] = max(newest, generation)
            return channel._add(exact=exact)
        if generation < newest:
            raise Superseded(f"{key.path}: the settings have changed")
        self._newest[key.instance] = generation
        channel = self._open[key] = _kind(policy)(self, key, run, policy, generation)
        if policy.replay is not None or key in self._rings:
            self.ring(key, policy.replay or Replay(), generation)
        reader = channel._add(exact=exact)
        if former is None:
            channel._start()  # after _add: an eager task emits at once
        return reader

    def peek(self, key: ChannelKey) -> Channel | None:
        """The channel that a join would find, for its schema. Starts nothing."""
        return self._open.get(key)

    def ring(self, key: ChannelKey, replay: Replay, generation: int = 0) -> Ring:
        """The ring of a channel, made when there is none: what is emitted from now on is kept."""
        ring = self._rings.get(key, replay, generation)
        channel = self._open.get(key)
        if channel is not None and channel.generation == ring.generation:
            channel.ring = ring
            self._rings.hold(key)
        return ring

    def has_ring(self, key: ChannelKey) -> bool:
        """Whether something of this channel may be kept."""
        return key in self._rings

    def is_busy(self, instance: Hashable) -> bool:
        """Whether some channel of this instance is open or still closes."""
        return any(
            key.instance == instance for table in (self._open, self._closing) for key in table
        )

    def supersede(self, instance: Hashable, generation: int) -> None:
        """End the streams of this instance that are older than `generation`: settings changed.

        Their readers get Superseded, so Grafana calls again. No older stream starts any more.
        """
        self._newest[instance] = max(generation, self._newest.get(instance, generation))
        for channel in self._of(instance):
            if channel.generation < generation:
                self._end(channel, Superseded(f"{channel.key.path}: the settings have changed"))

    def close_instance(self, instance: Hashable) -> None:
        """End every stream of this instance and forget its generation: it was removed."""
        self._newest.pop(instance, None)
        for channel in self._of(instance):
            self._end(channel, Superseded(f"{channel.key.path}: the data source has closed"))

    async def aclose(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  (it gives up and reports, it does not raise)
    ) -> tuple[ChannelKey, ...]:
        """End everything and wait for it; joins fail from now on.

        `timeout` in seconds; left out, three times the close timeout. Returns the keys of the
        streams that have not ended in it. They were cancelled once more and are left alone.
        """
        self._closed = True
        self._rings.close()
        for channel in tuple(self._open.values()):
            self._end(channel, ShuttingDown("the plugin is stopping"))
        wait = 3 * self.close_timeout if timeout is None else timeout
        for last in (False, True):
            tasks = [channel._task for channel in self._closing.values() if channel._task]
            if tasks:
                await asyncio.wait(tasks, timeout=0 if last else wait)
            for channel in tuple(self._closing.values()):
                channel._stop_timer()
                if channel._task is not None and not last:
                    channel._task.cancel()
        return tuple(self._closing)

    def _of(self, instance: Hashable) -> list[Channel]:
        return [channel for channel in self._open.values() if channel.key.instance == instance]

    def _end(self, channel: Channel, error: ChannelError) -> None:
        channel._ask()
        channel._end_readers(error)
        if channel.state is State.OPENING:
            channel._finish(None)
        elif channel.open:
            channel._close()

    def _retire(self, channel: Channel) -> None:
        del self._open[channel.key]
        self._rings.release(channel.key)
        self._closing[channel.key] = channel

    def _forget(self, channel: Channel) -> None:
        key = channel.key
        if self._open.get(key) is channel:
            del self._open[key]
            self._rings.release(key)
        if self._closing.get(key) is channel:
            del self._closing[key]
            waiting = self._open.get(key)
            if waiting is not None:
                if waiting.generation < self._newest.get(key.instance, waiting.generation):
                    self._end(waiting, Superseded(f"{key.path}: the settings have changed"))
                else:
                    waiting._start()

    def _give_up_waiting(self, former: Channel) -> None:
        waiting = self._open.get(former.key)
        if waiting is not None:
            self._end(waiting, StreamStuck(_does_not_end(former.key)))


def _kind(policy: Policy) -> type[Channel]:
    if not policy.is_paced:
        return Channel
    from aiostream_ds._channels.paced import PacedChannel  # few streams are

    return PacedChannel


def _does_not_end(key: ChannelKey) -> str:
    return f"{key.path}: the former stream was cancelled and has not ended"
