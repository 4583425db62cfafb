"""Tests of data sources: an in-memory Grafana, recorded upstreams, snapshots of frames.

    async with serve_in_memory(Sensors, settings={"url": "…"}) as grafana:
        viewer = await grafana.follow("sensors/kitchen")
        assert (await viewer.next())["celsius"] < 30

Use `serve_in_memory` inside the test, not in a fixture that yields: pytest-asyncio sets up and
tears down fixtures in different tasks, which a task group does not allow.
"""

from aiostream_ds.datasource import create_instance
from aiostream_ds.testing.grafana import Grafana, QueryFailed, open_second_server, serve_in_memory
from aiostream_ds.testing.recorded_upstream import RecordedMessage, play, record
from aiostream_ds.testing.snapshots import frame_text
from aiostream_ds.testing.upstream_double import UpstreamDouble
from aiostream_ds.testing.viewer import Refused, Viewer

__all__ = [
    "Grafana",
    "QueryFailed",
    "RecordedMessage",
    "Refused",
    "UpstreamDouble",
    "Viewer",
    "create_instance",
    "frame_text",
    "open_second_server",
    "play",
    "record",
    "serve_in_memory",
]
