"""The setting with which the Grafana servers of a cluster share the streams of a data source."""

from typing import Annotated

from aiostream_ds.settings import Settings
from aiostream_ds.sources.form_sections import ADVANCED

__all__ = ["SharingSettings"]


class SharingSettings(Settings):
    """Whether streams run once for a cluster."""

    share: Annotated[bool, ADVANCED] = False
    """Whether all Grafana servers of a cluster share one connection to the upstream system. Needs
    `cluster_url` in the server's configuration."""
