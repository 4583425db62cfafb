"""A stream whose method can only follow new rows misses none: the runtime asks the history for the
rows between the last known cursor and the first live row."""

import itertools
import logging
from contextlib import aclosing
from typing import ClassVar

import anyio
import msgspec
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Frame,
    HistoryPage,
    HistoryRange,
    Retry,
    Row,
    Rows,
    Status,
    UpstreamError,
    stream,
)
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual

EVERY = 0.02  # seconds between two rows


class Tick(Row):
    time: int
    n: int


def tick(n):
    return Tick(1_700_000_000_000 + n, n)


class Broker:
    """A log, and subscriptions that get what is written while they are open."""

    def __init__(self):
        self.rows: list[Tick] = [tick(n) for n in range(1, 6)]
        self.live: set[anyio.abc.ObjectSendStream] = set()
        self.step = 1
        self.questions: list[HistoryRange] = []
        self.runs = 0
        self.subscribe_delay = self.row_delay = self.history_delay = 0.0
        self.index_delay = 0  # rows by which the history is late
        self.trimmed = 0  # rows up to this cursor are gone
        self.down = False

    def write(self, count=1):
        for _ in range(count):
            row = tick(self.rows[-1].n + self.step)
            self.rows.append(row)
            for each in self.live:
                each.send_nowait(row)

    async def run(self):
        while True:
            await anyio.sleep(EVERY)
            self.write()

    def disconnect(self):
        for each in tuple(self.live):
            self.live.discard(each)
            each.close()


class Source(DataSource):
    broker: ClassVar[Broker]

    @stream("ticks", cursor="n", retry=Retry(min_delay=0.2, max_delay=0.5, jitter=0))
    async def ticks(self, after: Cursor) -> Rows[Tick | Status]:
        async with aclosing(self.follow()) as rows:
            async for row in rows:
                yield row

    async def follow(self):
        broker = self.broker
        broker.runs += 1
        await anyio.sleep(broker.subscribe_delay)
        if broker.down:
            raise UpstreamError("refused")
        send, receive = anyio.create_memory_object_stream(10_000)
        broker.live.add(send)
        try:
            await anyio.sleep(broker.row_delay)
            async for row in receive:
                yield row
        finally:
            broker.live.discard(send)
            send.close()
            receive.close()
        raise UpstreamError("disconnected")

    @ticks.history
    async def past(self, history_range: HistoryRange) -> HistoryPage:
        broker = self.broker
        broker.questions.append(history_range)
        await anyio.sleep(broker.history_delay)
        rows = [row for row in broker.rows if row.n > broker.trimmed]
        if broker.index_delay:
            rows = rows[: -broker.index_delay]
        after = history_range.after
        if after is None:
            return HistoryPage(rows[-history_range.limit :])
        upto = history_range.upto or 1 << 53
        found = [row for row in rows if after < row.n <= upto][: history_range.limit]
        return HistoryPage(found, truncated=after < broker.trimmed)


@pytest.fixture
def broker():
    Source.broker = Broker()
    return Source.broker


def numbers(viewer):
    return [row["n"] for row in viewer.rows]


async def open_viewers(grafana):
    (frame,) = await grafana.query({"queryType": "ticks", "exact": True})
    exact = await grafana.follow("x/ticks", frame=frame)
    stock = await grafana.follow("ticks")
    return exact, stock


def check_exact(viewer, broker):
    """The viewer has all rows after the cursor at which its stream began, once and in order."""
    cursors = [msgspec.json.decode(packet)["cursor"] for packet in viewer.packets]
    begun = [cursor["last"] for cursor in cursors if cursor["prev"] == cursor["last"]]
    found = numbers(viewer)
    assert found[0] - 1 in begun and found == list(range(found[0], found[-1] + 1))
    assert found[-1] > broker.rows[-1].n - 50
    return found


def asked(broker):
    return [(q.after, q.upto) for q in broker.questions if q.after is not None]


def statuses(viewer):
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    return [message["status"] for message in found if message.get("status")]


DELAYS = [0.0, 0.001, 0.3]


GRID = [
    pytest.param(*delays, marks=pytest.mark.slow if len(set(delays)) > 1 else ())
    for delays in itertools.product(DELAYS, DELAYS, DELAYS)
]


@pytest.mark.slow
@pytest.mark.parametrize(("subscribe", "row", "history"), GRID)
async def test_no_row_is_missing_at_the_start_and_after_outages_whatever_is_slow(
    broker, subscribe, row, history
):
    broker.subscribe_delay, broker.row_delay, broker.history_delay = subscribe, row, history
    async with serve_in_memory(Source) as grafana, anyio.create_task_group() as tasks:
        tasks.start_soon(broker.run)
        exact, stock = await open_viewers(grafana)
        for _ in range(3):
            await anyio.sleep(3)
            broker.disconnect()
        await anyio.sleep(3)
        tasks.cancel_scope.cancel()
    assert len(check_exact(exact, broker)) > 400 and broker.runs == 4
    seen = numbers(stock)
    assert seen == list(range(seen[0], seen[-1] + 1)), "a stock viewer misses none either"


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.5, 0.55, 0.7])
async def test_no_row_is_missing_after_an_outage_at_any_moment_of_a_start(broker, moment):
    broker.subscribe_delay = broker.row_delay = broker.history_delay = 0.2
    async with serve_in_memory(Source) as grafana, anyio.create_task_group() as tasks:
        tasks.start_soon(broker.run)
        exact, stock = await open_viewers(grafana)
        await anyio.sleep(moment)
        broker.disconnect()
        broker.down = True
        await anyio.sleep(2)
        broker.down = False
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    check_exact(exact, broker)
    seen = numbers(stock)
    assert seen == list(range(seen[0], seen[-1] + 1))


