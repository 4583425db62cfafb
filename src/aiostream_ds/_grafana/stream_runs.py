"""How a RunStream call comes to a channel: its runner, its policy, and the join.

The runner of a stream with a cursor first learns where the stream stands, by its history hook, and
goes on behind the last row when it is run again; what it missed meanwhile is read by the hook.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from msgspec.structs import replace

from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.registry import ChannelRegistry, Runner, Subscription
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._grafana.replay import EARLIEST, LATEST, REPLAY_ROWS, ChannelRequest, RowReplay
from aiostream_ds._streams.supervisor import supervise
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Cursor, HistoryRange

__all__ = ["join"]

log = logging.getLogger(__name__)


def join(
    registry: ChannelRegistry,
    replay: RowReplay,
    at: ChannelRequest,
    counters: Counters,
    *,
    exact: bool,
) -> Subscription:
    """Subscribe to the path's one running stream, which this starts if there is none.

    Raises what `ChannelRegistry.join` raises.
    """
    options = at.stream.options
    kept = options.replay if options.cursor is None and at.stream.history is None else None
    policy = options.policy
    if kept is not None:
        policy = replace(policy, replay=kept)
    run = _runner(registry, replay, at, counters)
    subscription = registry.join(at.key, run, policy, at.instance.generation, exact=exact)
    if exact and options.cursor is None:
        replay.ring(at)  # the channel's from now on, if it had none
    return subscription


def _runner(
    registry: ChannelRegistry, replay: RowReplay, at: ChannelRequest, counters: Counters
) -> Runner:
    method: Callable[..., AsyncGenerator[Any, None]] = getattr(at.instance.source, at.stream.name)
    encoder, options = replay.encoder(at), at.stream.options
    numbering = None if options.cursor is None else CursorEncoder(encoder, options.cursor, counters)

    async def prepare(channel: Channel) -> None:
        if options.status_column is not None:
            encoder.attach(channel)
        if numbering is not None:
            if not numbering.has_begun:
                place = registry.resume_points.pop(
                    at.key, None
                )  # of the code that this one replaced
                numbering.begin(
                    await replay.position(at) if place is None else Cursor(place.epoch, place.last)
                )
                if place is not None and options.retry.fill:
                    await _fill(replay, at, channel, numbering, counters)
            elif options.retry.fill:
                await _fill(replay, at, channel, numbering, counters)
            channel.emit(numbering.cursor_packet)

    if numbering is None:
        return supervise(
            lambda: method(**at.arguments), encoder.encode,
            at.key, options.retry, at.instance.delays, counters,
            prepare if options.status_column is not None else None, options,
        )  # fmt: skip
    return supervise(
        lambda: method(numbering.cursor, **at.arguments), numbering.encode,
        at.key, options.retry, at.instance.delays, counters, prepare, options,
    )  # fmt: skip


async def _fill(
    replay: RowReplay,
    at: ChannelRequest,
    channel: Channel,
    numbering: CursorEncoder,
    counters: Counters,
) -> None:
    """Emit what the outside has written since the last row, page by page, as the history has it.

    Raises what the history hook raises: then the outage lasts.
    """
    filled = 0
    while True:
        epoch, before = numbering.cursor
        page = await replay.page(
            at, HistoryRange(start=EARLIEST, end=LATEST, limit=REPLAY_ROWS, after=before)
        )
        if page.epoch != epoch:
            break  # numbers have started anew: the method knows from where
        if page.truncated:
            log.warning("rows of an outage cannot be read any more", extra={"path": at.path})
            numbering.skip_to_first(page.rows)
        packets = numbering.encode([page.rows])
        rows, _ = channel.emit(*packets)
        filled += rows
        await channel.drain()
        if rows < REPLAY_ROWS:
            break
    if filled:
        counters.rows_filled += filled
        log.info("%d rows of an outage were read by the history", filled, extra={"path": at.path})
