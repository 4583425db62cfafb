"""`DataSource`, the class that an author subclasses.

Each data source that is configured in Grafana gets one object of it, with its own settings.
"""

import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import cached_property
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    get_args,
    get_origin,
    overload,
)

import anyio

from aiostream_ds._annotations import signature
from aiostream_ds._author_threads import threads_of
from aiostream_ds._background_tasks import BackgroundTasks
from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._declared_errors import NO_ERRORS, DeclaredErrors, check_instance, table_of
from aiostream_ds._routing.compiler import compile_plan
from aiostream_ds._routing.plan import Plan
from aiostream_ds._thread_limits import STREAM_THREADS, new_limiter
from aiostream_ds.decorators import Stream
from aiostream_ds.models import Health, InstanceSettings
from aiostream_ds.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import TypeVar as DefaultTypeVar

    from aiostream_ds.access import Allow, Quota
    from aiostream_ds.stores import SqliteStore, Store

    S = DefaultTypeVar("S", bound=Settings, default=Settings)
else:
    S = TypeVar("S", bound=Settings)

__all__ = ["DataSource", "RowIterator", "close_instance", "create_instance", "open_lifespan"]

P = ParamSpec("P")
SelfT = TypeVar("SelfT")


def _overridden_by_any(
    method: Callable[[SelfT], Any],
) -> Callable[[SelfT], Any]:
    """For type checkers: an override may be a `def` or an `async def`."""
    return method


_NO_CONFIG: Mapping[str, str] = MappingProxyType({})


