"""What the states of a channel on one node have in common: calls, role, term, and the sink."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol, TypeVar, TypeVarTuple

import anyio

from aiostream_ds._cluster.call_limits import CallSlots, JoinTurns
from aiostream_ds._cluster.engine import Engine, EngineError, Entry, EntryId, Ownership
from aiostream_ds._cluster.entries import EntryCodec, TermStart
from aiostream_ds._cluster.follower import LogFollower
from aiostream_ds._cluster.lease import Lease
from aiostream_ds._cluster.log_requests import SchemaRead, SourceRead
from aiostream_ds._cluster.node_options import NodeCounters, NodeOptions
from aiostream_ds._cluster.position_check import PositionCheck
from aiostream_ds._cluster.sharing import Incoming, Role, Sink, UpstreamSource
from aiostream_ds._cluster.source_reading import read_gap

__all__ = ["RETRY", "EngineAway", "MemberNode", "Participation", "doubts_of"]

RETRY = 0.05
"""Seconds before a call is repeated; doubled each time."""

_LONGEST_RETRY = 0.5
_JOIN_RATE = 5_000  # channels that a node begins to join or to take in a second
_TAKE_RATE = 1_000  # channels that a node has taken after a second, roughly
_OPEN_TO_ALL = 16  # channels that all nodes try to take: the fastest one does

_DOUBTS = 2  # questions to an owner that is silent, at once
_CHECKS_UNTIL_ASKED = 5  # each so many checks in silence it is asked again: questions may get lost

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")


class MemberNode(Protocol):
    """What a channel needs of its node.

    Attributes:
        calls, joins: limits for all channels together.
        degraded: why the engine cannot be used; empty: it can.
    """

    calls: CallSlots
    joins: JoinTurns
    name: str
    engine: Engine
    lease: Lease
    options: NodeOptions
    codec: EntryCodec
    counters: NodeCounters
    degraded: str

    @property
    def alive(self) -> frozenset[str]:
        """The nodes with a valid lease, as last heard."""

    async def lease_changed(self) -> None:
        """Wait until the lease was renewed, or the engine is away."""

    def give_up_later(self, channel: str) -> None:
        """Give a channel up as soon as the engine can be reached."""

    def has_given_up(self, channel: str, since: float) -> None:
        """The channel was given up, with calls since that time."""

    def channel_count(self) -> int: ...

    def is_first(self, channel: str) -> bool:
        """Whether this node is the first one to take a channel whose owner has gone."""


def doubts_of(node: str) -> str:
    """Where a node is asked whether it owns a channel: an engine that has lost writes may have it
    as the owner again, long after it has given the channel up."""
    return f"_doubts.{node}"


class EngineAway(Exception):
    """The engine does not answer for this channel: run an upstream on this node."""


class Participation:
    """A channel on one node, whatever its state.

    Attributes:
        name: of the channel, in the engine.
        role, owner: as the sink knows them.
        term: that this node owns; 0: none.
        run: the identity of this node's messages in the term; `start`: the payload of its take.
        claim: the term of which the engine may have this node as the owner, though it is over here.
        pending: payload of a take whose answer is not known.
        away: why this channel cannot be used, though the engine can.
        is_done: nobody on this node needs the channel any more, or its source has ended.
        is_owner_gone: ask the engine at once whether the channel can be taken.
        has_followed: whether another node has owned the channel.
        has_delivered_local: whether rows of an upstream of this node's own were delivered.
        log_lock: one writer and reader of the log.
    """

    __slots__ = (
        "_delivered_at",
        "_doubts",
        "_failure",
        "_is_woken",
        "_silent_checks",
        "_waiter",
        "away",
        "check",
        "claim",
        "engine",
        "follower",
        "has_delivered_local",
        "has_entered",
        "has_followed",
        "has_joined",
        "is_done",
        "is_owner_gone",
        "is_subscribed",
        "log_lock",
        "name",
        "node",
        "options",
        "owner",
        "pending",
        "role",
        "run",
        "seen_term",
        "sink",
        "source",
        "start",
        "term",
    )

    def __init__(self, node: MemberNode, name: str, source: UpstreamSource, sink: Sink) -> None:
        self.node, self.engine, self.options = node, node.engine, node.options
        self.name, self.source, self.sink = name, source, sink
        self.follower = LogFollower(node.codec, self._deliver, self.reset)
        self.check = PositionCheck(
            node.options, self.follower.position, node.channel_count, node.calls.is_full
        )
        self.role, self.owner = Role.JOINING, ""
        self.term = self.run = self.claim = 0
        self.start = b""
        self.pending: bytes | None = None
        self.away = ""
        self._doubts = self._silent_checks = 0
        self.log_lock = asyncio.Lock()  # takes less memory than anyio's
        self.is_done = self.is_owner_gone = False
        self.has_joined = self.has_followed = self.has_delivered_local = False
        self.is_subscribed = True
        self.has_entered = False  # presence, as the engine knows it
        self.seen_term = 0  # of the follower, when the state was last looked at
        self._is_woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None  # of the sink
        self._delivered_at = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the engine cannot be used, at all or for this channel."""
        return bool(self.node.degraded or self.away)

    @property
    def lag(self) -> int:
        """Entries that are known to exist and were not read."""
        end, position = self.follower.known_end, self.follower.position
        if end <= position:
            return 0
        return end.number - position.number if end.term == position.term else end.number + 1

    # -- calls of the engine ---------------------------------------------------------------------

    async def ask(
        self, call: Callable[[*_Args], Awaitable[_Result]], *arguments: *_Args
    ) -> _Result:
        """A call, repeated until it succeeds. It waits for other channels first, if they have many.

        Raises:
            EngineAway: the engine is away, or calls of this channel have failed for some time.
        """
        began, delay = inf, RETRY
        while True:
            try:
                with await self.node.calls.begin():
                    if self.node.degraded:
                        raise EngineAway(self.node.degraded)
                    began = min(anyio.current_time(), began)
                    return await self.attempt(call, *arguments)
            except EngineError as error:
                delay = await self._pause_after(str(error), began, delay)

    async def ask_at_once(
        self, call: Callable[[*_Args], Awaitable[_Result]], *arguments: *_Args
    ) -> _Result:
        """The same for what subscribers wait for: a message, or another owner."""
        began, delay = anyio.current_time(), RETRY
        while True:
            try:
                return await self.attempt(call, *arguments)
            except EngineError as error:
                delay = await self._pause_after(str(error), began, delay)

    async def attempt(
        self, call: Callable[[*_Args], Awaitable[_Result]], *arguments: *_Args
    ) -> _Result:
        """A call, once. Raises EngineError with the reason, also without an answer in time."""
        try:
            with anyio.fail_after(self.node.lease.seconds):
                return await call(*arguments)
        except (EngineError, TimeoutError) as error:
            raise EngineError(str(error) or "no answer in time") from error

    async def _pause_after(self, reason: str, began: float, delay: float) -> float:
        """After a call that has failed; returns the next pause. Raises EngineAway."""
        if self.node.degraded or anyio.current_time() - began > 2 * self.node.lease.seconds:
            raise EngineAway(reason)
        await anyio.sleep(delay)
        return min(2 * delay, _LONGEST_RETRY)

    async def take(self) -> Ownership:
        """Take the channel, if it can be taken."""
        if self.pending is None:
            self.run = self.options.random.getrandbits(63) + 1
            self.pending = self.node.codec.encode(TermStart(self.run, self.node.name))
        before, start = self.follower.position, self.pending
        ask = self.ask_at_once if self.is_owner_gone else self.ask
        self.is_owner_gone = False  # until the owner gives the channel up before the answer is here
        ownership = await ask(self.engine.take, self.name, self.node.name, start)
        self.pending = None
        self.claim = 0
        if ownership.taken:
            self.is_owner_gone = False
            self.term, self.start = ownership.term, start
            self.node.counters.takeovers += 1
        else:
            self.term = 0
            self.follower.owned_by(ownership.node, ownership.term)
            if self.has_joined:
                self.follower.compare_end(ownership.last, before)
        return ownership

    async def take_on(self) -> bool:
        """The same for a node that has read the log: whether it was taken. The first entry is known
        without a call, so that the log is read only if others were missed."""
        ownership = await self.take()
        if ownership.taken:
            self.follower.event(Entry(EntryId(self.term, 0), ownership.last, self.start))
        return ownership.taken

    def begin_to_doubt(self) -> None:
        """The owner may not know that it is one."""
        self._doubts = _DOUBTS

    async def ask_owner(self) -> None:
        """Send the owner of a channel without messages the question whether it is one: it gives up
        what it does not run. Called at each check in silence."""
        owner = self.follower.owner
        if self.follower.request is not None or owner not in self.node.alive:
            return
        self._silent_checks += 1
        if self._doubts or self._silent_checks % _CHECKS_UNTIL_ASKED == 0:
            self._doubts = max(self._doubts - 1, 0)
            await self.ask(self.engine.send, doubts_of(owner), self.name.encode())

    async def catch_up(self) -> None:
        """Read what the follower needs."""
        follower = self.follower
        while (request := follower.request) is not None:
            if isinstance(request, SchemaRead):
                follower.schema(await self.ask(self.engine.schema, self.name))
            elif isinstance(request, SourceRead):
                await self._read_gap(request.until)
                follower.filled()
            else:
                after, limit = request
                follower.page(await self.ask(self.engine.read, self.name, after, limit))

    async def _read_gap(self, until: int) -> None:
        if anyio.current_time() - self._delivered_at > self.options.resume_within:
            return
        self.node.counters.fills += 1
        await read_gap(self.source, self.follower, until, self.node.lease.seconds)

    async def update_presence(self) -> None:
        """Make known to the engine whether this node has subscribers."""
        if self.is_subscribed != self.has_entered:
            entered = self.is_subscribed
            change = self.engine.enter if entered else self.engine.leave
            await self.ask(change, self.name, self.node.name)
            self.has_entered = entered

    async def others_subscribe(self) -> bool:
        """Whether another node has subscribers."""
        members = await self.ask(self.engine.members, self.name)
        return bool(members - {self.node.name})

    # -- changes of the state --------------------------------------------------------------------

    def set_joined(self) -> None:
        """The log was read, or cannot be: the sink gets what there is."""
        if not self.has_joined:
            self.has_joined = True
            tail = self.follower.joined()
            self._delivered_at = anyio.current_time()
            self.sink.joined(tail[-1].schema if tail else None, tail)

    def set_role(self, role: Role, owner: str) -> None:
        """Report it to the sink, if it is another one."""
        if (role, owner) != (self.role, self.owner):
            self.role, self.owner = role, owner
            self.sink.role(role, owner)

    def fenced(self) -> None:
        """Another node has taken the channel."""
        if self.term:
            self.node.counters.fencings += 1
        self.term = self.claim = 0
        self.is_owner_gone = True  # ask at once: the next owner may have given it up already

    def go_local(self) -> None:
        """The engine is away: what the upstream sends is for this node from now on."""
        if self.role is Role.LOCAL:
            return
        self.claim, self.term = self.term or self.claim, 0
        self.has_delivered_local = True
        self.follower.stop_reading()  # an answer that comes late has rows of another run
        self.set_role(Role.LOCAL, self.node.name)
        self.sink.degraded(self.node.degraded or self.away)
        self.wake()

    # -- the sink --------------------------------------------------------------------------------

    def _deliver(self, message: Incoming) -> None:
        self._delivered_at = asyncio.get_running_loop().time()
        try:
            self.sink.receive(message)
        except Exception as error:
            self._fail(error)

    def reset(self, reason: str) -> None:
        """Messages are missing, or come again."""
        self.node.counters.resets += 1
        try:
            self.sink.reset(reason)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self.wake()

    def raise_failure(self) -> None:
        """Raise what the sink has raised."""
        if self._failure is not None:
            raise self._failure

    # -- waiting ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed."""
        self._is_woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until something has changed, `seconds` at most."""
        if not self._is_woken:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(max(seconds, 0.0), self.wake)  # less memory than a time limit
            try:
                await self._waiter
            finally:
                timer.cancel()
        self._is_woken = False

    def takeover_delay(self) -> float:
        """Seconds until this node takes the channel from an owner that has gone. Not all nodes try
        it at the same time: all attempts but one would be in vain, when there is most to do."""
        lease, channels = self.node.lease.seconds, self.node.channel_count()
        delay = min(lease / 8, channels / _JOIN_RATE) * self.options.random.random()
        if not self.node.is_first(self.name):
            delay += min(lease / 4, max(channels - _OPEN_TO_ALL, 0) / _TAKE_RATE)
        return delay
