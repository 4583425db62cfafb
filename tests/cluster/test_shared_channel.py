"""What a shared channel makes of messages: parts for the engine, and rows that are cut off."""

import msgspec
import pytest

from aiostream_ds import Cursor
from aiostream_ds._channels.policy import PACKET_BYTES
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._grafana.shared_channel import _after, _parts
from aiostream_ds._telemetry import Counters

TIME = 1_700_000_000_000
KIND = CursorKind("n")


@pytest.mark.parametrize(
    ("after", "left"), [(0, [1, 2, 3, 4, 5]), (2, [3, 4, 5]), (5, []), (9, [])]
)
def test_rows_up_to_a_cursor_are_cut_off(after, left):
    encoder = CursorEncoder(RowEncoder(), KIND, Counters())
    encoder.begin(Cursor("e", 0))
    rows = [{"time": TIME + n, "n": n, "x": float("nan")} for n in range(1, 6)]
    packets = _after(encoder.encode(rows), after, KIND)
    columns = [msgspec.json.decode(packet.data)["values"] for packet in packets]
    assert [n for column in columns for n in column[1]] == left
    assert [packet.cursors for packet in packets] == [CursorRange("e", after, 5)] * bool(left)
    for packet in packets:
        nan = msgspec.json.decode(packet.data)["entities"][2]["NaN"]
        assert nan == list(range(packet.rows))


def test_a_message_has_one_schema_and_one_epoch_and_is_not_larger_than_a_packet():
    one, two = Schema(b"1", "1"), Schema(b"2", "2")
    large = b"x" * (PACKET_BYTES // 2 + 1)
    packets = [
        Packet(one, b"a", 1),
        Packet(one, large, 1),
        Packet(one, large, 1),
        Packet(two, b"b", 1),
        Packet(two, b"c", 1, CursorRange("e", 0, 1)),
        Packet(two, b"d", 1, CursorRange("f", 0, 1)),
    ]
    found = [(schema.fingerprint, [p.data for p in part]) for schema, part in _parts(packets)]
    assert found == [
        ("1", [b"a", large]),
        ("1", [large]),
        ("2", [b"b"]),
        ("2", [b"c"]),
        ("2", [b"d"]),
    ]
