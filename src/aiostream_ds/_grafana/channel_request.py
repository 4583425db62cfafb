"""The channel that a call from Grafana names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._routing.plan import StreamPlan, split_exact
from aiostream_ds.errors import NotFound

__all__ = ["ChannelRequest", "resolve_channel"]


class ChannelRequest(NamedTuple):
    """The channel that a call names: its instance, its stream, and the arguments in its path.

    `exact`: whether the call names the exact channel (`x/…`) of the path.
    """

    instance: Instance
    stream: StreamPlan
    path: str
    arguments: Mapping[str, Any]
    exact: bool = False

    @property
    def key(self) -> ChannelKey:
        """The channel's key in the registry."""
        return ChannelKey(self.instance.key, self.path)


def resolve_channel(instance: Instance, channel_path: str) -> ChannelRequest:
    """The channel of a path. Raises NotFound when no stream has such a path."""
    exact, path = split_exact(channel_path)
    try:
        stream, arguments = instance.source._ds_plan.match(path)
    except NotFound as error:
        if instance.is_restricted:
            raise NotFound(f"no stream has the path {path!r}") from error  # the log has the list
        raise
    return ChannelRequest(instance, stream, path, arguments, exact)
