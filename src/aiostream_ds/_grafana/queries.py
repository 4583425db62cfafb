"""QueryData: calls the author's code for each query and makes the frames of its answer.

The query of a stream is answered with the channel's history and, unless the panel must not stream,
the channel to subscribe to; an exact query also gets the cursor of its last row. An alert rule gets
the history in the form that alerting accepts. A user who may not subscribe to a channel may not
read its history either.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, NamedTuple

import msgspec

from aiostream_ds._author_threads import call_method
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_kinds import flatten, opener, row_kind
from aiostream_ds._encoding.table_rows import history_rows
from aiostream_ds._encoding.yielded import copy_rows
from aiostream_ds._frames import frame_rows
from aiostream_ds._frames.config import FrameMeta, Notice
from aiostream_ds._frames.dataframes import hint, is_table
from aiostream_ds._frames.frame import Frame
from aiostream_ds._frames.times import MILLISECOND
from aiostream_ds._grafana import conversion
from aiostream_ds._grafana.alerting import FROM_ALERT, alert_frames, is_series
from aiostream_ds._grafana.authorization import authorize, quota_error
from aiostream_ds._grafana.channel_request import ChannelRequest
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.panel_hints import add_panel
from aiostream_ds._grafana.query_fields import decode_query
from aiostream_ds._grafana.range_reading import HISTORY_LIMIT, LIVE_FACTOR
from aiostream_ds._grafana.replay import (
    OPEN_END,
    RowReplay,
    copy_frame,
    frame_of,
)
from aiostream_ds._grafana.table_reading import INLINE_ROWS, read_table
from aiostream_ds._paths import channel as channel_name
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds._short_repr import short_repr
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.decorators import LiveChannel
from aiostream_ds.decorators.stream_options import LOGS
from aiostream_ds.errors import BadQuery
from aiostream_ds.models import Query, User
from aiostream_ds.rows import Columns, HistoryRange

__all__ = ["answer"]

QUERY_LIMIT = 1 << 20
"""Bytes of one query's JSON; a panel's query has some hundred."""

_SHOWN = 80
"""Most characters of a bad value in a message."""

_LATEST = datetime.max.replace(tzinfo=UTC) - OPEN_END

_NEWEST = (
    "Only the newest {:,} rows of the range are drawn; raise Max data points in the query options,"
    " or choose a shorter range."
)

_EXPRESSION = (
    "Live rows do not reach a panel with an expression: Grafana evaluates it once for each refresh."
    " Set the dashboard's refresh, or use a transformation instead."
)
_FROM_EXPRESSION = "http_x-grafana-from-expr"
"""The header of a panel's queries if one of them is an expression; its value is "true"."""

_PANEL = "http_x-panel-plugin-id"
"""The header with the kind of a panel; Grafana 9.4 does not send it."""

_USED = (FROM_ALERT, _FROM_EXPRESSION, _PANEL)
_LISTS = (LOGS, "table")
"""Kinds of panels that show the newest rows, not a line."""

_ANNOTATIONS = "Anno"
"""The refId of a query for annotations, which are drawn for each row."""

OPEN_RANGE = timedelta(seconds=10)
"""A range that ends less than this ago ends now: an exact panel gets every row up to the newest."""


class _Caller(NamedTuple):
    """Who asks. `has_expression`: a panel in which an expression may read the answer. `is_list`: a
    panel that shows rows one by one."""

    user: User | None
    is_alert_rule: bool
    has_expression: bool
    is_list: bool


async def answer(
    replay: RowReplay,
    instance: Instance,
    user: User | None,
    message: pb.DataQuery,
    headers: Mapping[str, str],
) -> list[Frame]:
    """The frames of one query of a user, in a request with these headers.

    Raises PluginError for an invalid query or an upstream failure.
    """
    source = instance.source
    used = {lower: headers[name] for lower, name in _used_headers(frozenset(headers))}
    is_alert_rule = used.get(FROM_ALERT) == "true"
    has_expression = not is_alert_rule and used.get(_FROM_EXPRESSION) == "true"
    is_list = used.get(_PANEL) in _LISTS or message.ref_id == _ANNOTATIONS
    caller = _Caller(user, is_alert_rule, has_expression, is_list)
    model = _model(message)
    streams = model.get("withStreaming") is not False
    if caller.is_alert_rule or caller.has_expression:
        model |= {"exact": False, "withStreaming": False}
    plan = source._ds_plan.query(model["queryType"])
    query, defaults = decode_query(model, plan, user)
    if isinstance(plan, StreamPlan):
        request = _stream_request(instance, user, plan, query)
        frames = await _channel_frames(replay, request, caller, query)
        if caller.has_expression and streams and _ends_now(query):
            _add_notice(frames[0], _EXPRESSION)
    else:
        await authorize(instance, user, "query", query.query_type)
        by_position, by_name = plan.arguments(query)
        result = await call_method(source, plan.method, *by_position, **by_name)
        frames = await _result_frames(replay, instance, caller, query, result)
    for frame in frames:
        frame.ref_id = query.ref_id
        if defaults:
            _add_notice(frame, defaults, "warning")
    return frames


