"""Who follows which channels of an instance, as far as it is known, against its quota.

Grafana tells when a viewer subscribes, and not when they leave; it tells when a channel's last one
has left. So a user counts for a channel from their subscription until it ends.
"""

from collections.abc import Callable, Hashable
from math import exp

from aiostream_ds._channels.registry import ChannelKey, ChannelRegistry
from aiostream_ds._grafana.channel_counts import CountingObserver
from aiostream_ds._telemetry import Counters
from aiostream_ds.access import Quota
from aiostream_ds.errors import QuotaExceeded
from aiostream_ds.models import User

__all__ = ["GRANTED", "RATE_SECONDS", "Ledger"]

GRANTED = 10.0
"""Seconds that a channel counts after a subscription although it does not run yet."""

RATE_SECONDS = 5.0
"""Seconds over which the bytes of an instance are averaged."""


class Ledger:
    """The viewers of one instance's channels."""

    __slots__ = ("_instance", "_meter", "_quota", "_registry", "_since", "_viewers")

    def __init__(self, quota: Quota, registry: ChannelRegistry, instance: Hashable) -> None:
        self._quota = quota
        self._registry = registry
        self._instance = instance
        self._viewers: dict[str, set[str]] = {}
        self._since: dict[str, float] = {}
        self._meter = Meter(registry.loop.time) if quota.bytes_per_second else None
        if self._meter is not None and isinstance(registry.observer, CountingObserver):
            registry.observer = _Metering.of(registry.observer)
            registry.observer.meters[instance] = self._meter

    def grant(self, path: str, user: User | None) -> None:
        """A user may follow a path."""
        self._viewers.setdefault(path, set()).add(_login(user))
        self._since[path] = self._registry.loop.time()

    def refusal(self, path: str, user: User | None) -> QuotaExceeded | None:
        """Why the user may not follow the path, too; None: they may."""
        self._forget_ended()
        quota, viewers, login = self._quota, self._viewers, _login(user)
        if login in viewers.get(path, ()):
            return None
        is_new = path not in viewers
        if is_new and _is_over(quota.channels, len(viewers)):
            return _exceeded(quota.channels, "channels of this data source")
        mine = sum(login in logins for logins in viewers.values())
        if _is_over(quota.user_channels, mine):
            return _exceeded(quota.user_channels, f"channels of {login or 'background work'}")
        pairs = sum(map(len, viewers.values()))
        if _is_over(quota.subscriptions, pairs):
            return _exceeded(quota.subscriptions, "subscriptions of this data source")
        if is_new and self._meter is not None and quota.bytes_per_second is not None:
            rate = self._meter.rate()
            if rate >= quota.bytes_per_second:
                most = quota.bytes_per_second
                return QuotaExceeded(
                    f"the data source sends {rate:,.0f} bytes in a second; new channels are"
                    f" started below {most:,}"
                )
        return None

    def _forget_ended(self) -> None:
        now = self._registry.loop.time()
        for path in tuple(self._viewers):
            key = ChannelKey(self._instance, path)
            if self._registry.peek(key) is None and now - self._since[path] >= GRANTED:
                del self._viewers[path], self._since[path]


class Meter:
    """The bytes of a second, averaged: what came longer ago counts less."""

    __slots__ = ("_at", "_clock", "_sum")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._sum = 0.0

    def add(self, size: int) -> None:
        """So many bytes were emitted."""
        self._fade()
        self._sum += size

    def rate(self) -> float:
        """Bytes a second now."""
        self._fade()
        return self._sum / RATE_SECONDS

    def _fade(self) -> None:
        now = self._clock()
        if now > self._at:
            self._sum *= exp((self._at - now) / RATE_SECONDS)
            self._at = now


class _Metering(CountingObserver):
    """Counts, and measures the instances that have a quota of bytes. Others do not pay for it."""

    def __init__(self, counters: Counters) -> None:
        super().__init__(counters)
        self.meters: dict[Hashable, Meter] = {}

    @classmethod
    def of(cls, observer: CountingObserver) -> "_Metering":
        return observer if isinstance(observer, cls) else cls(observer._counters)

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """As in any plugin, and into the instance's meter."""
        super().on_emit(key, packets, rows, size)
        meter = self.meters.get(key.instance)
        if meter is not None:
            meter.add(size)


def _login(user: User | None) -> str:
    return "" if user is None else user.login


def _is_over(most: int | None, count: int) -> bool:
    return most is not None and count >= most


def _exceeded(most: int | None, what: str) -> QuotaExceeded:
    return QuotaExceeded(f"{most} {what} are followed, and no more may be")
