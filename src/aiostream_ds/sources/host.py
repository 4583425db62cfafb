"""The source `host`: this machine's processor, memory, network and disks, by psutil.

Sampled while the data source lives, whether or not anybody looks, so that a panel that opens finds
history. Rates are means over the time between two samples. psutil blocks, so it runs in a thread.
"""

import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import takewhile
from math import inf
from typing import Annotated, Generic, TypeVar

import anyio
import anyio.to_thread
import psutil
from msgspec import Meta

from aiostream_ds._frames.config import FieldConfig
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.errors import NotFound
from aiostream_ds.models import Health, User
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange, Row
from aiostream_ds.settings import Settings

__all__ = ["Host", "HostSettings"]

Percent = Annotated[float, FieldConfig(unit="percent", min=0, max=100)]
Bytes = Annotated[int, FieldConfig(unit="bytes", min=0)]
BytesPerSecond = Annotated[float, FieldConfig(unit="binBps", min=0)]
PerSecond = Annotated[float, FieldConfig(unit="iops", min=0)]

KEPT = 3_600
"""Samples that are kept of each series: an hour at one a second."""

# the name of the sum of all network interfaces but the loopback, or of all disks
_ALL = "all"
_LOOPBACK = ("lo", "lo0")


class HostSettings(Settings):
    """How often this machine is looked at."""

    interval: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    """Seconds between two samples."""


class Sample(Row):
    """What every row here has: when it was taken, Unix ms."""

    time: int


R = TypeVar("R", bound=Sample)


class Cpu(Sample):
    """Shares of all processors' time since the sample before; `load` is the one-minute mean."""

    busy: Percent
    user: Percent
    system: Percent
    iowait: Percent
    load: Annotated[float, FieldConfig(min=0)]


class Memory(Sample):
    """`available` is what programs can still get without swapping."""

    used: Bytes
    available: Bytes
    total: Bytes
    used_share: Percent
    swap_used: Bytes


class Net(Sample):
    """One network interface."""

    received: BytesPerSecond
    sent: BytesPerSecond
    errors: Annotated[float, FieldConfig(unit="cps", min=0)]


class Disk(Sample):
    """One block device."""

    read: BytesPerSecond
    written: BytesPerSecond
    reads: PerSecond
    writes: PerSecond


class _Series(Generic[R]):
    """The last samples of one kind, and who waits for the next."""

    def __init__(self) -> None:
        self.rows: deque[R] = deque(maxlen=KEPT)
        self.epoch = os.urandom(4).hex()  # another process has taken other samples
        self._forgotten = -1  # the time of the newest row that was given up for a newer one
        self._next = anyio.Event()

    def add(self, row: R) -> None:
        if self.rows and row.time <= self.rows[-1].time:  # the clock was set back
            self.epoch = os.urandom(4).hex()
            self.rows.clear()
            self._forgotten = -1
        if len(self.rows) == KEPT:
            self._forgotten = self.rows[0].time
        self.rows.append(row)
        self._next.set()
        self._next = anyio.Event()

    async def follow(self, after: Cursor | None) -> AsyncGenerator[R | Cursor]:
        """Each row that is added behind a place; whoever is late gets what it missed."""
        seen = after or Cursor(self.epoch, self.rows[-1].time if self.rows else -1)
        while True:
            if seen.epoch != self.epoch:
                seen = Cursor(self.epoch, -1)
                yield seen
            missed = self._newer(seen.value)
            for row in missed:
                seen = Cursor(self.epoch, row.time)
                yield row
            if not missed:
                await self._next.wait()

    def _newer(self, time: int) -> list[R]:
        return [*takewhile(lambda row: row.time > time, reversed(self.rows))][::-1]

    def read(self, span: HistoryRange) -> HistoryPage:
        rows = self.rows
        if span.after is None:
            start, end = span.start.timestamp() * 1000, span.end.timestamp() * 1000
            found = [r for r in rows if start <= r.time <= end][-span.limit :]
            return HistoryPage(found, self.epoch)
        upto = inf if span.upto is None else span.upto
        found = [r for r in rows if span.after < r.time <= upto][: span.limit]
        return HistoryPage(found, self.epoch, truncated=span.after < self._forgotten)


