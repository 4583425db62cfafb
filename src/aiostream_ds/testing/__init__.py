"""For authors' tests: a Grafana in memory, and pytest's side of it.

    async with serve_in_memory(Sensors, settings={"url": "…"}) as grafana:
        viewer = await grafana.follow("sensors/kitchen")
        assert (await viewer.next())["celsius"] < 30

Use it inside the test, not as a fixture that yields: pytest-asyncio sets up and tears down fixtures
in different tasks, and a task group may not live across that.
"""

from aiostream_ds.datasource import create_instance
from aiostream_ds.testing.grafana import Grafana, QueryFailed, open_beside, serve_in_memory
from aiostream_ds.testing.recorded_upstream import Recorded, play, record
from aiostream_ds.testing.snapshots import frame_text
from aiostream_ds.testing.viewer import Refused, Viewer

__all__ = [
    "Grafana",
    "QueryFailed",
    "Recorded",
    "Refused",
    "Viewer",
    "create_instance",
    "frame_text",
    "open_beside",
    "play",
    "record",
    "serve_in_memory",
]
