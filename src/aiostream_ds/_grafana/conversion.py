"""Converts protobuf messages to the author's classes, and errors to responses."""

from typing import Any, NamedTuple

import msgspec

from aiostream_ds._author_code import describe
from aiostream_ds._grpc.call import GRPCError, Status
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._redaction import redact_start
from aiostream_ds.errors import BadQuery, PluginError, unwrap
from aiostream_ds.models import InstanceSettings, PluginContext, User

__all__ = [
    "MESSAGE_LIMIT",
    "Outcome",
    "grpc_error",
    "outcome",
    "parse",
    "plugin_context",
]

MESSAGE_LIMIT = 4_000
"""Characters of an error message that users see."""


def plugin_context(context: pb.PluginContext | None) -> PluginContext:
    """The context of a call: its user and data source. Absent fields become empty; a call without
    a user has None."""
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
    """Decode JSON of a request. Raises BadQuery, also for invalid UTF-8 and too deep nesting."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"{what} must be valid JSON: {error}") from None


class Outcome(NamedTuple):
    """The response to an error: HTTP status, source (plugin or downstream) and message.

    `bug` errors are logged with a traceback.
    """

    status: int
    source: str
    message: str
    bug: bool


def outcome(error: BaseException) -> Outcome:
    """The response to an error of a query, a resource or a health check."""
    error = unwrap(error)
    if isinstance(error, PluginError):
        return Outcome(error.status, error.source, _shown(error.message), False)
    return Outcome(500, "plugin", f"the plugin failed: {_shown(describe(error))}", True)


def _shown(text: str) -> str:
    return redact_start(text, MESSAGE_LIMIT)


def grpc_error(error: BaseException) -> GRPCError:
    """The same error as a gRPC error, where the whole call has to fail."""
    error = unwrap(error)
    name = error.grpc_status if isinstance(error, PluginError) else "INTERNAL"
    return GRPCError(Status[name], outcome(error).message)
