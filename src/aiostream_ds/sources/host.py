"""The source `host`: processor, memory, network and disks of this machine, by psutil.

Samples are taken as long as the data source is open, so that a new panel has a history. Rates are
averages between two samples. psutil blocks, so it runs in a thread.
"""

import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import takewhile
from math import inf
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import anyio
import anyio.to_thread
import psutil
from msgspec import Meta

from aiostream_ds._channels.policy import Retry
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import FieldConfig, Notice
from aiostream_ds._loggers import get_logger
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.errors import NotFound
from aiostream_ds.models import Health, User
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange, Row
from aiostream_ds.settings import Settings
from aiostream_ds.sources.capabilities import DeclaredCapabilities

__all__ = ["Host", "HostSettings"]

log = get_logger(__name__)

Percent = Annotated[float, FieldConfig(unit="percent", min=0, max=100)]
Bytes = Annotated[int, FieldConfig(unit="bytes", min=0)]
BytesPerSecond = Annotated[float, FieldConfig(unit="binBps", min=0)]
PerSecond = Annotated[float, FieldConfig(unit="iops", min=0)]

SAMPLES = 3_600
"""Samples stored of each series: an hour at one per second."""

# the sum of all network interfaces except loopback, or of all disks
_ALL = "all"
_LOOPBACK = ("lo", "lo0")


class HostSettings(Settings):
    """How often this machine is sampled."""

    interval: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    """Seconds between two samples."""


class Sample(Row):
    """Base of all rows; `time` is that of the sample in Unix ms."""

    time: int


R = TypeVar("R", bound=Sample)
T = TypeVar("T")


class Cpu(Sample):
    """Shares of all processors' time since the previous sample; `load` is the 1-minute average."""

    busy: Percent
    user: Percent
    system: Percent
    iowait: Percent
    load: Annotated[float | None, FieldConfig(min=0)]


class Memory(Sample):
    """Memory use; `available` is what programs can still allocate without swapping."""

    used: Bytes
    available: Bytes
    total: Bytes
    used_share: Percent
    swap_used: Annotated[int | None, FieldConfig(unit="bytes", min=0)]


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


class _SampleSeries(Generic[R]):
    """The last samples of one kind. `problem`: why its counters cannot be read now, or ""."""

    def __init__(self) -> None:
        self.problem = ""
        self.rows: deque[R] = deque(maxlen=SAMPLES)
        self.epoch = os.urandom(4).hex()  # each process has its own samples
        self._evicted = -1  # the time of the newest evicted row
        self._next = anyio.Event()

    def add(self, row: R) -> None:
        if self.rows and row.time <= self.rows[-1].time:  # the clock was set back
            self.epoch = os.urandom(4).hex()
            self.rows.clear()
            self._evicted = -1
        if len(self.rows) == SAMPLES:
            self._evicted = self.rows[0].time
        self.rows.append(row)
        self._wake()

    def report(self, problem: str) -> None:
        """Set the problem, and show it to those who follow."""
        if problem != self.problem:
            self.problem = problem
            self._wake()

    def _wake(self) -> None:
        self._next.set()
        self._next = anyio.Event()

    async def follow(self, after: Cursor) -> AsyncGenerator[R | Cursor | Status]:
        """Yield all stored and future rows after a cursor, and the problem as a status."""
        cursor = after
        shown = ""
        while True:
            if shown != self.problem:
                shown = self.problem
                yield Status("warning", shown) if shown else Status()
            if cursor.epoch != self.epoch:
                cursor = Cursor(self.epoch, -1)
                yield cursor
            newer = self._newer(cursor.value)
            for row in newer:
                cursor = Cursor(self.epoch, row.time)
                yield row
            if not newer and shown == self.problem:
                await self._next.wait()

    def _newer(self, time: int) -> list[R]:
        return [*takewhile(lambda row: row.time > time, reversed(self.rows))][::-1]

    def read(self, history_range: HistoryRange) -> HistoryPage:
        notices = (Notice(severity="warning", text=self.problem),) if self.problem else ()
        rows = self.rows
        if history_range.after is None:
            start, end = (
                history_range.start.timestamp() * 1000,
                history_range.end.timestamp() * 1000,
            )
            found = [r for r in rows if start <= r.time <= end][-history_range.limit :]
            return HistoryPage(found, self.epoch, notices=notices)
        upto = inf if history_range.upto is None else history_range.upto
        found = [r for r in rows if history_range.after < r.time <= upto][: history_range.limit]
        return HistoryPage(found, self.epoch, truncated=history_range.after < self._evicted)


