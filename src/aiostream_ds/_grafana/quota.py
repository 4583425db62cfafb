"""Counts the subscriptions of an instance against its quota.

Grafana reports when a viewer subscribes but not when a viewer leaves, only when the last one has
left the channel. So a user counts for a channel from their subscription until the channel ends.
"""

from collections.abc import Callable, Hashable
from math import exp

from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana.channel_counts import CountingObserver
from aiostream_ds._telemetry import Counters
from aiostream_ds.access import Quota
from aiostream_ds.errors import QuotaExceeded
from aiostream_ds.models import User

__all__ = ["RATE_SECONDS", "START_GRACE", "QuotaUsage"]

START_GRACE = 10.0
"""Seconds after a subscription in which its channel counts even if it does not run yet."""

RATE_SECONDS = 5.0
"""Seconds over which the bytes of an instance are averaged."""


class QuotaUsage:
    """The users of each channel of one instance."""

    __slots__ = ("_instance", "_logins", "_meter", "_quota", "_registry", "_subscribed_at")

    def __init__(self, quota: Quota, registry: ChannelRegistry, instance: Hashable) -> None:
        self._quota = quota
        self._registry = registry
        self._instance = instance
        self._logins: dict[str, set[str]] = {}
        self._subscribed_at: dict[str, float] = {}
        self._meter = self._measure() if quota.bytes_per_second else None

    def _measure(self) -> "RateMeter":
        registry, meter = self._registry, RateMeter(self._registry.loop.time)
        if isinstance(registry.observer, CountingObserver):
            registry.observer = _MeteringObserver.of(registry.observer)
            registry.observer.meters[self._instance] = meter
        return meter

    def limit(self, quota: Quota) -> None:
        """Change the limits: they may depend on the settings."""
        self._quota = quota
        if self._meter is None and quota.bytes_per_second:
            self._meter = self._measure()

    def keep(self) -> None:
        """Count all for START_GRACE more: the settings have changed, and the streams restart."""
        self._subscribed_at = dict.fromkeys(self._logins, self._registry.loop.time())

    def add(self, path: str, user: User | None) -> None:
        """Count a user for a path."""
        self._logins.setdefault(path, set()).add(_login(user))
        self._subscribed_at[path] = self._registry.loop.time()

    def error(self, path: str, user: User | None) -> QuotaExceeded | None:
        """The error if the user would exceed the quota with this path, else None."""
        self._forget_ended()
        quota, channels, login = self._quota, self._logins, _login(user)
        if login in channels.get(path, ()):
            return None
        is_new = path not in channels
        if is_new and _is_over(quota.channels, len(channels)):
            return _exceeded(quota.channels, "channels of this data source")
        own = sum(login in logins for logins in channels.values())
        if _is_over(quota.user_channels, own):
            return _exceeded(quota.user_channels, f"channels of {login or 'background work'}")
        pairs = sum(map(len, channels.values()))
        if _is_over(quota.subscriptions, pairs):
            return _exceeded(quota.subscriptions, "subscriptions of this data source")
        if is_new and self._meter is not None and quota.bytes_per_second is not None:
            rate = self._meter.rate()
            if rate >= quota.bytes_per_second:
                return QuotaExceeded(
                    f"quota exceeded: the data source sends {rate:,.0f} bytes per second, new"
                    f" channels start below {quota.bytes_per_second:,}"
                )
        return None

    def _forget_ended(self) -> None:
        now = self._registry.loop.time()
        for path in tuple(self._logins):
            key = ChannelKey(self._instance, path)
            if self._registry.peek(key) is None and now - self._subscribed_at[path] >= START_GRACE:
                del self._logins[path], self._subscribed_at[path]


class RateMeter:
    """Bytes per second as an exponential moving average over RATE_SECONDS."""

    __slots__ = ("_clock", "_sum", "_updated_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._updated_at = clock()
        self._sum = 0.0

    def add(self, size: int) -> None:
        """Count emitted bytes."""
        self._decay()
        self._sum += size

    def rate(self) -> float:
        """The current rate in bytes per second."""
        self._decay()
        return self._sum / RATE_SECONDS

    def _decay(self) -> None:
        now = self._clock()
        if now > self._updated_at:
            self._sum *= exp((self._updated_at - now) / RATE_SECONDS)
            self._updated_at = now


class _MeteringObserver(CountingObserver):
    """Also measures the bytes of instances that have a quota for them.

    It replaces the observer when the first such instance opens: others do not pay for it.
    """

    def __init__(self, counters: Counters) -> None:
        super().__init__(counters)
        self.meters: dict[Hashable, RateMeter] = {}

    @classmethod
    def of(cls, observer: CountingObserver) -> "_MeteringObserver":
        return observer if isinstance(observer, cls) else cls(observer._counters)

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """Count packets, and their bytes in the instance's meter."""
        super().on_emit(key, packets, rows, size)
        meter = self.meters.get(key.instance)
        if meter is not None:
            meter.add(size)


def _login(user: User | None) -> str:
    return "" if user is None else user.login


def _is_over(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit


def _exceeded(limit: int | None, what: str) -> QuotaExceeded:
    return QuotaExceeded(f"quota exceeded: at most {limit} {what} at a time")
