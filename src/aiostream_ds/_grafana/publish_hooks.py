"""Calls the publish hook of a stream on this server."""

from typing import Any

import msgspec

from aiostream_ds._author_threads import call_method
from aiostream_ds._grafana import conversion
from aiostream_ds._grafana.channel_request import ChannelRequest
from aiostream_ds.errors import BadQuery
from aiostream_ds.models import User
from aiostream_ds.settings import convert

__all__ = ["call_publish_hook", "decode_published"]


async def call_publish_hook(channel: ChannelRequest, data: bytes, user: User | None) -> bytes:
    """Call the hook. Returns its result as JSON, no bytes for None.

    Raises:
        BadQuery: the data is not what the hook takes.
        Exception: what the hook has raised.
    """
    value = decode_published(channel, data)
    hook = channel.stream.publish
    assert hook is not None
    given = (value, user) if hook.wants_user else (value,)
    result = await call_method(channel.instance.source, hook.method, *given, **channel.arguments)
    return b"" if result is None else msgspec.json.encode(result)


def decode_published(channel: ChannelRequest, data: bytes) -> Any:
    """What the hook takes. Raises BadQuery."""
    hook = channel.stream.publish
    assert hook is not None
    try:
        return convert(conversion.parse_json(data, "the message"), hook.data)
    except (ValueError, BadQuery) as error:
        raise BadQuery(f"published data: {error}") from None
