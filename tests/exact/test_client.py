"""The test client: its rules, and that its checks find errors."""

import itertools

import anyio
import pytest

from aiostream_ds._grafana.application import background_tasks

from .client import CallFailed, History, Tab
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


class FakeGrafana:
    """A Grafana with rows 1 … `last`, whose packets a test sends with `on_event`."""

    def __init__(self):
        self.last = 10
        self.first = 1  # the oldest row that `rows_after` still has
        self.epoch = "e"
        self.page_rows = 5_000
        self.failures = 0
        self.calls = []  # (name, time)
        self.on_event = None
        self.subscriptions = 0
        self.complete = anyio.Event()
        self.sends_initial_cursor = True

    def now(self):
        return 20_000

    async def query(self, query, start, end, points):
        self._record_call("query")
        numbers = range(1, self.last + 1)
        rows = [(n * 1000, n) for n in numbers]
        cursor = {"channel": CHANNEL, "epoch": self.epoch, "last": self.last}
        return History(("time", "n"), rows[-points:], cursor)

    async def follow(self, path, on_event):
        self.subscriptions += 1
        self.on_event = on_event
        on_event("connected", packet(self.last, self.last) if self.sends_initial_cursor else None)
        await self.complete.wait()

    async def rows_after(self, path, after):
        self._record_call("rows")
        truncated = after < self.first - 1
        prev = max(after, self.first - 1)
        last = max(prev, min(self.last, prev + self.page_rows))
        more = last < self.last
        return packet(prev, last, self.epoch, more=more, truncated=truncated)

    def _record_call(self, name):
        self.calls.append((name, anyio.current_time()))
        if self.failures:
            self.failures -= 1
            raise CallFailed("down")

    def times(self, name):
        found = [time for called, time in self.calls if called == name]
        return [round(time - found[0], 3) for time in found]


@pytest.fixture
async def grafana():
    return FakeGrafana()


async def opened(grafana, tasks, **options):
    panel = Tab(grafana, tasks).open({}, WIDTH, **options)
    await anyio.sleep(0.05)
    return panel


def drawn(panel):
    return [[row[1] for row in drawing.rows] for drawing in panel.drawings]


