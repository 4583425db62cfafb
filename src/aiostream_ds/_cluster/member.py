"""A channel on one node: joins it, follows its owner or owns it, and runs its upstream.

JOINING ──▶ FOLLOWER ⇄ OWNER        the engine decides who owns a channel
   ▲ │          │        │
   │ └──▶ LOCAL ◀────────┘          the engine is away
   └────────┘                       it is back: join again
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar, TypeVarTuple

import anyio

from aiostream_ds._author_code import cancel, contained
from aiostream_ds._cluster.engine import (
    Appended,
    Engine,
    EngineError,
    Entry,
    EntryId,
    EntryTooLarge,
    Fenced,
    LogLost,
    Ownership,
    Resigned,
)
from aiostream_ds._cluster.entries import ChannelMessage, EntryCodec, MessageId, TermStart
from aiostream_ds._cluster.follower import LogFollower, SchemaRead, SourceRead
from aiostream_ds._cluster.lease import Lease
from aiostream_ds._cluster.node_options import NodeCounters, NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role, Sink, UpstreamSource
from aiostream_ds._loggers import get_logger

__all__ = ["ChannelMember", "MemberNode"]

log = get_logger(__name__)

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")

_RETRY = 0.05  # seconds before a call is repeated; doubled each time
_LONGEST_RETRY = 0.5
_OTHERS = 1.0  # seconds between two questions for other nodes with subscribers
_CLOSE = 5.0  # seconds until a source that does not end is cancelled again
_FILL = 10.0  # seconds for reading the rows of a gap from the source
_PROBE = 1.0  # seconds between two attempts to reach a channel whose calls fail
_JOIN_RATE = 5_000  # channels that a node joins or takes in a second


class MemberNode(Protocol):
    """What a channel needs of its node.

    Attributes:
        degraded: why the engine cannot be used; empty: it can.
        alive: the nodes with a valid lease, as last heard.
    """

    name: str
    engine: Engine
    lease: Lease
    options: NodeOptions
    codec: EntryCodec
    counters: NodeCounters
    degraded: str
    alive: frozenset[str]

    async def lease_changed(self) -> None:
        """Wait until the lease was renewed, or the engine is away."""

    def give_up_later(self, channel: str) -> None:
        """Give a channel up as soon as the engine can be reached."""

    def has_given_up(self, channel: str, since: float) -> None:
        """The channel was given up, with calls since that time."""

    def channel_count(self) -> int: ...


class _EngineAway(Exception):
    """The engine does not answer for this channel: run an upstream on this node."""


class _OwnershipLost(Exception):
    """Another node has taken the channel."""


class ChannelMember:
    """One channel on one node. `run` is its life; the node calls the other methods."""

    def __init__(
        self,
        node: MemberNode,
        channel: str,
        source: UpstreamSource,
        sink: Sink,
    ) -> None:
        self.channel = channel
        self.role, self.owner = Role.JOINING, ""
        self.term = 0  # that this node owns; 0: none
        # the term, or the payload of a take, of which the engine may have this node as the owner
        self._claim = 0
        self._claim_start: bytes | None = None
        self.follower = LogFollower(node.codec, self._deliver, self._reset)
        self._node, self._engine, self._options = node, node.engine, node.options
        self._source, self._sink = source, sink
        self._wake = anyio.Event()
        self._log_lock = anyio.Lock(fast_acquire=True)  # one writer and reader of the log
        self._failure: Exception | None = None  # of the sink
        self._is_done = self._has_joined = self._has_followed = self._has_left = False
        self._is_subscribed, self._has_delivered_local = True, False
        self._has_entered = False  # presence, as the engine knows it
        self._away = ""  # why this channel cannot be used, though the engine can
        self._start: bytes | None = None  # of a take whose answer is not known
        self._run = self._number = 0  # of messages of this term
        self._term_start = b""  # the payload with which this node has taken its term
        self._has_stored_schema = False  # in this term
        self._seen_term = 0
        self._delivered_at = 0.0
        self._is_owner_gone = False
        self._check_at = 0.0
        self._check_interval = node.options.check
        self._checked = self.follower.position
        self._upstream: asyncio.Task[None] | None = None
        self._source_error: Exception | None = None
        self._source_ended = False

    # -- called by the node ----------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed."""
        self._wake.set()

    def on_event(self, event: Appended | Resigned) -> None:
        """An event of this channel."""
        follower = self.follower
        if self._has_left:
            return
        if isinstance(event, Appended):
            is_apart = not self._has_joined or self.role is Role.LOCAL
            if is_apart and follower.request is None:
                return  # the log is read later
            follower.event(event.entry)
            if follower.request is not None or follower.term != self._seen_term or follower.ended:
                self.wake()
        elif event.term >= follower.term and event.term != self.term:
            self._is_owner_gone = True
            self.wake()

    def on_reconnected(self) -> None:
        """Events may have been missed, and the engine may have lost what it had."""
        self._has_entered = False
        if self._has_joined and self.role is not Role.LOCAL:
            self.follower.reconnected()
            self._check_interval = self._options.check
            self._check_at = 0.0
            self.wake()

    def check_owner(self, alive: frozenset[str]) -> None:
        """Compare the owner with the nodes that are alive."""
        if self.role is Role.FOLLOWER and self.follower.owner not in alive:
            self._is_owner_gone = True
            self.wake()

    def set_subscribed(self, subscribed: bool) -> None:
        self._is_subscribed = subscribed
        self.wake()

    @property
    def lag(self) -> int:
        """Entries that are known to exist and were not read."""
        end, position = self.follower.known_end, self.follower.position
        if end <= position:
            return 0
        return end.number - position.number if end.term == position.term else end.number + 1

    # -- its life --------------------------------------------------------------------------------

    async def run(self, start: bytes | None = None) -> None:
        """Share the channel until nobody on this node needs it.

        Args:
            start: payload of a take with which the channel was not given up yet.

        Raises:
            Exception: what the source or the sink has raised.
        """
        self._claim_start = start
        try:
            while not self._is_done:
                try:
                    if self._is_away:
                        await self._run_local()
                    else:
                        await self._run_shared()
                except _EngineAway as error:
                    self._away = self._away or str(error)
        finally:
            self._has_left = True
            await self._leave()

    @property
    def _is_away(self) -> bool:
        return bool(self._node.degraded or self._away)

    async def _run_shared(self) -> None:
        self.follower.stop_reading()
        await self._ask(self._engine.watch, self.channel)
        await self._update_presence()
        await self._join(await self._take())
        while not self._is_done and not self._is_away and self.role is not Role.LOCAL:
            if self.term:
                await self._own()
            else:
                await self._follow()

    async def _join(self, ownership: Ownership) -> None:
        follower = self.follower
        if self._has_joined:
            follower.rejoin(ownership.last)
        else:
            follower.join(ownership.last, self._options.tail)
        await self._catch_up()
        self._set_joined()
        if self.role is Role.LOCAL:
            self._sink.degraded(None)
            self._set_role(Role.JOINING, "")
        if self.term:
            follower.compare_end(EntryId(self.term, 0), follower.position)

    def _set_joined(self) -> None:
        if not self._has_joined:
            self._has_joined = True
            tail = self.follower.joined()
            self._delivered_at = anyio.current_time()
            self._sink.joined(tail[-1].schema if tail else None, tail)

    async def _leave(self) -> None:
        term, start, self.term = self.term or self._claim, self._start or self._claim_start, 0
        if not term and self.follower.owner == self._node.name:
            term = self.follower.term  # the engine has lost the next owner's term
        since, is_given_up = anyio.current_time(), False
        try:
            if not self._node.degraded:
                with anyio.fail_after(self._node.lease.seconds, shield=True):
                    await give_up(self._node, self.channel, term, start)
                    self._node.has_given_up(self.channel, since)
                    is_given_up = True
        except (EngineError, TimeoutError):
            pass
        finally:  # also if it is cancelled again
            if not is_given_up:
                self._node.give_up_later(self.channel)

    # -- calls of the engine ---------------------------------------------------------------------

    async def _ask(
        self, call: Callable[[*_Args], Awaitable[_Result]], *arguments: *_Args
    ) -> _Result:
        """A call, repeated until it succeeds.

        Raises:
            _EngineAway: the engine is away, or calls of this channel have failed for some time.
        """
        began, delay = anyio.current_time(), _RETRY
        while True:
            try:
                with anyio.fail_after(self._node.lease.seconds):
                    return await call(*arguments)
            except (EngineError, TimeoutError) as error:
                reason = str(error) or "no answer in time"
            if self._node.degraded or anyio.current_time() - began > 2 * self._node.lease.seconds:
                raise _EngineAway(reason)
            await anyio.sleep(delay)
            delay = min(2 * delay, _LONGEST_RETRY)

    async def _take(self) -> Ownership:
        """Take the channel, if it can be taken."""
        if self._start is None:
            self._run = self._options.random.getrandbits(63) + 1
            self._start = self._node.codec.encode(TermStart(self._run, self._node.name))
        before, start = self.follower.position, self._start
        ownership = await self._ask(self._engine.take, self.channel, self._node.name, start)
        self._start = self._claim_start = None
        self._claim = 0
        self._is_owner_gone = False
        if ownership.taken:
            self.term, self._number, self._term_start = ownership.term, 0, start
            self._has_stored_schema = False
            self._node.counters.takeovers += 1
            if self._has_joined:  # so that the log is read only if entries were missed
                self.follower.event(Entry(EntryId(self.term, 0), ownership.last, start))
        else:
            self.term = 0
            self.follower.owned_by(ownership.node, ownership.term)
            if self._has_joined:
                self.follower.compare_end(ownership.last, before)
        return ownership

    async def _catch_up(self) -> None:
        """Read what the follower needs."""
        follower = self.follower
        while (request := follower.request) is not None:
            if isinstance(request, SchemaRead):
                follower.schema(await self._ask(self._engine.schema, self.channel))
            elif isinstance(request, SourceRead):
                await self._fill(request.until)
                follower.filled()
            else:
                after, limit = request
                follower.page(await self._ask(self._engine.read, self.channel, after, limit))

    async def _update_presence(self) -> None:
        if self._is_subscribed != self._has_entered:
            entered = self._is_subscribed
            change = self._engine.enter if entered else self._engine.leave
            await self._ask(change, self.channel, self._node.name)
            self._has_entered = entered

    async def _fill(self, until: int) -> None:
        """Read the source on this node for rows that the log does not have any more."""
        if anyio.current_time() - self._delivered_at > self._options.resume_within:
            return
        self._node.counters.fills += 1
        task = asyncio.create_task(self._read_until(self.follower.delivered, until))
        try:
            await asyncio.wait([task], timeout=_FILL)
        finally:
            await _end(task, self._node.lease.seconds)

    async def _read_until(self, resume: Incoming | None, until: int) -> None:
        try:
            async with aclosing(self._source(resume)) as messages:
                async for outgoing in messages:
                    self.follower.deliver_local(outgoing)
                    if self.follower.has_rows_until(until):
                        return
        except BaseException as caught:
            error = contained(caught)
            if error is None:
                raise
            log.warning("the rows of a gap cannot be read", exc_info=error)

    # -- as a follower ---------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Follow until the channel can be taken."""
        self._has_followed = True
        self._schedule_check()
        while not self._is_away:
            self._seen_term = self.follower.term
            self._set_role(Role.FOLLOWER, self.follower.owner)
            if self.follower.request is not None:
                await self._catch_up()
                continue
            if self.follower.regressed:
                # the owner notices too, and appends what was lost: it should come first
                self.follower.regressed = False
                self._check_at = anyio.current_time() + 0.5 + self._jitter(0.5)
            if self.follower.owner == self._node.name:
                self._is_owner_gone = True  # the engine has lost the term of the next owner
            if not self._is_owner_gone:
                await self._wait(self._check_at - anyio.current_time())
            self._raise_failure()
            if not self._is_subscribed or self.follower.ended:
                self._is_done = True
                return
            await self._update_presence()
            if self._is_owner_gone or self._check_is_due():
                if await self._check_ownership():
                    return

    async def _check_ownership(self) -> bool:
        """Compare owner and position with the engine; take what nobody owns."""
        if self._is_owner_gone and self.follower.owner not in self._node.alive:
            term = self.follower.term
            await anyio.sleep(self._jitter(self._spread(self._node.lease.seconds / 8)))
            if self.follower.term != term:
                self._is_owner_gone = False
                return False
        return (await self._take()).taken

    def _check_is_due(self) -> bool:
        now = anyio.current_time()
        if now < self._check_at:
            return False
        if self._checked != self.follower.position:
            self._schedule_check()  # entries arrive: there is nothing to check
            return False
        self._check_interval = min(2 * self._check_interval, self._options.longest_check)
        self._check_at = now + self._spread_interval()
        return True

    def _schedule_check(self) -> None:
        self._check_interval = self._options.check
        self._check_at = anyio.current_time() + self._spread_interval()
        self._checked = self.follower.position

    def _spread_interval(self) -> float:
        """Channels that were joined at one time are not all checked at one time."""
        return self._check_interval * (0.8 + self._jitter(0.4))

    # -- as the owner ----------------------------------------------------------------------------

    async def _own(self) -> None:
        """Own the channel until another node does, or nobody needs it."""
        async with self._log_lock:
            if not await self._complete_log():
                return
            resume = await self._resume()
        self._seen_term = self.follower.term
        self._set_role(Role.OWNER, self._node.name)
        await self._run_source(resume)

    async def _complete_log(self) -> bool:
        """Read the log to its end, and append what the engine has lost of it."""
        while True:
            await self._catch_up()
            if self.follower.term != self.term:
                self._fenced()
                return False
            try:
                for message in self.follower.lost_messages():
                    await self._append(self.follower.again(message))
                self.follower.regressed = False
                return True
            except Fenced:
                self._fenced()
                return False
            except LogLost:
                if not await self._take_again():
                    return False

    async def _take_again(self) -> bool:
        """The engine has lost entries: begin a new term."""
        self._node.counters.losses += 1
        taken = (await self._take()).taken
        if not taken:
            self._node.counters.fencings += 1
        return taken

    def _has_lost_entries(self) -> bool:
        """Whether the log, as it was just read, lacks entries: this term must not go on, since
        others may have them under the ids that come next."""
        return self.follower.term == self.term and (
            self.follower.regressed or bool(self.follower.lost_messages())
        )

    def _fenced(self) -> None:
        if self.term:
            self._node.counters.fencings += 1
        self.term = self._claim = 0
        self._is_owner_gone = True  # ask at once: the next owner may have given it up already

    async def _resume(self) -> Incoming | None:
        """From where the upstream is read: the end of the log, unless nobody waits for its rows."""
        last, options = self.follower.last or self.follower.delivered, self._options
        if last is None or self._has_followed or self._has_delivered_local:
            return last
        if options.wall_clock() * 1000 - self.follower.last_time < options.resume_within * 1000:
            return last
        members = await self._ask(self._engine.members, self.channel)
        return last if members - {self._node.name} else None

    async def _append(self, message: ChannelMessage) -> None:
        """Append a message, until the answer is known.

        Raises:
            Fenced, LogLost, EntryTooLarge: as `Engine.append`.
            _EngineAway: as `_ask`.
        """
        position = self.follower.position
        entry = Entry(
            EntryId(self.term, position.number + 1), position, self._node.codec.encode(message)
        )
        schema = None
        if not self._has_stored_schema or message.schema_body is not None:
            schema = self.follower.schema_of(message)
        while not self._node.lease.may_write:
            if self._is_away:
                raise _EngineAway(self._node.degraded or self._away)
            await self._node.lease_changed()
        await self._ask(self._engine.append, self.channel, entry, schema, self._term_start)
        self._has_stored_schema = self._has_stored_schema or schema is not None
        self.follower.appended(entry, message)

    # -- the upstream ----------------------------------------------------------------------------

    async def _run_local(self) -> None:
        """Run an upstream for this node."""
        self._set_joined()
        self._go_local()
        await self._run_source(self.follower.delivered or self.follower.last)

    def _go_local(self) -> None:
        if self.role is Role.LOCAL:
            return
        self._claim, self.term = self.term or self._claim, 0
        self._has_delivered_local = True
        self.follower.stop_reading()  # an answer that comes late has rows of another run
        self._set_role(Role.LOCAL, self._node.name)
        self._sink.degraded(self._node.degraded or self._away)
        self.wake()

    async def _run_source(self, resume: Incoming | None) -> None:
        """Open the source, as the owner or for this node, until that is over."""
        self._source_ended, self._source_error = False, None
        upstream = self._upstream = asyncio.create_task(self._read_source(resume))
        try:
            await self._supervise(upstream)
        finally:
            self._upstream = None
            await _end(upstream, self._node.lease.seconds)
        if self._source_error is not None:
            raise self._source_error

    async def _read_source(self, resume: Incoming | None) -> None:
        try:
            async with aclosing(self._source(resume)) as messages:
                async for outgoing in messages:
                    await self._publish(outgoing)
            await self._publish(Outgoing(b""))
            self._source_ended = True
        except _OwnershipLost:
            pass
        except BaseException as caught:
            error = contained(caught)
            if error is None:
                raise
            self._source_error = error
        finally:
            self.wake()

    async def _publish(self, outgoing: Outgoing) -> None:
        """Deliver a message: to all nodes by the log, or to this one if the engine is away."""
        async with self._log_lock:
            id: MessageId | None = None
            while self.role is not Role.LOCAL:
                if not self.term or self.follower.term != self.term:
                    self._fenced()
                    raise _OwnershipLost
                try:
                    if self.follower.request is not None:
                        await self._catch_up()
                        if self._has_lost_entries():
                            raise LogLost
                        continue
                    if id is None:
                        self._number += 1
                        id = MessageId(self._run, self._number)
                    elif self.follower.has_received(id):
                        return
                    if await self._append_new(id, outgoing):
                        return
                except _EngineAway as error:
                    self._away = self._away or str(error)
                    self._go_local()
                except LogLost:
                    if not await self._recover():
                        raise _OwnershipLost from None
                except Fenced:
                    self._fenced()
                    raise _OwnershipLost from None
            if outgoing.payload:
                self.follower.deliver_local(outgoing)

    async def _append_new(self, id: MessageId, outgoing: Outgoing) -> bool:
        """Whether that is done. If not, the log has to be read, and may have lost it again."""
        time = int(self._options.wall_clock() * 1000)
        message = self.follower.message(id, outgoing, time)
        try:
            await self._append(message)
        except EntryTooLarge as error:
            self._node.counters.too_large += 1
            self.follower.skipped(message)
            self._reset(f"a message is too large for the engine: {error}")
            return True
        return self.follower.has_received(id)

    async def _recover(self) -> bool:
        """Begin a new term with what the engine has lost."""
        try:
            return await self._take_again() and await self._complete_log()
        except _EngineAway as error:
            self._away = self._away or str(error)
            self._go_local()
            return True

    async def _supervise(self, upstream: "asyncio.Task[None]") -> None:
        """Return when the upstream has to end, or has ended."""
        alone_since: float | None = None
        self._schedule_check()
        while True:
            await self._wait(self._supervision_delay())
            self._raise_failure()
            self._seen_term = self.follower.term
            if upstream.done():
                self._is_done = self._source_ended or self._source_error is not None
                return
            if self.role is Role.LOCAL:
                self._is_done = not self._is_subscribed
                if self._is_done or await self._is_back():
                    return
                continue
            if self._is_away:
                self._go_local()
                continue
            if not self.term:
                return
            try:
                if not self._log_lock.locked():  # else `_publish` finds out
                    async with self._log_lock:
                        if not await self._check_log():
                            return
                await self._update_presence()
                if self._is_subscribed or await self._others_subscribe():
                    alone_since = None
                    continue
            except _EngineAway as error:
                self._away = self._away or str(error)
                continue
            now = anyio.current_time()
            alone_since = now if alone_since is None else alone_since
            if now - alone_since >= self._options.grace:
                self._is_done = True
                return

    def _supervision_delay(self) -> float:
        if self.role is Role.LOCAL:
            return _PROBE
        delay = self._check_at - anyio.current_time()
        if self._log_lock.locked():
            delay = max(delay, _RETRY)  # the check waits until a message is in the log
        if self._is_subscribed:
            return delay
        return min(delay, _OTHERS, max(self._options.grace, 0.05))

    async def _is_back(self) -> bool:
        if await self._still_away():
            return False
        # not all channels at once; their upstreams run until it is their turn
        await anyio.sleep(self._jitter(self._spread(1.0)))
        return not self._is_away

    async def _still_away(self) -> bool:
        if self._away and not self._node.degraded:
            try:
                with anyio.fail_after(self._node.lease.seconds):
                    await self._engine.read(self.channel, self.follower.position, 1)
                self._away = ""
            except (EngineError, TimeoutError) as error:
                self._away = str(error) or "no answer in time"
        elif self._away:
            self._away = ""  # the node's own reason is the better one
        return self._is_away

    async def _check_log(self) -> bool:
        """Whether this node owns the channel still; complete the log if the engine lost some."""
        if self.follower.request is None and self.follower.term == self.term:
            if not self._check_is_due():
                return True
            before = self.follower.position
            page = await self._ask(self._engine.read, self.channel, before, 1)
            if page.last == before:
                return True
            if page.last < before:
                return await self._recover()
            self.follower.compare_end(page.last, before)
        await self._catch_up()
        if self.follower.term != self.term:
            self._fenced()
            return False
        return await self._recover() if self._has_lost_entries() else True

    async def _others_subscribe(self) -> bool:
        members = await self._ask(self._engine.members, self.channel)
        return bool(members - {self._node.name})

    # -- the sink --------------------------------------------------------------------------------

    def _deliver(self, message: Incoming) -> None:
        self._delivered_at = asyncio.get_running_loop().time()
        try:
            self._sink.receive(message)
        except Exception as error:
            self._fail(error)

    def _reset(self, reason: str) -> None:
        self._node.counters.resets += 1
        try:
            self._sink.reset(reason)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self.wake()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _set_role(self, role: Role, owner: str) -> None:
        if (role, owner) != (self.role, self.owner):
            self.role, self.owner = role, owner
            self._sink.role(role, owner)

    # -- waiting ---------------------------------------------------------------------------------

    async def _wait(self, seconds: float) -> None:
        """Wait until something has changed, `seconds` at most."""
        if not self._wake.is_set():
            with anyio.move_on_after(max(seconds, 0.0)):
                await self._wake.wait()
        self._wake = anyio.Event()

    def _spread(self, most: float) -> float:
        """Seconds in which the channels of this node are joined or taken, `most` at most."""
        return min(most, self._node.channel_count() / _JOIN_RATE)

    def _jitter(self, seconds: float) -> float:
        return self._options.random.random() * seconds


