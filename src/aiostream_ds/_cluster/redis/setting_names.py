"""Errors of connections in the words of a cluster's settings: they name those of a data source."""

import re

from aiostream_ds.errors import PluginError, copy_error

__all__ = ["in_cluster_settings"]

_NAMES = (
    (r", or set serverName to it", ""),
    (r"then set tls to false", "then use redis:// instead of rediss://"),
    (r"set tls to false", "use redis:// instead of rediss://"),
    (r"set tls\b", "use rediss:// instead of redis://"),
    (r"\bcaCertificate\b", "cluster_ca_file"),
    (r"\bclientCertificate\b", "cluster_certificate_file"),
    (r"\bclientKey\b", "cluster_key_file"),
    (r"set password and user\b", "set cluster_password and cluster_user"),
)


def in_cluster_settings(error: PluginError) -> PluginError:
    """The same error, with the names of the settings in [plugin.<id>]."""
    text = error.message
    for pattern, name in _NAMES:
        text = re.sub(pattern, name, text)
    if text == error.message:
        return error
    changed = copy_error(error)
    changed.args = (text,)
    return changed