async def test_rows_that_the_history_adds_are_counted_and_are_no_duplicates(broker):
    broker.subscribe_delay = 0.3
    async with serve_in_memory(Source) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write(10)
        await anyio.sleep(1)
        assert numbers(exact) == [], "no live row has come yet"
        broker.write()
        await anyio.sleep(0.1)
        assert numbers(exact) == list(range(6, 17))
        metrics = await grafana.metrics()
    assert metrics["aiostream_ds_rows_filled_total"] == 10
    assert metrics['aiostream_ds_dropped_total{reason="duplicate"}'] == 0
    assert metrics["aiostream_ds_gaps_total"] == 0


async def test_a_run_that_continues_the_last_row_asks_the_history_nothing(broker):
    async with serve_in_memory(Source) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write(10)
        await anyio.sleep(0.1)
        assert numbers(exact) == list(range(6, 16)) and asked(broker) == []


async def test_the_history_is_asked_once_for_a_numbering_with_gaps(broker):
    broker.step = 10
    async with serve_in_memory(Source) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write(10)
        await anyio.sleep(0.1)
        assert numbers(exact) == list(range(15, 115, 10))
        assert asked(broker) == [(5, 15)]


@pytest.mark.slow
async def test_a_history_that_is_late_is_asked_until_it_has_the_first_live_row(broker):
    broker.subscribe_delay, broker.index_delay = 0.3, 25
    broker.rows = [tick(n) for n in range(1, 100)]
    async with serve_in_memory(Source) as grafana, anyio.create_task_group() as tasks:
        tasks.start_soon(broker.run)
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    assert len(check_exact(exact, broker)) > 200


async def test_a_gap_that_the_history_cannot_fill_is_visible(broker, caplog):
    caplog.set_level(logging.WARNING)
    broker.subscribe_delay = 0.3
    async with serve_in_memory(Source) as grafana:
        exact, stock = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write(10)
        broker.index_delay = 100
        await anyio.sleep(0.5)
        broker.write()
        await anyio.sleep(10)
        packets = [msgspec.json.decode(packet)["cursor"] for packet in exact.packets]
        assert (15, 16) in [(each["prev"], each["last"]) for each in packets], "a panel fetches it"
        assert numbers(stock) == [16]
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_gaps_total"] == 1
        assert metrics['aiostream_ds_streams_degraded{status="gap"}'] == 1
        assert {"severity": "warning", "text": "rows are missing"} in statuses(exact)
        assert [m for m in caplog.messages if m.startswith("rows are missing: the history")]
        await anyio.sleep(30)
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_streams_degraded{status="gap"}'] == 0


async def test_rows_that_are_no_longer_stored_are_a_visible_gap(broker, caplog):
    broker.subscribe_delay = 0.3
    async with serve_in_memory(Source) as grafana:
        exact, stock = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write(10)
        broker.trimmed = 12
        await anyio.sleep(0.5)
        broker.write()
        await anyio.sleep(1)
        packets = [msgspec.json.decode(packet)["cursor"] for packet in exact.packets]
        assert (12, 15) in [(each["prev"], each["last"]) for each in packets]
        assert numbers(stock) == [13, 14, 15, 16]
        assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1
    assert "rows are missing: they are no longer stored" in caplog.messages


@pytest.mark.slow
async def test_a_history_that_fails_at_the_first_row_interrupts_the_stream(broker):
    class Failing(Source):
        fails = 2

        async def past(self, history_range):
            if history_range.upto is not None and self.fails:
                Failing.fails -= 1
                raise UpstreamError("the database is down")
            return await super().past(history_range)

    broker.subscribe_delay = 0.3
    async with serve_in_memory(Failing) as grafana, anyio.create_task_group() as tasks:
        tasks.start_soon(broker.run)
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(10)
        tasks.cancel_scope.cancel()
    assert len(check_exact(exact, broker)) > 400
    text = "reconnecting (2): the database is down"
    assert {"severity": "warning", "text": text} in statuses(exact)


