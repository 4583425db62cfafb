""" "Save & test" of the source `push`: where rows are kept, what there is, and what was refused."""

from collections.abc import Mapping
from typing import Any

from aiostream_ds.models import Health
from aiostream_ds.sources.capabilities import Capabilities
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.push.push_audit import PushAudit
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.stores import Store, StoredChannel

__all__ = ["NAMES_SHOWN", "push_health"]

NAMES_SHOWN = 10
"""Maximum number of paths in the message of "Save & test"."""


async def push_health(
    settings: PushSettings, store: Store, audit: PushAudit, abilities: Mapping[str, Capabilities]
) -> Health:
    """The answer. Raises StoreError."""
    channels = await store.channels()
    parts = [_place(settings), _contents(channels), _who(settings)]
    if settings.share:
        parts += _sharing(store)
    if audit.refusals:
        noun = "push was" if audit.refusals == 1 else "pushes were"
        parts.append(f"{audit.refusals:,} {noun} refused; the last one: {audit.last_refusal}")
    if audit.rejected:
        noun = "row was" if audit.rejected == 1 else "rows were"
        parts.append(f"{audit.rejected:,} {noun} not taken; the last one: {audit.last_rejection}")
    more = [f"{name} {can.text()}" for name, can in abilities.items()]
    return health_report(parts, (), more, _details(channels, audit))


def _place(settings: PushSettings) -> str:
    if settings.directory:
        return f"rows are kept in {settings.directory}"
    return (
        "rows are kept in memory: they are lost when the plugin or Grafana restarts, and when"
        " nobody pushes or looks for an hour; set directory to keep them"
    )


def _sharing(store: Store) -> list[str]:
    problem = getattr(store, "problem", None)
    if problem is None:
        return [
            "rows are not shared with other servers: cluster_url is not set in the section"
            " [plugin.<id>] of grafana.ini"
        ]
    missing: int = getattr(store, "missing", 0)
    found = [f"pushes are refused at the moment: {problem}"] if problem else []
    if missing:
        found.append(f"this server lacks {missing:,} rows that were pushed while it was away")
    return found or ["rows are shared with the other servers of the cluster"]


def _contents(channels: list[StoredChannel]) -> str:
    if not channels:
        return "nothing was pushed yet"
    names = ", ".join(each.channel for each in channels[:NAMES_SHOWN])
    names += ", …" if len(channels) > NAMES_SHOWN else ""
    rows = sum(each.rows for each in channels)
    noun = "channel" if len(channels) == 1 else "channels"
    return f"{rows:,} {'row' if rows == 1 else 'rows'} of {len(channels):,} {noun}: {names}"


def _who(settings: PushSettings) -> str:
    allowed = [] if settings.push_role == "none" else [f"the role {settings.push_role} and higher"]
    if settings.push_logins:
        allowed.append(", ".join(settings.push_logins[:NAMES_SHOWN]))
    return f"may push: {' and '.join(allowed) or 'nobody'}"


def _details(channels: list[StoredChannel], audit: PushAudit) -> dict[str, Any]:
    return {
        "channels": {
            each.channel: {"rows": each.rows, "bytes": each.bytes} for each in channels[:100]
        },
        "rows": sum(each.rows for each in channels),
        "bytes": sum(each.bytes for each in channels),
        "rows_taken": audit.accepted,
        "rows_not_taken": audit.rejected,
        "pushes_refused": audit.refusals,
    }
