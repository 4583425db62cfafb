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
    "ErrorResponse",
    "error_response",
    "grpc_error",
    "parse_json",
    "plugin_context",
    "user_of",
]

MESSAGE_LIMIT = 4_000
"""Characters of an error message that users see."""


def plugin_context(context: pb.PluginContext | None) -> PluginContext:
    """The context of a call: its user and data source. Absent fields become empty; a call without
    a user has None."""
    if context is None:
        return PluginContext()
    settings = context.data_source_instance_settings
    return PluginContext(
        plugin_id=context.plugin_id,
        plugin_version=context.plugin_version,
        org_id=context.org_id,
        namespace=context.namespace,
        user=user_of(context),
        user_agent=context.user_agent,
        grafana_config=context.grafana_config.copy(),  # decoded contexts are shared
        instance=None
        if settings is None
        else InstanceSettings(
            org_id=context.org_id,
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


def user_of(context: pb.PluginContext | None) -> User | None:
    """The user of a call; None if it has none."""
    user = None if context is None else context.user
    if user is None:
        return None
    return User(login=user.login, name=user.name, email=user.email, role=user.role)


def parse_json(data: bytes, name: str) -> Any:
    """Decode JSON of a request. Raises BadQuery, also for invalid UTF-8 and too deep nesting."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"{name} must be valid JSON: {error}") from None


class ErrorResponse(NamedTuple):
    """The response to an error: HTTP status, source (plugin or downstream) and message.

    `is_bug`: the author's code raised something other than a PluginError; it is logged with its
    traceback.
    """

    status: int
    source: str
    message: str
    is_bug: bool


def error_response(error: BaseException) -> ErrorResponse:
    """The response to an error of a query, a resource or a health check."""
    error = unwrap(error)
    if isinstance(error, PluginError):
        return ErrorResponse(error.status, error.source, _shown(error.message), is_bug=False)
    message = f"the plugin failed: {_shown(describe(error))}"
    return ErrorResponse(500, "plugin", message, is_bug=True)


def _shown(text: str) -> str:
    return redact_start(text, MESSAGE_LIMIT)


def grpc_error(error: BaseException) -> GRPCError:
    """The error as a gRPC status, for calls without an error field."""
    error = unwrap(error)
    name = error.grpc_status if isinstance(error, PluginError) else "INTERNAL"
    return GRPCError(Status[name], error_response(error).message)
