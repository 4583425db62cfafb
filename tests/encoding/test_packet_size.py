"""What is too large for one packet is sent in several, with each kind of rows."""

from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import numpy as np
import pytest

from aiostream_ds import Cursor, DataSource, Field, FieldType, Frame, Row, stream
from aiostream_ds._channels.policy import PACKET_BYTES, ROW_BYTES
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import cursor_kind
from aiostream_ds._encoding.packet_size import encode_rows
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_layout import RowLayout
from aiostream_ds._encoding.status_column import StatusEncoder
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._telemetry import Counters
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.slow  # large lists

ROWS = 30_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = [NOW + timedelta(milliseconds=n) for n in range(ROWS)]


class Line(Row):
    time: datetime
    n: int


KINDS = {
    "a list of dicts": lambda: [[{"time": t, "n": n} for n, t in enumerate(TIMES)]],
    "dicts": lambda: [{"time": t, "n": n} for n, t in enumerate(TIMES)],
    "dicts without a time": lambda: [{"text": "x" * 20, "n": n} for n in range(ROWS)],
    "rows": lambda: [Line(t, n) for n, t in enumerate(TIMES)],
    "columns": lambda: [Line.from_columns(time=TIMES, n=list(range(ROWS)))],
    "arrays": lambda: [
        Line.from_columns(
            time=np.datetime64("2026-01-01", "ms") + np.arange(ROWS), n=np.arange(ROWS)
        )
    ],
    "a frame": lambda: [
        Frame(Field("time", TIMES, FieldType.TIME), Field("n", np.arange(ROWS), FieldType.INT64))
    ],
}
EACH_KIND = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


class Text(Row):
    time: datetime
    text: str


