"""Tables that a stream yields: times, packets, options of the stream, errors."""

import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import pyarrow as pa
import pytest

from aiostream_ds import (
    Broadcast,
    Cursor,
    DataSource,
    FieldType,
    Frame,
    HistoryRange,
    Query,
    Row,
    RowOrder,
    SchemaPolicy,
    query,
    stream,
)
from aiostream_ds._channels.policy import PACKET_BYTES
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.table_rows import live_rows
from aiostream_ds._frames import json
from aiostream_ds._frames.frame import FrameError
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.tables.libraries import library

pytestmark = [pytest.mark.virtual, pytest.mark.slow]

START = datetime(2026, 1, 1, tzinfo=UTC)
MS = int(START.timestamp() * 1000)


class Reading(Row):
    time: datetime
    celsius: float
    note: str | None


def source(*tables: Any, history: Any = None, **options: Any) -> type[DataSource]:
    class Source(DataSource):
        @stream("s", **options)
        async def s(self):
            for table in tables:
                yield table() if callable(table) else table
            await anyio.sleep_forever()

        @s.history
        async def past(self, history_range: HistoryRange):
            return history

    return Source


async def first_rows(count: int, *tables: Any, **options: Any) -> list[dict[str, Any]]:
    async with serve_in_memory(source(*tables, history=[], **options)) as grafana:
        return await (await grafana.follow("s")).take(count)


async def test_a_table_without_times_has_that_of_the_yield():
    rows = await first_rows(2, pa.table({"n": [1, 2]}))
    assert list(rows[0]) == ["time", "n"]
    assert rows[0]["time"] == rows[1]["time"] > MS


async def test_a_time_that_is_null_is_that_of_the_yield():
    times = pa.array([START, None], pa.timestamp("us", "UTC"))
    first, second = await first_rows(2, pa.table({"time": times, "n": [1, 2]}))
    assert first["time"] == MS < second["time"]


async def test_integers_of_the_column_time_are_milliseconds():
    (row,) = await first_rows(1, pa.table({"time": [MS], "n": [1]}))
    assert row == {"time": MS, "n": 1}


async def test_nanoseconds_reach_the_browser():
    times = pa.array([MS * 10**6 + 123_456_789], pa.timestamp("ns"))
    (packet,) = RowEncoder().encode([live_rows(pa.table({"time": times, "n": [1]}))])
    assert msgspec.json.decode(packet.data) == {
        "values": [[MS + 123], [1]],
        "nanos": [[456_789], None],
    }


async def test_a_large_table_is_cut_into_packets():
    table = pa.table({"time": [MS] * 50_000, "text": ["a text of 20 letters"] * 50_000})
    packets = RowEncoder().encode([live_rows(table)])
    assert len(packets) > 4
    assert sum(packet.rows for packet in packets) == 50_000
    assert max(len(packet.data) for packet in packets) <= PACKET_BYTES
    assert {packet.schema.fingerprint for packet in packets} == {packets[0].schema.fingerprint}


async def test_the_schema_does_not_depend_on_the_values():
    encoder = RowEncoder()
    schemas = {
        packet.schema.fingerprint
        for values in ([1.5], [None], [float("nan")])
        for packet in encoder.encode(
            [live_rows(pa.table({"time": [MS], "v": pa.array(values, pa.float64())}))]
        )
    }
    assert len(schemas) == 1


async def test_an_empty_table_sends_nothing():
    empty = pa.table({"time": pa.array([], pa.timestamp("s")), "n": pa.array([], pa.int64())})
    assert RowEncoder().encode([live_rows(empty)]) == []
    rows = await first_rows(1, empty, pa.table({"time": [MS], "n": [1]}))
    assert rows == [{"time": MS, "n": 1}]
    async with serve_in_memory(source(history=empty)) as grafana:
        (frame,) = await grafana.query({"queryType": "s"})
        assert frame.rows == 0


