"""Reads what an operator sees of a cluster from Redis."""

from aiostream_ds._cluster.overview import ChannelOverview, ClusterOverview
from aiostream_ds._cluster.redis.channel_keys import KeyNames
from aiostream_ds._cluster.redis.redis_calls import RedisCalls
from aiostream_ds._cluster.redis.redis_scripts import Scripts

__all__ = ["read_overview"]


async def read_overview(calls: RedisCalls, keys: KeyNames, scripts: Scripts) -> ClusterOverview:
    """All nodes and channels. Two calls for each partition and one for each channel. Raises
    EngineError."""
    nodes: set[bytes] = set()
    channels: list[ChannelOverview] = []
    for partition in keys.partitions:
        alive, names, kept = await calls.run(scripts.partition_overview, partition)
        nodes |= set(alive)
        found = [await _channel(calls, keys, scripts, each.decode()) for each in (*names, *kept)]
        channels += found
    return ClusterOverview(
        frozenset(node.decode() for node in nodes), sorted(channels, key=lambda c: c.channel)
    )


async def _channel(
    calls: RedisCalls, keys: KeyNames, scripts: Scripts, channel: str
) -> ChannelOverview:
    owner, term, subscribed, entries, size, left = await calls.run(
        scripts.channel_overview, keys.of(channel), channel
    )
    return ChannelOverview(
        channel,
        owner.decode(),
        int(term),
        frozenset(node.decode() for node in subscribed),
        entries,
        int(size),
        left / 1000 if left >= 0 else None,
    )
