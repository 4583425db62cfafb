"""The cluster with which a plugin process shares streams, from the environment."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import ConfigError

if TYPE_CHECKING:
    from aiostream_ds._cluster.cluster_access import ClusterAccess

__all__ = ["cluster_of_process"]

log = get_logger(__name__)


def cluster_of_process(environ: Mapping[str, str]) -> "ClusterAccess | str | None":
    """How this process takes part in a cluster, by `cluster_url` and the other settings in
    [plugin.<id>]. None without a URL. An invalid value is logged and returned as a text: no stream
    is shared then, but each is served."""
    if not environ.get("GF_PLUGIN_CLUSTER_URL"):
        return None
    from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings

    try:
        settings = cluster_settings(environ)
        return cluster_access(settings) if settings is not None else None
    except ConfigError as error:
        log.error("streams are not shared with other Grafana servers: %s", error)
        return str(error)
