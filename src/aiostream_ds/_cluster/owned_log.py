"""The log of a channel that this node owns: completed, appended to, and repaired."""

from aiostream_ds._cluster.engine import (
    Entry,
    EntryId,
    EntryTooLarge,
    Fenced,
    LogLost,
)
from aiostream_ds._cluster.entries import ChannelMessage, MessageId
from aiostream_ds._cluster.participation import EngineAway, Participation
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role

__all__ = ["OwnedLog", "OwnershipLost"]


class OwnershipLost(Exception):
    """Another node has taken the channel."""


class OwnedLog:
    """Writes the log of a channel in the terms of this node."""

    __slots__ = ("_channel", "_last", "_schema_term")

    def __init__(self, channel: Participation) -> None:
        self._channel = channel
        self._last = MessageId(0, 0)  # of the messages of this node
        self._schema_term = 0  # in which the schema was stored

    async def open(self) -> tuple[bool, Incoming | None]:
        """Complete the log of a new term. Returns whether this node still owns it, and from where
        the upstream is read. Raises EngineAway."""
        async with self._channel.log_lock:
            if not await self._complete():
                return False, None
            return True, await self._resume()

    async def _complete(self) -> bool:
        """Read the log to its end, and append what the engine has lost of it."""
        channel, follower = self._channel, self._channel.follower
        while True:
            await channel.catch_up()
            if follower.term != channel.term:
                channel.fenced()
                return False
            lost = follower.lost_messages()
            if not lost:
                follower.regressed = False
                return True
            try:
                await self._append_again(lost[0])
            except Fenced:
                channel.fenced()
                return False
            except LogLost:
                if not await self._take_again():
                    return False

    async def _append_again(self, message: ChannelMessage) -> None:
        """Append a lost message. Raises as `_append`."""
        try:
            await self._append(self._channel.follower.again(message))
        except EntryTooLarge:  # with its schema
            self._skip(message)

    def _skip(self, message: ChannelMessage) -> None:
        """A message is too large for the engine."""
        self._channel.node.counters.too_large += 1
        self._channel.follower.skipped(message)

    async def _take_again(self) -> bool:
        """The engine has lost entries: begin a new term."""
        counters = self._channel.node.counters
        counters.losses += 1
        taken = await self._channel.take_on()
        if not taken:
            counters.fencings += 1
        return taken

    async def _resume(self) -> Incoming | None:
        """From where the upstream is read: the end of the log, unless nobody waits for its rows."""
        channel, follower, options = self._channel, self._channel.follower, self._channel.options
        last = follower.last or follower.delivered
        if last is None or channel.has_followed or channel.has_delivered_local:
            return last
        if options.wall_clock() * 1000 - follower.last_time < options.resume_within * 1000:
            return last
        return last if await channel.others_subscribe() else None

    # -- appending -------------------------------------------------------------------------------

    async def publish(self, outgoing: Outgoing) -> None:
        """Deliver a message: to all nodes by the log, or to this one if the engine is away.

        Raises:
            OwnershipLost: the message is not in the log.
        """
        channel, follower = self._channel, self._channel.follower
        async with channel.log_lock:
            id: MessageId | None = None
            while channel.role is not Role.LOCAL:
                if not channel.term or follower.term != channel.term:
                    channel.fenced()
                    raise OwnershipLost
                try:
                    if follower.request is not None:
                        await channel.catch_up()
                        if self._has_lost_entries():
                            raise LogLost
                        continue
                    if id is None:
                        id = self._next_id()
                    elif follower.has_received(id):
                        return
                    if await self._append_new(id, outgoing):
                        return
                except EngineAway as error:
                    if not self.go_local(str(error)):
                        raise OwnershipLost from None
                except LogLost:
                    if not await self._recover():
                        raise OwnershipLost from None
                except Fenced:
                    channel.fenced()
                    raise OwnershipLost from None
            if outgoing.payload:
                follower.deliver_local(outgoing)

    def _next_id(self) -> MessageId:
        run = self._channel.run
        number = self._last.number if self._last.run == run else 0
        self._last = MessageId(run, number + 1)
        return self._last

    async def _append_new(self, id: MessageId, outgoing: Outgoing) -> bool:
        """Whether that is done. If not, the log has to be read, and may have lost it again."""
        channel, follower = self._channel, self._channel.follower
        message = follower.message(id, outgoing, int(channel.options.wall_clock() * 1000))
        try:
            await self._append(message)
        except EntryTooLarge as error:
            self._skip(message)
            channel.reset(f"a message is too large for the engine: {error}")
            return True
        return follower.has_received(id)

    async def _append(self, message: ChannelMessage) -> None:
        """Append a message, until the answer is known.

        Raises:
            Fenced, LogLost, EntryTooLarge: as `Engine.append`.
            EngineAway: as `Participation.ask`.
        """
        channel, follower, node = self._channel, self._channel.follower, self._channel.node
        term, position = channel.term, follower.position
        entry = Entry(EntryId(term, position.number + 1), position, node.codec.encode(message))
        schema = None
        if self._schema_term != term or message.schema_body is not None:
            schema = follower.schema_of(message)
        while not node.lease.may_write:
            if channel.is_away:
                raise EngineAway(node.degraded or channel.away)
            await node.lease_changed()
        append, start = channel.engine.append, channel.start
        await channel.ask_at_once(append, channel.name, entry, schema, start)
        if schema is not None:
            self._schema_term = term
        follower.appended(entry, message)

    # -- without the engine ----------------------------------------------------------------------

    def go_local(self, reason: str = "") -> bool:
        """The engine is away: whether the upstream goes on, for this node only. If messages of
        another owner were received, it does not: it has to be read again after these.

        Args:
            reason: why this channel cannot be used, though the engine can.
        """
        channel = self._channel
        channel.away = channel.away or reason
        if channel.follower.owner != channel.node.name:
            channel.fenced()
            return False
        channel.go_local()
        return True

    # -- losses ----------------------------------------------------------------------------------

    def _has_lost_entries(self) -> bool:
        """Whether the log, as it was just read, lacks entries: this term must not go on, since
        others may have them under the ids that come next."""
        follower = self._channel.follower
        return follower.term == self._channel.term and (
            follower.regressed or bool(follower.lost_messages())
        )

    async def _recover(self) -> bool:
        """Begin a new term with what the engine has lost."""
        try:
            return await self._take_again() and await self._complete()
        except EngineAway as error:
            return self.go_local(str(error))

    async def check(self) -> bool:
        """Whether this node owns the channel still; complete the log if the engine lost some.
        Raises EngineAway."""
        channel, follower = self._channel, self._channel.follower
        if channel.log_lock.locked():
            return True  # `publish` finds out
        async with channel.log_lock:
            if follower.request is None and follower.term == channel.term:
                before = follower.position
                if not channel.check.is_due(before):
                    return True
                page = await channel.ask(channel.engine.read, channel.name, before, 1)
                if page.last == before:
                    return True
                if page.last < before:
                    return await self._recover()
                follower.compare_end(page.last, before)
            await channel.catch_up()
            if follower.term != channel.term:
                channel.fenced()
                return False
            return await self._recover() if self._has_lost_entries() else True
