"""Instances: one object per configured data source, replaced when its settings change.

    opening ──▶ open ──▶ retired ──▶ closed        retired: replaced by newer settings, or idle
       └─ failed (every waiting call raises the error; the next call opens it again, when the
          lifespan has ended)

One task per instance enters and leaves the author's `lifespan`, which may therefore hold a task
group. A call with newer settings opens a new instance. Streams of the old one then end with an
error that makes Grafana restart them on the new one, and the old one closes after CLOSE_GRACE.
Older settings are never used again, even if the newer ones cannot be opened.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import anyio

from aiostream_ds._author_code import contained, describe
from aiostream_ds._author_threads import threads_of
from aiostream_ds._background_tasks import BackgroundTasks
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._cluster.channel_names import ChannelIdentity
from aiostream_ds._declared_errors import declaring, table_of
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.conversion import plugin_context
from aiostream_ds._grafana.instance_identity import (
    InstanceKey,
    channel_identity,
    content_of,
    is_same_source,
    key_of,
    settings_digest,
    stored_key,
    upstream_settings,
)
from aiostream_ds._grafana.lifespan_task import LifespanTask
from aiostream_ds._grafana.unknown_settings import log_unknown_settings
from aiostream_ds._loggers import get_logger
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds._streams.bug_delays import BugDelays
from aiostream_ds._telemetry import Counters, use_counters
from aiostream_ds.datasource import (
    DataSource,
    RowIterator,
    close_instance,
    create_instance,
    open_lifespan,
)
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError, copy_error, unwrap
from aiostream_ds.models import PluginContext
from aiostream_ds.settings import Secret, decode_settings

if TYPE_CHECKING:
    from aiostream_ds._encoding.row_encoder import RowEncoder
    from aiostream_ds._grafana.quota import QuotaUsage
    from aiostream_ds.access import Quota

__all__ = [
    "CLOSE_GRACE",
    "IDLE_TIMEOUT",
    "OPEN_TIMEOUT",
    "Instance",
    "InstanceFailed",
    "Instances",
]

log = get_logger(__name__)

_NO_CALL = None, None

CLOSE_GRACE = 5.0
"""Seconds that a replaced instance stays open for the calls that still use it."""

OPEN_TIMEOUT = 30.0
"""Seconds that a lifespan may take to open. Then the waiting calls fail; the next one retries."""

ENCODERS = 1_000
"""Paths without a running stream whose encoders an instance keeps; of more, the least recently used
are evicted."""

CLOSE_TIMEOUT = 30.0
"""Seconds that a lifespan may take to close. Then it is reported and cancelled."""

IDLE_TIMEOUT = 3600.0
"""Seconds without a call or a running stream after which an instance is closed."""

_OUTSIDE = ("url", "user", "database", "basic_auth_user")
"""What Grafana keeps for each data source outside of jsonData, by its name in InstanceSettings."""


class InstanceFailed(RuntimeError):
    """A call needs an instance that cannot be opened. Its cause, a bug, has been logged."""


class Instance:
    """An open data source and the state that its streams share."""

    __slots__ = (
        "_encoders",
        "_encoders_limit",
        "_error",
        "_hidden",
        "_content",
        "_quota_usage",
        "_ready",
        "_retired",
        "_task",
        "_upstream_settings",
        "closed",
        "cluster",
        "delays",
        "generation",
        "identity",
        "kept",
        "key",
        "is_not_shared_reported",
        "sharing_problem",
        "registry",
        "source",
        "updated_ms",
        "used_at",
        "uses",
    )

    def __init__(
        self, key: InstanceKey, updated_ms: int, generation: int, registry: ChannelRegistry
    ) -> None:
        self.key = key
        self.generation = generation
        self.updated_ms = updated_ms
        self.delays = BugDelays()
        self.kept: Any = None  # a KeptStreams, whose module imports this one
        self.cluster: Any = None  # a SharedStreams, whose module imports this one
        self.identity: ChannelIdentity
        self.sharing_problem = ""  # why there is no cluster
        self.is_not_shared_reported = False
        self.source: DataSource[Any]
        self._upstream_settings: tuple[bytes, str, str, str]
        self.registry = registry
        self._quota_usage: QuotaUsage | None = None  # few have a quota
        self._encoders: OrderedDict[str, RowEncoder] = OrderedDict()
        self._encoders_limit = ENCODERS
        self.closed = False
        self.used_at = 0.0
        self.uses = 0
        self._content: tuple[Any, ...] | None = None
        self._task: LifespanTask
        self._ready = asyncio.Event()
        self._retired = asyncio.Event()
        self._error: BaseException | None = None
        self._hidden: list[Secret] = []

    @property
    def settings_digest(self) -> str:
        """A digest of the settings that select the upstream system: equal on every server."""
        return settings_digest(*self._upstream_settings)

    @property
    def is_restricted(self) -> bool:
        """Whether some users may not read some streams: then nobody gets the list of all paths."""
        streams = self.source._ds_plan.streams.values()
        return bool(self.source.allow) or any(
            stream.options.allow or stream.principal or stream.subscribe for stream in streams
        )

    def encoder(self, stream: StreamPlan, path: str, counters: Counters) -> "RowEncoder":
        """The encoder of a path's rows. Its history and its runs share one, so all have the same
        columns."""
        encoder = self._encoders.get(path)
        if encoder is None:
            options = stream.options
            common = () if stream.cursor is None else stream.cursor.columns
            make: Callable[..., RowEncoder] = _row_encoder()
            if options.status_column is not None:
                # imported when needed: few streams have a status column
                from aiostream_ds._encoding.status_column import StatusEncoder

                make = partial(StatusEncoder, options.status_column)
            schema = self.source._schema_policy(stream.name, options.schema)
            encoder = make(stream.row, schema, counters, common=common)
            self._encoders[path] = encoder
            if len(self._encoders) > self._encoders_limit:
                self._evict_encoders()
        else:
            self._encoders.move_to_end(path)
        return encoder

    def _evict_encoders(self) -> None:
        """Keep the encoders of running streams: another one may find other columns, and the rows of
        exact panels would get another epoch. Of the others keep half as many as before."""
        running = self.registry.peek
        idle = [each for each in self._encoders if running(ChannelKey(self.key, each)) is None]
        for path in idle[: len(idle) - ENCODERS // 2]:
            del self._encoders[path]
        kept = len(self._encoders)
        self._encoders_limit = kept + max(kept, ENCODERS) // 2

    def quota_usage(self, quota: "Quota") -> "QuotaUsage":
        """The subscriptions that count against this quota."""
        if self._quota_usage is None:
            from aiostream_ds._grafana.quota import QuotaUsage

            self._quota_usage = QuotaUsage(quota, self.registry, self.key)
        self._quota_usage.limit(quota)
        return self._quota_usage

    @property
    def is_retired(self) -> bool:
        """Whether the settings have changed, or the plugin stops: it closes soon."""
        return self._retired.is_set()

    async def wait_until_retired(self) -> None:
        """Wait until the settings have changed, or the plugin stops."""
        await self._retired.wait()

    @property
    def is_open(self) -> bool:
        """Whether the lifespan has been entered, without an error."""
        return self._ready.is_set() and self._error is None

    async def wait_until_open(self) -> None:
        """Wait until the lifespan has been entered. Raises why it cannot be."""
        if not self._ready.is_set():  # a wait yields to the event loop in any case
            await self._ready.wait()
        if self._error is not None:
            raise _opening_error(self._error)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A context manager of a call that may last: the instance is not idle meanwhile."""
        self.uses += 1
        try:
            yield
        finally:
            self.uses -= 1
            self.used_at = asyncio.get_running_loop().time()

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace these values in logs and messages as long as the instance exists.

        The class may not declare them all, its objects may be gone when an error is answered, and
        the error of a failed instance is answered until another one replaces it.
        """
        self._hidden = [Secret(value) for value in secrets]

    def _retire(self) -> None:
        """Let an open instance close after the grace; cancel one that is still opening."""
        self._retired.set()
        if not self._ready.is_set():
            self._give_up(UpstreamError("the data source was replaced before it was open"))

    def _give_up(self, error: Exception) -> None:
        """Fail the calls that wait for the lifespan, and cancel it."""
        self._error = error
        self.closed = True
        self._ready.set()
        self._task.cancel()


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
        if instance is None or self._is_newer(instance, settings):
            instance = self._open(key, instance, context, settings)
        instance.used_at = asyncio.get_running_loop().time()
        await instance.wait_until_open()
        if context.grafana_config:
            instance.source.grafana_config = context.grafana_config
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
            if instance is None or not instance.is_open or self._is_newer(instance, settings):
                return None
            self._recent = context, instance
        config, used = context.grafana_config, instance.source.grafana_config
        if config is not used and config and config != used:  # of one context it is the same object
            return None
        instance.used_at = self._registry.loop.time()
        return instance

    def _is_newer(self, instance: Instance, settings: pb.DataSourceInstanceSettings) -> bool:
        """Whether a call with these settings needs another instance than its data source has."""
        updated = settings.last_updated_ms
        if instance.updated_ms != updated:
            return instance.updated_ms < updated
        if instance._content is not None and instance._content != content_of(settings):
            return True  # saved twice within the resolution of Grafana's database
        return instance.closed and instance._task.task.done()

    def _open(
        self,
        key: InstanceKey,
        previous: Instance | None,
        context: pb.PluginContext,
        settings: pb.DataSourceInstanceSettings,
    ) -> Instance:
        self._generation += 1
        instance = Instance(key, settings.last_updated_ms, self._generation, self._registry)
        instance._content = content_of(settings)
        if previous is not None and previous._quota_usage is not None:
            instance._quota_usage = previous._quota_usage
            instance._quota_usage.keep()  # its viewers do not subscribe again
        if previous is not None and is_same_source(previous._content, instance._content):
            # the same columns and numbers: exact panels go on where they are
            instance._encoders = previous._encoders
            self._registry.keep_logs(key, previous.generation, instance.generation)
        self._current[key] = instance
        self._recent = _NO_CALL
        self._unclosed.add(instance)
        work = self._run(instance, context, settings)
        instance._task = LifespanTask(work, key.uid, self._counters)
        instance._task.call_after(OPEN_TIMEOUT, partial(self._open_expired, instance))
        # a callback: a task that is cancelled before its first step never runs a `finally`
        instance._task.task.add_done_callback(lambda _: self._ended(instance))
        return instance

    def _open_expired(self, instance: Instance) -> None:
        text = f"the data source did not open within {OPEN_TIMEOUT:g} s"
        instance._task.report(text)
        instance._give_up(UpstreamError(text))
        self._replace_older(instance)

    def sources(self) -> list[DataSource[Any]]:
        """The objects of all instances that are open, retired ones too."""
        return [each.source for each in self._unclosed if hasattr(each, "source")]

    async def aclose(self) -> None:
        """End every lifespan and wait for them."""
        self._closing.set()
        for instance in tuple(self._unclosed):
            instance._retire()
        if self._unclosed:
            await self._empty.wait()

    def cancel(self) -> None:
        """Cancel the lifespans that `aclose` has not ended in time."""
        for instance in tuple(self._unclosed):
            instance._task.cancel()
            instance._task.unlimited()

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
                instance._retire()

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
            if not instance._retired.is_set() and not instance.closed:
                raise RuntimeError("the lifespan ended by itself")
        except BaseException as error:
            failure = contained(error, requested=instance._task.cancelled)
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
        task = instance._task
        task.unlimited()
        instance.source = source
        instance._upstream_settings = upstream_settings(settings)
        instance.identity = channel_identity(instance.key, version, settings)
        instance.cluster, instance.sharing_problem = self.cluster, self.sharing_problem
        instance._ready.set()
        self._replace_older(instance)
        if self.keep is not None and _keeps_streams(source):
            instance.kept = self.keep(instance)
            source.tasks.start_soon(instance.kept.run, name="keep_running")
        source.tasks.open()

        def expired() -> None:
            task.report(f"the data source's lifespan did not close within {CLOSE_TIMEOUT:g} s")
            task.cancel()

        try:
            await instance._retired.wait()
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
        instance._ready.set()
        instance._content = None
        self._recent = _NO_CALL
        self._forget_unused(instance.key)
        if self._closing.is_set() and not self._unclosed:
            self._empty.set()

    def _forget_unused(self, key: InstanceKey) -> None:
        """Drop the decoded contexts of a data source whose settings are not the current ones."""
        if self._closing.is_set():
            return  # all go, and a search for each of a thousand data sources would take seconds
        current = self._current.get(key)
        used = None if current is None else current._content

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
                instance._retire()
        self._forget_unused(newer.key)

    def _fail(self, instance: Instance, failure: Exception) -> None:
        error = unwrap(failure)
        where = {"datasource": instance.key.uid}
        if instance._ready.is_set():
            # the lifespan failed while the instance was in use: the next call opens it again
            log.error("the data source's lifespan failed", exc_info=failure, extra=where)
            self._registry.supersede(instance.key, instance.generation + 1)
            return
        if not isinstance(error, PluginError):
            log.error("the data source cannot be opened", exc_info=failure, extra=where)
        # the traceback refers to this instance: a reference cycle
        instance._error = error.with_traceback(None)
        self._replace_older(instance)


@cache
def _row_encoder() -> "type[RowEncoder]":
    """The class, imported when needed and once: a health check has no rows, many paths have one."""
    from aiostream_ds._encoding.row_encoder import RowEncoder

    return RowEncoder


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


def _opening_error(error: BaseException) -> BaseException:
    """Why the instance cannot be used: a new exception for each waiting call."""
    if isinstance(error, PluginError):
        return copy_error(error)
    failed = InstanceFailed(f"the data source cannot be opened: {describe(error)}")
    failed.__cause__ = error
    return failed