async def test_what_is_changed_after_the_yield_is_not_sent():
    pd = library("pandas")

    class Source(DataSource):
        @stream("s")
        async def s(self):
            table = pd.DataFrame({"time": [START], "n": [1]})
            for n in range(3):
                table["n"].array[:] = n
                yield table
                table.loc[:, "n"] = -1
            await anyio.sleep_forever()

    async with serve_in_memory(Source) as grafana:
        rows = await (await grafana.follow("s")).take(3)
        assert [row["n"] for row in rows] == [0, 1, 2]


async def test_what_a_thread_changes_after_the_yield_is_not_sent():
    pd = library("pandas")

    class Source(DataSource):
        @stream("s")
        def s(self):
            table = pd.DataFrame({"time": [START], "n": [1]})
            for n in range(100):
                table.loc[:, "n"] = n
                yield table

    async with serve_in_memory(Source) as grafana:
        rows = await (await grafana.follow("s")).take(100)
        assert [row["n"] for row in rows] == list(range(100))


async def test_what_is_changed_after_it_was_published_is_not_sent():
    pd = library("pandas")
    readings = Broadcast[Any]()

    class Source(DataSource):
        @stream("s")
        async def s(self):
            async for table in readings.subscribe():
                yield table

    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("s")
        await anyio.sleep(1)
        table = pd.DataFrame({"time": [START], "n": [0]})
        for n in range(3):
            table.loc[:, "n"] = n
            readings.publish(table)
        assert [row["n"] for row in await viewer.take(3)] == [0, 1, 2]


async def test_columns_of_rows_may_be_of_any_library():
    pd = library("pandas")
    times = pd.date_range("2026-01-01", periods=2, freq="1s", tz="Europe/Berlin")
    celsius = pd.Series([1.5, 2.5])
    notes = pa.chunked_array([["a"], [None]])

    def columns() -> Any:
        found = Reading.from_columns(time=times, celsius=celsius, note=notes)
        celsius.array[:] = 0.0
        return found

    rows = await first_rows(2, columns)
    assert rows == [
        {"time": MS - 3_600_000, "celsius": 1.5, "note": "a"},
        {"time": MS - 3_599_000, "celsius": 2.5, "note": None},
    ]


async def test_series_by_labels_keep_their_columns_and_rows_of_one_time_are_one():
    table = pa.table(
        {
            "time": pa.array([START, START, None], pa.timestamp("us", "UTC")),
            "host": pa.array(["a", "b", "a"]).dictionary_encode(),
            "cpu": pa.array([0.5, 0.25, 1.0], pa.float32()),
            "cores": pa.array([4, None, 8], pa.uint8()),
        }
    )
    rows = await first_rows(2, table, schema=SchemaPolicy(labels=("host",)))
    assert rows[0] == {
        "time": MS,
        'cpu {host="a"}': 0.5,
        'cores {host="a"}': 4,
        'cpu {host="b"}': 0.25,
    }
    assert (rows[1]['cpu {host="a"}'], rows[1]['cores {host="a"}']) == (1.0, 8)
    assert rows[1]["time"] > MS


async def test_rows_of_tables_are_sorted_by_their_time():
    tables = [pa.table({"time": [MS + n for n in part], "n": part}) for part in ([1, 4], [2, 3])]
    order = RowOrder(late="hold", hold=1)
    rows = await first_rows(4, *tables, order=order)
    assert [row["n"] for row in rows] == [1, 2, 3, 4]


async def test_tables_in_a_list_are_read_as_others_are():
    empty = pa.table({"time": pa.array([], pa.int64()), "n": pa.array([], pa.int64())})
    one, two = (pa.table({"time": [MS + n], "n": [n]}) for n in (2, 1))
    assert await first_rows(2, [one, empty, two]) == [
        {"time": MS + 2, "n": 2},
        {"time": MS + 1, "n": 1},
    ]
    rows = await first_rows(2, [one, empty, two], order=RowOrder(late="hold", hold=1))
    assert [row["n"] for row in rows] == [1, 2]
    rows = await first_rows(4, [two, {"time": MS + 3, "n": 3}], (one, two))
    assert [row["n"] for row in rows] == [1, 3, 2, 1]


