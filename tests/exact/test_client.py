"""The client itself: each rule of the protocol, and that what it checks can be found wrong."""

import itertools

import anyio
import pytest

from aiostream_ds._grafana.application import background_tasks

from .client import Down, History, Tab
from .judge import Judge, Tally, compare
from .packets import RunCheck, packet_faults

pytestmark = pytest.mark.virtual

CHANNEL = "ds/uid/x/log/a"
WIDTH = 60.0


def packet(prev, last, epoch="e", **parts):
    cursor = {"epoch": epoch, "prev": prev, "last": last}
    if prev == last:
        return {"cursor": cursor, **parts}
    numbers = list(range(prev + 1, last + 1))
    return {"cursor": cursor, "data": {"values": [[n * 1000 for n in numbers], numbers]}, **parts}


class Script:
    """A Grafana that has rows 1 … `last` and tells what it is told to tell."""

    def __init__(self):
        self.last = 10
        self.first = 1  # the oldest row that `rows_after` still has
        self.epoch = "e"
        self.page = 5_000
        self.failures = 0
        self.calls = []  # (name, time)
        self.tell = None
        self.subscriptions = 0
        self.complete = anyio.Event()
        self.position_at_join = True

    def now(self):
        return 20_000

    async def query(self, ask, start, end, points):
        self._called("query")
        numbers = range(1, self.last + 1)
        rows = [(n * 1000, n) for n in numbers]
        cursor = {"channel": CHANNEL, "epoch": self.epoch, "last": self.last}
        return History(("time", "n"), rows[-points:], cursor)

    async def follow(self, path, tell):
        self.subscriptions += 1
        self.tell = tell
        tell("connected", packet(self.last, self.last) if self.position_at_join else None)
        await self.complete.wait()

    async def rows_after(self, path, after):
        self._called("rows")
        truncated = after < self.first - 1
        prev = max(after, self.first - 1)
        last = max(prev, min(self.last, prev + self.page))
        more = last < self.last
        return packet(prev, last, self.epoch, more=more, truncated=truncated)

    def _called(self, name):
        self.calls.append((name, anyio.current_time()))
        if self.failures:
            self.failures -= 1
            raise Down("down")

    def times(self, name):
        found = [time for called, time in self.calls if called == name]
        return [round(time - found[0], 3) for time in found]


@pytest.fixture
async def script():
    return Script()


async def opened(script, tasks, **options):
    panel = Tab(script, tasks).open({}, WIDTH, **options)
    await anyio.sleep(0.05)
    return panel


def drawn(panel):
    return [[row[1] for row in emission.rows] for emission in panel.emissions]


