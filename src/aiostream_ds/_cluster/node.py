"""A process of the cluster: its lease, its channels, and their events."""

import re
from collections.abc import Callable, Iterator
from math import inf
from types import TracebackType
from typing import NamedTuple, Self

import anyio
from anyio.abc import TaskGroup

from aiostream_ds._cluster.call_limits import CallSlots, JoinTurns
from aiostream_ds._cluster.engine import Engine, EngineError, Event, Reconnected, Sent
from aiostream_ds._cluster.entries import EntryCodec, TermStart
from aiostream_ds._cluster.lease import Lease
from aiostream_ds._cluster.member import ChannelMember, give_up
from aiostream_ds._cluster.node_options import NodeCounters, NodeOptions
from aiostream_ds._cluster.other_nodes import OtherNodes
from aiostream_ds._cluster.participation import doubts_of
from aiostream_ds._cluster.sharing import Role, Sink, UpstreamSource
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import ConfigError

__all__ = ["ChannelState", "ClusterNode", "NodeState"]

log = get_logger(__name__)

_RETRY = 0.1  # seconds after a renewal that has failed
_OPEN_RETRY = 1.0
_CONFIG_RETRY = 10.0
_AT_ONCE = 16  # channels that are given up at a time
_REMEMBER = 60.0  # seconds for which a resignation is repeated when the engine was away
_FULL_CHECK = 4  # each so many questions all channels are compared, not only when a node has died
_NAME = re.compile(r"[A-Za-z0-9.-][A-Za-z0-9_.-]*")  # of a channel


class ChannelState(NamedTuple):
    """A channel of this node, for metrics. `lag`: entries of the log that are known to exist and
    were not received yet. `owner` is empty if unknown."""

    role: Role
    owner: str
    term: int
    lag: int


class NodeState(NamedTuple):
    """A node, for metrics. Counters grow from the start of the process.

    Attributes:
        engine: name of the engine.
        connected: whether the lease is valid.
        reason: why the engine is away; empty if it is not.
        lease_age: seconds since the lease was last renewed; infinite before the first time.
        round_trip: seconds that the last renewal took.
        nodes: names of all nodes with a valid lease.
        takeovers: channels that this node has taken.
        fencings: channels that another node has taken while this node was their owner.
        losses: how often the engine had lost entries of a channel that this node owns.
        fills: how often this node has read an upstream for rows that the log did not have.
        resets: how often subscribers of this node have missed messages.
        degraded: how often this node has lost the engine.
        too_large: messages that the engine did not take because of their size.
    """

    engine: str
    connected: bool
    reason: str
    lease_age: float
    round_trip: float
    nodes: frozenset[str]
    takeovers: int
    fencings: int
    losses: int
    fills: int
    resets: int
    degraded: int
    too_large: int


