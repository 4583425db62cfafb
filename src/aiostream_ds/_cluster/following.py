"""The state FOLLOWER: another node owns the channel. Its messages come from the log."""

import anyio

from aiostream_ds._cluster.participation import Participation
from aiostream_ds._cluster.sharing import Role

__all__ = ["follow"]

_OWNER_FIRST = 0.5  # seconds in which an owner repairs a log that has lost entries


async def follow(channel: Participation) -> None:
    """Follow until this node owns the channel, nobody here needs it, or the engine is away.

    Raises EngineAway.
    """
    follower = channel.follower
    channel.has_followed = True
    channel.check.restart(follower.position)
    channel.begin_to_doubt()
    while not channel.is_away:
        channel.seen_term = follower.term
        channel.set_role(Role.FOLLOWER, follower.owner)
        if follower.request is not None:
            await channel.catch_up()
            continue
        if follower.regressed:
            # the owner notices too, and appends what was lost: it should come first
            follower.regressed = False
            channel.check.after(_OWNER_FIRST * (1 + channel.options.random.random()))
        if follower.owner == channel.node.name:
            channel.is_owner_gone = True  # the engine has lost the term of the next owner
        if not channel.is_owner_gone:
            await channel.wait(channel.check.delay)
        channel.raise_failure()
        if not channel.is_subscribed or follower.ended:
            channel.is_done = True
            return
        await channel.update_presence()
        if channel.is_owner_gone or channel.check.is_due(follower.position):
            if await _take_if_free(channel):
                return


async def _take_if_free(channel: Participation) -> bool:
    """Compare owner and position with the engine; take what nobody owns."""
    follower = channel.follower
    if channel.is_owner_gone and follower.owner not in channel.node.alive:
        term = follower.term
        await anyio.sleep(channel.takeover_delay())
        if follower.term != term:  # another node was faster
            channel.is_owner_gone = False
            return False
    is_silent = not channel.is_owner_gone
    if await channel.take_on():
        return True
    if is_silent:
        await channel.ask_owner()
    return False
