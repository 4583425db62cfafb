"""A channel on one node: joins it, then follows its owner or owns it, until nobody here needs it.

JOINING ──▶ FOLLOWER ⇄ OWNER        the engine decides who owns a channel
   ▲ │          │        │
   │ └──▶ LOCAL ◀────────┘          the engine is away
   └────────┘                       it is back: join again
"""

import anyio

from aiostream_ds._cluster.engine import Appended, EngineError, EntryId, Ownership, Resigned
from aiostream_ds._cluster.following import follow
from aiostream_ds._cluster.participation import EngineAway, MemberNode, Participation
from aiostream_ds._cluster.sharing import Role, Sink, UpstreamSource
from aiostream_ds._cluster.upstream_run import UpstreamRun

__all__ = ["ChannelMember", "MemberNode", "give_up"]


class ChannelMember(Participation):
    """One channel on one node. `join_in` is its life; the node calls the other methods."""

    __slots__ = ("_claim_start", "_has_left", "_tail", "_upstream")

    def __init__(
        self,
        node: MemberNode,
        name: str,
        source: UpstreamSource,
        sink: Sink,
        tail: int | None = None,
    ) -> None:
        super().__init__(node, name, source, sink)
        self._tail = node.options.tail if tail is None else tail
        self._upstream = UpstreamRun(self)
        self._has_left = False
        self._claim_start: bytes | None = None

    # -- called by the node ----------------------------------------------------------------------

    def on_event(self, event: Appended | Resigned) -> None:
        """An event of this channel."""
        follower = self.follower
        if self._has_left:
            return
        if isinstance(event, Appended):
            is_apart = not self.has_joined or self.role is Role.LOCAL
            if is_apart and follower.request is None:
                return  # the log is read later
            follower.event(event.entry)
            if follower.request is not None or follower.term != self.seen_term or follower.ended:
                self.wake()
        elif event.term >= follower.term and event.term != self.term:
            self.is_owner_gone = True
            self.wake()

    def on_reconnected(self) -> None:
        """Events may have been missed, and the engine may have lost what it had."""
        self.has_entered = False
        if self.has_joined and self.role is not Role.LOCAL:
            self.follower.reconnected()
            self.check.now()
            self.begin_to_doubt()
            self.wake()

    def check_owner(self, alive: frozenset[str]) -> None:
        """Compare the owner with the nodes that are alive."""
        is_asking = self.pending is not None  # the answer to a take knows more
        if self.role is Role.FOLLOWER and not is_asking and self.follower.owner not in alive:
            self.is_owner_gone = True
            self.wake()

    def set_subscribed(self, subscribed: bool) -> None:
        """Whether this node has subscribers."""
        self.is_subscribed = subscribed
        self.wake()

    # -- its life --------------------------------------------------------------------------------

    async def join_in(self, start: bytes | None = None) -> None:
        """Share the channel until nobody on this node needs it.

        Args:
            start: payload of a take with which the channel was not given up yet.

        Raises:
            Exception: what the source or the sink has raised.
        """
        self._claim_start = start
        try:
            while not self.is_done:
                try:
                    if self.is_away:
                        await self._upstream.run_local()
                    else:
                        await self._share()
                except EngineAway as error:
                    self.away = self.away or str(error)
        finally:
            self._has_left = True
            self.node.joins.end(self)
            await self._leave()

    async def _share(self) -> None:
        try:
            await self._wait_for_turn()
            if self.is_done:
                return
            self.follower.stop_reading()
            await self.ask(self.engine.watch, self.name)
            await self.update_presence()
            ownership = await self.take()
            self._claim_start = None
            await self._join(ownership)
            self.node.joins.successes += 1
        except EngineAway:
            self.node.joins.failures += 1
            raise
        finally:
            self.node.joins.end(self)
        while not self.is_done and not self.is_away and self.role is not Role.LOCAL:
            if self.term:
                await self._upstream.own()
            else:
                await follow(self)

    async def _wait_for_turn(self) -> None:
        """Other channels join first. Raises EngineAway if the engine is, or none of these can."""
        joins, period = self.node.joins, 2 * self.node.lease.seconds
        ends, before = anyio.current_time() + period, (joins.successes, joins.failures)
        while not joins.ask(self):
            await self.wait(period / 6)
            self.raise_failure()
            if not self.is_subscribed:
                self.is_done = True
                return
            if self.is_away:
                raise EngineAway(self.node.degraded or self.away)
            if anyio.current_time() > ends:
                if joins.successes == before[0] and joins.failures > before[1]:
                    raise EngineAway("no channel can be joined")
                ends, before = anyio.current_time() + period, (joins.successes, joins.failures)

    async def _join(self, ownership: Ownership) -> None:
        follower = self.follower
        if self.has_joined:
            follower.rejoin(ownership.last)
        else:
            follower.join(ownership.last, self._tail)
        await self.catch_up()
        self.set_joined()
        if self.role is Role.LOCAL:
            self.sink.degraded(None)
            self.set_role(Role.JOINING, "")
        if self.term:
            follower.compare_end(EntryId(self.term, 0), follower.position)

    async def _leave(self) -> None:
        term, start, self.term = self.term or self.claim, self.pending or self._claim_start, 0
        if not term and self.follower.owner == self.node.name:
            term = self.follower.term  # the engine has lost the next owner's term
        since, is_given_up = anyio.current_time(), False
        try:
            if not self.node.degraded:
                with anyio.fail_after(self.node.lease.seconds, shield=True):
                    await give_up(self.node, self.name, term, start)
                    self.node.has_given_up(self.name, since)
                    is_given_up = True
        except (EngineError, TimeoutError):
            pass
        finally:  # also if it is cancelled again
            if not is_given_up:
                self.node.give_up_later(self.name)


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
