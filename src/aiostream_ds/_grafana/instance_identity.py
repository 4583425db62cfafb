"""What identifies a data source, and what of its settings makes another instance or other rows."""

import re
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from aiostream_ds._cluster.channel_names import ChannelIdentity
from aiostream_ds._frames.cursor import short_hash
from aiostream_ds._pb import pluginv2 as pb

__all__ = [
    "InstanceKey",
    "channel_identity",
    "content_of",
    "is_same_source",
    "key_of",
    "settings_digest",
    "stored_key",
    "upstream_settings",
]

_OF_ORGANIZATION = re.compile(r"default|org-\d+")
"""Namespaces of an organization (of the first one, of another one). Others, as stacks-7, are of a
whole Grafana, and organizations of several have the same ids."""


class InstanceKey(NamedTuple):
    """Identifies a configured data source: plugin, tenant (namespace, else org ID), UID."""

    plugin_id: str
    tenant: str
    uid: str


def key_of(context: pb.PluginContext, settings: pb.DataSourceInstanceSettings) -> InstanceKey:
    """The key of the data source of a call."""
    tenant = context.namespace or str(context.org_id)
    return InstanceKey(context.plugin_id, tenant, settings.uid or str(settings.id))


def stored_key(key: InstanceKey, org_id: int) -> InstanceKey:
    """The key in names of what is stored: only newer versions of Grafana send a namespace, and the
    names stay the same."""
    if _OF_ORGANIZATION.fullmatch(key.tenant):
        return key._replace(tenant=str(org_id))
    return key


def content_of(settings: pb.DataSourceInstanceSettings) -> tuple[Any, ...]:
    """What an admin can change of a data source."""
    return (
        settings.json_data,
        settings.decrypted_secure_json_data,
        settings.name,
        settings.url,
        settings.user,
        settings.database,
        settings.basic_auth_enabled,
        settings.basic_auth_user,
    )


def is_same_source(before: tuple[Any, ...] | None, after: tuple[Any, ...] | None) -> bool:
    """Whether nothing was changed but the name."""
    if before is None or after is None:
        return False
    return (*before[:2], *before[3:]) == (*after[:2], *after[3:])


def channel_identity(
    key: InstanceKey, version: str, settings: pb.DataSourceInstanceSettings
) -> ChannelIdentity:
    """What a shared stream's rows depend on, without its path. The name is not a part of it."""
    texts = (settings.url, settings.user, settings.database, settings.basic_auth_user)
    auth = str(settings.basic_auth_enabled)
    secrets = sorted(settings.decrypted_secure_json_data.items())
    return ChannelIdentity(
        tenant=key.tenant,
        uid=key.uid,
        plugin_id=key.plugin_id,
        plugin_version=version,
        settings=(settings.json_data, *map(str.encode, (*texts, auth))),
        secrets=tuple(chain.from_iterable(secrets)),
    )


def upstream_settings(settings: pb.DataSourceInstanceSettings) -> tuple[bytes, str, str, str]:
    """The settings that select the upstream system."""
    return settings.json_data, settings.url, settings.user, settings.database


@lru_cache(maxsize=1024)
def settings_digest(json_data: bytes, *others: str) -> str:
    """A digest of `upstream_settings`: equal on every server."""
    return short_hash(json_data + "\0".join(others).encode())
