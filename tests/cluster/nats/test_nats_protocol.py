"""Bytes of a NATS server become operations, wherever they are split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._nats.nats_protocol import (
    NatsMessage,
    NatsParser,
    ProtocolViolation,
    ServerInfo,
    ServerPing,
    ServerPong,
    ServerRefusal,
    publish_command,
)

STREAM = (
    b'INFO {"version":"2.12.0","max_payload":1048576} \r\n'
    b"PING\r\n+OK\r\nPONG\r\n"
    b"MSG a.b 7 5\r\nhe\r\no\r\n"
    b"MSG a 7 reply.to 0\r\n\r\n"
    b"HMSG a 8 r 34 39\r\nNATS/1.0\r\nName: a value: b\r\nX:\r\n\r\nhello\r\n"
    b"HMSG a 8 26 26\r\nNATS/1.0 404 Not Found\r\n\r\n\r\n"
    b"-ERR 'Authorization Violation'\r\n"
)
OPERATIONS = [
    ServerInfo({"version": "2.12.0", "max_payload": 1_048_576}),
    ServerPing(),
    ServerPong(),
    NatsMessage(7, "a.b", 0, "", {}, b"he\r\no"),
    NatsMessage(7, "a", 0, "", {}, b"", "reply.to"),
    NatsMessage(8, "a", 0, "", {"Name": "a value: b", "X": ""}, b"hello", "r"),
    NatsMessage(8, "a", 404, "Not Found", {}, b""),
    ServerRefusal("Authorization Violation"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_operations_do_not_depend_on_where_the_bytes_are_split(places):
    parser, found = NatsParser(), []
    edges = [0, *sorted(places), len(STREAM)]
    for start, end in zip(edges, edges[1:], strict=False):
        found += parser.feed(STREAM[start:end])
    assert found == OPERATIONS


def test_each_byte_alone_is_enough():
    parser = NatsParser()
    assert [
        each for n in range(len(STREAM)) for each in parser.feed(STREAM[n : n + 1])
    ] == OPERATIONS


@given(
    headers=st.dictionaries(
        st.from_regex(r"[A-Za-z-]{1,9}", fullmatch=True), st.just("v 1"), max_size=4
    ),
    payload=st.binary(max_size=300),
)
def test_what_is_published_can_be_read_again(headers, payload):
    command = publish_command("subject", "inbox.1", headers, payload)
    operation, _, rest = command.partition(b" ")
    words, end, body = rest.partition(b"\r\n")
    subject, reply, *sizes = words.split()
    kind = {b"PUB": b"MSG", b"HPUB": b"HMSG"}[operation]
    received = b" ".join((kind, subject, b"3", reply, *sizes)) + end + body
    (message,) = NatsParser().feed(received)
    assert message == NatsMessage(3, "subject", 0, "", headers, payload, "inbox.1")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 -5\r\n",
        b"HMSG a 1 9 5\r\n",
        b"MSG a 1 2\r\nabcd\r\n",
        b"INFO []\r\n",
        b"INFO {\r\n",
        b"x" * (2 << 20),
    ],
)
def test_what_is_not_of_the_protocol_is_refused(data):
    with pytest.raises(ProtocolViolation):
        NatsParser().feed(data)


@pytest.mark.parametrize(
    "block", [b"HTTP/1", b"\xff\xff", b"NATS/1.0 \xc2\xb2\r\n", b"NATS/1.0 4e4\r\n"]
)
def test_headers_that_a_publisher_has_damaged_are_none(block):
    size = len(block)
    (found,) = NatsParser().feed(b"HMSG a.\xff 1 %d %d\r\n%s!\r\n" % (size, size + 1, block))
    assert (found.subject, found.status, found.headers, found.payload) == ("a.\ufffd", 0, {}, b"!")


def test_a_large_message_is_not_searched_again_with_each_part():
    parser, payload = NatsParser(), b"x\r\n" * 300_000
    data = b"MSG a 1 %d\r\n%s\r\n" % (len(payload), payload)
    found = [each for n in range(0, len(data), 4096) for each in parser.feed(data[n : n + 4096])]
    assert [each.payload for each in found] == [payload]
