"""A test suite for any data source, to be subclassed:

class TestSensors(PluginSuite):
    data_source = Sensors
    settings = {"url": "mqtt://localhost"}
    channels = ["sensors/kitchen"]
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeVar

import anyio
import msgspec
import pytest
from grpclib.exceptions import GRPCError

from aiostream_ds._author_code import stack_of
from aiostream_ds._channels.channel import Channel
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import ConfigError, NotFound
from aiostream_ds.settings import Secret, decode_settings
from aiostream_ds.testing.grafana import Grafana, QueryFailed, serve_in_memory
from aiostream_ds.testing.problems import (
    Problem,
    alert_problem,
    cursor_problem,
    health_problem,
    history_problems,
)
from aiostream_ds.testing.viewer import Refused

__all__ = ["PluginSuite"]

T = TypeVar("T")

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
        return serve_in_memory(self._class(), settings=self.settings, secrets=self.secrets)

    async def test_health_is_green(self) -> None:
        """ "Save & test" succeeds."""
        async with self.serve() as grafana:
            ok, message = await self._within("Save & test", grafana.health())
        assert ok, (
            f"expected Save & test to be green, got: {message}; set `settings` and `secrets` with"
            " which it is, or correct `lifespan` and `health`"
        )

    async def test_health_tests_the_settings(self) -> None:
        """ "Save & test" is not green whatever the settings are."""
        problem = health_problem(self._class())
        assert problem is None, _sentence(problem)

    async def test_channels_give_rows(self) -> None:
        """An admin may subscribe to each channel and gets a valid row."""
        async with self.serve() as grafana:
            for path in self._channels():
                await self._follow(grafana, path)

    async def test_channels_stop_cleanly(self) -> None:
        """On shutdown, all streams and the lifespan end in time and leave no task."""
        before = asyncio.all_tasks()
        async with self.serve() as grafana:
            for path in self._channels():
                await self._follow(grafana, path)
            is_closed = await grafana.plugin.close(self.timeout)
            assert is_closed, _not_closed(grafana, self.timeout)
        # tasks that a client cancelled while it closed end in one of the next iterations
        for _ in range(_ITERATIONS):
            left = asyncio.all_tasks() - before
            if not left:
                break
            await asyncio.sleep(0)
        assert not left, (
            f"expected no task after the end, got {', '.join(map(repr, left))}; cancel each task in"
            " a `finally` and await it, or start it with self.tasks"
        )

    async def test_channels_answer_queries(self) -> None:
        """The query of each channel returns a frame in Arrow with the channel's name."""
        async with self.serve() as grafana:
            for path in self._channels():
                found = await self._answer(path, grafana.query(self._query(path)))
                channels = [None if each.meta is None else each.meta.channel for each in found]
                expected = f"ds/{grafana.uid}/{path}"
                assert channels == [expected], (
                    f"{path}: expected one frame that continues in the channel {expected!r}, got"
                    f" {channels}; return a LiveChannel of this path from the query"
                )

    async def test_histories_continue_into_live_rows(self) -> None:
        """Each channel's history keeps its range, limit and order, has the live columns, and ends
        at the cursor at which a subscription starts."""
        found: list[str] = []
        async with self.serve() as grafana:
            for path in self._channels():
                query = self._query(path)
                problem = await self._answer(path, cursor_problem(grafana, path, query))
                await self._follow(grafana, path)
                problems = await self._answer(path, history_problems(grafana, query))
                problems += [problem] if problem is not None else []
                found += [f"{path}: {_sentence(problem)}" for problem in problems]
        assert not found, "\n".join(found)

    async def test_alert_rules_can_use_the_channels(self) -> None:
        """Grafana's alerting accepts the frame of each channel: a time and numbers."""
        found: list[str] = []
        async with self.serve() as grafana:
            for path in self._channels():
                problem = await self._within(path, alert_problem(grafana, self._query(path)))
                found += [f"{path}: {_sentence(problem)}"] if problem is not None else []
        assert not found, "\n".join(found)

    async def test_unknown_paths_are_not_found(self) -> None:
        """A subscription to a path that matches no stream is refused."""
        async with self.serve() as grafana:
            try:
                await self._within("a subscription", grafana.follow("x/no-such-path"))
                status = "an accepted subscription"
            except (Refused, GRPCError) as error:
                status = error.status if isinstance(error, Refused) else f"{error.message}"
        assert status == "NOT_FOUND", (  # x/ is reserved
            f"expected NOT_FOUND for a path that matches no stream, got {status}; a lifespan that"
            " cannot be opened refuses all paths"
        )

    async def test_settings_survive_a_round_trip(self) -> None:
        """Decoding, encoding and decoding the settings gives equal settings."""
        kind = self._class()._ds_plan.settings
        json, secrets = msgspec.json.encode(dict(self.settings)), dict(self.secrets)
        try:
            once = decode_settings(kind, json, secrets)
        except ConfigError as error:
            raise AssertionError(
                f"expected valid settings, got: {error}; set `settings` (jsonData) and `secrets`"
            ) from error
        encoded = msgspec.json.encode(once, enc_hook=_reveal)
        twice = decode_settings(kind, encoded, secrets)
        different = [
            f"{name} = {getattr(twice, name)!r} for {getattr(once, name)!r}"
            for name in kind.__struct_fields__
            if getattr(twice, name) != getattr(once, name)
        ]
        assert not different, (
            f"expected equal settings after a round trip, got {', '.join(different)}; give each"
            " field a type that JSON can represent, with one spelling for each value"
        )

    # What the tests have in common

    def _class(self) -> type[DataSource[Any]]:
        assert hasattr(self, "data_source"), (
            f"expected {type(self).__name__}.data_source, got none; set it to your class"
        )
        return self.data_source

    def _channels(self) -> Sequence[str]:
        assert not isinstance(self.channels, str), (
            f"expected a list of paths as `channels`, got {self.channels!r}; write"
            f" channels = [{self.channels!r}]"
        )
        if not self.channels:
            pytest.skip("no channels; set `channels` to paths that send a row")
        return self.channels

    async def _follow(self, grafana: Grafana, path: str) -> None:
        """Subscribe to a channel and wait for a row."""
        try:
            viewer = await self._within(path, grafana.follow(path))
            row = await viewer.next(self.timeout)
        except (Refused, GRPCError) as error:
            reason = error.status if isinstance(error, Refused) else error.message
            raise AssertionError(
                f"{path}: expected that an admin may subscribe, got {reason}; correct the path, or"
                " the rules and the `subscribe` hook"
            ) from error
        except TimeoutError:
            raise AssertionError(
                f"{path}: expected a row within {self.timeout:g} s, got none"
                f"{_status(grafana, path)}; correct the stream, `settings` or `secrets`, raise"
                " `timeout`, or leave the path out of `channels`"
            ) from None
        except anyio.EndOfStream:
            raise AssertionError(
                f"{path}: expected a row, got the end of the stream; yield one, or leave the path"
                " out of `channels`"
            ) from None
        except ValueError as error:  # the panel is broken
            raise AssertionError(
                f"{path}: expected rows that a panel can draw, got: {error}; yield rows with the"
                " same columns"
            ) from error
        assert row, f"{path}: expected a row with values, got none; yield a row with a column"

    async def _answer(self, path: str, work: Awaitable[T]) -> T:
        try:
            return await self._within(path, work)
        except QueryFailed as error:
            raise AssertionError(
                f"{path}: expected an answer of the query, got status {error.status}: {error};"
                " correct the `history` hook, or raise a PluginError for what users should see"
            ) from error

    async def _within(self, what: str, work: Awaitable[T]) -> T:
        with anyio.move_on_after(2 * self.timeout):
            return await work
        raise AssertionError(
            f"{what}: expected an answer within {2 * self.timeout:g} s, got none; put a timeout"
            " around what the method waits for, or raise `timeout`"
        )

    def _query(self, path: str) -> dict[str, Any]:
        try:
            return self._class()._ds_plan.query_of(path)
        except NotFound as error:
            raise AssertionError(f"`channels`: {error}; correct the path") from None


def _status(grafana: Grafana, path: str) -> str:
    """What viewers see of a channel without rows."""
    for channel in _open_channels(grafana):
        if channel.key.path == path.removeprefix("x/") and channel.status is not None:
            return f"; its status is {channel.status.text!r}"
    errors = ", ".join(
        f"{n} of kind {kind}" for kind, n in grafana.plugin.counters.stream_errors.items()
    )
    return f"; errors in the log: {errors}" if errors else ""


def _open_channels(grafana: Grafana) -> Sequence[Channel]:
    registry = getattr(grafana.plugin, "registry", None)  # not of a plugin that reloads
    return () if registry is None else registry.channels


def _not_closed(grafana: Grafana, seconds: float) -> str:
    left = [each for each in _open_channels(grafana) if each.task is not None]
    where = "".join(f"\n{each.key.path}:\n{stack_of(each.task)}" for each in left if each.task)
    what = "streams" if left else "the lifespan"
    return (
        f"expected the end of {what} within {seconds:g} s, got none; do not swallow CancelledError,"
        f" and put a timeout around what `finally` waits for{where}"
    )


def _sentence(problem: Problem) -> str:
    return f"{problem.text}; {problem.cure}"


def _reveal(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"expected a JSON value, got {value!r}")
