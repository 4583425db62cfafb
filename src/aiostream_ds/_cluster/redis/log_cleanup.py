"""Deletes the keys of channels that nobody uses any more, of nodes that have died among others.

A node that leaves in order gives its unused keys a time to live; this is for the rest.
"""

import asyncio
import random

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.redis.channel_keys import KeyNames
from aiostream_ds._cluster.redis.redis_calls import RedisCalls
from aiostream_ds._cluster.redis.redis_scripts import Scripts
from aiostream_ds._loggers import get_logger

__all__ = ["CLEAN_SECONDS", "KEPT_SECONDS", "clean", "keep_clean"]

log = get_logger(__name__)

CLEAN_SECONDS = 60.0
"""Mean of the seconds between two searches for unused keys by one node."""

KEPT_SECONDS = 600.0
"""Seconds for which the log of a channel is kept after its last node has gone; twice as long after
the last node has died."""

_PAGE = 100


async def keep_clean(calls: RedisCalls, keys: KeyNames, scripts: Scripts) -> None:
    """Clean from time to time, without end."""
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * CLEAN_SECONDS)
        try:
            await clean(calls, keys, scripts)
        except EngineError as error:
            log.debug("unused keys are left: %s", error)


async def clean(
    calls: RedisCalls, keys: KeyNames, scripts: Scripts, kept: float = KEPT_SECONDS
) -> int:
    """Search each partition; returns how many keys were deleted. Raises EngineError."""
    milliseconds = int(kept * 1000)
    deleted = 0
    for partition in keys.partitions:
        channels = [b""] * _PAGE
        while len(channels) == _PAGE:
            channels = await calls.run(scripts.unused, partition, milliseconds)
            for channel in channels:
                names = keys.of(channel.decode())
                deleted += await calls.run(scripts.clean, names, channel, milliseconds)
    return deleted
