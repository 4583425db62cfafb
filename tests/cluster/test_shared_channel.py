"""What a shared channel makes of messages: parts for the engine, and rows that are cut off."""

from contextlib import aclosing

import anyio
import msgspec
import pytest
from msgspec import structs

from aiostream_ds import Cursor
from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import PACKET_BYTES, Policy
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._cluster.packet_codec import PacketCodec, SharedMessage
from aiostream_ds._cluster.sharing import Incoming
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._grafana.shared_channel import SharedChannel, SharedStream, _after, _parts
from aiostream_ds._telemetry import Counters


class Recorder:
    """The channel of the viewers."""

    open, status = True, None

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def emit(self, *packets: Packet) -> None:
        self.packets += [packet for packet in packets if packet.rows]


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


@pytest.mark.parametrize(
    "body",
    [b'{"fields":[{', b"[]", b'{"fields":[{"name":"a","type":"x","typeInfo":{"frame":"new"}}]}'],
)
async def test_a_schema_that_cannot_be_read_is_counted_and_the_next_one_is_used(body):
    counters, codec, encoder = Counters(), PacketCodec("c"), RowEncoder()

    async def run(channel: object) -> None: ...

    stream = SharedStream(ChannelKey("uid", "c"), run, Policy(), KIND, None, encoder.learn)
    shared = SharedChannel(stream, ChannelRegistry(), codec, counters)

    def incoming(body: bytes) -> Incoming:
        message = SharedMessage(cursors=CursorRange("e", 1, 1))
        return Incoming(codec.encode(message), codec.encode_schema(Schema(body, "f")), None)

    shared.joined(None, [incoming(body)])
    shared.receive(incoming(body))
    assert counters.dropped["cluster"] == 2
    assert encoder.schema is None
    shared.receive(
        incoming(b'{"fields":[{"name":"n","type":"number","typeInfo":{"frame":"int64"}}]}')
    )
    assert counters.dropped["cluster"] == 2
    assert b'"n"' in encoder.schema.body


async def test_the_owner_does_not_decode_what_it_has_sent():
    class Counting(PacketCodec):
        decoded = 0

        def decode(self, payload, schema):
            self.decoded += 1
            return super().decode(payload, schema)

    body = b'{"fields":[{"name":"n","type":"number","typeInfo":{"frame":"int64"}}]}'
    sent = Packet(Schema(body, "f"), b'{"values":[[1]]}', 1, CursorRange("e", 0, 1), continues=True)

    async def run(channel: Channel) -> None:
        channel.emit(sent)
        await anyio.sleep_forever()

    codec, registry = Counting("c"), ChannelRegistry()
    stream = SharedStream(ChannelKey("uid", "c"), run, Policy(), KIND, None, lambda schema: None)
    shared = SharedChannel(stream, registry, codec, Counters())
    shared.joined(None, [])
    viewers = Recorder()
    shared.attach(viewers)
    async with aclosing(shared.messages(None)) as messages:
        async for message in messages:
            schema = message.schema or codec.encode_schema(sent.schema)
            arrived = Incoming(bytes(bytearray(message.payload)), schema, message.cursors)
            shared.receive(arrived)
            if viewers.packets:
                break
    assert codec.decoded == 0
    (packet,) = viewers.packets
    assert structs.astuple(packet) == (codec.decode_schema(schema), *structs.astuple(sent)[1:])
    shared.receive(arrived._replace(payload=codec.encode(SharedMessage())))
    assert codec.decoded == 1
