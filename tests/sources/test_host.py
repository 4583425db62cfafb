"""The source `host`: rates from psutil's counters."""

from collections import deque, namedtuple
from datetime import UTC, datetime
from types import SimpleNamespace

import anyio
import anyio.to_thread
import psutil
import pytest

from aiostream_ds import Cursor, HistoryRange, Status
from aiostream_ds.sources import host
from aiostream_ds.sources.host import Host, HostSettings
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory

pytestmark = pytest.mark.virtual

Times = namedtuple("Times", "user nice system idle iowait guest")
Nic = namedtuple("Nic", "bytes_recv bytes_sent errin errout")
Disk = namedtuple("Disk", "read_bytes write_bytes read_count write_count")


class Machine:
    """Counters and a clock that the test controls."""

    def __init__(self):
        self.clock, self.unix = 100.0, 1_700_000_000.0
        self.cpu = Times(0, 0, 0, 0, 0, 0)
        self.nets = {"eth0": Nic(0, 0, 0, 0), "wlan 0": Nic(0, 0, 0, 0)}
        self.disks = {"sda": Disk(0, 0, 0, 0)}
        self.reads = 0

    def reading(self):
        self.reads += 1
        return SimpleNamespace(
            clock=self.clock,
            time=int(self.unix * 1000),
            cpu=self.cpu,
            load=0.5,
            memory=SimpleNamespace(used=1, available=2, total=4, percent=25.0),
            swap=SimpleNamespace(used=3),
            problems={},
            nets=dict(self.nets),
            disks=dict(self.disks),
        )

    def pass_time(self, seconds):
        self.clock += seconds
        self.unix += seconds


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()

    async def run_sync(function, *args, **_):
        return function(*args)

    monkeypatch.setattr(host, "_Reading", machine.reading)
    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
    return machine


async def two_samples(machine, seconds, **later):
    sampler = host._Sampler()
    await sampler.sample()
    machine.pass_time(seconds)
    vars(machine).update(later)
    await sampler.sample()
    return sampler


async def test_rates_are_averages_over_the_elapsed_time(machine):
    sampler = await two_samples(
        machine,
        2.5,
        nets={"eth0": Nic(5000, 250, 5, 0), "new": Nic(9, 9, 9, 9)},
        disks={"sda": Disk(100, 50, 10, 5)},
    )
    (net,) = sampler.nets["eth0"].rows
    assert (net.received, net.sent, net.errors) == (2000, 100, 2)
    (disk,) = sampler.disks["sda"].rows
    assert (disk.read, disk.written, disk.reads, disk.writes) == (40, 20, 4, 2)
    assert not sampler.nets["new"].rows  # one reading gives no rate


async def test_all_is_the_sum_of_the_interfaces_without_loopback(machine):
    machine.nets = {"lo": Nic(0, 0, 0, 0), "eth0": Nic(0, 0, 0, 0), "eth1": Nic(0, 0, 0, 0)}
    later = {"lo": Nic(9000, 9000, 0, 0), "eth0": Nic(200, 20, 1, 1), "eth1": Nic(40, 4, 0, 0)}
    sampler = await two_samples(machine, 2, nets={**later, "new": Nic(9**9, 9**9, 0, 0)})
    (net,) = sampler.nets["all"].rows
    assert (net.received, net.sent, net.errors) == (120, 12, 1)


def test_a_reading_has_the_disks_and_their_sum():
    reading = host._Reading()
    assert ("all" in reading.disks) == bool(psutil.disk_io_counters())
    assert reading.nets.keys() == psutil.net_io_counters(pernic=True).keys()


async def test_a_query_without_a_name_selects_all(machine):
    async with serve_in_memory(Host) as grafana:
        (frame,) = await grafana.query({"queryType": "net"})
        assert frame.meta.channel.endswith("/net/YWxs")


async def test_a_counter_that_was_reset_gives_zero(machine):
    machine.nets = {"eth0": Nic(5000, 5000, 0, 0)}
    sampler = await two_samples(machine, 1, nets={"eth0": Nic(10, 6000, 0, 0)})
    (net,) = sampler.nets["eth0"].rows
    assert (net.received, net.sent) == (0, 1000)