async def test_a_fill_ends_at_its_limit(broker, monkeypatch):
    monkeypatch.setattr("aiostream_ds._grafana.stream_runs.REPLAY_ROWS", 50)
    monkeypatch.setattr("aiostream_ds._streams.gap_filling.FILL_LIMIT", 100)
    broker.subscribe_delay = 0.3
    async with serve_in_memory(Source) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write(300)
        await anyio.sleep(0.5)
        broker.write()
        await anyio.sleep(1)
        packets = [msgspec.json.decode(packet)["cursor"] for packet in exact.packets]
        found = [(each["prev"], each["last"]) for each in packets if each["prev"] < each["last"]]
        assert found == [(5, 55), (55, 105), (305, 306)]
        assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1


@pytest.mark.parametrize("continues", [True, False])
async def test_the_limit_holds_for_a_run_and_what_exceeds_it_is_a_gap_at_its_first_row(
    broker, continues, monkeypatch, caplog
):
    monkeypatch.setattr("aiostream_ds._grafana.stream_runs.REPLAY_ROWS", 50)
    monkeypatch.setattr("aiostream_ds._streams.gap_filling.FILL_LIMIT", 100)

    class Continuing(Source):
        @stream("ticks", cursor="n", retry=Retry(min_delay=0.2, max_delay=0.5, jitter=0))
        async def ticks(self, after: Cursor) -> Rows[Tick]:
            if broker.runs and continues:
                yield [row for row in broker.rows if row.n > after.value]
            async with aclosing(self.follow()) as rows:
                async for row in rows:
                    yield row

        ticks.history(Source.past)

    async with serve_in_memory(Continuing) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(0.1)
        broker.write()
        broker.disconnect()
        broker.write(300)
        await anyio.sleep(1)
        assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0, "nothing is missing yet"
        broker.write()
        await anyio.sleep(10)
        packets = [msgspec.json.decode(packet)["cursor"] for packet in exact.packets]
        found = [(each["prev"], each["last"]) for each in packets if each["prev"] < each["last"]]
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_rows_filled_total"] == 100
        if continues:
            assert numbers(exact) == list(range(6, 308))
        else:
            assert found == [(5, 6), (6, 56), (56, 106), (306, 307)]
        assert metrics["aiostream_ds_gaps_total"] == (0 if continues else 1)
    expected = "those between the cursors 106 and 307 exceed the 100 rows that are filled"
    assert (f"rows are missing: {expected}" in caplog.messages) is not continues


@pytest.mark.parametrize("kind", ["list", "columns", "frame", "dict"])
async def test_the_first_rows_may_be_a_batch_of_any_kind(broker, kind):
    def batch(rows):
        if kind == "list":
            return rows
        columns = {"time": [row.time for row in rows], "n": [row.n for row in rows]}
        if kind == "columns":
            return Tick.from_columns(**columns)
        if kind == "frame":
            return Frame.from_columns(columns)
        return [{"time": row.time, "n": row.n} for row in rows]

    class Batches(DataSource):
        @stream("ticks", cursor="n")
        async def ticks(self, after: Cursor):
            yield Status("info", "subscribing")
            await anyio.sleep(0.3)
            yield []
            yield batch([tick(n) for n in (4, 5, 9, 10)])
            await anyio.sleep_forever()

        @ticks.history
        async def past(self, history_range):
            rows = broker.rows
            if history_range.after is not None:
                rows = [r for r in rows if history_range.after < r.n <= history_range.upto]
            return batch(rows[-history_range.limit :])

    async with serve_in_memory(Batches) as grafana:
        exact, _ = await open_viewers(grafana)
        broker.write(5)
        await anyio.sleep(1)
        assert numbers(exact) == [6, 7, 8, 9, 10]


async def test_a_cursor_states_what_the_rows_follow(broker):
    class Stating(Source):
        @stream("ticks", cursor="n")
        async def ticks(self, after: Cursor) -> Rows[Tick | Cursor]:
            yield after
            await anyio.sleep(0.3)
            yield tick(9)
            await anyio.sleep_forever()

    async with serve_in_memory(Stating) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(1)
        assert numbers(exact) == [9] and asked(broker) == []


async def test_fill_false_leaves_the_rows_to_the_method(broker):
    class Own(Source):
        @stream("ticks", cursor="n", retry=Retry(fill=False))
        async def ticks(self, after: Cursor) -> Rows[Tick]:
            yield tick(9)
            await anyio.sleep_forever()

    async with serve_in_memory(Own) as grafana:
        exact, _ = await open_viewers(grafana)
        await anyio.sleep(1)
        assert numbers(exact) == [9] and asked(broker) == []


async def test_a_yield_in_a_timeout_is_found_while_the_history_is_asked(broker, caplog):
    class Timed(Source):
        @stream("ticks", cursor="n")
        async def ticks(self, after: Cursor) -> Rows[Tick]:
            with anyio.move_on_after(0.1):
                yield tick(9)
            await anyio.sleep_forever()

    async with serve_in_memory(Timed) as grafana:
        broker.history_delay = 0.0
        (frame,) = await grafana.query({"queryType": "ticks", "exact": True})
        await grafana.follow("x/ticks", frame=frame)
        broker.history_delay = 1.0
        await anyio.sleep(4)
    assert "yields inside a timeout" in caplog.text