class _Sampler:
    """Reads psutil's counters and turns two readings into rates."""

    def __init__(self) -> None:
        self.cpu: _Series[Cpu] = _Series()
        self.memory: _Series[Memory] = _Series()
        self.nets: dict[str, _Series[Net]] = {}
        self.disks: dict[str, _Series[Disk]] = {}
        self._before: _Reading | None = None

    async def sample(self) -> None:
        """Adds one row to every series; the first call only remembers the counters."""
        reading = await anyio.to_thread.run_sync(_Reading)
        before, self._before = self._before, reading
        for name in (*reading.nets, _ALL):
            self.nets.setdefault(name, _Series())
        for name in reading.disks:
            self.disks.setdefault(name, _Series())
        if before is None or reading.clock <= before.clock:
            return
        self.cpu.add(_cpu(before, reading))
        self.memory.add(_memory(reading))
        nets = {k: _net(before, reading, k) for k in reading.nets.keys() & before.nets.keys()}
        for name, net in {**nets, _ALL: _sum(reading, nets)}.items():
            self.nets[name].add(net)
        for name in reading.disks.keys() & before.disks.keys():
            self.disks[name].add(_disk(before, reading, name))


class _Reading:
    """Everything at one moment; made in a thread, since psutil reads files."""

    def __init__(self) -> None:
        self.clock = time.monotonic()
        self.time = time.time_ns() // 1_000_000
        self.cpu = psutil.cpu_times()
        self.load = psutil.getloadavg()[0]
        self.memory = psutil.virtual_memory()
        self.swap = psutil.swap_memory()
        self.nets = psutil.net_io_counters(pernic=True)
        self.disks = psutil.disk_io_counters(perdisk=True) or {}
        if whole := psutil.disk_io_counters():  # which adds up no partition twice
            self.disks[_ALL] = whole


def _cpu(before: _Reading, now: _Reading) -> Cpu:
    # a counter may run backwards by a tick (iowait does)
    fields = now.cpu._fields
    spent = {k: max(0.0, getattr(now.cpu, k) - getattr(before.cpu, k)) for k in fields}
    # Linux counts guests' time within user and nice as well: adding it again would be a lie
    for name in ("guest", "guest_nice"):
        spent.pop(name, None)
    total = sum(spent.values()) or 1.0
    share = {name: 100 * seconds / total for name, seconds in spent.items()}
    busy = sum(part for name, part in share.items() if name not in ("idle", "iowait"))
    return Cpu(
        time=now.time,
        busy=min(100.0, busy),
        user=share.get("user", 0.0) + share.get("nice", 0.0),
        system=share.get("system", 0.0),
        iowait=share.get("iowait", 0.0),
        load=now.load,
    )


def _memory(now: _Reading) -> Memory:
    return Memory(
        time=now.time,
        used=now.memory.used,
        available=now.memory.available,
        total=now.memory.total,
        used_share=now.memory.percent,
        swap_used=now.swap.used,
    )


def _rate(before: _Reading, now: _Reading, earlier: float, later: float) -> float:
    """Per second; a counter that was reset gives 0, not a negative rate."""
    return max(0.0, later - earlier) / (now.clock - before.clock)


def _net(before: _Reading, now: _Reading, name: str) -> Net:
    a, b = before.nets[name], now.nets[name]
    return Net(
        time=now.time,
        received=_rate(before, now, a.bytes_recv, b.bytes_recv),
        sent=_rate(before, now, a.bytes_sent, b.bytes_sent),
        errors=_rate(before, now, a.errin + a.errout, b.errin + b.errout),
    )


def _sum(now: _Reading, nets: Mapping[str, Net]) -> Net:
    """Of rates, not of counters: an interface that comes brings a counter of its whole past."""
    real = [net for name, net in nets.items() if name not in _LOOPBACK]
    return Net(
        time=now.time,
        received=sum(net.received for net in real),
        sent=sum(net.sent for net in real),
        errors=sum(net.errors for net in real),
    )


def _disk(before: _Reading, now: _Reading, name: str) -> Disk:
    a, b = before.disks[name], now.disks[name]
    return Disk(
        time=now.time,
        read=_rate(before, now, a.read_bytes, b.read_bytes),
        written=_rate(before, now, a.write_bytes, b.write_bytes),
        reads=_rate(before, now, a.read_count, b.read_count),
        writes=_rate(before, now, a.write_count, b.write_count),
    )


