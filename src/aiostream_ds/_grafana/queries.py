"""QueryData: which author's code answers a query, and what goes back to the panel.

A query of a stream is answered with its history, or with what the channel's ring has of it, and
with the channel to follow, unless the panel is not to stream. An exact query is told where its rows
end instead. Who may not subscribe may not read the history either.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from aiostream_ds._frames.config import FrameMeta, Notice
from aiostream_ds._frames.frame import Frame
from aiostream_ds._grafana import conversion as convert
from aiostream_ds._grafana.authorization import authorize, quota_error
from aiostream_ds._grafana.instances import Instance
from aiostream_ds._grafana.replay import LATEST, ChannelRequest, RowReplay, frame_of, own
from aiostream_ds._paths import channel
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds.decorators import LiveChannel
from aiostream_ds.errors import BadQuery
from aiostream_ds.models import PluginContext, Query, User
from aiostream_ds.rows import HistoryRange
from aiostream_ds.settings import convert as read

__all__ = ["HISTORY_LIMIT", "answer"]

HISTORY_LIMIT = 100_000
"""Most rows that a history is asked for, whatever a panel's maxDataPoints says."""

QUERY_LIMIT = 1 << 20
"""Bytes of one query's JSON; a panel's query is some hundred."""

NOW = timedelta(seconds=10)
"""A range that ends less than so long ago ends now: an exact panel is given every row there is."""


async def answer(
    replay: RowReplay, instance: Instance, context: PluginContext, message: pb.DataQuery
) -> list[Frame]:
    """The frames of one query. Raises PluginError for what is the query's fault or the world's."""
    source = instance.source
    model = _model(message)
    found = source._plan.query(model["queryType"])
    query = _query(model, found.query_type)
    if isinstance(found, StreamPlan):
        frames = [await _stream_frame(replay, instance, context.user, found, query)]
    else:
        await authorize(instance, context.user, "query", query.query_type)
        method = getattr(source, found.method)
        frames = await _method_frames(replay, instance, context.user, method, query)
    for frame in frames:
        frame.ref_id = query.ref_id
    return frames


def _model(message: pb.DataQuery) -> dict[str, Any]:
    """A query as its panel saved it; Grafana's own fields (range, refId, …) win over equal names.

    Raises BadQuery when it is no JSON object, or too large.
    """
    if len(message.json) > QUERY_LIMIT:
        raise BadQuery(
            f"the query has {len(message.json):,} bytes, at most {QUERY_LIMIT:,} are read"
        )
    model = convert.parse(message.json, "the query") if message.json.strip() else {}
    if not isinstance(model, dict):
        raise BadQuery(f"the query is a JSON {type(model).__name__}, not an object")
    span = message.time_range or pb.TimeRange()
    inner = model.get("queryType")
    return model | {
        "refId": message.ref_id or "A",
        "queryType": message.query_type or (inner if isinstance(inner, str) else ""),
        "maxDataPoints": message.max_data_points or 100,
        "intervalMs": message.interval_ms or 1000,
        "timeRange": {"from_ms": span.from_epoch_ms, "to_ms": span.to_epoch_ms},
    }


def _query(model: dict[str, Any], kind: type[Query]) -> Query:
    """A query's model as the class that its method takes.

    A text that spells a number is one where a number is meant: what a template variable brings, and
    what an older version of the class saved, are texts.

    Raises BadQuery with the field, its value and what is allowed.
    """
    try:
        return read(model, kind, strict=False)
    except ValueError as error:
        raise BadQuery(f"query {model['refId']}: {error}") from None


async def _stream_frame(
    replay: RowReplay, instance: Instance, user: User | None, stream: StreamPlan, query: Query
) -> Frame:
    path = stream.path(query, user)
    arguments = stream.arguments(path)
    if arguments is None:
        raise BadQuery(f"the path {path!r} does not match {stream.pattern.text!r}")
    at = ChannelRequest(instance, stream, path, arguments)
    await authorize(at.instance, user, "query", at.path, channel=at)
    if query.exact:
        return await _exact_frame(replay, at, user, query)
    frame = await replay.history(at, _span(query))
    if stream.history is None and not frame.rows and not query.with_streaming:
        _notice(frame, "This stream keeps no history: its rows are seen live only.")
    if query.with_streaming and _may_follow(frame, at, user):
        _follow(frame, at)
    return frame


async def _exact_frame(
    replay: RowReplay, at: ChannelRequest, user: User | None, query: Query
) -> Frame:
    span = _span(query)
    if span.end > datetime.now(UTC) - NOW:
        span = msgspec.structs.replace(span, end=LATEST)
    frame, cursor = await replay.exact_history(at, span)
    if at.stream.history is not None and at.stream.options.cursor is None:
        _notice(frame, "This stream has no cursor: only rows since it runs can be joined exactly.")
    if query.with_streaming and _may_follow(frame, at, user):
        frame.meta = msgspec.structs.replace(frame.meta or FrameMeta(), custom={"cursor": cursor})
    return frame


async def _method_frames(
    replay: RowReplay, instance: Instance, user: User | None, method: Any, query: Query
) -> list[Frame]:
    result = await method(query)
    found = result if isinstance(result, list | tuple) else [result]
    frames = []
    for item in found:
        if isinstance(item, LiveChannel):
            frames.append(await _live_frame(replay, instance, user, item, query))
        elif isinstance(item, Frame):
            frames.append(own(item))
        else:
            raise TypeError(
                f"the query {query.query_type!r} returned {item!r}; "
                "allowed: a Frame, a LiveChannel, a list of them"
            )
    return frames


async def _live_frame(
    replay: RowReplay, instance: Instance, user: User | None, live: LiveChannel, query: Query
) -> Frame:
    stream, arguments = instance.source._plan.match(live.path)
    at = ChannelRequest(instance, stream, live.path, arguments)
    await authorize(at.instance, user, "query", at.path, channel=at)
    if query.exact:
        return await _exact_frame(replay, at, user, query)
    history = live.history
    encoder = replay.encoder(at)
    frame = encoder.frame([]) if history is None else await frame_of(encoder, history)
    if query.with_streaming and _may_follow(frame, at, user):
        _follow(frame, at)
    return frame


def _span(query: Query) -> HistoryRange:
    return HistoryRange(
        start=query.time_range.start,
        end=query.time_range.end,
        limit=max(1, min(query.max_data_points, HISTORY_LIMIT)),
    )


def _may_follow(frame: Frame, at: ChannelRequest, user: User | None) -> bool:
    """Whether the quota has room; else the panel has its history, and is told why that is all."""
    error = quota_error(at, user)
    if error is not None:
        _notice(frame, f"Not followed live: {error.message}.", "warning")
    return error is None


def _notice(frame: Frame, text: str, severity: Literal["info", "warning"] = "info") -> None:
    meta = frame.meta or FrameMeta()
    notices = (*meta.notices, Notice(severity=severity, text=text))
    frame.meta = msgspec.structs.replace(meta, notices=notices)


def _follow(frame: Frame, at: ChannelRequest) -> None:
    """Names the channel in the frame: the panel subscribes to it by itself."""
    name = channel(at.instance.source.instance.uid, at.path)
    frame.meta = msgspec.structs.replace(frame.meta or FrameMeta(), channel=name)