class ClusterNode:
    """One process of a cluster. An async context manager: its tasks run inside.

    Not thread-safe: use it in one event loop.

    Args:
        engine: opened when the context is entered, and closed when it is left.
        name: unique for each start of a process, as in `server-1-5f0c2a`.
        options: its times and limits.
    """

    def __init__(self, engine: Engine, name: str, options: NodeOptions | None = None) -> None:
        self.engine, self.name = engine, name
        self.options = options or NodeOptions()
        self.lease = Lease(self.options.lease, self.options.margin, self.options.clock)
        self.calls = CallSlots(self.options.lease / 3, slow=self.options.lease / 6)
        self.joins = JoinTurns(self.calls)
        self.codec = EntryCodec()
        self.counters = NodeCounters()
        self.degraded = ""
        self._others = OtherNodes(engine, name, self.options.lease, self._owners)
        self._members: dict[str, ChannelMember] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._given_up: dict[str, bytes] = {}  # what the engine has to get: payloads of takes
        self._giving_up: dict[str, anyio.Event] = {}  # set when the attempt has ended
        self._may_give_up = anyio.Event()  # channels, and the engine may be there
        self._left: dict[str, float] = {}  # when it got that
        self._reconnected_at = -inf
        self._listeners: dict[str, Callable[[Event], None]] = {}
        self._unwatched: set[str] = set()  # channels of listeners
        self._watch_errors: dict[str, str] = {}  # why some of them are not watched
        self._must_watch = anyio.Event()
        self._lease_changed = anyio.Event()
        self._all_left = anyio.Event()
        self._is_open = self._is_closing = False
        self._group: TaskGroup | None = None
        self.listen(doubts_of(name), self._doubted)

    async def __aenter__(self) -> Self:
        """Open the engine, and get a lease.

        Raises:
            ConfigError: the server cannot be used; the message has what to change. A server that
                cannot be reached is not an error: the node is degraded until it can.
        """
        try:
            with anyio.fail_after(2 * self.options.lease):
                await self.engine.open()
                self._is_open = True
                await self._renew()
        except (EngineError, TimeoutError) as error:
            self._set_degraded(str(error) or "no answer in time")
        except BaseException:
            await self.engine.aclose()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        for task in (
            self._keep_lease,
            self._give_up_rest,
            self._watch_nodes,
            self._read_events,
            self._watch_listened,
        ):
            self._group.start_soon(task)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give all channels up, and the lease: `run_channel` returns."""
        assert self._group is not None
        self._is_closing = True
        for scope in self._scopes.values():
            scope.cancel()
        with anyio.move_on_after(4 * self.options.lease, shield=True):
            if self._members:
                await self._all_left.wait()
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                await self._close_engine()

    async def _close_engine(self) -> None:
        try:
            with anyio.move_on_after(self.options.lease):
                if self._is_open and not self.degraded:
                    await self.engine.release(self.name)
        except EngineError as failure:
            log.info("the lease of this node is left to end", extra={"reason": str(failure)})
        finally:
            await self.engine.aclose()

    async def run_channel(
        self, channel: str, source: UpstreamSource, sink: Sink, tail: int | None = None
    ) -> None:
        """Share a channel with the other nodes, as long as this node has subscribers.

        Returns when the source of the owner has ended, when the node's context is left, or as
        `set_subscribed` describes. Cancel it to leave at once: an owner closes its source first and
        then gives the channel up, so that another node with subscribers takes it within a round
        trip.

        Args:
            channel: its name.
            source: opened on the owner.
            sink: gets the messages.
            tail: the most messages that `Sink.joined` needs; None: those of the node's options.

        Raises:
            RuntimeError: the channel runs on this node already, or the node's context was left.
            Exception: what the source or the sink has raised on this node.
        """
        if self._group is None or self._is_closing:
            raise RuntimeError(f"{channel}: the node does not run")
        if channel in self._members:
            raise RuntimeError(f"{channel}: the channel runs on this node already")
        member = self._members[channel] = ChannelMember(self, channel, source, sink, tail)
        try:
            with anyio.CancelScope() as self._scopes[channel]:
                if (ended := self._giving_up.get(channel)) is not None:
                    await ended.wait()  # it would take from the member what that gets
                self._left.pop(channel, None)
                await member.join_in(self._given_up.pop(channel, None))
        finally:
            del self._members[channel], self._scopes[channel]
            if not self._members:
                self._all_left.set()
                self._all_left = anyio.Event()

    def set_subscribed(self, channel: str, subscribed: bool) -> None:
        """Whether this node has subscribers of the channel; at first it does.

        Without any, `run_channel` returns: on a follower at once; on the owner when no other node
        has had subscribers for the node's `grace`, so that the upstream goes on for these. Does
        nothing if the channel does not run on this node.
        """
        member = self._members.get(channel)
        if member is not None:
            member.set_subscribed(subscribed)

    def listen(self, channel: str, on_event: Callable[[Event], None]) -> None:
        """Call a function with the events of a channel that `run_channel` does not run, and with
        `Reconnected`, also when the channel is watched for the first time. It must not raise."""
        self._listeners[channel] = on_event
        self._unwatched.add(channel)
        self._must_watch.set()

    async def stop_listening(self, channel: str, on_event: Callable[[Event], None]) -> bool:
        """Call it no more. False: another function listens to the channel."""
        if self._listeners.get(channel) != on_event:
            return channel not in self._listeners
        del self._listeners[channel]
        self._unwatched.discard(channel)
        self._watch_errors.pop(channel, None)
        if self._is_open:
            await self.engine.unwatch(channel)
        if channel not in self._listeners:
            return True
        self._unwatched.add(channel)  # it began meanwhile
        self._must_watch.set()
        return False

    @property
    def alive(self) -> frozenset[str]:
        """See `MemberNode`."""
        return self._others.alive

    def _owners(self) -> set[str]:
        """The nodes that own channels which this one follows."""
        members = self._members.values()
        return {each.follower.owner for each in members if each.role is Role.FOLLOWER}

    @property
    def state(self) -> NodeState:
        """The lease and the counters of this node."""
        return NodeState(
            engine=self.engine.name,
            connected=self.lease.may_write,
            reason=self.degraded,
            lease_age=self.lease.age,
            round_trip=self.lease.round_trip,
            nodes=self.alive,
            takeovers=self.counters.takeovers,
            fencings=self.counters.fencings,
            losses=self.counters.losses,
            fills=self.counters.fills,
            resets=self.counters.resets,
            degraded=self.counters.degraded,
            too_large=self.counters.too_large,
        )

    def channels(self) -> dict[str, ChannelState]:
        """The state of each channel that runs on this node."""
        return {
            channel: ChannelState(m.role, m.owner, m.term or m.follower.term, m.lag)
            for channel, m in self._members.items()
        }

    # -- for the channels ------------------------------------------------------------------------

    def channel_count(self) -> int:
        return len(self._members)

    def is_first(self, channel: str) -> bool:
        """See `OtherNodes`."""
        return self._others.is_first(channel)

    async def lease_changed(self) -> None:
        """Wait until the lease was renewed, or the engine is away."""
        await self._lease_changed.wait()

    def give_up_later(self, channel: str) -> None:
        """Give a channel up as soon as the engine can be reached: any term that it has of this node
        then, for it may lose some."""
        run = self.options.random.getrandbits(63) + 1
        self._given_up[channel] = self.codec.encode(TermStart(run, self.name))

    def has_given_up(self, channel: str, since: float) -> None:
        """The engine has a resignation. It may lose it, also with the terms of others that came
        later: then nobody could take the channel."""
        now = self._left[channel] = anyio.current_time()
        if since <= self._reconnected_at:
            self.give_up_later(channel)
        while now - next(iter(self._left.values())) > _REMEMBER:
            del self._left[next(iter(self._left))]

    # -- the lease -------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        while True:
            began = self.lease.now()
            try:
                if not self._is_open:
                    await self.engine.open()
                    self._is_open = True
                    began = self.lease.now()
                with anyio.fail_after(self.options.lease / 3):
                    await self._renew()
            except ConfigError as error:
                self._set_degraded(str(error))
                await anyio.sleep(_CONFIG_RETRY)
                continue
            except (EngineError, TimeoutError) as error:
                self._renewal_failed(began, str(error) or "no answer in time")
                await anyio.sleep(_RETRY if self._is_open else _OPEN_RETRY)
                continue
            await anyio.sleep(max(self.options.lease / 3 - (self.lease.now() - began), 0.0))

    async def _renew(self) -> None:
        sent = self.lease.now()
        await self.engine.renew(self.name, self.options.lease)
        self.lease.renewed(sent)
        self._set_degraded("")
        self._notify_lease()
        self._may_give_up.set()

    def _renewal_failed(self, began: float, reason: str) -> None:
        # a process that was stopped finds its lease and its call timed out: it has to ask first
        has_stalled = self.lease.now() - began > self.options.lease / 3 + self.options.margin
        if self.lease.has_ended and not (has_stalled and self._is_open):
            self._set_degraded(reason)

    def _set_degraded(self, reason: str) -> None:
        if bool(reason) != bool(self.degraded):
            if reason:
                self.counters.degraded += 1
                log.warning(
                    "the cluster engine is away: this node runs its own upstreams",
                    extra={"engine": self.engine.name, "reason": reason},
                )
            else:
                log.info("the cluster engine is back", extra={"engine": self.engine.name})
            self.degraded = reason
            self._notify_lease()
            for member in tuple(self._members.values()):
                member.wake()
        self.degraded = reason

    def _notify_lease(self) -> None:
        self._lease_changed.set()
        self._lease_changed = anyio.Event()

    def _doubted(self, event: Event) -> None:
        """Another node asks whether this one owns a channel, as the engine has it."""
        if not isinstance(event, Sent):
            return
        channel = event.payload.decode("ascii", "replace")
        is_known = channel in self._members or channel in self._given_up
        if not is_known and _NAME.fullmatch(channel):
            self.give_up_later(channel)
            self._may_give_up.set()

    async def _give_up_rest(self) -> None:
        """Give up what was left while the engine was away. A task of its own: it must not delay
        the renewals of the lease."""
        while True:
            await self._may_give_up.wait()
            self._may_give_up = anyio.Event()
            channels = iter(tuple(self._given_up))
            async with anyio.create_task_group() as group:
                for _ in range(min(_AT_ONCE, len(self._given_up))):
                    group.start_soon(self._give_up_each, channels)

    async def _give_up_each(self, channels: Iterator[str]) -> None:
        """Give channels up until one attempt fails."""
        for channel in channels:
            if channel in self._members or channel not in self._given_up:
                continue  # a member has it, and gives it up when it leaves
            self._giving_up[channel] = anyio.Event()
            since, start = anyio.current_time(), self._given_up[channel]
            try:
                with anyio.fail_after(self.options.lease):
                    await give_up(self, channel, 0, start)
            except (EngineError, TimeoutError):
                self._given_up[channel] = self._given_up.pop(channel)  # others come first
                return
            finally:
                self._giving_up.pop(channel).set()
            del self._given_up[channel]
            self.has_given_up(channel, since)

    # -- the other nodes -------------------------------------------------------------------------

    async def _watch_nodes(self) -> None:
        """Compare the list of nodes with the owners of channels."""
        asked = 0
        while True:
            began = anyio.current_time()
            if self._is_open and not self.degraded:
                before = self.alive
                try:
                    await self._others.look()
                except (EngineError, TimeoutError):
                    pass
                else:
                    asked += 1
                    if before - self.alive or asked % _FULL_CHECK == 0:
                        for member in tuple(self._members.values()):
                            member.check_owner(self.alive)
            await anyio.sleep(self._others.pause(began))

    # -- notifications ---------------------------------------------------------------------------

    async def _read_events(self) -> None:
        while True:
            try:
                async for event in self.engine.events():
                    self._dispatch(event)
            except EngineError as error:
                log.warning("notifications have stopped", extra={"reason": str(error)})
            await anyio.sleep(_RETRY)

    async def _watch_listened(self) -> None:
        """Watch the channels of listeners; what fails is tried again."""
        while True:
            await self._must_watch.wait()
            self._must_watch = anyio.Event()
            if self._is_open:
                async with anyio.create_task_group() as group:
                    for channel in tuple(self._unwatched):
                        group.start_soon(self._watch_for_listener, channel)
            if self._unwatched:
                await anyio.sleep(_RETRY)
                self._must_watch.set()

    async def _watch_for_listener(self, channel: str) -> None:
        try:
            await self.engine.watch(channel)
        except EngineError as error:
            if self._watch_errors.get(channel) != str(error):  # once for each reason
                self._watch_errors[channel] = str(error)
                log.warning(
                    "a channel cannot be watched; it is tried again",
                    extra={"channel": channel, "reason": str(error)},
                )
            return
        self._watch_errors.pop(channel, None)
        self._unwatched.discard(channel)
        if (listener := self._listeners.get(channel)) is not None:
            listener(Reconnected())

    def _dispatch(self, event: Event) -> None:
        if not isinstance(event, Reconnected):
            if (listener := self._listeners.get(event.channel)) is not None:
                listener(event)
            found = self._members.get(event.channel)
            if found is not None and not isinstance(event, Sent):
                found.on_event(event)
            return
        self._others.reconnected()
        for listener in tuple(self._listeners.values()):
            listener(event)
        for member in tuple(self._members.values()):
            member.on_reconnected()
        self._reconnected_at = anyio.current_time()
        for channel in self._left:
            if channel not in self._members and channel not in self._given_up:
                self.give_up_later(channel)
        self._may_give_up.set()
