"""The built-in plugin: an admin selects a source in the settings, without code."""

from collections.abc import Mapping
from typing import NoReturn

from aiostream_ds._process.entry import serve

__all__ = ["FURTHER_EXTRAS", "PLUGIN_ID", "SOURCES", "main"]

PLUGIN_ID = "aiostream-ds-datasource"

SOURCES: Mapping[str, str] = {
    "demo": "aiostream_ds.sources.demo:Demo",
    "host": "aiostream_ds.sources.host:Host",
    "file": "aiostream_ds.sources.file:File",
    "mqtt": "aiostream_ds.sources.mqtt:Mqtt",
    "redis": "aiostream_ds.sources.redis:Redis",
    "nats": "aiostream_ds.sources.nats:Nats",
    "postgres": "aiostream_ds.sources.postgres:Postgres",
    "websocket": "aiostream_ds.sources.websocket:WebSocket",
    "http": "aiostream_ds.sources.http:Http",
    "push": "aiostream_ds.sources.push:Pushed",
    "recorded": "aiostream_ds.sources.recorded:Recorded",
}
"""The values of the setting `source`; the first is the default."""

FURTHER_EXTRAS: Mapping[str, tuple[str, ...]] = {"push": ("otlp",)}
"""The extras that a source uses, besides the one of its name: a package brings them, too."""


def main() -> NoReturn:
    """Run the built-in plugin, as the packaged executable does."""
    serve(SOURCES, by="source")
