"""A test suite for any data source, to be subclassed:

class TestSensors(PluginSuite):
    data_source = Sensors
    settings = {"url": "mqtt://localhost"}
    channels = ["sensors/kitchen"]
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import msgspec
import pytest

from aiostream_ds.datasource import DataSource
from aiostream_ds.settings import Secret, decode_settings
from aiostream_ds.testing.grafana import Grafana, serve_in_memory
from aiostream_ds.testing.problems import (
    Problem,
    alert_problem,
    cursor_problem,
    health_problem,
    history_problems,
)
from aiostream_ds.testing.viewer import Refused

__all__ = ["PluginSuite"]

_ITERATIONS = 100
"""Iterations of the event loop in which cancelled tasks end."""


@pytest.mark.asyncio
class PluginSuite:
    """Tests of one data source. Subclass it under a name that pytest collects.

    `settings` is the jsonData (camelCase), `secrets` the secureJsonData. `channels` are paths that
    send at least one row within `timeout` seconds. To leave out a test that is not for your data
    source, set it to None in the subclass.
    """

    data_source: ClassVar[type[DataSource[Any]]]
    settings: ClassVar[Mapping[str, Any]] = {}
    secrets: ClassVar[Mapping[str, str]] = {}
    channels: ClassVar[Sequence[str]] = ()
    timeout: ClassVar[float] = 5.0

    def serve(self) -> AbstractAsyncContextManager[Grafana]:
        """Run the data source with an in-memory Grafana."""
        return serve_in_memory(self.data_source, settings=self.settings, secrets=self.secrets)

    async def test_health_is_green(self) -> None:
        """ "Save & test" succeeds."""
        async with self.serve() as grafana:
            ok, message = await grafana.health()
        assert ok, message

    async def test_health_tests_the_settings(self) -> None:
        """ "Save & test" is not green whatever the settings are."""
        problem = health_problem(self.data_source)
        assert problem is None, _sentence(problem)

    async def test_channels_give_rows(self) -> None:
        """An admin may subscribe to each channel and gets a valid row."""
        async with self.serve() as grafana, asyncio.timeout(self.timeout):
            for path in self.channels:
                viewer = await grafana.follow(path)
                row = await viewer.next()
                assert row and viewer.broken is None, f"{path}: {viewer.broken}"

    async def test_channels_stop_cleanly(self) -> None:
        """On shutdown, all streams and the lifespan end in time and leave no task."""
        before = asyncio.all_tasks()
        async with self.serve() as grafana, asyncio.timeout(2 * self.timeout):
            for path in self.channels:
                await (await grafana.follow(path)).next()
            assert await grafana.plugin.close(self.timeout), "a stream or the lifespan did not end"
        # tasks that a client cancelled while it closed end in one of the next iterations
        for _ in range(_ITERATIONS):
            left = asyncio.all_tasks() - before
            if not left:
                break
            await asyncio.sleep(0)
        assert not left, f"expected no task after the end, got {', '.join(map(repr, left))}"

    async def test_channels_answer_queries(self) -> None:
        """The query of each channel returns a frame in Arrow with the channel's name."""
        async with self.serve() as grafana:
            for path in self.channels:
                (frame,) = await grafana.query(self._query(path))
                assert frame.meta is not None
                assert frame.meta.channel == f"ds/{grafana.uid}/{path}"

    async def test_histories_continue_into_live_rows(self) -> None:
        """Each channel's history keeps its range, limit and order, has the live columns, and ends
        at the cursor at which a subscription starts."""
        found: list[str] = []
        async with self.serve() as grafana, asyncio.timeout(2 * self.timeout):
            for path in self.channels:
                query = self._query(path)
                problem = await cursor_problem(grafana, path, query)
                viewer = await grafana.follow(path)
                await viewer.next()
                problems = await history_problems(grafana, query)
                problems += [problem] if problem is not None else []
                found += [f"{path}: {_sentence(problem)}" for problem in problems]
        assert not found, "\n".join(found)

    async def test_alert_rules_can_use_the_channels(self) -> None:
        """Grafana's alerting accepts the frame of each channel: a time and numbers."""
        found: list[str] = []
        async with self.serve() as grafana, asyncio.timeout(2 * self.timeout):
            for path in self.channels:
                problem = await alert_problem(grafana, self._query(path))
                found += [f"{path}: {_sentence(problem)}"] if problem is not None else []
        assert not found, "\n".join(found)

    async def test_unknown_paths_are_not_found(self) -> None:
        """A subscription to a path that matches no stream is refused."""
        async with self.serve() as grafana:
            with pytest.raises(Refused) as refused:
                await grafana.follow("x/no-such-path")  # x/ is reserved
        assert refused.value.status == "NOT_FOUND"

    async def test_settings_survive_a_round_trip(self) -> None:
        """Decoding, encoding and decoding the settings gives equal settings."""
        kind = self.data_source._plan.settings
        json, secrets = msgspec.json.encode(dict(self.settings)), dict(self.secrets)
        once = decode_settings(kind, json, secrets)
        encoded = msgspec.json.encode(once, enc_hook=_reveal)
        assert decode_settings(kind, encoded, secrets) == once

    def _query(self, path: str) -> dict[str, Any]:
        return self.data_source._plan.query_of(path)


def _sentence(problem: Problem) -> str:
    return f"{problem.text}; {problem.cure}"


def _reveal(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"expected a JSON value, got {value!r}")
