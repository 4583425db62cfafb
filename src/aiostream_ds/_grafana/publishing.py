"""Publishes to a stream: on this server, or on the one that runs a shared stream.

PublishStream ──▶ authorized here ──▶ the hook of the owner of the channel ──▶ its answer
"""

from aiostream_ds._grafana.channel_request import ChannelRequest
from aiostream_ds._grafana.publish_hooks import call_publish_hook, decode_published
from aiostream_ds._grafana.replay import shared_streams
from aiostream_ds.models import User

__all__ = ["publish"]


async def publish(channel: ChannelRequest, data: bytes, user: User | None) -> bytes:
    """Pass data to the publish hook of a stream, after the user was authorized.

    Raises:
        BadQuery: the data is not what the hook takes.
        PluginError: what the hook has raised, here or on the server that runs the stream.
    """
    shared = shared_streams(channel)
    if shared is None:
        return await call_publish_hook(channel, data, user)
    from aiostream_ds._grafana.shared_publishing import publish_shared  # few streams are shared

    decode_published(channel, data)  # nothing bad is sent
    return await publish_shared(shared, channel, data, user)
