"""An instance: the open object of a data source, until its settings change. `Instances` has them
all, and the states that one passes through.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from aiostream_ds._author_code import describe
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._cluster.channel_names import ChannelIdentity
from aiostream_ds._grafana.instance_identity import (
    InstanceKey,
    content_of,
    is_same_source,
    settings_digest,
)
from aiostream_ds._grafana.lifespan_task import LifespanTask
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds._streams.bug_delays import BugDelays
from aiostream_ds._telemetry import Counters
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import PluginError, UpstreamError, copy_error
from aiostream_ds.settings import Secret

if TYPE_CHECKING:
    from aiostream_ds._encoding.row_encoder import RowEncoder
    from aiostream_ds._grafana.quota import QuotaUsage
    from aiostream_ds.access import Quota

__all__ = ["Instance", "InstanceFailed"]

ENCODERS = 1_000
"""Paths without a running stream whose encoders an instance keeps; of more, the least recently used
are evicted."""


class InstanceFailed(RuntimeError):
    """A call needs an instance that cannot be opened. Its cause, a bug, has been logged."""


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
        "closed",
        "cluster",
        "config",
        "content",
        "delays",
        "generation",
        "identity",
        "kept",
        "key",
        "is_not_shared_reported",
        "sharing_problem",
        "registry",
        "source",
        "task",
        "updated_ms",
        "upstream_settings",
        "used_at",
        "uses",
    )

    def __init__(
        self,
        key: InstanceKey,
        settings: pb.DataSourceInstanceSettings,
        generation: int,
        registry: ChannelRegistry,
    ) -> None:
        self.key = key
        self.generation = generation
        self.updated_ms = settings.last_updated_ms
        self.content: tuple[Any, ...] | None = content_of(settings)  # None: it has ended
        self.config: dict[str, str] = {}  # of the latest call that had one
        self.delays = BugDelays()
        self.kept: Any = None  # a KeptStreams, whose module imports this one
        self.cluster: Any = None  # a SharedStreams, whose module imports this one
        self.identity: ChannelIdentity
        self.sharing_problem = ""  # why there is no cluster
        self.is_not_shared_reported = False
        self.source: DataSource[Any]
        self.upstream_settings: tuple[bytes, str, str, str]
        self.registry = registry
        self._quota_usage: QuotaUsage | None = None  # few have a quota
        self._encoders: OrderedDict[str, RowEncoder] = OrderedDict()
        self._encoders_limit = ENCODERS
        self.closed = False
        self.used_at = 0.0
        self.uses = 0
        self.task: LifespanTask
        self._ready = asyncio.Event()
        self._retired = asyncio.Event()
        self._error: BaseException | None = None
        self._hidden: list[Secret] = []

    @property
    def settings_digest(self) -> str:
        """A digest of the settings that select the upstream system: equal on every server."""
        return settings_digest(*self.upstream_settings)

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

    def is_outdated(self, settings: pb.DataSourceInstanceSettings) -> bool:
        """Whether a call with these settings needs another instance than this one."""
        updated = settings.last_updated_ms
        if self.updated_ms != updated:
            return self.updated_ms < updated
        if self.content is not None and self.content != content_of(settings):
            return True  # saved twice within the resolution of Grafana's database
        return self.closed and self.task.task.done()

    def take_config(self, config: dict[str, str]) -> None:
        """Let the author see Grafana's configuration as a call has it."""
        if not config:
            return
        if config != self.config:
            # a copy: what the author does to it must not reach other data sources and users
            self.source.grafana_config = config.copy()
        self.config = config

    def take_over(self, previous: "Instance") -> bool:
        """Keep what goes on after a change of the settings. Returns whether streams go on with the
        same columns and numbers, as nothing but the name has changed."""
        if previous._quota_usage is not None:
            self._quota_usage = previous._quota_usage
            self._quota_usage.keep()  # its viewers do not subscribe again
        if not is_same_source(previous.content, self.content):
            return False
        self._encoders = previous._encoders
        return True

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

    @property
    def has_opened(self) -> bool:
        """Whether no call waits for the lifespan any more: it was entered, or cannot be."""
        return self._ready.is_set()

    def opened(self) -> None:
        """Let the calls that wait for the lifespan go on."""
        self._ready.set()

    def failed(self, error: BaseException) -> None:
        """The lifespan cannot be entered: the calls get this error."""
        self._error = error

    def retire(self) -> None:
        """Let an open instance close after the grace; cancel one that is still opening."""
        self._retired.set()
        if not self._ready.is_set():
            self.give_up(UpstreamError("the data source was replaced before it was open"))

    def give_up(self, error: Exception) -> None:
        """Fail the calls that wait for the lifespan, and cancel it."""
        self._error = error
        self.closed = True
        self._ready.set()
        self.task.cancel()


@cache
def _row_encoder() -> "type[RowEncoder]":
    """The class, imported when needed and once: a health check has no rows, many paths have one."""
    from aiostream_ds._encoding.row_encoder import RowEncoder

    return RowEncoder


def _opening_error(error: BaseException) -> BaseException:
    """Why the instance cannot be used: a new exception for each waiting call."""
    if isinstance(error, PluginError):
        return copy_error(error)
    failed = InstanceFailed(f"the data source cannot be opened: {describe(error)}")
    failed.__cause__ = error
    return failed
