"""The pytest plugin: `-p aiostream_ds.testing.pytest_plugin`, or `pytest_plugins` in a conftest.py.

It has the marker `virtual`, which runs an async test in virtual time, and the fixtures
`frame_snapshot` and `serve_in_memory`. The latter is a factory: enter its result inside the test,
since pytest-asyncio sets up and tears down fixtures in other tasks.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest

from aiostream_ds.testing import grafana
from aiostream_ds.testing.snapshots import FrameSnapshot
from aiostream_ds.testing.virtual_loop import VirtualLoop

__all__ = ["frame_snapshot", "serve_in_memory"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-frames."""
    parser.addoption("--update-frames", action="store_true", help="write the snapshots of frames")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "virtual: the test runs in virtual time")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Select a test's event loop."""
    if item.get_closest_marker("virtual") is not None:
        return {"virtual": VirtualLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def serve_in_memory() -> Callable[..., AbstractAsyncContextManager[grafana.Grafana]]:
    """The function `aiostream_ds.testing.serve_in_memory`, without an import."""
    return grafana.serve_in_memory


@pytest.fixture
def frame_snapshot(request: pytest.FixtureRequest) -> FrameSnapshot:
    """`frame_snapshot(frame)` compares a frame with a file in `snapshots/`."""
    folder = request.path.parent / "snapshots"
    update = bool(request.config.getoption("--update-frames"))
    return FrameSnapshot(folder, re.sub(r"[^\w.-]+", "-", request.node.name), update=update)