async def test_the_history_is_drawn_and_packets_continue_it(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        grafana.on_event(None, packet(10, 12))
        await anyio.sleep(0.1)
    assert drawn(panel) == [list(range(1, 11)), list(range(1, 13))]
    assert panel.fetches == 0


async def test_a_packet_that_was_received_before_is_dropped_and_one_that_overlaps_is_cut(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        grafana.on_event(None, packet(7, 10))
        grafana.on_event(None, packet(8, 11))
        await anyio.sleep(0.1)
    assert drawn(panel)[1:] == [list(range(1, 12))]


async def test_a_gap_is_fetched_before_later_rows_are_drawn(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        grafana.last, grafana.page_rows = 20, 3
        grafana.on_event(None, packet(18, 20))
        grafana.on_event(None, packet(20, 21))
        await anyio.sleep(0.1)
    assert panel.fetches == 4 and panel.faults == []
    assert all(rows == list(range(1, len(rows) + 1)) for rows in drawn(panel))
    assert len(drawn(panel)[-1]) == 21


async def test_the_initial_cursor_of_the_subscription_reveals_a_gap(grafana):
    async with background_tasks() as tasks:
        query = grafana.query

        async def then_rows(*args):
            history = await query(*args)
            grafana.last = 13
            return history

        grafana.query = then_rows
        panel = await opened(grafana, tasks)
    assert drawn(panel)[-1] == list(range(1, 14))


async def test_failing_calls_are_repeated_with_back_off(grafana):
    grafana.failures = 6
    async with background_tasks() as tasks:
        await opened(grafana, tasks)
        await anyio.sleep(60)
    assert grafana.times("query") == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5]


async def test_a_lagging_server_is_asked_again(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        grafana.on_event(None, packet(20, 21))
        await anyio.sleep(5)
        grafana.last = 21
        await anyio.sleep(3)
    waits = [round(b - a, 3) for a, b in itertools.pairwise(grafana.times("rows"))]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0][: len(waits)] and len(waits) >= 5
    assert drawn(panel)[-1] == list(range(1, 22))
    assert len(drawn(panel)) == 2


@pytest.mark.asyncio(loop_scope="function")  # at large times 80 steps of 0.1 s are not 8 s
async def test_another_epoch_reloads_at_once_then_two_and_four_seconds_apart(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        for _ in range(80):  # the socket's server has another epoch for 8 s
            grafana.on_event(None, packet(3, 4, "other"))
            await anyio.sleep(0.1)
        assert grafana.times("query")[1:] == pytest.approx([0.05, 2.05, 6.05], abs=0.15)
        grafana.on_event(None, packet(10, 11))
        await anyio.sleep(0.1)
    assert drawn(panel)[-1] == list(range(1, 12))
    assert len(grafana.times("rows")) >= 3  # polled meanwhile


async def test_rows_that_the_log_has_lost_are_loaded_once_from_the_history(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        grafana.first, grafana.last = 15, 20
        grafana.on_event(None, packet(20, 20))
        await anyio.sleep(0.1)
    assert panel.reloads == 1 and not panel.gap
    assert drawn(panel)[-1] == list(range(1, 21))


async def test_rows_that_the_reloaded_history_lacks_too_are_a_gap_with_a_notice(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        query = grafana.query

        async def then_truncate(*args):
            history = await query(*args)
            grafana.first, grafana.last = 25, 30
            return history

        grafana.query = then_truncate
        grafana.first, grafana.last = 15, 20
        grafana.on_event(None, packet(30, 30))
        await anyio.sleep(120)
    assert panel.reloads == 1 and panel.gap
    assert drawn(panel)[-1] == [*range(1, 21), *range(25, 31)]


async def test_repeated_truncation_reloads_more_and_more_slowly(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        for _ in range(100):
            grafana.last += 5
            grafana.first = grafana.last - 1
            grafana.on_event(None, packet(grafana.last, grafana.last))
            await anyio.sleep(0.1)
            grafana.on_event(None, packet(grafana.last, grafana.last))  # continues, for a moment
            await anyio.sleep(0.1)
        waits = [b - a for a, b in itertools.pairwise(grafana.times("query")[1:])]
        assert len(waits) == 3 and waits == pytest.approx([2, 4, 8], abs=2.1)
    assert panel.faults == []


async def test_rows_that_were_lost_with_a_process_are_a_gap_with_a_notice(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        grafana.epoch, grafana.last = "later", 0
        grafana.on_event(None, packet(0, 0, "later"))
        await anyio.sleep(0.1)
    assert panel.reloads == 1 and panel.gap and drawn(panel)[-1] == []


async def test_without_a_socket_rows_are_polled_every_two_seconds(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks)
        await anyio.sleep(7)
        assert grafana.times("rows") == []
        grafana.on_event("connecting", None)
        grafana.last = 12
        await anyio.sleep(7)
    assert len(grafana.times("rows")) in (3, 4)
    assert drawn(panel)[-1] == list(range(1, 13))


async def test_a_second_panel_gets_the_last_cursor_of_the_subscription(grafana):
    grafana.sends_initial_cursor = False
    async with background_tasks() as tasks:
        tab = Tab(grafana, tasks)
        first = tab.open({}, WIDTH)
        await anyio.sleep(0.05)
        grafana.on_event(None, packet(10, 14))
        second = tab.open({}, WIDTH)
        grafana.last = 14
        await anyio.sleep(0.05)
        assert first.cursor == second.cursor == 14
        assert grafana.subscriptions == 1


async def test_a_subscription_lingers_for_ten_seconds(grafana):
    async with background_tasks() as tasks:
        tab = Tab(grafana, tasks)
        for wait in (9, 11, 0):
            panel = tab.open({}, WIDTH)
            await anyio.sleep(0.05)
            panel.close()
            await anyio.sleep(wait)
    assert grafana.subscriptions == 2


async def test_a_completed_subscription_is_opened_again_after_three_seconds(grafana):
    async with background_tasks() as tasks:
        await opened(grafana, tasks)
        grafana.complete.set()
        grafana.complete = anyio.Event()
        await anyio.sleep(2.9)
        assert grafana.subscriptions == 1
        await anyio.sleep(0.2)
    assert grafana.subscriptions == 2


async def test_rows_before_the_range_and_beyond_the_limit_are_trimmed(grafana):
    async with background_tasks() as tasks:
        panel = await opened(grafana, tasks, points=4)
        narrow = Tab(grafana, tasks).open({}, 15.0)
        await anyio.sleep(0.05)
        grafana.on_event(None, packet(10, 11))
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
            {"cursor": {"epoch": "e", "prev": 1, "last": 9, "column": 0}}
            | {"data": {"values": [[3, 3]]}},
            "not in (1, 9]",
        ),
        (
            {"cursor": {"epoch": "e", "prev": 1, "last": 9, "column": 0}}
            | {"data": {"values": [[1]]}},
            "not in (1, 9]",
        ),
    ],
)
def test_a_packet_that_violates_the_protocol_is_found(message, fault):
    assert fault in " ".join(packet_faults(message))


def test_cursors_are_a_column_or_consecutive():
    cursor = {"epoch": "e", "prev": 1, "last": 9}
    values = {"data": {"values": [[4, 8]]}}
    assert packet_faults({"cursor": {**cursor, "column": 0}} | values) == []
    assert packet_faults(packet(1, 9)) == []


@pytest.mark.parametrize(
    ("packets", "faults", "gaps"),
    [
        ([packet(1, 1), packet(1, 2), packet(2, 2), packet(2, 5)], 0, 0),
        ([packet(1, 2)], 1, 0),
        ([packet(1, 1), packet(0, 2)], 1, 0),
        ([packet(1, 1), packet(3, 4)], 0, 1),
        ([packet(5, 5), packet(0, 1, "other")], 0, 0),
    ],
)
def test_a_run_begins_with_a_hello_and_has_no_gaps(packets, faults, gaps):
    check = RunCheck()
    for one in packets:
        check.check(one)
    assert (len(check.faults), check.gaps) == (faults, gaps)


@pytest.mark.parametrize(
    ("drawn_rows", "expected", "tally"),
    [
        ([1, 2, 3], [1, 2, 3], Tally(1)),
        ([1, 3], [1, 2, 3], Tally(1, missing=1)),
        ([1, 2, 2, 3], [1, 2, 3], Tally(1, duplicated=1)),
        ([1, 3, 2], [1, 2, 3], Tally(1, out_of_order=1)),
        ([1, 2, 3, 4], [1, 2, 3], Tally(1, unexpected=1)),
    ],
)
def test_wrong_rows_are_counted(drawn_rows, expected, tally):
    assert compare(drawn_rows, expected) == tally


async def test_the_judge_checks_every_drawing(grafana):
    judge = Judge(lambda panel, drawing: list(range(1, drawing.cursor + 1)))
    async with background_tasks() as tasks:
        await opened(grafana, tasks, on_draw=judge)
        grafana.on_event(None, packet(10, 11))
        await anyio.sleep(0.1)
        assert judge.tally == Tally(2)
        cursor = {"epoch": "e", "prev": 11, "last": 13, "column": 1}
        grafana.on_event(None, {"cursor": cursor, "data": {"values": [[13_000], [13]]}})
        await anyio.sleep(0.1)
    assert judge.tally == Tally(3, missing=1) and len(judge.wrong) == 1
