"""One plugin, put together: registry, instances, counters and the services over them.

The process that Grafana starts, the development command and the test harness all open the same.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.channel_counts import CountingObserver
from aiostream_ds._grafana.instances import Instances
from aiostream_ds._grpc.decode import caching_decoder
from aiostream_ds._grpc.methods import Method, Services
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._telemetry import Counters

__all__ = ["DRAIN", "IDLE_SWEEP", "Application", "background_tasks", "open_application"]

DRAIN = 5.0
"""Seconds that running streams and lifespans get to end when the plugin is asked to stop."""

IDLE_SWEEP = 600.0
"""Seconds between two looks for instances that nobody uses any more."""


class Application:
    """A living plugin."""

    def __init__(self, registry: ChannelRegistry, instances: Instances, counters: Counters) -> None:
        self.registry = registry
        self.instances = instances
        self.counters = counters
        self._ended: bool | None = None

    def services(self) -> Services:
        """Grafana's services for a server; the code of each is loaded when it is first called."""
        decoders: dict[type, Any] = {pb.PluginContext: caching_decoder(pb.PluginContext)}
        common = self.instances, self.registry, self.counters, decoders

        def data() -> Mapping[str, Method]:
            from aiostream_ds._grafana.services.data_service import DataService

            return DataService(*common).methods()

        def resource() -> Mapping[str, Method]:
            from aiostream_ds._grafana.services.resource_service import ResourceService

            return ResourceService(*common).methods()

        def diagnostics() -> Mapping[str, Method]:
            from aiostream_ds._grafana.services.diagnostics_service import DiagnosticsService

            return DiagnosticsService(*common).methods()

        def stream() -> Mapping[str, Method]:
            from aiostream_ds._grafana.services.stream_service import StreamService

            return StreamService(*common).methods()

        return {
            "pluginv2.Data": data,
            "pluginv2.Resource": resource,
            "pluginv2.Diagnostics": diagnostics,
            "pluginv2.Stream": stream,
        }

    async def close(self, drain: float = DRAIN) -> bool:
        """Streams end first (their `finally` runs), then the lifespans. Whether all did in time.

        A second call waits no second time.
        """
        if self._ended is None:
            self._ended = await self._close(drain)
        return self._ended

    async def _close(self, drain: float) -> bool:
        with anyio.CancelScope(shield=True), anyio.move_on_after(drain):
            stuck = await self.registry.aclose(drain / 2)
            await self.instances.aclose()
            return not stuck
        return False


@asynccontextmanager
async def background_tasks() -> AsyncGenerator[TaskGroup]:
    """Tasks that live as long as the block and are cancelled at its end. What the block raises
    comes out as it is: the caller's error is not a task's, and needs no group around it."""
    raised: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except Exception as error:
                raised = error
            tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised
    finally:
        del raised  # error → traceback → this frame → error would be a cycle


@asynccontextmanager
async def open_application(catalog: Catalog) -> AsyncGenerator[Application]:
    """Opens a plugin, and closes it on leaving."""
    counters = Counters()
    registry = ChannelRegistry(observer=CountingObserver(counters))
    async with background_tasks() as tasks:
        instances = Instances(catalog, registry, tasks, counters=counters)
        application = Application(registry, instances, counters)
        tasks.start_soon(_sweep, instances)
        try:
            yield application
        finally:
            await application.close()


async def _sweep(instances: Instances) -> None:
    while True:
        await anyio.sleep(IDLE_SWEEP)
        instances.close_idle(anyio.current_time())
