"""Protobuf ⇄ the author's words, in both directions; and errors as the wire wants them."""

from typing import Any, NamedTuple

import msgspec

from aiostream_ds.errors import BadQuery, PluginError, unwrap
from aiostream_ds.grafana._pb import pluginv2 as pb
from aiostream_ds.grafana.wire import GRPCError, Status
from aiostream_ds.plugin.model import InstanceSettings, PluginContext, Query, User
from aiostream_ds.plugin.settings import convert
from aiostream_ds.telemetry import redact

__all__ = [
    "Outcome",
    "grpc_error",
    "outcome",
    "parse",
    "plugin_context",
    "query",
    "query_model",
]

QUERY_LIMIT = 1 << 20
"""Bytes of one query's JSON; a panel's query is some hundred."""


_NO_RANGE = pb.TimeRange()


def plugin_context(context: pb.PluginContext | None) -> PluginContext:
    """Who asks, for which data source. Absent parts read as empty; no user as None."""
    if context is None:
        return PluginContext()
    user, settings = context.user, context.data_source_instance_settings
    return PluginContext(
        plugin_id=context.plugin_id,
        plugin_version=context.plugin_version,
        org_id=context.org_id,
        namespace=context.namespace,
        user=None
        if user is None
        else User(login=user.login, name=user.name, email=user.email, role=user.role),
        user_agent=context.user_agent,
        grafana_config=context.grafana_config,
        instance=None
        if settings is None
        else InstanceSettings(
            uid=settings.uid,
            name=settings.name,
            id=settings.id,
            url=settings.url,
            user=settings.user,
            database=settings.database,
            basic_auth_enabled=settings.basic_auth_enabled,
            basic_auth_user=settings.basic_auth_user,
            updated_ms=settings.last_updated_ms,
        ),
    )


def parse(data: bytes, what: str) -> Any:
    """JSON that came from outside. Raises BadQuery, also for bad UTF-8 and endless nesting."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"{what} is not JSON that can be read: {error}") from None


def query_model(message: pb.DataQuery) -> dict[str, Any]:
    """A query as its panel saved it; Grafana's own fields (range, refId, …) win over equal names.

    Raises BadQuery when it is no JSON object, or too large.
    """
    if len(message.json) > QUERY_LIMIT:
        raise BadQuery(
            f"the query has {len(message.json):,} bytes, at most {QUERY_LIMIT:,} are read"
        )
    model = parse(message.json, "the query") if message.json.strip() else {}
    if not isinstance(model, dict):
        raise BadQuery(f"the query is a JSON {type(model).__name__}, not an object")
    span = message.time_range if message.time_range is not None else _NO_RANGE
    inner = model.get("queryType")
    return model | {
        "refId": message.ref_id or "A",
        "queryType": message.query_type or (inner if isinstance(inner, str) else ""),
        "maxDataPoints": message.max_data_points or 100,
        "intervalMs": message.interval_ms or 1000,
        "timeRange": {"from_ms": span.from_epoch_ms, "to_ms": span.to_epoch_ms},
    }


def query(model: dict[str, Any], kind: type[Query]) -> Query:
    """A query's model as the class that its method takes.

    A text that spells a number is one where a number is meant: what a template variable brings, and
    what an older version of the class saved, are texts.

    Raises BadQuery with the field, its value and what is allowed.
    """
    try:
        return convert(model, kind, strict=False)
    except ValueError as error:
        raise BadQuery(f"query {model['refId']}: {error}") from None


class Outcome(NamedTuple):
    """How an error is answered: HTTP status, whose fault, the message; `bug`: log a traceback."""

    status: int
    source: str
    message: str
    bug: bool


def outcome(error: BaseException) -> Outcome:
    """The answer for an error of a query, a resource or a health check."""
    error = unwrap(error)
    if isinstance(error, PluginError):
        return Outcome(error.status, error.source, redact(error.message), False)
    text = redact(f"{type(error).__name__}: {error}")
    return Outcome(500, "plugin", f"the plugin failed: {text}", True)


def grpc_error(error: BaseException) -> GRPCError:
    """The same error where the call itself has to fail."""
    error = unwrap(error)
    name = error.grpc_status if isinstance(error, PluginError) else "INTERNAL"
    return GRPCError(Status[name], outcome(error).message)