def test_blocks_of_two_classes_are_sent_in_order_and_a_large_one_is_encoded_once_as_a_whole(
    monkeypatch,
):
    encoded = []
    data = RowLayout.data

    def count(layout, values, rows, stamps=None):
        encoded.append(rows)
        return data(layout, values, rows, stamps)

    monkeypatch.setattr(RowLayout, "data", count)
    large = "x" * (2 * PACKET_BYTES // 500)
    blocks = [
        Line.from_columns(time=np.arange(100), n=np.arange(100)),
        Text.from_columns(time=TIMES[:500], text=[large] * 500),
        Text.from_columns(time=TIMES[:100], text=["a"] * 100),
        Line.from_columns(time=np.arange(200), n=np.arange(200)),
    ]
    packets = RowEncoder().encode(blocks)
    assert encoded.count(500) == 1  # to find the size of a row
    rows = [packet.rows for packet in packets]
    assert (rows[0], rows[-2:], sum(rows[1:-2])) == (100, [100, 200], 500) and len(rows) > 5
    texts = {packet.schema.fingerprint for packet in packets[1:-1]}
    assert len(texts) == 1 and packets[0].schema is packets[-1].schema
    assert packets[0].schema.fingerprint not in texts


@EACH_KIND
def test_no_packet_is_too_large_and_each_row_is_sent_once_and_in_order(make):
    encoder = RowEncoder()
    for _ in range(2):
        packets = encoder.encode(make())
        assert len(packets) > 1 and max(len(each.data) for each in packets) <= PACKET_BYTES
        got = [
            n
            for packet in packets
            for n in msgspec.json.decode(packet.data)["values"][_column(packet, "n")]
        ]
        assert got == list(range(ROWS))
        assert len({packet.schema.fingerprint for packet in packets}) == 1
        assert [packet.continues for packet in packets] == [False] + [True] * (len(packets) - 1)


def _column(packet, name):
    fields = msgspec.json.decode(packet.schema.body)["fields"]
    return [field["name"] for field in fields].index(name)


def test_rows_of_one_list_without_a_time_have_one_time():
    packets = RowEncoder().encode([[{"text": "x" * 100, "n": n} for n in range(10_000)]])
    times = [t for packet in packets for t in msgspec.json.decode(packet.data)["values"][0]]
    assert len(packets) > 1 and len(set(times)) == 1


@pytest.mark.parametrize("rows", [1_001, 10_000, ROWS])
def test_each_row_is_encoded_about_once(rows):
    encoded = []

    def encode(start, stop):
        encoded.append(stop - start)
        return Packet(Schema(b"", ""), b"x" * 87 * (stop - start), stop - start)

    packets = encode_rows(rows, encode)
    assert sum(packet.rows for packet in packets) == rows
    assert sum(encoded) - rows <= 64


def test_after_small_rows_large_ones_are_tried_in_few_packets_that_do_not_fit():
    sizes = [5] * 20_000 + [3_000] * 500 + [5] * 20_000
    tried = []

    def encode(start, stop):
        tried.append(stop - start)
        return Packet(Schema(b"", ""), b"x" * sum(sizes[start:stop]), stop - start)

    packets = encode_rows(len(sizes), encode)
    assert max(len(packet.data) for packet in packets) <= PACKET_BYTES
    assert sum(packet.rows for packet in packets) == len(sizes)
    assert len(packets) <= 30 and len(tried) - len(packets) <= 8


def test_rows_that_differ_in_size_are_cut_until_each_packet_fits():
    rows = [[{"time": NOW, "text": "x" * (100_000 if n < 20 else 1)} for n in range(5_000)]]
    packets = RowEncoder().encode(rows)
    assert max(len(each.data) for each in packets) <= PACKET_BYTES
    assert sum(each.rows for each in packets) == 5_000


def test_a_row_that_is_too_large_stays_one_packet():
    (packet,) = RowEncoder().encode([{"time": NOW, "text": "x" * 2 * PACKET_BYTES}])
    assert packet.rows == 1
    packets = RowEncoder().encode([[{"time": NOW, "text": "x" * 2 * PACKET_BYTES}] * 3])
    assert [each.rows for each in packets] == [1, 1, 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_that_grafana_cannot_queue_is_an_error_that_names_its_size_and_the_limit(rows):
    row = {"time": NOW, "text": "x" * ROW_BYTES}
    text = r"a row must have at most 16,777,216 bytes as JSON, got 16,777,2\d\d: Grafana"
    with pytest.raises(ValueError, match=text):
        RowEncoder().encode([[row] * rows])
    (packet,) = RowEncoder().encode([{"time": NOW, "text": "x" * (ROW_BYTES - 100)}])
    assert packet.rows == 1


@pytest.mark.parametrize("kind", ["a list of dicts", "rows", "columns", "arrays", "a frame"])
def test_each_part_has_the_cursors_of_its_rows(kind):
    encoder = CursorEncoder(RowEncoder(), cursor_kind("n"), Counters())
    encoder.begin(Cursor("", 9))
    packets = encoder.encode(KINDS[kind]())
    last = 9
    for packet in packets:
        assert packet.cursors == CursorRange("", last, last + packet.rows)
        last += packet.rows
    assert last == ROWS - 1 and len(packets) > 1
    assert [packet.continues for packet in packets] == [False] + [True] * (len(packets) - 1)


def test_each_part_has_the_status_column():
    packets = StatusEncoder("status").encode(KINDS["a list of dicts"]())
    assert len(packets) > 1
    for packet in packets:
        assert msgspec.json.decode(packet.data)["values"][-1] == ["live"] * packet.rows


@pytest.mark.virtual
async def test_a_viewer_gets_a_list_of_100000_rows_in_packets_that_fit_a_browsers_queue():
    class Source(DataSource):
        @stream("burst")
        async def burst(self):
            yield [{"n": n, "v": n / 7} for n in range(100_000)]

    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("burst")
        await anyio.sleep(5)
        assert [row["n"] for row in viewer.rows] == list(range(100_000))
        assert max(map(len, viewer.packets)) < 1 << 19
