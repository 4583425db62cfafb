"""Instances: one object per configured data source, replaced when its settings change.

    opening ──▶ open ──▶ retired ──▶ closed        retired: replaced by newer settings, or idle
       └─ failed (every waiting call raises the error; the next call opens it again)

One task per instance enters and leaves the author's `lifespan`, which may therefore hold a task
group. A call with newer settings opens a new instance. Streams of the old one then end with an
error that makes Grafana restart them on the new one, and the old one closes after CLOSE_GRACE.
Older settings are never used again, even if the newer ones cannot be opened.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio.abc import TaskGroup

from aiostream_ds._author_code import describe, isolate
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames.cursor import short_hash
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.conversion import plugin_context
from aiostream_ds._grafana.unknown_settings import log_unknown_settings
from aiostream_ds._loggers import get_logger
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds._streams.supervisor import BugDelays
from aiostream_ds._telemetry import Counters, use_counters
from aiostream_ds.datasource import DataSource, create_instance
from aiostream_ds.errors import ConfigError, PluginError, UpstreamError, copy_error, unwrap
from aiostream_ds.models import PluginContext
from aiostream_ds.settings import Secret, decode_settings

if TYPE_CHECKING:
    from aiostream_ds._grafana.quota import QuotaUsage
    from aiostream_ds.access import Quota

__all__ = [
    "CLOSE_GRACE",
    "IDLE_TIMEOUT",
    "OPEN_TIMEOUT",
    "Instance",
    "InstanceFailed",
    "InstanceKey",
    "Instances",
]

log = get_logger(__name__)

CLOSE_GRACE = 5.0
"""Seconds that a replaced instance stays open for the calls that still use it."""

OPEN_TIMEOUT = 30.0
"""Seconds that a lifespan may take to open. Then the waiting calls fail; the next one retries."""

ENCODERS = 1_000
"""Paths without a running stream whose encoders an instance keeps; of more, the least recently used
are evicted."""

IDLE_TIMEOUT = 3600.0
"""Seconds without a call or a running stream after which an instance is closed."""

_OUTSIDE = ("url", "user", "database", "basic_auth_user")
"""What Grafana keeps for each data source outside of jsonData, by its name in InstanceSettings."""


class InstanceFailed(RuntimeError):
    """A call needs an instance that cannot be opened. Its cause, a bug, has been logged."""


class InstanceKey(NamedTuple):
    """Identifies a configured data source: plugin, tenant (namespace, else org ID), UID."""

    plugin_id: str
    tenant: str
    uid: str


class Instance:
    """An open data source and the state that its streams share."""

    __slots__ = (
        "_encoders",
        "_encoders_limit",
        "_error",
        "_hidden",
        "_quota_usage",
        "_ready",
        "_retired",
        "_scope",
        "_upstream_settings",
        "closed",
        "delays",
        "generation",
        "key",
        "registry",
        "source",
        "updated_ms",
        "used_at",
    )

    def __init__(
        self, key: InstanceKey, updated_ms: int, generation: int, registry: ChannelRegistry
    ) -> None:
        self.key = key
        self.generation = generation
        self.updated_ms = updated_ms
        self.delays = BugDelays()
        self.source: DataSource[Any]
        self._upstream_settings: tuple[bytes, str, str, str]
        self.registry = registry
        self._quota_usage: QuotaUsage | None = None  # few have a quota
        self._encoders: OrderedDict[str, RowEncoder] = OrderedDict()
        self._encoders_limit = ENCODERS
        self.closed = False
        self.used_at = 0.0
        self._ready = anyio.Event()
        self._retired = anyio.Event()
        self._error: BaseException | None = None
        self._hidden: list[Secret] = []
        self._scope = anyio.CancelScope()

    @property
    def settings_digest(self) -> str:
        """A digest of the settings that select the upstream system: equal on every server."""
        return _settings_digest(*self._upstream_settings)

    @property
    def is_restricted(self) -> bool:
        """Whether some users may not read some streams: then nobody gets the list of all paths."""
        streams = self.source._plan.streams.values()
        return bool(self.source.allow) or any(
            stream.options.allow or stream.principal or stream.subscribe for stream in streams
        )

    def encoder(self, stream: StreamPlan, path: str, counters: Counters) -> RowEncoder:
        """The encoder of a path's rows. Its history and its runs share one, so all have the same
        columns."""
        encoder = self._encoders.get(path)
        if encoder is None:
            options = stream.options
            common = () if options.cursor is None else (options.cursor,)
            make: Callable[..., RowEncoder] = RowEncoder
            if options.status_column is not None:
                # imported when needed: few streams have a status column
                from aiostream_ds._encoding.status_column import StatusEncoder

                make = partial(StatusEncoder, options.status_column)
            encoder = make(stream.row, options.schema, counters, common=common)
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
        self._encoders_limit = len(self._encoders) + ENCODERS // 2

    def quota_usage(self, quota: "Quota") -> "QuotaUsage":
        """The subscriptions that count against this quota."""
        if self._quota_usage is None:
            from aiostream_ds._grafana.quota import QuotaUsage

            self._quota_usage = QuotaUsage(quota, self.registry, self.key)
        return self._quota_usage

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
            self._scope.cancel()


class Instances:
    """All instances of this process. Their lifespans run in `tasks`.

    Not thread-safe: call it from the event loop's thread.
    """

    def __init__(
        self,
        catalog: Catalog,
        registry: ChannelRegistry,
        tasks: TaskGroup,
        *,
        close_grace: float = CLOSE_GRACE,
        counters: Counters | None = None,
    ) -> None:
        self._catalog = catalog
        self._counters = counters or Counters()
        self._registry = registry
        self._tasks = tasks
        self._close_grace = close_grace
        self._current: dict[InstanceKey, Instance] = {}
        self._generation = 0
        self._unclosed: set[Instance] = set()
        self._closing = anyio.Event()
        self._empty = anyio.Event()

    async def get(self, context: pb.PluginContext | None) -> Instance:
        """The instance for a call, opened if it is the first or has newer settings.

        Safe to cancel: the instance goes on opening.

        Raises:
            ConfigError: the settings are invalid, or the call has no data source.
            UpstreamError: the plugin is stopping, or the lifespan did not open in time.
            PluginError: what the author's lifespan raised.
        """
        settings = context.data_source_instance_settings if context is not None else None
        if context is None or settings is None:
            raise ConfigError("expected a call for a data source, got one without its settings")
        if self._closing.is_set():
            raise UpstreamError("the plugin is stopping")
        tenant = context.namespace or str(context.org_id)
        key = InstanceKey(context.plugin_id, tenant, settings.uid or str(settings.id))
        instance = self._current.get(key)
        updated = settings.last_updated_ms
        if (
            instance is None
            or instance.updated_ms < updated
            or (instance.closed and instance.updated_ms == updated)
        ):
            instance = self._current[key] = self._new(key, updated)
            self._unclosed.add(instance)
            self._tasks.start_soon(self._run, instance, context, settings)
        instance.used_at = anyio.current_time()
        await instance._ready.wait()
        if instance._error is not None:
            raise _opening_error(instance._error)
        if context.grafana_config and context.grafana_config != instance.source.grafana_config:
            instance.source.grafana_config = context.grafana_config
        return instance

    def _new(self, key: InstanceKey, updated_ms: int) -> Instance:
        self._generation += 1
        return Instance(key, updated_ms, self._generation, self._registry)

    async def aclose(self) -> None:
        """End every lifespan and wait for them."""
        self._closing.set()
        for instance in tuple(self._unclosed):
            instance._retire()
        if self._unclosed:
            await self._empty.wait()

    def close_idle(self, now: float) -> None:
        """Retire instances that were not used for IDLE_TIMEOUT: Grafana does not report
        deletions."""
        for key, instance in tuple(self._current.items()):
            if not self._registry.is_busy(key) and now - instance.used_at > IDLE_TIMEOUT:
                del self._current[key]
                self._registry.close_instance(key)
                instance._retire()

    async def _run(
        self,
        instance: Instance,
        context: pb.PluginContext,
        settings: pb.DataSourceInstanceSettings,
    ) -> None:
        use_counters(self._counters)
        try:
            instance.hide(settings.decrypted_secure_json_data.values())
            with isolate(), instance._scope as scope:
                scope.deadline = anyio.current_time() + OPEN_TIMEOUT
                source = self._make(plugin_context(context), settings)
                async with source.lifespan():
                    scope.deadline = inf
                    instance.source = source
                    instance._upstream_settings = _upstream_settings(settings)
                    instance._ready.set()
                    self._replace_older(instance)
                    await instance._retired.wait()
                    with anyio.move_on_after(self._close_grace):
                        await self._closing.wait()
            if not instance._retired.is_set():
                raise RuntimeError("the lifespan ended by itself")
            if not instance._ready.is_set():
                raise UpstreamError("the settings were replaced before the data source was open")
        except Exception as error:
            self._fail(instance, error)
        finally:
            instance.closed = True
            instance._ready.set()
            self._unclosed.discard(instance)
            if self._closing.is_set() and not self._unclosed:
                self._empty.set()

    def _make(
        self, context: PluginContext, settings: pb.DataSourceInstanceSettings
    ) -> DataSource[Any]:
        if context.instance is None:
            raise ConfigError("expected a call for a data source, got one without its settings")
        kind = self._catalog.pick(settings.json_data)
        decoded = decode_settings(
            kind._plan.settings,
            settings.json_data,
            settings.decrypted_secure_json_data,
            outside=[name for name in _OUTSIDE if getattr(context.instance, name)],
        )
        log_unknown_settings(kind._plan.settings, settings, self._catalog.by)
        return create_instance(kind, decoded, context.instance, context.grafana_config)

    def _replace_older(self, newer: Instance) -> None:
        self._registry.supersede(newer.key, newer.generation)
        for instance in tuple(self._unclosed):
            if instance.key == newer.key and instance.generation < newer.generation:
                instance._retire()

    def _fail(self, instance: Instance, failure: Exception) -> None:
        error = unwrap(failure)
        where = {"datasource": instance.key.uid}
        if instance._ready.is_set():
            # the lifespan failed while the instance was in use: the next call opens it again
            log.error("the data source's lifespan failed", exc_info=failure, extra=where)
            self._registry.supersede(instance.key, instance.generation + 1)
            return
        if instance._scope.cancelled_caught and not instance._retired.is_set():
            error = UpstreamError(f"the data source did not open within {OPEN_TIMEOUT:g} s")
        if not isinstance(error, PluginError):
            log.error("the data source cannot be opened", exc_info=failure, extra=where)
        # the traceback refers to this instance: a reference cycle
        instance._error = error.with_traceback(None)
        self._replace_older(instance)


def _upstream_settings(settings: pb.DataSourceInstanceSettings) -> tuple[bytes, str, str, str]:
    return settings.json_data, settings.url, settings.user, settings.database


@lru_cache(maxsize=1024)
def _settings_digest(json_data: bytes, *others: str) -> str:
    return short_hash(json_data + "\0".join(others).encode())


def _opening_error(error: BaseException) -> BaseException:
    """Why the instance cannot be used: a new exception for each waiting call."""
    fresh: BaseException
    if isinstance(error, PluginError):
        fresh = copy_error(error)
    else:
        fresh = InstanceFailed(f"the data source cannot be opened: {describe(error)}")
    fresh.__cause__ = error
    return fresh
