"""A stream with a cursor whose rows have labels: series in exact panels."""

import random
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import pytest

from aiostream_ds import Cursor, DataSource, HistoryRange, Rows, SchemaPolicy, UpstreamError, stream
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._grafana.replay import REPLAY_ROWS
from aiostream_ds._telemetry import Counters
from aiostream_ds.testing import serve_in_memory

T = 1_700_000_000_000
Value = tuple[int, str, float]
"""The time, the host and the value of one row."""


def row(n: int, time: int, host: str) -> dict[str, Any]:
    return {"time": time, "n": n, "host": host, "v": float(n)}


class Hosts(DataSource):
    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.added = anyio.Event()

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.log += rows
        self.added.set()
        self.added = anyio.Event()

    @stream("hosts", cursor="n", schema=SchemaPolicy(labels=("host",)))
    async def hosts(self, after: Cursor) -> Rows[list[dict[str, Any]]]:
        last = after.value
        while True:
            added = self.added
            new = [each for each in self.log if each["n"] > last]
            if new:
                last = new[-1]["n"]
                yield new
            else:
                await added.wait()

    @hosts.history
    async def read(self, history_range: HistoryRange) -> list[dict[str, Any]]:
        return history_range.select(self.log, cursor="n")


def values_of(names: list[str], columns: list[list[Any]]) -> tuple[list[Value], list[int]]:
    """What is in a table, and its cursors."""
    times, cursors = (columns[names.index(name)] for name in ("time", "n"))
    found = [
        (time, name.partition('host="')[2][:-2], value)
        for name, column in zip(names, columns, strict=True)
        if name.startswith("v ")
        for time, value in zip(times, column, strict=True)
        if value is not None
    ]
    return found, cursors


def encoder() -> CursorEncoder:
    policy = SchemaPolicy(labels=("host",))
    found = CursorEncoder(RowEncoder(None, policy, common=("n",)), CursorKind("n"), Counters())
    found.begin(Cursor("", 0))
    return found


def test_consecutive_rows_of_one_time_are_one_row_with_the_last_cursor():
    rows = [row(1, T, "a"), row(2, T, "b"), row(3, T + 1, "a"), row(4, T, "c"), row(5, T, "c")]
    (packet,) = encoder().encode([rows])
    frame = json.decode(b'{"schema":%b,"data":%b}' % (packet.schema.body, packet.data))
    columns = {field.name: list(field.values) for field in frame.fields}
    assert (columns["time"], columns["n"]) == ([T, T + 1, T, T], [2, 3, 4, 5])
    assert columns['v {host="a"}'] == [1.0, 3.0, None, None]
    assert columns['v {host="c"}'] == [None, None, 4.0, 5.0]
    assert (packet.cursors.prev, packet.cursors.last, packet.rows) == (0, 5, 4)


def test_rows_that_came_before_are_left_out_of_series_too():
    cursors = encoder()
    cursors.encode([[row(1, T, "a"), row(2, T, "b")]])
    (packet,) = cursors.encode([[row(2, T, "b"), row(3, T, "c")]])
    assert (packet.cursors.prev, packet.cursors.last, packet.rows) == (2, 3, 1)


@pytest.mark.slow
async def test_every_row_is_in_the_history_or_replayed_once():
    chosen = random.Random(7)
    time, rows = T, []
    for n in range(1, 2 * REPLAY_ROWS + 2_000):
        time += chosen.random() < 0.3
        rows.append(row(n, time - 5 * (chosen.random() < 0.05), f"h{chosen.randrange(6)}"))
    async with serve_in_memory(Hosts) as grafana:
        (await grafana.data_source(Hosts)).add(rows)
        start, end = datetime.fromtimestamp(T / 1000 - 1, UTC), datetime.now(UTC)
        query = {"queryType": "hosts", "exact": True}
        (frame,) = await grafana.query(query, start=start, end=end, max_data_points=500)
        assert frame.meta.custom["cursor"]["last"] == len(rows)
        names = [field.name for field in frame.fields]
        found: list[Value] = []
        after, more = 0, True
        while more:
            body = (await grafana.resource(f"replay/rows?path=x/hosts&after={after}")).body
            answer = msgspec.json.decode(body)
            assert answer["cursor"]["prev"] == after and not answer["truncated"]
            page, cursors = values_of(names, answer["data"]["values"])
            assert all(a < b for a, b in zip([after, *cursors], cursors, strict=False))
            found += page
            after, more = answer["cursor"]["last"], answer["more"]
    expected = [(each["time"], each["host"], each["v"]) for each in rows]
    assert (after, sorted(found)) == (len(rows), sorted(expected))