async def test_processor_shares_refer_to_the_time_between_the_samples(machine):
    machine.cpu = Times(1000, 0, 0, 0, 0, 500)
    sampler = await two_samples(machine, 1, cpu=Times(1020, 10, 10, 50, 10, 520))
    (cpu,) = sampler.cpu.rows
    assert (cpu.busy, cpu.user, cpu.system, cpu.iowait, cpu.load) == (40, 30, 10, 10, 0.5)


async def test_a_processor_counter_that_decreases_counts_as_zero(machine):
    machine.cpu = Times(0, 0, 0, 0, 10, 0)
    sampler = await two_samples(machine, 1, cpu=Times(50, 0, 0, 50, 9, 0))
    assert sampler.cpu.rows[0].busy == 50
    assert sampler.cpu.rows[0].iowait == 0


async def test_without_any_processor_time_the_machine_is_not_busy(machine):
    sampler = await two_samples(machine, 0.1)
    assert sampler.cpu.rows[0].busy == 0


async def test_memory_is_the_current_reading(machine):
    row = (await two_samples(machine, 1)).memory.rows[0]
    assert (row.used, row.available, row.total, row.used_share, row.swap_used) == (1, 2, 4, 25, 3)


async def test_only_the_newest_samples_are_stored(machine, monkeypatch):
    monkeypatch.setattr(host, "SAMPLES", 3)
    sampler = host._Sampler()
    for _ in range(10):
        await sampler.sample()
        machine.pass_time(1)
    assert len(sampler.cpu.rows) == 3


async def test_live_rows_continue_when_the_clock_is_set_back(machine):
    sampler = await two_samples(machine, 1)
    before = sampler.cpu.epoch
    rows = sampler.cpu.follow(Cursor(before, sampler.cpu.rows[-1].time))
    follower = anyio.Event()
    got = []

    async def follow():
        follower.set()
        for _ in range(3):
            got.append(await anext(rows))  # noqa: PERF401  (each is waited for)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await follower.wait()
        await anyio.wait_all_tasks_blocked()
        machine.pass_time(1)
        machine.unix -= 3600
        await sampler.sample()
        machine.pass_time(1)
        await sampler.sample()
    assert got == [Cursor(sampler.cpu.epoch, -1), *sampler.cpu.rows]
    assert len(sampler.cpu.rows) == 2 and sampler.cpu.epoch != before
    await rows.aclose()


async def test_rows_after_an_evicted_cursor_are_truncated(machine, monkeypatch):
    monkeypatch.setattr(host, "SAMPLES", 3)
    sampler = await two_samples(machine, 1)
    series = sampler.cpu
    series.rows = deque(series.rows, maxlen=3)
    for _ in range(4):
        machine.pass_time(1)
        await sampler.sample()
    times = [row.time for row in series.rows]

    def page(after, upto=None):
        moment = datetime.now(UTC)
        return series.read(HistoryRange(start=moment, end=moment, limit=9, after=after, upto=upto))

    assert [row.time for row in page(times[0]).rows] == times[1:]
    assert [row.time for row in page(times[0], times[1]).rows] == times[1:2]
    assert not page(times[0]).truncated and not page(times[0] - 1000).truncated
    assert page(times[0] - 1001).truncated and page(-1).truncated


async def test_a_new_panel_has_a_history(machine):
    async with serve_in_memory(Host, settings={"interval": 1}) as grafana:
        await grafana.health()
        for _ in range(5):
            machine.pass_time(1)
            await anyio.sleep(1)
        async with anyio.create_task_group():
            frames = await grafana.plugin.instances.get(grafana.context(None))
    rows = frames.source._sampler.cpu.rows
    assert len(rows) == 5
    assert rows[-1].time == 1_700_000_005_000


@pytest.mark.parametrize("kind, name", [("net", "nic"), ("disk", "device")])
async def test_an_unknown_device_is_not_found_and_the_error_lists_the_known_ones(
    machine, kind, name, caplog
):
    caplog.set_level("INFO")
    async with serve_in_memory(Host) as grafana:
        with pytest.raises(QueryFailed) as failed:
            await grafana.query({"queryType": kind, name: "bogus"}, as_json=True)
        with pytest.raises(Refused, match="NOT_FOUND"):
            await grafana.follow(f"{kind}/Ym9ndXM")
    assert failed.value.status == 404
    names = {"net": "all, eth0, wlan 0", "disk": "sda"}[kind]
    assert f"'bogus'; this machine has: {names}" in str(failed.value)


