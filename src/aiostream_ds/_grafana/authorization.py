"""Access checks: allow rules, `{name:user}` path fields, the author's `subscribe` hook, quotas.

The same check runs before a viewer subscribes, reads a history, replays rows after a cursor and
publishes. Each decision is written to the audit log: a refusal at level info, a permission, of
which a panel gets one for each query, at level debug. Without any access rule there is no decision
and no log line.
"""

import logging
from typing import TYPE_CHECKING, Any

from aiostream_ds._author_threads import call_method
from aiostream_ds._loggers import get_logger
from aiostream_ds._short_repr import short_repr
from aiostream_ds.errors import PermissionDenied, PluginError, QuotaExceeded, unwrap
from aiostream_ds.models import User

if TYPE_CHECKING:
    from aiostream_ds._grafana.channel_request import ChannelRequest
    from aiostream_ds._grafana.instance import Instance
    from aiostream_ds._routing.plan import StreamPlan
    from aiostream_ds._telemetry import Counters
    from aiostream_ds.access import Action

__all__ = ["admit", "authorize", "authorize_some_path", "has_rules", "quota_error"]

audit = get_logger("aiostream_ds.audit")


def has_rules(instance: "Instance", stream: "StreamPlan | None") -> bool:
    """Whether a call about a stream, or about none, needs a check."""
    if stream is not None and (stream.options.allow or stream.principal or stream.subscribe):
        return True
    return bool(instance.source.allow)


async def authorize(
    instance: "Instance",
    user: User | None,
    call: str,
    name: str,
    *,
    channel: "ChannelRequest | None" = None,
    action: "Action" = "read",
) -> None:
    """Check that a user may make a call, and log the decision.

    `channel` is the channel that the call is about. An author's query or resource has none: only
    the data source's own rules apply to it. `call` and `name` go to the log.

    Raises:
        PermissionDenied: no rule allows it, or the path belongs to another user.
        TypeError: the `subscribe` hook returned a value, such as False.
        Exception: what the `subscribe` hook raises.
    """
    if not has_rules(instance, None if channel is None else channel.stream):
        return
    try:
        if channel is None:
            _check_rules(instance, (), user, None, action)
        else:
            _check_rules(instance, channel.stream.options.allow, user, channel.path, action)
            _check_principal(channel, user)
            await _call_hook(channel, user)
    except Exception as error:
        _log(instance, user, call, name, error)
        raise
    _log(instance, user, call, name, None)


def authorize_some_path(instance: "Instance", user: User | None, stream: "StreamPlan") -> None:
    """Check that a user may read some path of a stream, where the path is not known yet.

    The `subscribe` hook is not asked, because it needs a path. Permissions are not logged: an
    editor asks at each key.

    Raises PermissionDenied when no rule allows any path, or each path belongs to a login and the
    user has none.
    """
    try:
        for rules in (instance.source.allow, stream.options.allow):
            if rules and not _may_be_allowed(rules, user, instance.key.tenant):
                raise PermissionDenied(f"no rule allows {_who(user)} to read {stream.name!r}")
        if stream.principal and user is None:
            raise PermissionDenied(f"the paths of {stream.name!r} belong to users")
    except PermissionDenied as error:
        _log(instance, user, "suggest", stream.name, error)
        raise


def _may_be_allowed(rules: Any, user: User | None, tenant: str) -> bool:
    from aiostream_ds.access import check_rules, may_be_allowed  # few plugins have rules

    return may_be_allowed(check_rules(rules), user, tenant, "read")


def quota_error(channel: "ChannelRequest", user: User | None) -> QuotaExceeded | None:
    """The error if one more subscription of this user would exceed the quota, else None."""
    quota = channel.instance.source.quota
    if quota is None:
        return None
    return channel.instance.quota_usage(quota).error(channel.path, user)


def admit(channel: "ChannelRequest", user: User | None, counters: "Counters") -> None:
    """Count a subscription against the quota. Raises QuotaExceeded, and then counts nothing."""
    quota = channel.instance.source.quota
    if quota is None:
        return
    error = quota_error(channel, user)
    if error is not None:
        counters.refusals += 1
        _log(channel.instance, user, "subscribe", channel.path, error)
        raise error
    channel.instance.quota_usage(quota).add(channel.path, user)


def _check_rules(
    instance: "Instance", own: Any, user: User | None, path: str | None, action: "Action"
) -> None:
    from aiostream_ds.access import check_rules, is_allowed  # few plugins have rules

    tenant = instance.key.tenant
    for rules in (check_rules(instance.source.allow), own):
        if not is_allowed(rules, user, tenant, path, action):
            what = "this data source" if path is None else f"{path!r}"
            raise PermissionDenied(f"no rule allows {_who(user)} to {action} {what}")


def _who(user: User | None) -> str:
    return "background work" if user is None else f"{user.login!r} ({user.role})"


def _check_principal(channel: "ChannelRequest", user: User | None) -> None:
    field = channel.stream.principal
    if field is not None and (user is None or channel.arguments[field] != user.login):
        raise PermissionDenied(f"{channel.path!r} belongs to another user")


async def _call_hook(channel: "ChannelRequest", user: User | None) -> None:
    hook = channel.stream.subscribe
    if hook is not None:
        result = await call_method(channel.instance.source, hook, user, **channel.arguments)
        if result is not None:
            raise TypeError(
                f"the hook {hook!r} must return None, got {short_repr(result)}; raise"
                " PermissionDenied or NotFound to refuse"
            )


def _log(
    instance: "Instance", user: User | None, call: str, name: str, error: Exception | None
) -> None:
    level = logging.DEBUG if error is None else logging.INFO
    if not audit.isEnabledFor(level):
        return
    found = None if error is None else unwrap(error)
    if found is None:
        decision, reason = "allowed", ""
    else:
        decision = "refused" if isinstance(found, PluginError) else "failed"
        reason = f": {found}"
    login = "" if user is None else user.login
    audit.log(
        level,
        "%s %s %s by %s%s",
        call,
        name,
        decision,
        login or "background work",
        reason,
        extra={
            "decision": decision,
            "action": call,
            "path": name,
            "user": login,
            "role": "" if user is None else user.role,
            "datasource": instance.key.uid,
            "tenant": instance.key.tenant,
        },
    )
