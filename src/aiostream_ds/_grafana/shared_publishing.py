"""Publishing to a shared stream: its hook runs on the server that runs the stream.

So the hook and the stream are in one process, as without a cluster: what the hook passes to the
stream, as by a `Broadcast`, gets into the log of the cluster, and all servers have it, once.
"""

from typing import Protocol

import anyio
import msgspec

from aiostream_ds._cluster.engine import EngineError, EntryTooLarge
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._grafana.channel_request import ChannelRequest, resolve_channel
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.publish_hooks import call_publish_hook
from aiostream_ds.errors import BadQuery, PermissionDenied, UpstreamError
from aiostream_ds.models import User

__all__ = ["PUBLISH_KIND", "PublishHandler", "publish_shared"]

PUBLISH_KIND = "publish"

_SECONDS = 5.0
"""Seconds in which the owner of a channel must have published."""

_PAUSE = 0.1  # seconds until the owner is looked for again


class _Publication(msgspec.Struct, array_like=True, frozen=True):
    channel: str
    path: str
    data: bytes
    user: User | None


class _Published(msgspec.Struct, array_like=True, frozen=True):
    """What the hook has returned; or `is_owner` is false: it was not called, and `owner` is the
    node that owns the channel, as far as it is known."""

    is_owner: bool
    data: bytes = b""
    owner: str = ""


class Sharing(Protocol):
    """What publishing needs of `SharedStreams`, which has descriptions."""

    node: ClusterNode
    requests: NodeRequests

    @property
    def why_not_shared(self) -> str: ...

    def name(self, instance: Instance, path: str) -> str: ...

    def instance_of(self, name: str) -> Instance | None: ...


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Publication).decode
_decode_answer = msgspec.msgpack.Decoder(_Published).decode


async def publish_shared(
    shared: Sharing, channel: ChannelRequest, data: bytes, user: User | None
) -> bytes:
    """Call the publish hook where the stream runs; here if it runs nowhere, or the cluster is away.

    The hook is called once: when its server does not answer, no other one is asked.

    Raises:
        UpstreamError: the server that runs the stream does not answer, or is not known.
        PluginError: what the hook has raised.
    """
    name = shared.name(channel.instance, channel.path)
    request = _encode(_Publication(name, channel.path, data, user))
    end = anyio.current_time() + _SECONDS
    asked = ""
    while anyio.current_time() < end:
        node = asked or await _owner(shared, name)
        if node is None:
            await anyio.sleep(_PAUSE)
            continue
        if node in ("", shared.node.name):
            return await call_publish_hook(channel, data, user)
        published = await _ask(shared, node, request)
        if published.is_owner:
            return published.data
        asked = "" if published.owner == node else published.owner
        if not asked:
            await anyio.sleep(_PAUSE)
    raise UpstreamError(
        "no server runs the stream at the moment, nothing was published; publish it again"
    )


async def _ask(shared: Sharing, node: str, request: bytes) -> _Published:
    """Ask another node to publish. Raises PluginError."""
    try:
        answer = await shared.requests.request(node, PUBLISH_KIND, request, seconds=_SECONDS)
    except EngineError as error:
        raise UpstreamError(f"whether this was published is not known: {error}") from error
    except EntryTooLarge as error:
        raise BadQuery(f"published data is too large for the cluster: {error}") from error
    return _decode_answer(answer)


async def _owner(shared: Sharing, name: str) -> str | None:
    """The node to ask: the owner of a channel, or a node that knows it; empty: this one; None: not
    known yet."""
    if shared.why_not_shared:
        return ""
    known = shared.node.channels().get(name)
    if known is not None:
        return known.owner or None
    try:
        members = await shared.node.engine.members(name)
    except EngineError:
        return ""
    return min(members - {shared.node.name}, default="")


class PublishHandler:
    """Answers the requests of other nodes to publish to channels that this one owns."""

    def __init__(self, shared: Sharing) -> None:
        self._shared = shared

    async def __call__(self, payload: bytes) -> bytes:
        """See `RequestHandler`. The user was authorized where the request comes from: its server
        has the same settings, since the channel has the same name."""
        publication = _decode(payload)
        known = self._shared.node.channels().get(publication.channel)
        instance = self._shared.instance_of(publication.channel)
        if instance is None or known is None or known.owner != self._shared.node.name:
            return _encode(_Published(False, owner="" if known is None else known.owner))
        if self._shared.name(instance, publication.path) != publication.channel:
            raise PermissionDenied(f"{publication.path!r} is not the path of the channel")
        channel = resolve_channel(instance, publication.path)
        data = await call_publish_hook(channel, publication.data, publication.user)
        return _encode(_Published(True, data))
