"""QueryData: one query at a time, from the wire's message to frames.

A query of a stream is its history plus the name of the channel that continues it. Whoever may not
subscribe may not read the history either: the same hook decides.
"""

from collections.abc import Sequence
from typing import Any

import anyio.to_thread
import msgspec

from aiostream_ds.channels.path import channel
from aiostream_ds.errors import BadQuery
from aiostream_ds.frames.config import FrameMeta, Notice
from aiostream_ds.frames.frame import Frame
from aiostream_ds.grafana import convert
from aiostream_ds.grafana._pb import pluginv2 as pb
from aiostream_ds.grafana.instance import Instance
from aiostream_ds.plugin.marks import Live
from aiostream_ds.plugin.model import PluginContext, Query, Span, User
from aiostream_ds.plugin.plan import StreamPlan
from aiostream_ds.plugin.rows import RowEncoder

__all__ = ["HISTORY_LIMIT", "INLINE_ROWS", "answer", "authorize"]

HISTORY_LIMIT = 100_000
"""Most rows that a history is asked for, whatever a panel's maxDataPoints says."""

INLINE_ROWS = 10_000
"""Up to so many rows are worked on in the loop; more would hold up every stream."""


async def answer(instance: Instance, context: PluginContext, message: pb.DataQuery) -> list[Frame]:
    """The frames of one query. Raises PluginError for what is the query's fault or the world's."""
    source = instance.source
    model = convert.query_model(message)
    found = source.plan.query(model["queryType"])
    query = convert.query(model, found.query_type)
    if isinstance(found, StreamPlan):
        frames = [await _stream_frame(instance, context.user, found, query)]
    else:
        frames = await _method_frames(instance, context.user, getattr(source, found.method), query)
    for frame in frames:
        frame.ref_id = query.ref_id
    return frames


async def authorize(
    instance: Instance, user: User | None, stream: StreamPlan, arguments: dict[str, Any]
) -> None:
    """Asks the stream's subscribe hook. Raises what it raises; no hook lets everybody in.

    A hook that returns something, False for example, has been misunderstood: nobody comes in.
    """
    if stream.subscribe is not None:
        answer = await getattr(instance.source, stream.subscribe)(user, **arguments)
        if answer is not None:
            raise TypeError(
                f"the hook {stream.subscribe!r} returned {answer!r}; it refuses by raising "
                "PermissionDenied or NotFound, and lets in by returning None"
            )


async def _stream_frame(
    instance: Instance, user: User | None, stream: StreamPlan, query: Query
) -> Frame:
    path = stream.path(query)
    arguments = stream.arguments(path)
    if arguments is None:
        raise BadQuery(f"the path {path!r} does not match {stream.pattern.text!r}")
    await authorize(instance, user, stream, arguments)
    encoder = RowEncoder(stream.row)
    if stream.history is None:
        frame = encoder.frame([])
        if not query.with_streaming:
            text = "This stream keeps no history: its rows are seen live only."
            frame.meta = FrameMeta(notices=(Notice(severity="info", text=text),))
    else:
        span = Span(
            start=query.time_range.start,
            end=query.time_range.end,
            limit=max(1, min(query.max_data_points, HISTORY_LIMIT)),
        )
        rows = await getattr(instance.source, stream.history)(span, **arguments)
        if not isinstance(rows, Frame | Sequence):
            raise TypeError(f"{stream.history} returned {rows!r}; allowed: a Frame, a list of rows")
        frame = _own(rows) if isinstance(rows, Frame) else await _columns(encoder, rows)
    if query.with_streaming:
        _follow(frame, instance, path)
    return frame


async def _method_frames(
    instance: Instance, user: User | None, method: Any, query: Query
) -> list[Frame]:
    result = await method(query)
    found = result if isinstance(result, list | tuple) else [result]
    frames = []
    for item in found:
        if isinstance(item, Live):
            frames.append(await _live_frame(instance, user, item, query))
        elif isinstance(item, Frame):
            frames.append(_own(item))
        else:
            raise TypeError(
                f"the query {query.query_type!r} returned {item!r}; "
                "allowed: a Frame, a Live, a list of them"
            )
    return frames


async def _live_frame(instance: Instance, user: User | None, live: Live, query: Query) -> Frame:
    stream, arguments = instance.source.plan.match(live.path)
    await authorize(instance, user, stream, arguments)
    history = live.history
    frame = _own(history) if history is not None else RowEncoder(stream.row).frame([])
    if query.with_streaming:
        _follow(frame, instance, live.path)
    return frame


def _own(frame: Frame) -> Frame:
    """The same columns in a frame of ours: an author may keep a frame and answer twice with it."""
    return Frame(*frame.fields, name=frame.name, meta=frame.meta)


async def _columns(encoder: RowEncoder, rows: Sequence[Any]) -> Frame:
    if len(rows) > INLINE_ROWS:
        return await anyio.to_thread.run_sync(encoder.frame, rows)
    return encoder.frame(rows)


def _follow(frame: Frame, instance: Instance, path: str) -> None:
    """Names the channel in the frame: the panel subscribes to it by itself."""
    name = channel(instance.source.instance.uid, path)
    meta = frame.meta or FrameMeta()
    frame.meta = msgspec.structs.replace(meta, channel=name)
