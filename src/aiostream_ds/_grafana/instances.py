"""All instances: one object per configured data source, replaced when its settings change.

    opening ──▶ open ──▶ retired ──▶ closed        retired: replaced by newer settings, or idle
       └─ failed (every waiting call raises the error; the next call opens it again, when the
          lifespan has ended)

One task per instance enters and leaves the author's `lifespan`, which may therefore hold a task
group. A call with newer settings opens a new instance. Streams of the old one then end with an
error that makes Grafana restart them on the new one, and the old one closes after CLOSE_GRACE.
Older settings are never used again, even if the newer ones cannot be opened.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

import anyio

from aiostream_ds._author_code import contained
from aiostream_ds._author_threads import threads_of
from aiostream_ds._background_tasks import BackgroundTasks
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._declared_errors import declaring, table_of
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.conversion import plugin_context
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.instance_identity import (
    InstanceKey,
    channel_identity,
    content_of,
    key_of,
    stored_key,
    upstream_settings,
)
from aiostream_ds._grafana.lifespan_task import LifespanTask
from aiostream_ds._grafana.unknown_settings import log_unknown_settings
from aiostream_ds._loggers import get_logger
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._telemetry import Counters, use_counters
from aiostream_ds.datasource import (
    DataSource,
    RowIterator,
    close_instance,
    create_instance,
    open_lifespan,
)
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError, unwrap
from aiostream_ds.models import PluginContext
from aiostream_ds.settings import decode_settings

__all__ = ["CLOSE_GRACE", "IDLE_TIMEOUT", "OPEN_TIMEOUT", "Instances"]

log = get_logger(__name__)

_NO_CALL = None, None

CLOSE_GRACE = 5.0
"""Seconds that a replaced instance stays open for the calls that still use it."""

OPEN_TIMEOUT = 30.0
"""Seconds that a lifespan may take to open. Then the waiting calls fail; the next one retries."""

CLOSE_TIMEOUT = 30.0
"""Seconds that a lifespan may take to close. Then it is reported and cancelled."""

IDLE_TIMEOUT = 3600.0
"""Seconds without a call or a running stream after which an instance is closed."""

_OUTSIDE = ("url", "user", "database", "basic_auth_user")
"""What Grafana keeps for each data source outside of jsonData, by its name in InstanceSettings."""


class Instances:
    """All instances of this process.

    Not thread-safe: call it from the event loop's thread.

    Attributes:
        forget_contexts: called with a predicate of decoded contexts whose settings are not in use
            any more: they have secrets.
        follow: opens the rows of a stream, for `DataSource.follow`.
        keep: makes the `KeptStreams` of an instance.
        cluster: the `SharedStreams` of this process, if it is in a cluster.
        sharing_problem: why it is in none.
    """

    forget_contexts: Callable[[Callable[[pb.PluginContext], bool]], None] = staticmethod(
        lambda unused: None
    )
    follow: Callable[[Instance, str], RowIterator] | None = None
    keep: Callable[[Instance], Any] | None = None
    cluster: Any = None
    sharing_problem = ""

    def __init__(
        self,
        catalog: Catalog,
        registry: ChannelRegistry,
        *,
        close_grace: float = CLOSE_GRACE,
        counters: Counters | None = None,
    ) -> None:
        self._catalog = catalog
        self._counters = counters or Counters()
        self._registry = registry
        self._close_grace = close_grace
        self._current: dict[InstanceKey, Instance] = {}
        # of the last call: many calls of one user follow each other, and share their context
        self._recent: tuple[pb.PluginContext | None, Instance | None] = _NO_CALL
        self._states: dict[InstanceKey, tuple[type, dict[str, Any]]] = {}
        self._generation = 0
        self._unclosed: set[Instance] = set()
        self._closing = asyncio.Event()
        self._empty = asyncio.Event()

    async def get(self, context: pb.PluginContext | None) -> Instance:
        """The instance for a call, opened if it is the first or has newer settings.

        Safe to cancel: the instance goes on opening.

        Raises:
            ConfigError: the settings are invalid, or the call has no data source.
            UpstreamError: the plugin is stopping, or the lifespan did not open in time.
            PluginError: what the author's lifespan raised.
        """
        if (found := self.find_open(context)) is not None:
            return found
        settings = context.data_source_instance_settings if context is not None else None
        if context is None or settings is None:
            raise ConfigError("expected a call for a data source, got one without its settings")
        if self._closing.is_set():
            raise UpstreamError("the plugin is stopping")
        key = key_of(context, settings)
        instance = self._current.get(key)
        if instance is None or instance.is_outdated(settings):
            instance = self._open(key, instance, context, settings)
        instance.used_at = asyncio.get_running_loop().time()
        await instance.wait_until_open()
        instance.take_config(context.grafana_config)
        return instance

    def find_open(self, context: pb.PluginContext | None) -> Instance | None:
        """What `get` returns if it need neither wait nor open; None in any other case. It can be
        called outside of a task."""
        if context is None or self._closing.is_set():
            return None
        recent, instance = self._recent
        if context is not recent or instance is None or not instance.is_open:
            settings = context.data_source_instance_settings
            if settings is None:
                return None
            instance = self._current.get(key_of(context, settings))
            if instance is None or not instance.is_open or instance.is_outdated(settings):
                return None
            self._recent = context, instance
        if context.grafana_config is not instance.config:  # contexts share one
            instance.take_config(context.grafana_config)
        instance.used_at = self._registry.loop.time()
        return instance

    def _open(
        self,
        key: InstanceKey,
        previous: Instance | None,
        context: pb.PluginContext,
        settings: pb.DataSourceInstanceSettings,
    ) -> Instance:
        self._generation += 1
        instance = Instance(key, settings, self._generation, self._registry)
        instance.config = context.grafana_config
        if previous is not None and instance.take_over(previous):
            # exact panels go on where they are
            self._registry.keep_logs(key, previous.generation, instance.generation)
        self._current[key] = instance
        self._recent = _NO_CALL
        self._unclosed.add(instance)
        work = self._run(instance, context, settings)
        instance.task = LifespanTask(work, key.uid, self._counters)
        instance.task.call_after(OPEN_TIMEOUT, partial(self._open_expired, instance))
        # a callback: a task that is cancelled before its first step never runs a `finally`
        instance.task.task.add_done_callback(lambda _: self._ended(instance))
        return instance

    def _open_expired(self, instance: Instance) -> None:
        text = f"the data source did not open within {OPEN_TIMEOUT:g} s"
        instance.task.report(text)
        instance.give_up(UpstreamError(text))
        self._replace_older(instance)

    def sources(self) -> list[DataSource[Any]]:
        """The objects of all instances that are open, retired ones too."""
        return [each.source for each in self._unclosed if hasattr(each, "source")]

    async def aclose(self) -> None:
        """End every lifespan and wait for them."""
        self._closing.set()
        for instance in tuple(self._unclosed):
            instance.retire()
        if self._unclosed:
            await self._empty.wait()

    def cancel(self) -> None:
        """Cancel the lifespans that `aclose` has not ended in time."""
        for instance in tuple(self._unclosed):
            instance.task.cancel()
            instance.task.unlimited()

    def close_idle(self, now: float) -> None:
        """Retire instances that were not used for IDLE_TIMEOUT: Grafana does not report
        deletions."""
        for key, instance in tuple(self._current.items()):
            if instance.uses or self._registry.is_busy(key):
                instance.used_at = now
            elif now - instance.used_at > IDLE_TIMEOUT:
                del self._current[key]
                self._recent = _NO_CALL
                self._states.pop(key, None)
                self._registry.close_instance(key)
                instance.retire()

    async def _run(
        self,
        instance: Instance,
        context: pb.PluginContext,
        settings: pb.DataSourceInstanceSettings,
    ) -> None:
        use_counters(self._counters)
        source: DataSource[Any] | None = None
        declare: Callable[[Exception], Exception] = _as_it_is
        try:
            instance.hide(settings.decrypted_secure_json_data.values())
            source = self._make(instance.key, plugin_context(context), settings)
            threads_of(source)  # counts in the counters of this task
            declare = table_of(type(source)).find
            source._background_tasks = BackgroundTasks(instance.key.uid, self._counters, declare)
            if self.follow is not None:
                source._follow_path = partial(self.follow, instance)
            stored = stored_key(instance.key, source.instance.org_id)
            source._tenant = stored.tenant
            if self.cluster is not None:
                source._share_store = partial(self.cluster.stores.share, stored)
            async with _row_store(source, stored), open_lifespan(source):
                if not instance.closed:  # else it was given up, and swallows its cancellation
                    await self._use(instance, source, settings, context.plugin_version)
            if not instance.is_retired and not instance.closed:
                raise RuntimeError("the lifespan ended by itself")
        except BaseException as error:
            failure = contained(error, requested=instance.task.cancelled)
            if failure is not None:
                self._fail(instance, declare(failure))
            elif isinstance(error, GeneratorExit):
                raise  # the event loop is gone
        finally:
            if source is not None:
                close_instance(source)
            self._ended(instance)

    async def _use(
        self,
        instance: Instance,
        source: DataSource[Any],
        settings: pb.DataSourceInstanceSettings,
        version: str,
    ) -> None:
        """What happens inside of a lifespan; when this returns, it is left."""
        task = instance.task
        task.unlimited()
        instance.source = source
        instance.upstream_settings = upstream_settings(settings)
        instance.identity = channel_identity(instance.key, version, settings)
        instance.cluster, instance.sharing_problem = self.cluster, self.sharing_problem
        instance.opened()
        self._replace_older(instance)
        if self.keep is not None and _keeps_streams(source):
            instance.kept = self.keep(instance)
            source.tasks.start_soon(instance.kept.run, name="keep_running")
        source.tasks.open()

        def expired() -> None:
            task.report(f"the data source's lifespan did not close within {CLOSE_TIMEOUT:g} s")
            task.cancel()

        try:
            await instance.wait_until_retired()
            with anyio.move_on_after(self._close_grace):
                await self._closing.wait()
            task.call_after(CLOSE_TIMEOUT, expired)
        finally:
            await source.tasks.aclose()

    def _ended(self, instance: Instance) -> None:
        """The lifespan has ended, or never began. A second call does nothing."""
        if instance not in self._unclosed:
            return
        self._unclosed.discard(instance)
        instance.closed = True
        instance.opened()
        instance.content = None
        self._recent = _NO_CALL
        self._forget_unused(instance.key)
        if self._closing.is_set() and not self._unclosed:
            self._empty.set()

    def _forget_unused(self, key: InstanceKey) -> None:
        """Drop the decoded contexts of a data source whose settings are not the current ones."""
        if self._closing.is_set():
            return  # all go, and a search for each of a thousand data sources would take seconds
        current = self._current.get(key)
        used = None if current is None else current.content

        def is_unused(context: pb.PluginContext) -> bool:
            settings = context.data_source_instance_settings
            return (
                settings is not None
                and key_of(context, settings) == key
                and content_of(settings) != used
            )

        self.forget_contexts(is_unused)

    def _make(
        self, key: InstanceKey, context: PluginContext, settings: pb.DataSourceInstanceSettings
    ) -> DataSource[Any]:
        if context.instance is None:
            raise ConfigError("expected a call for a data source, got one without its settings")
        kind = self._catalog.pick(settings.json_data)
        decoded = decode_settings(
            kind._ds_plan.settings,
            settings.json_data,
            settings.decrypted_secure_json_data,
            outside=[name for name in _OUTSIDE if getattr(context.instance, name)],
        )
        log_unknown_settings(kind._ds_plan.settings, settings, self._catalog.by)
        state = self._state(key, kind)
        with declaring(kind):
            return create_instance(kind, decoded, context.instance, context.grafana_config, state)

    def _state(self, key: InstanceKey, kind: type) -> dict[str, Any]:
        """`DataSource.state`: a new one if the settings have selected another class."""
        if key not in self._states or self._states[key][0] is not kind:
            self._states[key] = kind, {}
        return self._states[key][1]

    def _replace_older(self, newer: Instance) -> None:
        self._registry.supersede(newer.key, newer.generation)
        for instance in tuple(self._unclosed):
            if instance.key == newer.key and instance.generation < newer.generation:
                instance.retire()
        self._forget_unused(newer.key)

    def _fail(self, instance: Instance, failure: Exception) -> None:
        error = unwrap(failure)
        where = {"datasource": instance.key.uid}
        if instance.has_opened:
            # the lifespan failed while the instance was in use: the next call opens it again
            log.error("the data source's lifespan failed", exc_info=failure, extra=where)
            self._registry.supersede(instance.key, instance.generation + 1)
            return
        if not isinstance(error, PluginError):
            log.error("the data source cannot be opened", exc_info=failure, extra=where)
        # the traceback refers to this instance: a reference cycle
        instance.failed(error.with_traceback(None))
        self._replace_older(instance)


def _keeps_streams(source: DataSource[Any]) -> bool:
    return any(stream.options.keep_running for stream in source._ds_plan.streams.values())


def _row_store(source: DataSource[Any], key: InstanceKey) -> AbstractAsyncContextManager[None]:
    """Opens the store of recorded streams, if there are some."""
    if all(stream.options.store is None for stream in source._ds_plan.streams.values()):
        return nullcontext()
    from aiostream_ds._grafana.instance_store import open_row_store  # few plugins have one

    return open_row_store(source, key)


def _as_it_is(error: Exception) -> Exception:
    return error