@lru_cache(maxsize=16)  # a Grafana sends few sets of headers, each in many orders
def _used_headers(names: frozenset[str]) -> list[tuple[str, str]]:
    """The names of the headers that matter here, in lower case and as they are spelled."""
    return [(name.lower(), name) for name in names if name.lower() in _USED]


def _model(message: pb.DataQuery) -> dict[str, Any]:
    """A query as its panel saved it; Grafana's own fields (range, refId, …) take precedence.

    Raises BadQuery when it is not a JSON object or is too large.
    """
    size = len(message.json)
    if size > QUERY_LIMIT:
        raise BadQuery(f"expected a query of at most {QUERY_LIMIT:,} bytes, got {size:,}")
    text = message.json
    model = conversion.parse_json(text, "the query") if text and not text.isspace() else {}
    if not isinstance(model, dict):
        shown = msgspec.json.encode(model).decode()
        raise BadQuery(f"the query must be a JSON object, got {shown[:_SHOWN]}")
    query_type = message.query_type
    if not query_type:
        found = model.get("queryType")
        query_type = found if isinstance(found, str) else ""
    span = message.time_range  # without `or`: the truth of a message compares all its fields
    model["refId"] = message.ref_id or "A"
    model["queryType"] = query_type
    model["maxDataPoints"] = message.max_data_points or 100
    model["intervalMs"] = message.interval_ms or 1000
    model["timeRange"] = (
        {"from_ms": 0, "to_ms": 0}
        if span is None
        else {"from_ms": span.from_epoch_ms, "to_ms": span.to_epoch_ms}
    )
    return model


def _stream_request(
    instance: Instance, user: User | None, stream: StreamPlan, query: Query
) -> ChannelRequest:
    path = stream.path(query, user)
    arguments = stream.arguments(path)
    if arguments is None:
        raise BadQuery(f"the path must match {stream.pattern.text!r}, got {path!r}")
    return ChannelRequest(instance, stream, path, arguments)


async def _result_frames(
    replay: RowReplay, instance: Instance, caller: _Caller, query: Query, result: Any
) -> list[Frame]:
    """The frames of what a `@query` method has returned."""
    if isinstance(result, Frame):
        return [copy_frame(result)]
    if isinstance(result, Mapping):
        return await _named_frames(instance, caller, query, result)
    if not isinstance(result, list) and type(result) is not tuple:
        return await _item_frames(replay, instance, caller, query, result)
    frames: list[Frame] = []
    for is_row, group in groupby(result, key=lambda item: row_kind(type(item)) is not None):
        for item in [list(group)] if is_row else group:
            frames += await _item_frames(replay, instance, caller, query, item)
    return frames


async def _item_frames(
    replay: RowReplay, instance: Instance, caller: _Caller, query: Query, item: Any
) -> list[Frame]:
    if not isinstance(item, LiveChannel):
        return await _table_frames(instance, caller, query, item)
    stream, arguments = instance.source._ds_plan.match(item.path)
    request = ChannelRequest(instance, stream, item.path, arguments)
    return await _channel_frames(replay, request, caller, query, item)


async def _named_frames(
    instance: Instance, caller: _Caller, query: Query, tables: Mapping[Any, Any]
) -> list[Frame]:
    found: list[Frame] = []
    for name, item in tables.items():
        if not isinstance(name, str):
            raise TypeError(
                f"the names of the tables of the query {query.query_type!r} must be str, got"
                f" {short_repr(name)}"
            )
        frames = await _table_frames(instance, caller, query, item)
        for frame in frames:
            frame.name = name
        found += frames
    return found


async def _table_frames(
    instance: Instance, caller: _Caller, query: Query, item: Any
) -> list[Frame]:
    """The frames of one `Frame`, of a table, or of the rows of one table: for an alert rule, one
    for each number of a table."""
    if isinstance(item, Frame):
        return [copy_frame(item)]
    if is_table(type(item)):
        frame = await read_table(Frame.from_table, item, instance.source.threads)
    elif isinstance(item, Columns) or opener(type(item)) is not None:
        frame = await _frame_of_rows(item)
    else:
        is_row = row_kind(type(item)) is not None
        advice = "; use a list for one row" if is_row else hint(item)
        raise TypeError(
            f"the query {query.query_type!r} must return a Frame, a table, a list of rows, a"
            " LiveChannel, a list of them, or a dict of tables by name, got"
            f" {short_repr(item)}{advice}"
        )
    if caller.is_alert_rule and (not frame.rows or is_series(frame)):
        return await _alert_frames(frame, ())
    return [frame]