async def test_tables_have_cursors_of_two_columns():
    class Source(DataSource):
        @stream("s", cursor=("ms", "seq"))
        async def s(self, after: Cursor):
            yield pa.table({"time": [MS] * 2, "ms": [MS] * 2, "seq": [0, 1]})
            yield pa.table({"time": [MS] * 2, "ms": [MS] * 2, "seq": [1, 2]})
            await anyio.sleep_forever()

        @s.history
        async def past(self, history_range: HistoryRange):
            return []

    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("s")
        rows = await viewer.take(3)
        assert [(row["ms"], row["seq"]) for row in rows] == [(MS, 0), (MS, 1), (MS, 2)]
        assert all(field.config is not None for field in viewer.fields[1:])  # hidden


async def test_tables_in_a_list_have_cursors():
    class Source(DataSource):
        @stream("s", cursor="n")
        async def s(self, after: Cursor):
            yield [pa.table({"time": [MS], "n": [1]}), pa.table({"time": [MS] * 2, "n": [1, 2]})]
            yield [{"time": MS, "n": 3}, pa.table({"time": [MS], "n": [4]})]
            await anyio.sleep_forever()

        @s.history
        async def past(self, history_range: HistoryRange):
            return []

    async with serve_in_memory(Source) as grafana:
        rows = await (await grafana.follow("s")).take(4)
        assert [row["n"] for row in rows] == [1, 2, 3, 4]


async def test_a_status_column_is_added_to_tables():
    nanos = pa.array([MS * 10**6 + 1], pa.timestamp("ns"))
    (row,) = await first_rows(1, pa.table({"time": nanos, "n": [1]}), status_column="status")
    assert row == {"time": MS, "n": 1, "status": "live"}


async def test_duplicates_by_the_cursor_are_dropped_and_counted():
    class Source(DataSource):
        @stream("s", cursor="n")
        async def s(self, after: Cursor):
            yield pa.table({"time": [MS] * 3, "n": [1, 1, 2]})
            yield pa.table({"time": [MS] * 2, "n": [2, 3]})
            await anyio.sleep_forever()

        @s.history
        async def past(self, history_range: HistoryRange):
            return []

    async with serve_in_memory(Source) as grafana:
        rows = await (await grafana.follow("s")).take(3)
        assert [row["n"] for row in rows] == [1, 2, 3]
        assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="duplicate"}'] == 2


async def test_the_log_of_a_stream_replays_the_rows_of_tables():
    table = pa.table({"time": [MS, MS + 1], "n": [1, 2], "text": pa.array(["a", None])})

    class Source(DataSource):
        @stream("s")
        async def s(self):
            yield table
            await anyio.sleep_forever()

    async with serve_in_memory(Source) as grafana:
        await (await grafana.follow("s")).take(2)
        (frame,) = await grafana.query(
            {"queryType": "s", "exact": True}, start=START, end=datetime(2026, 1, 2, tzinfo=UTC)
        )
        assert [field.values for field in frame.fields] == [[MS, MS + 1], [1, 2], ["a", None]]


# Errors

BAD_COLUMN = pa.table({"time": [MS], "dt": pa.array([1], pa.int64())}).append_column(
    "secret column", pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
)