async def test_the_history_is_drawn_and_packets_continue_it(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        script.tell(None, packet(10, 12))
        await anyio.sleep(0.1)
    assert drawn(panel) == [list(range(1, 11)), list(range(1, 13))]
    assert panel.fills == 0


async def test_a_known_packet_is_dropped_and_a_half_known_one_is_cut(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        script.tell(None, packet(7, 10))
        script.tell(None, packet(8, 11))
        await anyio.sleep(0.1)
    assert drawn(panel)[1:] == [list(range(1, 12))]


async def test_a_hole_is_filled_before_anything_is_drawn(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        script.last, script.page = 20, 3
        script.tell(None, packet(18, 20))
        script.tell(None, packet(20, 21))
        await anyio.sleep(0.1)
    assert panel.fills == 4 and panel.faults == []
    assert all(rows == list(range(1, len(rows) + 1)) for rows in drawn(panel))
    assert len(drawn(panel)[-1]) == 21


async def test_the_position_at_the_join_shows_a_hole(script):
    async with background_tasks() as tasks:
        query = script.query

        async def then_rows(*args):
            history = await query(*args)
            script.last = 13
            return history

        script.query = then_rows
        panel = await opened(script, tasks)
    assert drawn(panel)[-1] == list(range(1, 14))


async def test_failed_calls_are_repeated_more_and_more_slowly(script):
    script.failures = 6
    async with background_tasks() as tasks:
        await opened(script, tasks)
        await anyio.sleep(60)
    assert script.times("query") == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5]


async def test_a_server_that_reads_late_is_asked_again(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        script.tell(None, packet(20, 21))
        await anyio.sleep(5)
        script.last = 21
        await anyio.sleep(3)
    waits = [round(b - a, 3) for a, b in itertools.pairwise(script.times("rows"))]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0][: len(waits)] and len(waits) >= 5
    assert drawn(panel)[-1] == list(range(1, 22))
    assert len(drawn(panel)) == 2


async def test_another_epoch_loads_again_once_then_two_and_four_seconds_apart(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        for _ in range(80):  # the socket's server is of another mind for 8 s
            script.tell(None, packet(3, 4, "other"))
            await anyio.sleep(0.1)
        assert script.times("query")[1:] == pytest.approx([0.05, 2.05, 6.05], abs=0.15)
        script.tell(None, packet(10, 11))
        await anyio.sleep(0.1)
    assert drawn(panel)[-1] == list(range(1, 12))
    assert len(script.times("rows")) >= 3  # polled meanwhile


async def test_what_the_ring_has_lost_is_loaded_once_from_the_history(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        script.first, script.last = 15, 20
        script.tell(None, packet(20, 20))
        await anyio.sleep(0.1)
    assert panel.reloads == 1 and not panel.gap
    assert drawn(panel)[-1] == list(range(1, 21))


async def test_what_is_lost_after_a_reload_too_is_a_gap_with_a_notice(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        query = script.query

        async def and_lose_more(*args):
            history = await query(*args)
            script.first, script.last = 25, 30
            return history

        script.query = and_lose_more
        script.first, script.last = 15, 20
        script.tell(None, packet(30, 30))
        await anyio.sleep(120)
    assert panel.reloads == 1 and panel.gap
    assert drawn(panel)[-1] == [*range(1, 21), *range(25, 31)]


async def test_what_is_lost_again_and_again_loads_again_more_and_more_slowly(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        for _ in range(100):
            script.last += 5
            script.first = script.last - 1
            script.tell(None, packet(script.last, script.last))
            await anyio.sleep(0.1)
            script.tell(None, packet(script.last, script.last))  # all is well, for a moment
            await anyio.sleep(0.1)
        waits = [b - a for a, b in itertools.pairwise(script.times("query")[1:])]
        assert len(waits) == 3 and waits == pytest.approx([2, 4, 8], abs=2.1)
    assert panel.faults == []


async def test_history_that_went_with_a_process_is_a_gap_with_a_notice(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        script.epoch, script.last = "later", 0
        script.tell(None, packet(0, 0, "later"))
        await anyio.sleep(0.1)
    assert panel.reloads == 1 and panel.gap and drawn(panel)[-1] == []


async def test_without_a_socket_rows_are_polled_every_two_seconds(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks)
        await anyio.sleep(7)
        assert script.times("rows") == []
        script.tell("connecting", None)
        script.last = 12
        await anyio.sleep(7)
    assert len(script.times("rows")) in (3, 4)
    assert drawn(panel)[-1] == list(range(1, 13))


async def test_a_second_panel_is_handed_the_taps_position(script):
    script.position_at_join = False
    async with background_tasks() as tasks:
        tab = Tab(script, tasks)
        first = tab.open({}, WIDTH)
        await anyio.sleep(0.05)
        script.tell(None, packet(10, 14))
        second = tab.open({}, WIDTH)
        script.last = 14
        await anyio.sleep(0.05)
        assert first.cursor == second.cursor == 14
        assert script.subscriptions == 1


async def test_a_tap_lingers_ten_seconds(script):
    async with background_tasks() as tasks:
        tab = Tab(script, tasks)
        for wait in (9, 11, 0):
            panel = tab.open({}, WIDTH)
            await anyio.sleep(0.05)
            panel.close()
            await anyio.sleep(wait)
    assert script.subscriptions == 2


async def test_a_completed_subscription_is_opened_again_after_three_seconds(script):
    async with background_tasks() as tasks:
        await opened(script, tasks)
        script.complete.set()
        script.complete = anyio.Event()
        await anyio.sleep(2.9)
        assert script.subscriptions == 1
        await anyio.sleep(0.2)
    assert script.subscriptions == 2


async def test_what_is_older_than_the_range_or_too_much_is_trimmed(script):
    async with background_tasks() as tasks:
        panel = await opened(script, tasks, points=4)
        narrow = Tab(script, tasks).open({}, 15.0)
        await anyio.sleep(0.05)
        script.tell(None, packet(10, 11))
        await anyio.sleep(0.1)
    assert drawn(panel)[0] == [7, 8, 9, 10]
    assert drawn(narrow)[0] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (packet(1, 3) | {"schema": {}}, "keys"),
        (packet(3, 1) | {"data": {"values": [[1]]}}, "prev 3, last 1"),
        ({"cursor": {"epoch": "e", "prev": 1, "last": 2}}, "no rows, no data"),
        ({"cursor": {"epoch": "", "prev": 1, "last": 1}}, "epoch ''"),
        ({"cursor": {"epoch": "e", "prev": 1, "last": 2**53}}, "last 9007199254740992"),
        (packet(1, 3) | {"data": {"values": [[1], [2]]}}, "2 cursors for 1 rows"),
        (packet(1, 3) | {"data": {"values": [[1, 2], [2]]}}, "unequal"),
        (
            {"cursor": {"epoch": "e", "prev": 1, "last": 9, "column": [3, 3]}}
            | {"data": {"values": [[1, 2]]}},
            "not in (1, 9]",
        ),
        (
            {"cursor": {"epoch": "e", "prev": 1, "last": 9, "column": 0}}
            | {"data": {"values": [[1]]}},
            "not in (1, 9]",
        ),
    ],
)
def test_a_packet_that_breaks_the_protocol_is_found(message, fault):
    assert fault in " ".join(packet_faults(message))


def test_cursors_come_as_a_column_a_list_or_not_at_all():
    cursor = {"epoch": "e", "prev": 1, "last": 9}
    values = {"data": {"values": [[4, 8]]}}
    assert packet_faults({"cursor": {**cursor, "column": 0}} | values) == []
    assert packet_faults({"cursor": {**cursor, "column": [2, 9]}} | values) == []
    assert packet_faults(packet(1, 9)) == []


@pytest.mark.parametrize(
    ("packets", "faults", "holes"),
    [
        ([packet(1, 1), packet(1, 2), packet(2, 2), packet(2, 5)], 0, 0),
        ([packet(1, 2)], 1, 0),
        ([packet(1, 1), packet(0, 2)], 1, 0),
        ([packet(1, 1), packet(3, 4)], 0, 1),
        ([packet(5, 5), packet(0, 1, "other")], 0, 0),
    ],
)
def test_a_run_begins_with_a_hello_and_has_no_holes(packets, faults, holes):
    check = RunCheck()
    for one in packets:
        check.see(one)
    assert (len(check.faults), check.holes) == (faults, holes)


@pytest.mark.parametrize(
    ("shown", "wanted", "found"),
    [
        ([1, 2, 3], [1, 2, 3], Tally(1)),
        ([1, 3], [1, 2, 3], Tally(1, missing=1)),
        ([1, 2, 2, 3], [1, 2, 3], Tally(1, doubled=1)),
        ([1, 3, 2], [1, 2, 3], Tally(1, disorder=1)),
        ([1, 2, 3, 4], [1, 2, 3], Tally(1, strange=1)),
    ],
)
def test_what_is_drawn_wrongly_is_counted(shown, wanted, found):
    assert compare(shown, wanted) == found


async def test_the_judge_sees_every_emission(script):
    judge = Judge(lambda panel, emission: list(range(1, emission.cursor + 1)))
    async with background_tasks() as tasks:
        await opened(script, tasks, watch=judge)
        script.tell(None, packet(10, 11))
        await anyio.sleep(0.1)
        assert judge.tally == Tally(2)
        script.tell(None, {"cursor": {"epoch": "e", "prev": 11, "last": 13, "column": [13]}}
                    | {"data": {"values": [[13_000], [13]]}})  # fmt: skip
        await anyio.sleep(0.1)
    assert judge.tally == Tally(3, missing=1) and len(judge.wrong) == 1