async def test_an_interface_with_a_space_in_its_name_has_a_channel(machine):
    async with serve_in_memory(Host) as grafana:
        (frame,) = await grafana.query({"queryType": "net", "nic": "wlan 0"}, as_json=True)
        await grafana.follow(frame.meta.channel.removeprefix("ds/test/"))


async def test_sampling_ends_with_the_instance(machine):
    async with serve_in_memory(Host, settings={"interval": 1}) as grafana:
        await grafana.health()
        machine.pass_time(1)
        await anyio.sleep(3.5)
        assert machine.reads == 4
    await anyio.sleep(10)
    assert machine.reads == 4


@pytest.mark.parametrize("interval", [0, 0.01, 61, "1s"])
async def test_an_invalid_interval_is_rejected(machine, interval):
    async with serve_in_memory(Host, settings={"interval": interval}) as grafana:
        ok, message = await grafana.health()
    assert not ok and "interval" in message
    assert HostSettings().interval == 1


# -- counters that cannot be read ------------------------------------------------------------------

READ_BY = {
    "cpu_times": ("cpu", "cpu"),
    "getloadavg": ("cpu", "load"),
    "virtual_memory": ("memory", "memory"),
    "swap_memory": ("memory", "swap"),
    "net_io_counters": ("net", "nets"),
    "disk_io_counters": ("disk", "disks"),
}
"""The query type and the counters of each function of psutil."""


def broken(*_, **__):
    raise FileNotFoundError(2, "No such file or directory", "/proc/x")


@pytest.mark.parametrize("function", READ_BY)
async def test_a_counter_that_cannot_be_read_is_reported_and_all_others_have_rows(
    function, monkeypatch, caplog
):
    query_type, name = READ_BY[function]
    monkeypatch.setattr(psutil, function, broken)
    if psutil.disk_io_counters is not broken:
        monkeypatch.setattr(psutil, "disk_io_counters", disks)
    async with serve_in_memory(Host) as grafana:
        ok, text = await grafana.health()
        assert ok and f"{name} cannot be read: FileNotFoundError" in text
        await anyio.sleep(2.5)
        for kind in ("cpu", "memory", "net", "disk"):
            (frame,) = await grafana.query({"queryType": kind})
            notices = frame.meta.notices
            path = frame.meta.channel.split("/", 2)[2]
            assert [f"{name} cannot be read" in notice.text for notice in notices] == [True] * (
                kind == query_type
            )
            has_rows = kind != query_type or name in ("load", "swap")
            assert (frame.rows > 0) == has_rows
            if has_rows:
                assert await (await grafana.follow(path)).next()
    assert [r for r in caplog.records if "cannot be read" in r.getMessage()][1:] == []


def disks(perdisk=False):
    found = {"sda": Disk(0, 0, 0, 0)}
    return found if perdisk else found["sda"]


async def test_a_counter_that_can_be_read_again_has_rows_and_no_status(machine, monkeypatch):
    sampler = await two_samples(machine, 1)
    disk = sampler.disks["sda"]
    follow = disk.follow(Cursor(disk.epoch, disk.rows[-1].time))

    def without_disks():
        found = machine.reading()
        found.disks, found.problems = {}, {"disks": "gone"}
        return found

    with monkeypatch.context() as patch:
        patch.setattr(host, "_Reading", without_disks)
        machine.pass_time(1)
        await sampler.sample()
    assert await anext(follow) == Status("warning", "disks cannot be read: gone")
    for _ in range(2):
        machine.pass_time(1)
        await sampler.sample()
    assert (await anext(follow)).time == int(machine.unix * 1000)
    machine.pass_time(1)
    await sampler.sample()
    assert await anext(follow) == Status()
    await follow.aclose()


async def test_health_fails_where_nothing_can_be_read(monkeypatch):
    for function in READ_BY:
        monkeypatch.setattr(psutil, function, broken)
    async with serve_in_memory(Host) as grafana:
        ok, text = await grafana.health()
    assert not ok and "cpu cannot be read" in text