async def give_up(node: MemberNode, channel: str, term: int, start: bytes | None) -> None:
    """Give up what this node owns or may own, its presence, and its notifications.

    Args:
        term: that it owns; 0: none.
        start: of a take, if the term is not known.
    """
    if start is not None:
        ownership = await node.engine.take(channel, node.name, start)
        term = ownership.term if ownership.taken else 0
    if term:
        await node.engine.resign(channel, node.name, term)
    await node.engine.leave(channel, node.name)
    await node.engine.unwatch(channel)


async def _end(task: "asyncio.Task[Any]", seconds: float) -> None:
    """Cancel a task once and wait for it; after `seconds` without its end it is left to itself,
    and cancelled again now and then."""
    if not task.done():
        cancel(task)
    interrupted: BaseException | None = None
    with anyio.CancelScope(shield=True):
        try:
            await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError as error:
            interrupted = error
    if not task.done():
        log.warning("the source of a channel does not end", extra={"seconds": seconds})
        _cancel_later(task)
    elif not task.cancelled():
        task.exception()
    if interrupted is not None:
        raise interrupted


def _cancel_later(task: "asyncio.Task[Any]") -> None:
    def again() -> None:
        if not task.done():
            cancel(task)
            _cancel_later(task)

    asyncio.get_running_loop().call_later(_CLOSE, again)