def invalid(kind: pa.DataType) -> pa.Array:
    """Bytes that are not UTF-8, as a column of this type."""
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), invalid(kind.value_type))
    offsets = pa.array([0, 1], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(kind, 1, [None, offsets, pa.py_buffer(b"\xff")])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (BAD_COLUMN, "field 'secret column': expected numbers, .*got sparse_union"),
        (pa.table({"c": [{"a": b"x"}]}), "field 'c': expected JSON"),
        (pa.table({"c": invalid(pa.string())}), "field 'c': expected valid UTF-8"),
        (pa.table({"c": invalid(pa.dictionary(pa.int8(), pa.string()))}), "field 'c': .*decode"),
        (pa.table({"c": invalid(pa.binary())}), "field 'c'.*: expected bytes that are UTF-8"),
        (pa.table({"c": pa.RunEndEncodedArray.from_arrays([1], [1])}), "got run_end_encoded"),
        (pa.table({"time": ["noon"]}), "column 'time' must be times, .*got string"),
        (pa.table({"time": [1.5]}), "column 'time' must be times, .*got float64"),
        (pa.table([[MS], [1]], names=["time", "time"]), "must have different names, got 'time'"),
        (pa.array([1]), "expected a table, got a Int64Array, .*one column .*to_frame"),
    ],
)
async def test_a_table_that_cannot_be_sent_fails_the_stream_after_the_rows_before(table, message):
    encoder = RowEncoder()
    with pytest.raises((FrameError, TypeError), match=message):
        encoder.encode([live_rows(table)])
    with pytest.raises((FrameError, TypeError), match=message):
        encoder.encode([[{"n": 1}, table]])
    rows = await first_rows(1, pa.table({"time": [MS], "n": [1]}), table)
    assert rows == [{"time": MS, "n": 1}]


async def test_an_error_has_the_text_of_no_table():
    pd = library("pandas")
    table = pd.DataFrame({"secret": ["a text of a table"] * 3})

    class Source(DataSource):
        @query
        async def nested(self, q: Query):
            return {"name": {"table": table}}

        @stream("s")
        async def s(self):
            yield {"time": MS, "v": table}

        @s.history
        async def past(self, history_range: HistoryRange):
            return {"rows": table}

    message = "expected bool, int, float, str, .* got <DataFrame> "
    with pytest.raises(TypeError, match=message):
        RowEncoder().encode([{"v": table}])
    async with serve_in_memory(Source) as grafana:
        for name in ("nested", "s"):
            with pytest.raises(QueryFailed) as failed:
                await grafana.query({"queryType": name})
            assert "<DataFrame>" in str(failed.value)
            assert "text of a table" not in str(failed.value)
            assert len(str(failed.value)) < 400


class Relation:
    """A table that is a query, as a relation of DuckDB."""

    def __init__(self, *values, error=None, wait=None):
        self.table = pa.table({"n": list(values)})
        self.error, self.wait = error, wait
        self.threads = []

    def __arrow_c_stream__(self, requested_schema=None):
        self.threads.append(threading.get_ident())
        if self.wait is not None:
            assert self.wait.wait(20)
        if self.error is not None:
            raise self.error
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("options", [{}, {"order": RowOrder("drop")}])
async def test_a_query_that_is_yielded_runs_in_a_thread_between_the_rows_around_it(options):
    relations = [Relation(2, 3), Relation(), Relation(4)]
    kind = source({"n": 1}, *relations, {"n": 5}, history=[], **options)
    async with serve_in_memory(kind) as grafana:
        rows = await (await grafana.follow("s")).take(5)
    assert [row["n"] for row in rows] == [1, 2, 3, 4, 5]
    for relation in relations:
        (thread,) = relation.threads
        assert thread != threading.get_ident()


async def test_a_query_of_a_stream_with_a_cursor_runs_in_a_thread():
    relation = Relation(1, 2)
    relation.table = relation.table.append_column("time", pa.array([START] * 2))

    class Source(DataSource):
        @stream("s", cursor="n")
        async def s(self, after: Cursor):
            yield relation
            await anyio.sleep_forever()

        @s.history
        async def past(self, history_range: HistoryRange):
            return []

    async with serve_in_memory(Source) as grafana:
        assert len(await (await grafana.follow("s")).take(2)) == 2
    assert relation.threads and threading.get_ident() not in relation.threads


async def test_a_query_that_hangs_holds_only_its_own_stream():
    release = threading.Event()

    class Source(DataSource):
        @stream
        async def hangs(self):
            yield Relation(1, wait=release)

        @stream
        async def lives(self):
            for n in range(3):
                yield {"n": n}
                await anyio.sleep(1)

    async with serve_in_memory(Source) as grafana:
        try:
            hanging = await grafana.follow("hangs")
            lives = await grafana.follow("lives")
            assert [row["n"] for row in await lives.take(3)] == [0, 1, 2]
            threads = (await grafana.data_source(Source)).threads
            assert threads.borrowed_tokens == 1
            hanging.leave()
        finally:
            release.set()


