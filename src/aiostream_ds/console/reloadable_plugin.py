"""A plugin whose code can be replaced while Grafana stays connected.

    serving ──replace_code──▶ closing the old ──▶ opening the new ──▶ serving

Calls that arrive during a replacement wait. RunStream calls stay open: each runs again on the new
code, so subscribers just get more rows. A stream with a cursor resumes after its last row.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup

from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._frames.packet import CursorRange
from aiostream_ds._grafana.application import DRAIN, Application, background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grpc.call import Call, GRPCError
from aiostream_ds._grpc.methods import Method, MethodTable, Services
from aiostream_ds._telemetry import Counters

__all__ = ["CLOSE_TIMEOUT", "RESUME_SECONDS", "ReloadablePlugin", "open_reloadable_plugin"]

CLOSE_TIMEOUT = 2.0
"""Seconds that the old code's streams and lifespans have to end before the new code starts."""

RESUME_SECONDS = 30.0
"""Seconds after a replacement in which a stream resumes at the old code's cursor."""

_RUN_STREAM = "/pluginv2.Stream/RunStream"


class ReloadablePlugin:
    """Grafana's services over the current code. Made by `open_reloadable_plugin`.

    `generation` grows with each replacement. `on_open` is called with each new application, before
    its first call.
    """

    def __init__(self, tasks: TaskGroup, on_open: Callable[[Application], None]) -> None:
        self.generation = 0
        self.application: Application
        self.catalog: Catalog
        self._tasks = tasks
        self._on_open = on_open
        self._table = MethodTable({})
        self._ready = anyio.Event()
        self._current: _ApplicationTask | None = None
        self._replacing = anyio.Lock()

    @property
    def counters(self) -> Counters:
        """The counters of the current code."""
        return self.application.counters

    def services(self) -> Services:
        """Grafana's services for a server. They stay valid when the code is replaced."""

        def forwarding(
            make: Callable[[], Mapping[str, Method]],
        ) -> Callable[[], Mapping[str, Method]]:
            return lambda: {
                path: method._replace(
                    func=self._run_stream if path == _RUN_STREAM else self._forward(path),
                    begin=None,
                )
                for path, method in make().items()
            }

        return {name: forwarding(make) for name, make in self.application.services().items()}

    async def replace_code(self, catalog: Catalog) -> None:
        """Replace the code. The old streams end first: two never use one upstream at once."""
        async with self._replacing:
            await self._replace_code(catalog)

    async def _replace_code(self, catalog: Catalog) -> None:
        resume_points: dict[ChannelKey, CursorRange] = {}
        old = self._current
        if old is not None:
            self._ready = anyio.Event()
            self.generation += 1  # first, so that `_run_stream` sees why its calls end
            old.stop.set()
            with anyio.move_on_after(CLOSE_TIMEOUT):
                await old.closed.wait()
            # read after the close, which sends the last rows
            resume_points = {c.key: c.cursors for c in old.channels if c.cursors is not None}
        self._current = current = _ApplicationTask()
        await self._tasks.start(current.run, catalog)
        self.application, self.catalog = current.application, catalog
        self.application.registry.resume_points = resume_points
        self._table = MethodTable(self.application.services())
        self._on_open(self.application)
        self._ready.set()
        if resume_points:
            self._tasks.start_soon(_expire, resume_points)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call `function` in the event loop's thread. Thread-safe. Ignored after the loop ended."""
        with suppress(RuntimeError):
            self.application.registry.loop.call_soon_threadsafe(function)

    async def close(self, drain: float = DRAIN) -> bool:
        """End the streams and lifespans of the current code. Return whether all ended in time."""
        return await self.application.close(drain)

    def _method(self, path: str) -> Method:
        method = self._table.find(path)
        assert method is not None  # all applications have the same methods
        return method

    def _forward(self, path: str) -> Callable[[Any, Call], Awaitable[Any]]:
        async def forward(request: Any, call: Call) -> Any:
            await self._ready.wait()
            return await self._method(path).func(request, call)

        return forward

    async def _run_stream(self, request: Any, call: Call) -> None:
        """RunStream: after an end that a replacement caused, run again on the new code."""
        while True:
            await self._ready.wait()
            generation = self.generation
            try:
                return await call.attend(await self._method(_RUN_STREAM).func(request, call))
            except GRPCError:
                if generation == self.generation:
                    raise


class _ApplicationTask:
    """One application, entered and left in the same task."""

    def __init__(self) -> None:
        self.application: Application
        self.channels: tuple[Channel, ...] = ()  # those that were open when it was stopped
        self.stop = anyio.Event()
        self.closed = anyio.Event()

    async def run(self, catalog: Catalog, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            async with open_application(catalog) as self.application:
                task_status.started()
                await self.stop.wait()
                self.channels = self.application.registry.channels
                await self.application.close(CLOSE_TIMEOUT)
        finally:
            self.closed.set()


async def _expire(resume_points: dict[ChannelKey, CursorRange]) -> None:
    await anyio.sleep(RESUME_SECONDS)
    resume_points.clear()


@asynccontextmanager
async def open_reloadable_plugin(
    catalog: Catalog, on_open: Callable[[Application], None] = lambda _: None
) -> AsyncGenerator[ReloadablePlugin]:
    """Open a plugin with this code. On leaving, the current code is closed."""
    async with background_tasks() as tasks:
        plugin = ReloadablePlugin(tasks, on_open)
        await plugin.replace_code(catalog)
        try:
            yield plugin
        finally:
            current = plugin._current
            if current is not None:
                current.stop.set()
                with anyio.CancelScope(shield=True):
                    await current.closed.wait()
