"""`DataSource`: the class an author subclasses. Grafana's unit is one configured data source; each
gets one object of the class, with its own settings and life."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin

from aiostream_ds._routing.compiler import compile_plan
from aiostream_ds._routing.plan import Plan
from aiostream_ds.models import Health, InstanceSettings
from aiostream_ds.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    from aiostream_ds.access import Allow, Quota

    S = DefaultTypeVar("S", bound=Settings, default=Settings)
else:
    S = TypeVar("S", bound=Settings)

__all__ = ["DataSource"]


class DataSource(Generic[S]):
    """One configured data source.

    Subclass it, mark methods with `@stream`, `@query` and `@resource`, and hand the class to
    `serve`. `DataSource[Broker]` says that its settings are a `Broker`; without brackets it has
    none. Missing methods are missing capabilities, nothing has to be implemented. Mistakes in the
    class (a path argument the method does not take, two patterns for one path) are a TypeError when
    the class is created.
    """

    _plan: ClassVar[Plan]
    settings: S
    instance: InstanceSettings
    grafana_config: Mapping[str, str] = MappingProxyType({})
    """What Grafana says of itself (`GF_APP_URL`, feature toggles), as the newest call had it; set
    before `lifespan` is entered. A change of it alone ends no stream."""

    allow: "Sequence[Allow]" = ()
    """Rules of who may use this data source at all, beside those of each stream; none: everybody.
    Set it on the class, or on `self` where the settings say it."""
    quota: "Quota | None" = None
    """How much of this data source may be followed at a time; on the class or on `self`, too."""

    def __init__(self, settings: S, instance: InstanceSettings) -> None:
        self.settings = settings
        self.instance = instance

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._plan = compile_plan(cls, _settings_type(cls))
        _check_access(cls)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """What lives as long as the data source: connections, caches, a task group.

        Entered before the first call of this instance, left when its settings change, when nobody
        has used it for an hour, or when the process ends; both in one task, so a task group around
        the `yield` is fine. Raise ConfigError or
        UpstreamError when it cannot work: each call then fails with that message, and the next
        one tries again.
        """
        yield

    async def health(self) -> Health:
        """The answer to Save & test. Raise a PluginError, or return `Health(ok=False, …)`."""
        return Health()


def _check_access(cls: "type[DataSource[Any]]") -> None:
    """Raises TypeError for rules or a quota that are none."""
    if not cls.allow and cls.quota is None:
        return
    from aiostream_ds.access import Quota, check_rules  # few plugins have them

    where = f"{cls.__module__}.{cls.__qualname__}"
    try:
        check_rules(cls.allow)
    except TypeError as error:
        raise TypeError(f"{where}.allow: {error}") from None
    if not isinstance(cls.quota, Quota | None):
        raise TypeError(f"{where}.quota is {cls.quota!r}; allowed is a Quota")


def _settings_type(cls: type) -> type[Settings]:
    """The argument of `DataSource[...]`, through bases and through generic bases."""
    found: type[Settings] = Settings
    for kind in _arguments(cls, {}):
        if isinstance(kind, TypeVar):
            kind = kind.__bound__ or Settings
        if not (isinstance(kind, type) and issubclass(kind, Settings)):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}.settings: DataSource[...] takes a Settings "
                f"class, not {kind!r}"
            )
        if issubclass(kind, found):
            found = kind
        elif not issubclass(found, kind):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}.settings: its bases have both "
                f"{found.__name__} and {kind.__name__}, and neither is a subclass of the other"
            )
    return found


def _arguments(cls: type, given: Mapping[Any, Any]) -> Iterator[Any]:
    """What each base says: several bases may be data sources."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        arguments = tuple(given.get(a, a) for a in get_args(base))
        if origin is DataSource:
            yield arguments[0] if arguments else Settings
        elif isinstance(origin, type) and issubclass(origin, DataSource):
            names = getattr(cast("Any", origin), "__parameters__", ())
            yield from _arguments(origin, dict(zip(names, arguments, strict=False)))