async def test_live_rows_of_series_continue_the_history():
    async with serve_in_memory(Hosts) as grafana:
        source = await grafana.data_source(Hosts)
        now = int(datetime.now(UTC).timestamp() * 1000)
        source.add([row(1, now - 10, "a"), row(2, now - 10, "b")])
        (frame,) = await grafana.query({"queryType": "hosts", "exact": True})
        assert [dict(field.labels) for field in frame.fields[2:]] == [{"host": "a"}, {"host": "b"}]
        viewer = await grafana.follow("x/hosts", frame=frame)
        await viewer.message()  # the initial data of the subscription
        await viewer.message()  # the cursor at the start of the run
        source.add([row(3, now, "b"), row(4, now, "a")])
        while "data" not in (message := await viewer.message()):
            pass
        assert message["cursor"] | {"prev": 2, "last": 4} == message["cursor"]
        assert message["data"]["values"] == [[now], [4], [4.0], [3.0]]


@pytest.mark.slow
async def test_an_outage_of_a_stream_with_series_is_filled():
    class Interrupted(Hosts):
        runs = 0

        @stream("hosts", cursor="n", schema=SchemaPolicy(labels=("host",)))
        async def hosts(self, after: Cursor) -> Rows[list[dict[str, Any]]]:
            self.runs += 1
            if self.runs == 1:
                yield [row(1, T, "a")]
                self.log += [row(n, T + n // 3, "abc"[n % 3]) for n in range(2, 10)]
                raise UpstreamError("away")
            yield [row(10, T + 9, "a")]
            await anyio.sleep_forever()

        @hosts.history
        async def read(self, history_range: HistoryRange) -> list[dict[str, Any]]:
            return history_range.select(self.log, cursor="n")

    async with serve_in_memory(Interrupted) as grafana:
        viewer = await grafana.follow("hosts")
        found: list[Value] = []
        with anyio.fail_after(10):
            while len(found) < 10:
                for each in await viewer.take(1):
                    found += [
                        (each["time"], name.partition('host="')[2][:-2], value)
                        for name, value in each.items()
                        if name.startswith("v") and value is not None
                    ]
    assert sorted(value for _, _, value in found) == [float(n) for n in range(1, 11)]


async def test_a_history_whose_newest_rows_are_of_series_beyond_the_limit_has_a_notice():
    class Few(Hosts):
        @stream("hosts", cursor="n", schema=SchemaPolicy(labels=("host",), series=1))
        async def hosts(self, after: Cursor) -> Rows[list[dict[str, Any]]]:
            await anyio.sleep_forever()
            yield []

        @hosts.history
        async def read(self, history_range: HistoryRange) -> list[dict[str, Any]]:
            return history_range.select(self.log, cursor="n")

    async with serve_in_memory(Few) as grafana:
        source = await grafana.data_source(Few)
        now = int(datetime.now(UTC).timestamp() * 1000)
        source.add([row(1, now - 60_000, "a")])
        await grafana.query({"queryType": "hosts", "exact": True})
        source.add([row(n, now - 50_000 + n, f"other{n}") for n in range(2, 12_000)])
        (frame,) = await grafana.query({"queryType": "hosts", "exact": True}, max_data_points=500)
        assert frame.rows <= 1 and frame.meta.custom["cursor"]["last"] <= 11_999
        assert "left out" in frame.meta.notices[0].text