class _Sampler:
    """Reads psutil's counters and computes rates from two successive readings."""

    def __init__(self) -> None:
        self.cpu: _SampleSeries[Cpu] = _SampleSeries()
        self.memory: _SampleSeries[Memory] = _SampleSeries()
        self.nets: dict[str, _SampleSeries[Net]] = {}
        self.disks: dict[str, _SampleSeries[Disk]] = {}
        self._previous: _Reading | None = None
        self.problems: Mapping[str, str] = {}
        """Why counters could not be read in the last sample, by their names."""

    async def sample(self, threads: anyio.CapacityLimiter | None = None) -> None:
        """Add one row to every series; the first call only reads the counters.

        A series whose counters cannot be read gets no row, and a problem.
        """
        reading = await anyio.to_thread.run_sync(_Reading, limiter=threads)
        before, self._previous = self._previous, reading
        for name in (*reading.nets, _ALL):
            self.nets.setdefault(name, _SampleSeries())
        for name in (*reading.disks, *([_ALL] if "disks" in reading.problems else ())):
            self.disks.setdefault(name, _SampleSeries())
        self._report(reading.problems)
        if before is None or reading.clock <= before.clock:
            return
        if before.cpu is not None and reading.cpu is not None:
            self.cpu.add(_cpu(before.cpu, reading.cpu, reading))
        if reading.memory is not None:
            self.memory.add(_memory(reading.memory, reading))
        nets = {k: _net(before, reading, k) for k in reading.nets.keys() & before.nets.keys()}
        for name, net in nets.items():
            self.nets[name].add(net)
        if "nets" not in before.problems and "nets" not in reading.problems:
            self.nets[_ALL].add(_sum(reading, nets))
        for name in reading.disks.keys() & before.disks.keys():
            self.disks[name].add(_disk(before, reading, name))

    def _report(self, problems: Mapping[str, str]) -> None:
        """Show the problems of a reading at its series; log each once, until it ends."""
        for name in problems.keys() - self.problems.keys():
            log.warning("the counters of %s cannot be read: %s", name, problems[name])
        self.problems = problems
        self.cpu.report(_joined(problems, "cpu", "load"))
        self.memory.report(_joined(problems, "memory", "swap"))
        for net in self.nets.values():
            net.report(_joined(problems, "nets"))
        for disk in self.disks.values():
            disk.report(_joined(problems, "disks"))


def _joined(problems: Mapping[str, str], *names: str) -> str:
    found = [f"{name} cannot be read: {problems[name]}" for name in names if name in problems]
    return "; ".join(found)


class _Reading:
    """All counters at one moment. Create it in a thread: psutil reads files.

    `problems` has the reason for each of `COUNTERS` that cannot be read, as in a container without
    /proc/diskstats.
    """

    def __init__(self) -> None:
        self.clock = time.monotonic()
        self.time = time.time_ns() // 1_000_000
        self.problems: dict[str, str] = {}
        self.cpu = self._read("cpu", psutil.cpu_times)
        self.load = self._read("load", lambda: psutil.getloadavg()[0])
        self.memory = self._read("memory", psutil.virtual_memory)
        self.swap = self._read("swap", psutil.swap_memory)
        self.nets = self._read("nets", lambda: psutil.net_io_counters(pernic=True)) or {}
        self.disks = self._read("disks", _read_disks) or {}

    def _read(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except Exception as error:  # psutil raises those of the system and of its parsers
            self.problems[name] = f"{type(error).__name__}: {error}"
            return None


COUNTERS = ("cpu", "load", "memory", "swap", "nets", "disks")
"""What is read, each on its own: one that cannot be read leaves the others."""


def _read_disks() -> dict[str, Any]:
    disks = dict(psutil.disk_io_counters(perdisk=True) or {})
    if total := psutil.disk_io_counters():  # it does not count partitions twice
        disks[_ALL] = total
    return disks


def _cpu(before: Any, cpu: Any, now: _Reading) -> Cpu:
    # a counter may decrease by a tick (iowait does)
    spent = {k: max(0.0, getattr(cpu, k) - getattr(before, k)) for k in cpu._fields}
    # on Linux, user and nice already include the guests' time
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


def _memory(memory: Any, now: _Reading) -> Memory:
    return Memory(
        time=now.time,
        used=memory.used,
        available=memory.available,
        total=memory.total,
        used_share=memory.percent,
        swap_used=None if now.swap is None else now.swap.used,
    )


def _rate(before: _Reading, now: _Reading, earlier: float, later: float) -> float:
    """A rate per second; 0 after a counter was reset."""
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
    """The sum of the rates, not of the counters: a new interface starts with a large counter."""
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
    str, Meta(title="Interface", description="A network interface such as eth0; all is their sum")
]
Device = Annotated[str, Meta(description="A disk or partition such as sda1; all is their sum")]


