"""A plugin whose code can be exchanged while Grafana stays connected.

    serving ──swap──▶ closing the old ──▶ opening the new ──▶ serving

Calls that come while it changes wait. A RunStream of the old plugin is run again on the new one,
within the same call: who follows it sees rows go on. A stream whose rows can be read again goes on
behind its last row.
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

__all__ = ["FORMER_KEPT", "SWAP_PATIENCE", "Front", "open_front"]

SWAP_PATIENCE = 2.0
"""Seconds that the old code's streams and lifespans get to end before the new code starts."""

FORMER_KEPT = 30.0
"""Seconds in which a stream of the new code goes on where the old code's stood."""

_RUN = "/pluginv2.Stream/RunStream"


class Front:
    """One plugin for Grafana, whichever code is behind it. Made by `open_front`.

    `generation` grows with each swap; `on_open` is told of each plugin before it is called.
    """

    def __init__(self, tasks: TaskGroup, on_open: Callable[[Application], None]) -> None:
        self.generation = 0
        self.application: Application
        self.catalog: Catalog
        self._tasks = tasks
        self._on_open = on_open
        self._table = MethodTable({})
        self._steady = anyio.Event()
        self._life: _Life | None = None
        self._swapping = anyio.Lock()

    @property
    def counters(self) -> Counters:
        """Those of the code of now."""
        return self.application.counters

    def services(self) -> Services:
        """Grafana's services for a server: they stay when the code changes."""

        def stay(make: Callable[[], Mapping[str, Method]]) -> Callable[[], Mapping[str, Method]]:
            return lambda: {
                path: method._replace(func=self._run if path == _RUN else self._pass_on(path))
                for path, method in make().items()
            }

        return {name: stay(make) for name, make in self.application.services().items()}

    async def swap(self, catalog: Catalog) -> None:
        """Exchange the code. The old code's streams end first, so that no two hold one upstream."""
        async with self._swapping:
            await self._swap(catalog)

    async def _swap(self, catalog: Catalog) -> None:
        places: dict[ChannelKey, CursorRange] = {}
        former = self._life
        if former is not None:
            self._steady = anyio.Event()
            self.generation += 1  # before anything ends: what ends now ends by this
            former.retire.set()
            with anyio.move_on_after(SWAP_PATIENCE):
                await former.closed.wait()
            # asked now: the last rows go out when a channel is told to close
            places = {c.key: c.place for c in former.channels if c.place is not None}
        self._life = life = _Life()
        await self._tasks.start(life.run, catalog)
        self.application, self.catalog = life.application, catalog
        self.application.registry.former = places
        self._table = MethodTable(self.application.services())
        self._on_open(self.application)
        self._steady.set()
        if places:
            self._tasks.start_soon(_forget, places)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call it in the loop's thread, from any thread; not at all once the loop has ended."""
        with suppress(RuntimeError):
            self.application.registry.loop.call_soon_threadsafe(function)

    async def close(self, drain: float = DRAIN) -> bool:
        """End the streams and lifespans of the code of now; whether all did in time."""
        return await self.application.close(drain)

    def _method(self, path: str) -> Method:
        method = self._table.find(path)
        assert method is not None  # the services of two plugins have the same methods
        return method

    def _pass_on(self, path: str) -> Callable[[Any, Call], Awaitable[Any]]:
        async def pass_on(request: Any, call: Call) -> Any:
            await self._steady.wait()
            return await self._method(path).func(request, call)

        return pass_on

    async def _run(self, request: Any, call: Call) -> None:
        """RunStream: an end that a swap brought about is not told, the new code goes on."""
        while True:
            await self._steady.wait()
            generation = self.generation
            try:
                await self._method(_RUN).func(request, call)
                return
            except GRPCError:
                if generation == self.generation:
                    raise


class _Life:
    """One application, entered and left in one task."""

    def __init__(self) -> None:
        self.application: Application
        self.channels: tuple[Channel, ...] = ()  # those that its end has closed
        self.retire = anyio.Event()
        self.closed = anyio.Event()

    async def run(self, catalog: Catalog, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            async with open_application(catalog) as self.application:
                task_status.started()
                await self.retire.wait()
                self.channels = self.application.registry.channels
                await self.application.close(SWAP_PATIENCE)
        finally:
            self.closed.set()


async def _forget(places: dict[ChannelKey, CursorRange]) -> None:
    await anyio.sleep(FORMER_KEPT)
    places.clear()


@asynccontextmanager
async def open_front(
    catalog: Catalog, on_open: Callable[[Application], None] = lambda _: None
) -> AsyncGenerator[Front]:
    """A front with this code behind it; on leaving, the code of then is closed."""
    async with background_tasks() as tasks:
        front = Front(tasks, on_open)
        await front.swap(catalog)
        try:
            yield front
        finally:
            life = front._life
            if life is not None:
                life.retire.set()
                with anyio.CancelScope(shield=True):
                    await life.closed.wait()