class RowIterator(Protocol):
    """Rows for `async for`; in a stream that is a `def`, for `for`."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> dict[str, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> dict[str, Any]: ...
    async def aclose(self) -> None:
        """Leave the stream."""


class DataSource(Generic[S]):
    """One configured data source.

    Subclass it, decorate methods with `@stream`, `@query` and `@resource`, and pass the class to
    `serve`. In `DataSource[Broker]` the settings are a `Broker`; without brackets there are none.
    A method that is missing is a capability that is missing: none is required.

    A subclass may define `__init__(self)`. It takes no arguments and need not call
    `super().__init__()`: `settings`, `instance` and `grafana_config` are set before it runs. Open
    connections in `lifespan`, not there.

    Not thread-safe: an `async def` is called in the event loop's thread. A method that is a `def`,
    and may block, is called in a worker thread, at the same time as others.

    Raises:
        TypeError: when the class is created, for a mistake in it: a path field that the method
            does not take, two patterns that match one path, an `__init__` with arguments.
    """

    _ds_plan: ClassVar[Plan]
    _background_tasks: BackgroundTasks | None = None
    _kept_state: dict[str, Any]
    _follow_path: Callable[[str], RowIterator] | None = None  # set by the runtime
    _tenant: str = ""  # the organization, or a namespace of several, in names of files
    _row_store: "Store | None" = None
    _share_store: "Callable[[SqliteStore], AbstractAsyncContextManager[Store]] | None" = None
    settings: S
    """The settings of this data source. They never change: new settings make a new instance."""
    instance: InstanceSettings
    """The data source as Grafana describes it: its uid, name and URL."""
    grafana_config: Mapping[str, str] = _NO_CONFIG
    """Grafana's configuration (`GF_APP_URL`, feature toggles), as of the latest call. A change of
    it alone ends no stream."""

    allow: "Sequence[Allow]" = ()
    """Rules for who may use this data source, in addition to the rules of each stream; no rules
    allow everybody. Set it on the class, or on `self` if it depends on the settings."""
    quota: "Quota | None" = None
    """Limits of what may be followed at a time. Set it on the class or on `self`."""
    store_directory: "str | Path | None" = None
    """Where the rows of streams with a `store` are kept; each data source has a file of its own
    there. None or "": in memory, which does not outlive the process. Set it on the class, or on
    `self` in `__init__` if it depends on the settings."""
    declared_errors: ClassVar[DeclaredErrors] = NO_ERRORS
    """Which exceptions of a client library are which errors, wherever a method raises one:

        declared_errors = {AuthenticationError: ConfigError, (RedisError, OSError): UpstreamError}

    The entry of the most specific class applies. Instead of a PluginError class it may be a
    function, which gets the exception and returns a PluginError class, a PluginError, or None if a
    less specific entry applies. The message is "<name of the class>: <text of the exception>", and
    no traceback is logged. A subclass that sets it replaces it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_init(cls)
        _check_names(cls)
        cls._ds_plan = compile_plan(cls, _settings_type(cls))
        _check_access(cls)
        table_of(cls)

    @cached_property
    def threads(self) -> "anyio.CapacityLimiter":
        """The limit of the threads of this data source, for calls that block:
        `await anyio.to_thread.run_sync(read, limiter=self.threads)`. At most 40 run at a time, and
        further ones wait, so that calls that hang affect no other data source. For another limit,
        set `self.threads.total_tokens` in `lifespan`.
        """
        return new_limiter()

    @cached_property
    def stream_threads(self) -> "anyio.CapacityLimiter":
        """The limit of the streams of this data source that are a `def`: each has a thread of its
        own as long as it runs. At most 100 run at a time; further ones wait, which viewers see as
        the stream's status. For another limit, set `self.stream_threads.total_tokens` in
        `lifespan`.
        """
        return anyio.CapacityLimiter(STREAM_THREADS)

    @overload
    def follow(self, stream: str, /) -> RowIterator: ...
    @overload
    def follow(
        self, stream: Stream[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> RowIterator: ...
    def follow(self, stream: Stream[..., Any] | str, /, *args: Any, **kwargs: Any) -> RowIterator:
        """The rows of another stream of this data source, for a stream that is derived from it:

            async for tick in self.follow(Prices.ticks, symbol="ABC"): ...

        and, without `async`, in a stream that is a `def`.

        It follows the stream's channel as a viewer does: all viewers and followers share one run,
        which ends when the last of them has left. The rows are dicts of the columns that viewers
        get, with times as aware datetimes. They begin with those that are yielded from now on; a
        follower that is too slow loses rows as the stream's `buffer` states.

        The viewers of the derived stream see the status of the followed one. No rule or hook is
        asked: a data source may read all of its streams, so who may follow the derived stream reads
        the rows of the followed one.

        It ends when the method of the stream returns, when the instance closes, and with the run
        that follows. Safe to cancel:
        a timeout around `anext` loses no row.

        Args:
            stream: a path, as "ticks/ABC", or a stream of the class with the arguments of its path.

        Raises:
            RuntimeError: the stream would follow itself, directly or through others; or there is no
                plugin that runs the streams, as in a test with `create_instance`; or it is called
                in a thread that is not that of a stream.
            UpstreamError: from the iterator; the stream failed.
            NotFound: from the iterator; no stream has this path.
            BadQuery: a value that no path can contain, or the path of an exact channel.
            TypeError: an argument is missing, or the stream does not take it.
        """
        if not isinstance(stream, str | Stream):
            raise TypeError(f"expected a path, or a stream of the class, got {stream!r}")
        if isinstance(stream, str) and (args or kwargs):
            raise TypeError(f"a path takes no arguments, got {args or kwargs!r}")
        if self._follow_path is None:
            raise RuntimeError(
                f"{type(self).__qualname__}.follow() needs a plugin that runs the streams; in a"
                " test use serve_in_memory"
            )
        return self._follow_path(
            stream if isinstance(stream, str) else stream.path(*args, **kwargs)
        )

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        """The policy of a stream's columns. The built-in sources add the labels of the settings."""
        return declared

    def _is_shared(self, declared: str) -> bool:
        """Whether a stream with this option `share` runs once for a cluster. The built-in sources
        have a setting for it."""
        return declared == "cluster"

    @property
    def state(self) -> dict[str, Any]:
        """What outlives a change of the settings, by names of your own: the same dict for all
        instances of this data source, from the first `__init__` until it was not used for an hour,
        or the process ends. It is never that of another data source or organization. The former
        instance may still use it for some seconds; threads need a lock for more than one step.

        Raises:
            AttributeError: it is assigned: the dict is kept, and only its keys can be set.
        """
        return self._kept_state

    @property
    def row_store(self) -> "Store":
        """The store of the streams of this data source that have one, from `lifespan` on: to list
        the recorded channels, to read or delete them. A channel's name is its path.

        Raises:
            RuntimeError: no stream has a store; in `__init__`; and in a test without a plugin that
                runs.
        """
        if self._row_store is None:
            raise RuntimeError(
                f"{type(self).__qualname__}.row_store exists from `lifespan` on if a stream has the"
                " option store; in a test use serve_in_memory"
            )
        return self._row_store

    @property
    def tasks(self) -> BackgroundTasks:
        """Background tasks of this instance: `self.tasks.start_soon(self.poll)`, in `lifespan`, a
        stream or any other method. They run from the end of the opening to the closing; a task
        that fails is logged, shown by Save & test, and run again after a delay. Thread-safe.

        Raises:
            RuntimeError: in `__init__`, and in a test without a plugin that runs.
        """
        if self._background_tasks is None:
            raise RuntimeError(
                f"{type(self).__qualname__}.tasks exists from `lifespan` on, not in __init__; in a"
                " test use serve_in_memory"
            )
        return self._background_tasks

    if not TYPE_CHECKING:  # type checkers report an assignment to a property without a setter

        @state.setter
        def state(self, value: Any) -> None:
            raise AttributeError(
                f"{type(self).__qualname__}.state is a dict that the runtime keeps, and cannot be"
                ' replaced; set its keys: self.state["name"] = …, self.state.setdefault("name", …)'
            )

        @tasks.setter
        def tasks(self, value: Any) -> None:
            raise AttributeError(
                f"{type(self).__qualname__}.tasks is set by the runtime, and cannot be replaced;"
                " use another name"
            )

    @_overridden_by_any
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """The resources of this instance: connections, caches, a task group.

        Entered before the first call of this instance; exited when its settings change, when it
        was not used for an hour, or when the process ends. Both happen in one task, so a task group
        around the `yield` works. An override may also return the context manager of a client:
        `self.topics = Topics(self.settings); return self.topics`. Entering is cancelled after 30
        seconds. An override that is a
        `def` with `@contextmanager` is entered and left in worker threads, which may differ.

        Raises:
            ConfigError, UpstreamError: the instance cannot work. Each waiting call fails with the
                message; the next call enters it again.
        """
        yield

    @_overridden_by_any
    async def health(self) -> Health:
        """The answer to Save & test. Raise a PluginError, or return `Health(ok=False, …)`.

        Called when an admin clicks Save & test, and for Grafana's own health checks. Re-entrant:
        calls may run at the same time. `lifespan` has been entered: what it cannot open fails
        before. An override that is a `def` runs in a worker thread.

        Without an override, it calls `Upstream.check` of every `Upstream` that is an attribute of
        `self`, or in a list or dict that is one.
        """
        return await _check_upstreams(self)


async def _check_upstreams(source: DataSource[Any]) -> Health:
    """Try the connections of a data source without a `health` of its own."""
    module = sys.modules.get("aiostream_ds.upstream")  # few plugins have one, and have imported it
    if module is None:
        return Health()
    found = _attributes(source, module.Upstream)
    async with anyio.create_task_group() as tasks:
        for upstream in found:
            tasks.start_soon(upstream.check)
    return Health(message="connected") if found else Health()


def close_instance(source: DataSource[Any]) -> None:
    """The lifespan has ended: close what threads and callbacks may still publish to, except for
    what is in `state`, which the next instance uses."""
    source._follow_path = None
    threads_of(source).close()
    module = sys.modules.get("aiostream_ds.broadcast")  # few plugins have one
    if module is not None:
        kept = set(map(id, source.state.values()))
        for broadcast in _attributes(source, module.Broadcast):
            if id(broadcast) not in kept:
                broadcast.close()


T = TypeVar("T")


def _attributes(source: DataSource[Any], kind: type[T]) -> list[T]:
    """The objects of a class that are attributes of `source`, or in a list or dict that is one."""
    values: list[Any] = []
    for value in tuple(vars(source).values()):  # threads may add attributes meanwhile
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            values += value
        else:
            values.append(value)
    return list({id(each): each for each in values if isinstance(each, kind)}.values())


D = TypeVar("D", bound=DataSource[Any])


def create_instance(
    kind: type[D],
    settings: Settings,
    instance: InstanceSettings | None = None,
    grafana_config: Mapping[str, str] = _NO_CONFIG,
    state: dict[str, Any] | None = None,
) -> D:
    """An instance of a data source class, created as the runtime creates it.

    Sets the attributes that every data source has, then calls `__init__()`. Does not enter
    `lifespan`.
    """
    source = kind.__new__(kind)
    source.settings = settings
    source.instance = instance or InstanceSettings()
    source.grafana_config = grafana_config
    source._kept_state = {} if state is None else state
    cast("Any", source).__init__()
    check_instance(source)
    return source


def open_lifespan(source: DataSource[Any]) -> AbstractAsyncContextManager[Any]:
    """The lifespan of a data source; one that is made of `with` is entered and left in threads.

    Raises:
        TypeError: it is not a context manager.
    """
    manager: Any = source.lifespan()
    if isinstance(manager, AbstractAsyncContextManager):
        return manager
    if isinstance(manager, AbstractContextManager):
        return threads_of(source).enter(manager)
    raise TypeError(
        f"{_name(type(source))}.lifespan must be a context manager, got {manager!r}; decorate it"
        " with @asynccontextmanager, or a `def` with @contextmanager"
    )


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _check_init(cls: type) -> None:
    """Raises TypeError for an `__init__` that cannot be called without arguments."""
    init: Any = cls.__init__  # type: ignore[misc]
    if init is object.__init__:
        return
    taken = list(signature(init).parameters.values())[1:]
    required = [
        each.name
        for each in taken
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if required:
        raise TypeError(
            f"{_name(cls)}.__init__: expected no arguments after self, got {', '.join(required)}; "
            "use self.settings and self.instance, which are set before __init__ runs"
        )


def _check_names(cls: type) -> None:
    """Raises TypeError for a member with the name of an attribute that the runtime sets."""
    for name in ("state", "tasks"):
        if name in vars(cls):
            raise TypeError(
                f"{_name(cls)}.{name} is an attribute of every data source, got"
                f" {vars(cls)[name]!r}; use another name"
            )


def _check_access(cls: type[DataSource[Any]]) -> None:
    """Raises TypeError for `allow` or `quota` of another type."""
    if not cls.allow and cls.quota is None:
        return
    from aiostream_ds.access import Quota, check_rules  # few plugins have them

    try:
        check_rules(cls.allow)
    except TypeError as error:
        raise TypeError(f"{_name(cls)}.allow: {error}") from None
    if not isinstance(cls.quota, Quota | None):
        raise TypeError(f"{_name(cls)}.quota must be a Quota or None, got {cls.quota!r}")


def _settings_type(cls: type) -> type[Settings]:
    """The argument of `DataSource[...]`, through bases and through generic bases."""
    found: type[Settings] = Settings
    for kind in _arguments(cls, {}):
        if isinstance(kind, TypeVar):
            kind = kind.__bound__ or Settings
        if not (isinstance(kind, type) and issubclass(kind, Settings)):
            raise TypeError(
                f"{_name(cls)}.settings: expected a Settings class in DataSource[...], got {kind!r}"
            )
        if issubclass(kind, found):
            found = kind
        elif not issubclass(found, kind):
            raise TypeError(
                f"{_name(cls)}.settings: expected one Settings class, got {found.__name__} and "
                f"{kind.__name__} from two bases; make one a subclass of the other"
            )
    return found


def _arguments(cls: type, given: Mapping[Any, Any]) -> Iterator[Any]:
    """The settings argument of each base: several bases may be data sources."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        arguments = tuple(given.get(a, a) for a in get_args(base))
        if origin is DataSource:
            yield arguments[0] if arguments else Settings
        elif isinstance(origin, type) and issubclass(origin, DataSource):
            names = getattr(cast("Any", origin), "__parameters__", ())
            yield from _arguments(origin, dict(zip(names, arguments, strict=False)))
