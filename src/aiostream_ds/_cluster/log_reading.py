"""Reads the log of a shared channel, on a node that does not follow the channel."""

from collections.abc import AsyncGenerator

from aiostream_ds._cluster.engine import START
from aiostream_ds._cluster.entries import ChannelMessage, schema_hash
from aiostream_ds._cluster.message_cipher import UnreadableMessage
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.packet_codec import PacketCodec, SharedMessage
from aiostream_ds._frames.packet import Schema

__all__ = ["read_log"]

_PAGE = 250  # entries


async def read_log(
    node: ClusterNode, channel: str, codec: PacketCodec
) -> AsyncGenerator[tuple[Schema, list[SharedMessage]], None]:
    """The newest schema, and the messages with it, oldest first, page by page. Messages that this
    node cannot read are left out: it reports them when it follows the channel.

    Raises:
        EngineError: the engine cannot be reached.
    """
    schema = await node.engine.schema(channel)
    if schema is None:
        return
    try:
        decoded = codec.decode_schema(schema)
    except UnreadableMessage:
        return
    after, wanted = START, schema_hash(schema)
    while True:
        page = await node.engine.read(channel, after, _PAGE)
        found: list[SharedMessage] = []
        for entry in page.entries:
            content = node.codec.decode(entry.payload)
            if not isinstance(content, ChannelMessage) or content.schema != wanted:
                continue
            if not content.payload:
                continue  # the stream has ended
            try:
                found.append(codec.decode(content.payload, schema)[0])
            except UnreadableMessage:
                continue
        yield decoded, found
        if page.is_end:
            return
        after = page.entries[-1].id
