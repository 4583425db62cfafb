"""How a RunStream call comes to a channel: its runner, its policy, and the join.

The runner of a stream with a cursor first learns where the stream stands, by its history hook, and
goes on behind the last row when it is run again.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from msgspec.structs import replace

from aiostream_ds.channels.channel import Channel
from aiostream_ds.channels.registry import ChannelRegistry, Runner, Subscription
from aiostream_ds.grafana.seam import Path, Seam
from aiostream_ds.plugin.numbering import Numbering
from aiostream_ds.plugin.supervisor import supervise
from aiostream_ds.telemetry import Counters

__all__ = ["join"]


def join(
    registry: ChannelRegistry, seam: Seam, at: Path, counters: Counters, *, exact: bool
) -> Subscription:
    """Subscribe to the path's one running stream, which this starts if there is none.

    Raises what `ChannelRegistry.join` raises.
    """
    options = at.stream.options
    kept = options.replay if options.cursor is None and at.stream.history is None else None
    policy = options.policy
    if kept is not None:
        policy = replace(policy, replay=kept)
    run = _runner(seam, at, counters)
    subscription = registry.join(at.key, run, policy, at.instance.generation, exact=exact)
    if exact and options.cursor is None:
        seam.ring(at)  # the channel's from now on, if it had none
    return subscription


def _runner(seam: Seam, at: Path, counters: Counters) -> Runner:
    method: Callable[..., AsyncGenerator[Any, None]] = getattr(at.instance.source, at.stream.name)
    encoder, options = seam.encoder(at), at.stream.options
    numbering = None if options.cursor is None else Numbering(encoder, options.cursor, counters)

    async def prepare(channel: Channel) -> None:
        if options.status_column is not None:
            encoder.attach(channel)
        if numbering is not None:
            if not numbering.known:
                numbering.begin(await seam.position(at))
            channel.emit(numbering.mark)

    if numbering is None:
        return supervise(
            lambda: method(**at.arguments), encoder.encode,
            at.key, options.retry, at.instance.delays, counters,
            prepare if options.status_column is not None else None, options,
        )  # fmt: skip
    return supervise(
        lambda: method(numbering.position, **at.arguments), numbering.encode,
        at.key, options.retry, at.instance.delays, counters, prepare, options,
    )  # fmt: skip
