"""The setting with which the Grafana servers of a cluster share the streams of a data source."""

from aiostream_ds.settings import Settings

__all__ = ["SharingSettings"]


class SharingSettings(Settings):
    """Whether streams run once for a cluster."""

    share: bool = False
    """Whether all Grafana servers of a cluster share one connection to the upstream system. Needs
    `cluster_url` in the server's configuration."""
