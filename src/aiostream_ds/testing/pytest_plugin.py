"""The pytest plugin: `-p aiostream_ds.testing.pytest_plugin`, or `pytest_plugins` in a conftest.py.

It brings the mark `virtual`, which runs an async test on a clock that jumps instead of waiting, and
two fixtures: `frame_snapshot`, and `serve_in_memory`, a factory. The Grafana that it makes is
entered inside the test: a fixture is set up and torn down in other tasks than the test runs in.
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
    """--update-frames."""
    parser.addoption(
        "--update-frames", action="store_true", help="write the snapshots of frames anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The mark is a known one."""
    config.addinivalue_line("markers", "virtual: the test runs in virtual time")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which loop a test runs on."""
    if item.get_closest_marker("virtual") is not None:
        return {"virtual": VirtualLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def serve_in_memory() -> Callable[..., AbstractAsyncContextManager[grafana.Grafana]]:
    """`async with serve_in_memory(Sensors, settings={…}) as grafana:` without an import."""
    return grafana.serve_in_memory


@pytest.fixture
def frame_snapshot(request: pytest.FixtureRequest) -> FrameSnapshot:
    """`frame_snapshot(frame)` compares with a file in `snapshots/`; see `testing.snapshots`."""
    folder = request.path.parent / "snapshots"
    update = bool(request.config.getoption("--update-frames"))
    return FrameSnapshot(folder, re.sub(r"[^\w.-]+", "-", request.node.name), update=update)
