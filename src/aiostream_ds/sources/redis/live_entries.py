"""New entries of one or several streams, from all servers that have them."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiostream_ds._redis.redis_connection import Address, Moved
from aiostream_ds._redis.servers import Servers
from aiostream_ds.errors import UpstreamError
from aiostream_ds.operators import merge
from aiostream_ds.sources.redis.entry_reader import EntryBatch, EntryReader
from aiostream_ds.sources.redis.positions import Position

__all__ = ["live_entries"]


@asynccontextmanager
async def live_entries(
    servers: Servers, positions: Mapping[bytes, Position]
) -> AsyncGenerator[AsyncIterator[list[EntryBatch]]]:
    """An iterator over what is read after the positions, which move. It yields at least every few
    seconds, maybe an empty list. Each server has a connection of its own; in a cluster each slot,
    because one command reads the keys of one slot.

    Raises:
        PluginError: a connection is lost, a key cannot be read, or another server has it now; also
            raised by the iterator.
    """
    groups: dict[tuple[Address, int], dict[bytes, Position]] = {}
    for key, position in positions.items():
        place = await servers.address(key), servers.slot(key)
        groups.setdefault(place, {})[key] = position
    readers = [_read(servers, address, group) for (address, _), group in groups.items()]
    batches = readers[0] if len(readers) == 1 else merge(*readers)
    try:
        yield batches
    finally:
        await batches.aclose()


async def _read(
    servers: Servers, address: Address, positions: Mapping[bytes, Position]
) -> AsyncGenerator[list[EntryBatch]]:
    key = next(iter(positions))
    async with servers.dial(address) as connection:
        reader = EntryReader(connection, positions)
        while True:
            try:
                batches = await reader.read()
            except Moved:
                await servers.refresh()
                raise
            yield batches
            now_at = await servers.address(key)
            if now_at != address:
                raise UpstreamError(f"the primary is {now_at} now, instead of {address}")