async def _frame_of_rows(rows: Any) -> Frame:
    """Rows that a query has returned, in a frame of their own."""
    encoder = RowEncoder()
    if isinstance(rows, Columns):
        return encoder.table(rows)
    rows = flatten([rows])
    if len(rows) <= INLINE_ROWS:
        return encoder.table(list(rows))
    return await run_in_thread(encoder.table, copy_rows(rows))


async def _alert_frames(frame: Frame, cursor: Collection[str]) -> list[Frame]:
    if frame.rows * len(frame.fields) > INLINE_ROWS:
        return await run_in_thread(alert_frames, frame, cursor)
    return alert_frames(frame, cursor)


async def _channel_frames(
    replay: RowReplay,
    request: ChannelRequest,
    caller: _Caller,
    query: Query,
    live: LiveChannel | None = None,
) -> list[Frame]:
    frame = await _channel_frame(replay, request, caller, query, live)
    kind = request.stream.cursor
    cursor = () if kind is None else kind.columns
    if caller.has_expression:
        added = (*cursor, request.stream.options.status_column)
        frame.fields = tuple(field for field in frame.fields if field.name not in added)
    if not caller.is_alert_rule:
        return [frame]
    return await _alert_frames(frame, cursor)


async def _channel_frame(
    replay: RowReplay,
    request: ChannelRequest,
    caller: _Caller,
    query: Query,
    live: LiveChannel | None = None,
) -> Frame:
    """A channel's history, with the channel to subscribe to.

    `live` is what a `@query` method has returned; its rows replace those of the history hook.
    """
    user, stream = caller.user, request.stream
    await authorize(request.instance, user, "query", request.path, channel=request)
    is_list = caller.is_list or stream.panel == LOGS
    thin = stream.options.thin and not (caller.is_alert_rule or is_list)
    history_range = _history_range(query, thin)
    if query.exact:
        frame, cursor = await replay.exact_history(request, history_range)
        subscribe: dict[str, Any] = {"custom": {"cursor": cursor}}
        if stream.history is not None and stream.options.cursor is None:
            _add_notice(frame, "This stream has no cursor: exact rows begin when it was started.")
    else:
        can_thin = False
        if live is None:
            frame, can_thin, is_cut = await replay.history(request, history_range)
            if is_cut and not caller.is_alert_rule:
                _add_notice(frame, _NEWEST.format(frame.rows))
        else:
            rows: Any = live.history
            if rows is not None and is_table(type(rows)):
                threads = request.instance.source.threads
                rows = await read_table(history_rows, rows, threads)
            frame = await frame_of(replay.row_encoder(request), [] if rows is None else rows)
        uid = request.instance.source.instance.uid
        subscribe = {"channel": channel_name(uid, request.path)}
        if can_thin:
            subscribe["custom"] = {"thinned": LIVE_FACTOR}
        if live is None and stream.history is None and not frame.rows and not query.with_streaming:
            _add_notice(frame, "This stream has no history: it only has live rows.")
    if stream.panel:
        add_panel(frame, stream.panel)
    if query.with_streaming:
        error = quota_error(request, user)
        if error is None:
            frame.meta = msgspec.structs.replace(frame.meta or FrameMeta(), **subscribe)
        else:
            _add_notice(frame, f"Live rows are refused: {error.message}.", "warning")
    return frame


def _history_range(query: Query, thin: bool) -> HistoryRange:
    start, end = query.time_range.start, query.time_range.end
    points = max(1, min(query.max_data_points, HISTORY_LIMIT))
    limit = points + 1 if thin else points  # one more row shows that there are others
    interval = max((end - start) / points, MILLISECOND)
    if query.exact and _ends_now(query):
        end = min(max(end, datetime.now(UTC)), _LATEST) + OPEN_END
    return HistoryRange(start=start, end=end, limit=limit, points=points, interval=interval)


def _ends_now(query: Query) -> bool:
    return query.time_range.end > datetime.now(UTC) - OPEN_RANGE


def _add_notice(frame: Frame, text: str, severity: Literal["info", "warning"] = "info") -> None:
    frame_rows.add_notices(frame, (Notice(severity=severity, text=text),))