class Host(DataSource[HostSettings]):
    """The processor, memory, network and disks of the machine that Grafana runs on.

    Query types `cpu`, `memory`, `net` (field `nic`) and `disk` (field `device`). The fields'
    default is `all`: the sum of all interfaces except loopback, or of all disks.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        name: {"event_time": True} for name in ("cpu", "memory", "net", "disk")
    }

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Take samples until the data source closes."""
        self._sampler = _Sampler()
        await self._sampler.sample(self.threads)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sample)
            yield
            tasks.cancel_scope.cancel()

    async def _sample(self) -> None:
        due = anyio.current_time()
        while True:
            # after the machine was suspended, do not make up for missed samples
            due = max(due + self.settings.interval, anyio.current_time())
            await anyio.sleep_until(due)
            await self._sampler.sample(self.threads)

    async def health(self) -> Health:
        """Report the interfaces, the disks and what cannot be read; fails if nothing can."""
        nics, disks = sorted(self._sampler.nets), sorted(self._sampler.disks)
        problems = self._sampler.problems
        text = f"{psutil.cpu_count() or '?'} processors; interfaces: {', '.join(nics) or 'none'}"
        for name, problem in problems.items():
            text += f"; {name} cannot be read: {problem}"
        details = {"interfaces": nics, "disks": disks, "problems": dict(problems)}
        return Health(ok=len(problems) < len(COUNTERS), message=text, details=details)

    @stream("cpu", cursor="time", retry=Retry(fill=False))
    async def cpu(self, after: Cursor) -> Rows[Cpu | Cursor | Status]:
        """Processor use, one row per sample."""
        async for row in self._sampler.cpu.follow(after):
            yield row

    @cpu.history
    async def cpu_history(self, history_range: HistoryRange) -> HistoryPage:
        """The samples of the range."""
        return self._sampler.cpu.read(history_range)

    @stream("memory", cursor="time", retry=Retry(fill=False))
    async def memory(self, after: Cursor) -> Rows[Memory | Cursor | Status]:
        """Memory use, one row per sample."""
        async for row in self._sampler.memory.follow(after):
            yield row

    @memory.history
    async def memory_history(self, history_range: HistoryRange) -> HistoryPage:
        """The samples of the range."""
        return self._sampler.memory.read(history_range)

    @stream("net/{nic:any}", cursor="time", retry=Retry(fill=False))
    async def net(self, after: Cursor, nic: Nic = _ALL) -> Rows[Net | Cursor | Status]:
        """Traffic of one interface, one row per sample."""
        async for row in _found("network interface", nic, self._sampler.nets).follow(after):
            yield row

    @net.history
    async def net_history(self, history_range: HistoryRange, nic: str = _ALL) -> HistoryPage:
        """The samples of the range."""
        return _found("network interface", nic, self._sampler.nets).read(history_range)

    @net.subscribe
    async def has_nic(self, user: User | None, nic: str = _ALL) -> None:
        """Refuse an unknown interface."""
        _found("network interface", nic, self._sampler.nets)

    @net.suggest("nic")
    async def nics(self, typed: str) -> list[str]:
        """The machine's interfaces."""
        return _containing(typed, self._sampler.nets)

    @stream("disk/{device:any}", cursor="time", retry=Retry(fill=False))
    async def disk(self, after: Cursor, device: Device = _ALL) -> Rows[Disk | Cursor | Status]:
        """Traffic of one block device, one row per sample."""
        async for row in _found("disk", device, self._sampler.disks).follow(after):
            yield row

    @disk.history
    async def disk_history(self, history_range: HistoryRange, device: str = _ALL) -> HistoryPage:
        """The samples of the range."""
        return _found("disk", device, self._sampler.disks).read(history_range)

    @disk.subscribe
    async def has_disk(self, user: User | None, device: str = _ALL) -> None:
        """Refuse an unknown device."""
        _found("disk", device, self._sampler.disks)

    @disk.suggest("device")
    async def devices(self, typed: str) -> list[str]:
        """The machine's disks."""
        return _containing(typed, self._sampler.disks)


def _containing(typed: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if typed in name)


def _found(what: str, name: str, series: Mapping[str, _SampleSeries[R]]) -> _SampleSeries[R]:
    if name not in series:
        known = ", ".join(sorted(series)) or "none"
        raise NotFound(f"unknown {what} {name!r}; this machine has: {known}")
    return series[name]