async def test_a_query_that_fails_ends_its_stream_with_its_error(caplog):
    failing = Relation(error=RuntimeError("no such column"))
    async with serve_in_memory(source({"n": 1}, failing, history=[])) as grafana:
        viewer = await grafana.follow("s")
        assert (await viewer.next())["n"] == 1
        await anyio.sleep(1)
    assert "RuntimeError: no such column" in caplog.text
    assert threading.get_ident() not in failing.threads


async def test_a_lazy_table_is_named_with_its_cure():
    lazy = library("polars").LazyFrame({"time": [MS]})

    class Source(DataSource):
        @query
        async def lazy(self, q: Query):
            return lazy

    with pytest.raises(TypeError, match=r"a table, .* got <LazyFrame.*; use its collect\(\)"):
        RowEncoder().encode([lazy])
    async with serve_in_memory(Source) as grafana:
        with pytest.raises(QueryFailed, match=r"use its collect\(\)"):
            await grafana.query({})


async def test_a_history_must_have_times():
    async with serve_in_memory(source(history=pa.table({"n": [1]}))) as grafana:
        with pytest.raises(QueryFailed, match="a table of a history must have a column 'time'"):
            await grafana.query({"queryType": "s"})


async def test_config_must_be_for_a_column():
    with pytest.raises(FrameError, match=r"columns of the table \(a\), got 'b'"):
        Frame.from_table(pa.table({"a": [1]}), config={"b": None})


async def test_times_out_of_range_are_refused_and_not_wrapped():
    for count, unit in ((10**17, "s"), (10**15, "s"), (9 * 10**15, "ms")):
        table = pa.table({"time": pa.array([0, count], pa.timestamp(unit))})
        with pytest.raises(FrameError, match="'time', row 1: expected a time from"):
            json.encode(Frame.from_table(table))


@pytest.mark.slow
def test_no_library_is_imported_by_the_runtime():
    code = """
import sys
import pyarrow as pa
from aiostream_ds._encoding.row_encoder import RowEncoder

def column(kind):
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0])), pa.py_buffer(b"a")]
    )
    if pa.types.is_string(kind):
        return texts
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(column(pa.int8()), texts)
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(16))])

class Table:
    def __arrow_c_stream__(self, requested_schema=None):
        zone = "Europe/Berlin"
        kinds = [pa.timestamp("ns"), pa.timestamp("us", zone), pa.duration("ns"), pa.date32(),
                 pa.time64("ns"), pa.int8(), pa.float32(), pa.bool_(), pa.string(),
                 pa.decimal128(5, 2), pa.dictionary(pa.int8(), pa.string())]
        arrays = [column(kind) for kind in kinds]
        return pa.Table.from_arrays(arrays, list("abcdefghijk")).__arrow_c_stream__()

(packet,) = RowEncoder().encode([Table()])
print(packet.data, sorted({"pandas", "polars", "duckdb"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.endswith(" []\n"), run.stdout + run.stderr


def test_a_frame_has_the_types_of_the_table_without_numpy(monkeypatch):
    """Not every installation of pyarrow has numpy."""
    times = pa.array([MS * 10**6 + 1, None], pa.timestamp("ns"))
    table = pa.table(
        {
            "time": times,
            "s": times.cast(pa.timestamp("s"), safe=False),
            "d": pa.array([1, None], pa.int32()).view(pa.date32()),
            "i": pa.array([1, 2], pa.int16()),
            "f": pa.array([1.5, 2.5], pa.float32()),
            "b": [True, False],
        }
    )
    expected = [(f.type, list(f.values), f.nanos) for f in Frame.from_table(table).fields]
    monkeypatch.delitem(sys.modules, "numpy")
    fields = Frame.from_table(table).fields
    assert {type(field.values) for field in fields} == {list}
    assert [(f.type, f.values, f.nanos) for f in fields] == expected
    assert fields[0].type is FieldType.TIME
