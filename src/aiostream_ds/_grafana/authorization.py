"""Who may: the rules, the stream's own user, the author's hook, the quota; each decision is logged.

The same question is asked before a viewer follows a channel, reads its history or the rows behind a
cursor, and publishes. Where nothing is said about access nothing is decided, and nothing logged.
"""

import logging
from typing import TYPE_CHECKING, Any

from aiostream_ds.errors import PermissionDenied, PluginError, QuotaExceeded, unwrap
from aiostream_ds.models import User

if TYPE_CHECKING:
    from aiostream_ds._grafana.instances import Instance
    from aiostream_ds._grafana.replay import ChannelRequest
    from aiostream_ds._telemetry import Counters
    from aiostream_ds.access import Action

__all__ = ["admit", "authorize", "authorize_plain", "refusal"]

audit = logging.getLogger("aiostream_ds.audit")


async def authorize(
    at: "ChannelRequest", user: User | None, what: str = "subscribe", action: "Action" = "read"
) -> None:
    """Let a user to a path, or raise why not: PermissionDenied, or what the hook raises.

    `what` is the call, for the log. A hook that returns something, False for example, has been
    misunderstood: nobody comes in.
    """
    stream, source = at.stream, at.instance.source
    if not (source.allow or stream.options.allow or stream.principal or stream.subscribe):
        return
    try:
        _check_rules(at.instance, stream.options.allow, user, at.path, action)
        _check_principal(at, user)
        await _ask_hook(at, user)
    except Exception as error:
        _log(at.instance, user, what, at.path, error)
        raise
    _log(at.instance, user, what, at.path, None)


def authorize_plain(instance: "Instance", user: User | None, what: str, name: str) -> None:
    """The same for an author's own query or resource: it has no path. Raises PermissionDenied."""
    if not instance.source.allow:
        return
    try:
        _check_rules(instance, (), user, None, "read")
    except PermissionDenied as error:
        _log(instance, user, what, name, error)
        raise
    _log(instance, user, what, name, None)


def refusal(at: "ChannelRequest", user: User | None) -> QuotaExceeded | None:
    """Why a user may not follow a path now although they may see it."""
    quota = at.instance.source.quota
    if quota is None:
        return None
    return at.instance.ledger(quota).refusal(at.path, user)


def admit(at: "ChannelRequest", user: User | None, counters: "Counters") -> None:
    """Count one more viewer of a path. Raises QuotaExceeded, and then has counted nobody."""
    if at.instance.source.quota is None:
        return
    error = refusal(at, user)
    if error is not None:
        counters.refusals += 1
        _log(at.instance, user, "subscribe", at.path, error)
        raise error
    at.instance.ledger(at.instance.source.quota).grant(at.path, user)


def _check_rules(
    instance: "Instance", own: Any, user: User | None, path: str | None, action: "Action"
) -> None:
    from aiostream_ds.access import check_rules, is_allowed  # few plugins have rules

    tenant = instance.key.tenant
    for rules in (check_rules(instance.source.allow), own):
        if not is_allowed(rules, user, tenant, path, action):
            who = "background work" if user is None else f"{user.login!r} ({user.role})"
            what = "this data source" if path is None else f"{path!r}"
            raise PermissionDenied(f"no rule lets {who} {action} {what}")


def _check_principal(at: "ChannelRequest", user: User | None) -> None:
    field = at.stream.principal
    if field is not None and (user is None or at.arguments[field] != user.login):
        raise PermissionDenied(f"{at.path!r} is another user's own")


async def _ask_hook(at: "ChannelRequest", user: User | None) -> None:
    hook = at.stream.subscribe
    if hook is not None:
        answer = await getattr(at.instance.source, hook)(user, **at.arguments)
        if answer is not None:
            raise TypeError(
                f"the hook {hook!r} returned {answer!r}; it refuses by raising "
                "PermissionDenied or NotFound, and lets in by returning None"
            )


def _log(
    instance: "Instance", user: User | None, what: str, path: str, error: Exception | None
) -> None:
    """One line for each decision, refused ones with the reason."""
    found = None if error is None else unwrap(error)
    if found is None:
        decision, reason = "allowed", ""
    else:
        decision = "refused" if isinstance(found, PluginError) else "failed"
        reason = f": {found}"
    login = "" if user is None else user.login
    audit.info(
        "%s %s %s by %s%s", what, path, decision, login or "background work", reason,
        extra={
            "decision": decision, "action": what, "path": path, "user": login,
            "role": "" if user is None else user.role,
            "datasource": instance.key.uid, "tenant": instance.key.tenant,
        },
    )  # fmt: skip
