"""Protobuf ⇄ the author's words, in both directions; and errors as the wire wants them."""

from typing import Any, NamedTuple

import msgspec

from aiostream_ds._grpc.call import GRPCError, Status
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._telemetry import redact
from aiostream_ds.errors import BadQuery, PluginError, unwrap
from aiostream_ds.models import InstanceSettings, PluginContext, User

__all__ = [
    "Outcome",
    "grpc_error",
    "outcome",
    "parse",
    "plugin_context",
]


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
