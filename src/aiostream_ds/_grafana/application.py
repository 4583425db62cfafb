"""One plugin: its registry, instances, counters and services.

The process that Grafana starts, the development command and the test harness open the same
application.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import anyio

from aiostream_ds._author_code import keep_running
from aiostream_ds._author_threads import in_event_loop
from aiostream_ds._channels.channel import Runner
from aiostream_ds._channels.log import LogFactory
from aiostream_ds._channels.memory_pool import MemoryPool
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.channel_counts import CountingObserver
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.instances import Instances
from aiostream_ds._grafana.runtime_tasks import runtime_tasks
from aiostream_ds._grafana.thread_watch import THREADS_CHECK, ThreadWatch
from aiostream_ds._grpc.message_cache import CachingMessageDecoder
from aiostream_ds._grpc.methods import Method, Services
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._telemetry import Counters
from aiostream_ds.datasource import RowIterator

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from aiostream_ds._cluster.cluster_access import ClusterAccess
    from aiostream_ds._grafana.followed_rows import Following
    from aiostream_ds._grafana.kept_streams import KeptStreams
    from aiostream_ds._grafana.shared_streams import SharedStreams

__all__ = ["DRAIN", "IDLE_SWEEP", "Application", "background_tasks", "open_application"]

DRAIN = 5.0
"""Seconds that running streams and lifespans have to end when the plugin stops."""

NO_CLUSTER = "cluster_url is not set in the section [plugin.<id>] of grafana.ini"
"""Why streams are not shared without a cluster."""

IDLE_SWEEP = 600.0
"""Seconds between two checks for idle instances."""


class Application:
    """A running plugin."""

    def __init__(self, registry: ChannelRegistry, instances: Instances, counters: Counters) -> None:
        self.registry = registry
        self.instances = instances
        self.counters = counters
        self.shared: SharedStreams | None = None
        self._ended_in_time: bool | None = None
        self._contexts = CachingMessageDecoder(pb.PluginContext)
        instances.forget_contexts = self._contexts.forget
        instances.follow = self._follow
        instances.keep = self._keep

    @cached_property
    def _following(self) -> "Following":
        from aiostream_ds._grafana.followed_rows import Following  # few streams follow another one

        return Following(self.registry, self.counters)

    def _follow(self, instance: Instance, path: str) -> RowIterator:
        """The rows of a stream, for another one of the same data source."""
        from aiostream_ds._grafana.followed_rows import FollowedRows

        return in_event_loop("self.follow()", lambda: FollowedRows(self._following, instance, path))

    def _keep(self, instance: Instance) -> "KeptStreams":
        """The streams of an instance that go on without viewers."""
        from aiostream_ds._grafana.kept_streams import KeptStreams  # few plugins have some

        return KeptStreams(instance, partial(self._following.join, None))

    def services(self) -> Services:
        """Grafana's services by name; the code of each is imported at its first call."""
        decoders: dict[type, Any] = {pb.PluginContext: self._contexts}
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
        """End all streams (their `finally` runs), then all lifespans.

        Returns whether all ended within `drain` seconds. Re-entrant: a later call returns the
        first result at once.
        """
        if self._ended_in_time is None:
            self._ended_in_time = await self._close(drain)
        return self._ended_in_time

    async def _close(self, drain: float) -> bool:
        with anyio.CancelScope(shield=True), anyio.move_on_after(drain):
            stuck = await self.registry.aclose(drain / 2)
            if self.shared is not None:
                await self.shared.aclose(drain / 4)
            await self.instances.aclose()
            return not stuck
        self.instances.cancel()
        return False


@asynccontextmanager
async def background_tasks() -> "AsyncGenerator[TaskGroup]":
    """A task group that is cancelled when the block ends.

    An exception of the block itself is raised as it is, not wrapped in an exception group.
    """
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
        del raised  # breaks the cycle error → traceback → this frame → error


@asynccontextmanager
async def open_application(
    catalog: Catalog,
    *,
    make_log: LogFactory | None = None,
    wrap_runner: Callable[[ChannelKey, Runner], Runner] | None = None,
    memory: MemoryPool | None = None,
    cluster: "ClusterAccess | str | None" = None,
) -> AsyncGenerator[Application]:
    """Open a plugin; close it when the block ends.

    `make_log`, `wrap_runner` and `memory` are those of `ChannelRegistry`: where rows are kept,
    where streams run, and what the queues may hold. `cluster` is the one with which streams are
    shared that have the option `share="cluster"`; a text: why there is none.
    """
    counters = Counters()
    registry = ChannelRegistry(
        observer=CountingObserver(counters),
        make_log=make_log,
        wrap_runner=wrap_runner,
        memory=memory,
    )
    async with runtime_tasks() as tasks, AsyncExitStack() as stack:
        instances = Instances(catalog, registry, counters=counters)
        application = Application(registry, instances, counters)
        if cluster is None or isinstance(cluster, str):
            instances.sharing_problem = cluster or NO_CLUSTER
        else:
            group = await stack.enter_async_context(background_tasks())
            instances.cluster = application.shared = _join_cluster(cluster, group, counters)
        tasks.start(keep_running(partial(_sweep, instances)))
        tasks.start(keep_running(partial(_watch_threads, instances)))
        try:
            yield application
        finally:
            await application.close()


def _join_cluster(
    cluster: "ClusterAccess", tasks: "TaskGroup", counters: Counters
) -> "SharedStreams":
    from aiostream_ds._cluster.node import ClusterNode  # few plugins are in a cluster
    from aiostream_ds._grafana.shared_streams import SharedStreams

    node = ClusterNode(cluster.engine, cluster.node, cluster.options)
    shared = SharedStreams(node, tasks, counters, cluster.cipher)
    tasks.start_soon(shared.take_part)
    return shared


async def _sweep(instances: Instances) -> None:
    while True:
        await asyncio.sleep(IDLE_SWEEP)
        instances.close_idle(asyncio.get_running_loop().time())


async def _watch_threads(instances: Instances) -> None:
    watch = ThreadWatch()
    while True:
        await asyncio.sleep(THREADS_CHECK)
        watch.check(instances.sources())
