"""The states OWNER and LOCAL: this node runs the upstream, for all nodes or for its own viewers.

An upstream outlives the change from OWNER to LOCAL: during an outage its messages go to the
viewers of this node.
"""

import asyncio
from contextlib import aclosing

import anyio

from aiostream_ds._author_code import contained
from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.owned_log import OwnedLog, OwnershipLost
from aiostream_ds._cluster.participation import RETRY, EngineAway, Participation
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds._cluster.source_reading import end_reading

__all__ = ["UpstreamRun"]

_OTHERS = 1.0  # seconds between two questions for other nodes with subscribers
_PROBE = 1.0  # seconds between two attempts to reach a channel whose calls fail


class UpstreamRun:
    """Runs the upstream of a channel on this node, one run at a time."""

    __slots__ = ("_alone_since", "_channel", "_error", "_has_ended", "_log")

    def __init__(self, channel: Participation) -> None:
        self._channel = channel
        self._log = OwnedLog(channel)
        self._error: Exception | None = None  # of the source
        self._has_ended = False
        self._alone_since: float | None = None

    async def own(self) -> None:
        """Own the channel until another node does, or nobody needs it.

        Raises:
            EngineAway: before the upstream was opened.
            Exception: what the source has raised.
        """
        channel = self._channel
        is_owner, resume = await self._log.open()
        if not is_owner:
            return
        channel.seen_term = channel.follower.term
        channel.set_role(Role.OWNER, channel.node.name)
        await self._run(resume)

    async def run_local(self) -> None:
        """Run an upstream for this node, until the engine is back. Raises what the source has
        raised."""
        channel = self._channel
        channel.set_joined()
        channel.go_local()
        await self._run(channel.follower.delivered or channel.follower.last)

    async def _run(self, resume: Incoming | None) -> None:
        self._has_ended, self._error = False, None
        upstream = asyncio.create_task(self._read(resume))
        try:
            await self._supervise(upstream)
        finally:
            await end_reading(upstream, self._channel.node.lease.seconds)
        if self._error is not None:
            raise self._error

    async def _read(self, resume: Incoming | None) -> None:
        try:
            async with aclosing(self._channel.source(resume)) as messages:
                async for outgoing in messages:
                    await self._log.publish(outgoing)
            await self._log.publish(Outgoing(b""))
            self._has_ended = True
        except OwnershipLost:
            pass
        except BaseException as caught:
            error = contained(caught)
            if error is None:
                raise
            self._error = error
        finally:
            self._channel.wake()

    # -- until the upstream has to end -----------------------------------------------------------

    async def _supervise(self, upstream: "asyncio.Task[None]") -> None:
        """Return when the upstream has to end, or has ended."""
        channel = self._channel
        self._alone_since = None
        channel.check.restart(channel.follower.position)
        while True:
            await channel.wait(self._delay())
            channel.raise_failure()
            channel.seen_term = channel.follower.term
            if upstream.done():
                channel.is_done = self._has_ended or self._error is not None
                return
            if channel.role is Role.LOCAL:
                channel.is_done = not channel.is_subscribed
                if channel.is_done or await self._is_back():
                    return
            elif not channel.term:
                return
            elif channel.is_away:
                if not self._log.go_local():
                    return
            elif not await self._owns_on():
                return

    async def _owns_on(self) -> bool:
        """Whether this node is the owner and has to be, or goes on without the engine."""
        channel = self._channel
        try:
            if not await self._log.check():
                return False
            await channel.update_presence()
            if channel.is_subscribed or await channel.others_subscribe():
                self._alone_since = None
                return True
        except EngineAway as error:
            return self._log.go_local(str(error))
        now = anyio.current_time()
        if self._alone_since is None:
            self._alone_since = now
        channel.is_done = now - self._alone_since >= channel.options.grace
        return not channel.is_done

    def _delay(self) -> float:
        channel = self._channel
        if channel.role is Role.LOCAL:
            return _PROBE
        delay = channel.check.delay
        if channel.log_lock.locked():
            delay = max(delay, RETRY)  # the check waits until a message is in the log
        if channel.is_subscribed:
            return delay
        return min(delay, _OTHERS, max(channel.options.grace, 0.05))

    # -- until the engine is back ----------------------------------------------------------------

    async def _is_back(self) -> bool:
        channel = self._channel
        if await self._still_away():
            channel.node.joins.end(channel)
            return False
        return channel.node.joins.ask(channel)  # if it is not its turn, its upstream runs on

    async def _still_away(self) -> bool:
        channel = self._channel
        if channel.away and not channel.node.degraded:
            with await channel.node.calls.begin():
                try:
                    await channel.attempt(channel.engine.schema, channel.name)  # costs little
                    channel.away = ""
                except EngineError as error:
                    channel.away = str(error)
        elif channel.away:
            channel.away = ""  # the node's own reason is the better one
        return channel.is_away
