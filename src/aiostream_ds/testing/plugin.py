"""The pytest plugin, for `pytest_plugins = ["aiostream_ds.testing.plugin"]` in a conftest.py.

It brings one fixture, which is a factory: the Grafana that it makes is entered inside the test,
because a fixture is set up and torn down in other tasks than the test runs in.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from aiostream_ds.testing import grafana

__all__ = ["serve_in_memory"]


@pytest.fixture
def serve_in_memory() -> Callable[..., AbstractAsyncContextManager[grafana.Grafana]]:
    """`async with serve_in_memory(Sensors, settings={…}) as grafana:` without an import."""
    return grafana.serve_in_memory