Nic = Annotated[
    str, Meta(title="Interface", description="A network interface, as eth0; all adds them up")
]
Device = Annotated[str, Meta(description="A disk or a part of one, as sda1; all adds up the disks")]


class Host(DataSource[HostSettings]):
    """The processor, memory, network and disks of the machine that Grafana runs on.

    Query types `cpu`, `memory`, `net` (field `nic`) and `disk` (field `device`); the fields'
    default is `all`: the interfaces without the loopback, or the disks, added up.
    """

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Samples from the first call until the settings change."""
        self._sampler = _Sampler()
        await self._sampler.sample()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sample)
            yield
            tasks.cancel_scope.cancel()

    async def _sample(self) -> None:
        due = anyio.current_time()
        while True:
            # a suspended machine must not make up for all the samples it slept through
            due = max(due + self.settings.interval, anyio.current_time())
            await anyio.sleep_until(due)
            await self._sampler.sample()

    async def health(self) -> Health:
        """Green with the names of what can be watched."""
        nics, disks = sorted(self._sampler.nets), sorted(self._sampler.disks)
        text = f"{psutil.cpu_count()} processors; interfaces: {', '.join(nics) or 'none'}"
        return Health(message=text, details={"interfaces": nics, "disks": disks})

    @stream("cpu", cursor="time")
    async def cpu(self, after: Cursor | None) -> Rows[Cpu | Cursor]:
        """Processor use, one row a sample."""
        async for row in self._sampler.cpu.follow(after):
            yield row

    @cpu.history
    async def cpu_history(self, span: HistoryRange) -> HistoryPage:
        """The samples of the span."""
        return self._sampler.cpu.read(span)

    @stream("memory", cursor="time")
    async def memory(self, after: Cursor | None) -> Rows[Memory | Cursor]:
        """Memory use, one row a sample."""
        async for row in self._sampler.memory.follow(after):
            yield row

    @memory.history
    async def memory_history(self, span: HistoryRange) -> HistoryPage:
        """The samples of the span."""
        return self._sampler.memory.read(span)

    @stream("net/{nic:any}", cursor="time")
    async def net(self, after: Cursor | None, nic: Nic = _ALL) -> Rows[Net | Cursor]:
        """Traffic of one interface, one row a sample."""
        async for row in _found("network interface", nic, self._sampler.nets).follow(after):
            yield row

    @net.history
    async def net_history(self, span: HistoryRange, nic: str = _ALL) -> HistoryPage:
        """The samples of the span."""
        return _found("network interface", nic, self._sampler.nets).read(span)

    @net.subscribe
    async def has_nic(self, user: User | None, nic: str = _ALL) -> None:
        """Refuses an interface that this machine has not."""
        _found("network interface", nic, self._sampler.nets)

    @net.suggest("nic")
    async def nics(self, typed: str) -> list[str]:
        """The interfaces that this machine has."""
        return _containing(typed, self._sampler.nets)

    @stream("disk/{device:any}", cursor="time")
    async def disk(self, after: Cursor | None, device: Device = _ALL) -> Rows[Disk | Cursor]:
        """Traffic of one block device, one row a sample."""
        async for row in _found("disk", device, self._sampler.disks).follow(after):
            yield row

    @disk.history
    async def disk_history(self, span: HistoryRange, device: str = _ALL) -> HistoryPage:
        """The samples of the span."""
        return _found("disk", device, self._sampler.disks).read(span)

    @disk.subscribe
    async def has_disk(self, user: User | None, device: str = _ALL) -> None:
        """Refuses a device that this machine has not."""
        _found("disk", device, self._sampler.disks)

    @disk.suggest("device")
    async def devices(self, typed: str) -> list[str]:
        """The disks that this machine has."""
        return _containing(typed, self._sampler.disks)


def _containing(typed: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if typed in name)


def _found(what: str, name: str, series: Mapping[str, _Series[R]]) -> _Series[R]:
    if name not in series:
        raise NotFound(f"no {what} {name!r}; there are: {', '.join(sorted(series)) or 'none'}")
    return series[name]
