"""Headers of requests and replies against hpack itself."""

import inspect

import pytest
from hpack import Decoder, Encoder, HeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._http2.headers import (
    RememberingDecoder,
    encode_headers,
    read_head,
    with_table_size,
)

names = st.sampled_from(["grpc-status", "grpc-message", "content-type", "x", "y" * 200])
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)
CALL = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]


@given(st.lists(st.tuples(names, values), max_size=5))
def test_a_block_of_literals_reads_as_its_headers_and_leaves_every_table_alone(headers):
    decoder = Decoder()
    assert decoder.decode(encode_headers(headers)) == headers
    assert len(decoder.header_table.dynamic_entries) == 0


@pytest.mark.parametrize("size", [0, 126, 127, 128, 254, 255, 16_510, 70_000])
def test_a_long_value_has_its_length_in_front(size):
    decoder = Decoder(max_header_list_size=100_000)
    assert decoder.decode(encode_headers([("x", "v" * size)])) == [("x", "v" * size)]


headers = st.sampled_from([*CALL, (b"grpc-timeout", b"1S"), (b"a", b"1"), (b"a", b"2")])


@given(st.lists(st.lists(headers, min_size=1, max_size=6), max_size=30), st.integers(0, 200))
def test_a_remembering_decoder_reads_what_the_plain_one_reads(blocks, table):
    """Small tables forget what blocks refer to; sensitive values never enter them."""
    encoder, plain, remembering = Encoder(), Decoder(), RememberingDecoder()
    for number, block in enumerate(blocks):
        if number == len(blocks) // 2:
            encoder.header_table_size = table
        data = encoder.encode([(*header, header[0] == b"a") for header in block])
        assert remembering.decode(data, raw=True) == plain.decode(data, raw=True)


def test_a_block_of_references_is_decoded_once():
    encoder, decoder = Encoder(), RememberingDecoder()
    first = decoder.decode(encoder.encode(CALL), raw=True)
    again = encoder.encode(CALL)
    assert decoder.decode(again, raw=True) is decoder.decode(again, raw=True) is not first


def test_what_a_reference_means_is_asked_again_once_the_table_may_have_changed():
    encoder, decoder = Encoder(), RememberingDecoder()
    decoder.decode(encoder.encode([(b"a", b"1")]), raw=True)
    assert decoder.decode(b"\xbe", raw=True) == [(b"a", b"1")]
    decoder.decode(encoder.encode([(b"a", b"2")]), raw=True)
    assert decoder.decode(b"\xbe", raw=True) == [(b"a", b"2")]


def test_a_change_of_table_size_that_the_host_asked_for_goes_in_front_once():
    encoder, decoder = Encoder(), Decoder()
    block = encode_headers([("a", "1")])
    assert with_table_size(encoder, block) is block
    encoder.header_table_size = 0
    first = with_table_size(encoder, block)
    assert first != block and decoder.decode(first) == [("a", "1")]
    assert decoder.header_table_size == 0
    assert with_table_size(encoder, block) is block


def test_the_head_of_a_call():
    extra = [(b"grpc-timeout", b"5S"), (b"x-tenant", b"a"), (b"x-tenant", b"\xe4")]
    head = read_head([*CALL, *extra])
    assert head.method == "POST" and head.path == "/a.B/C" and head.timeout == "5S"
    assert head.content_type == "application/grpc" and head.fault is None
    assert dict(head.metadata) == {"x-tenant": "a,\xe4"}


def test_the_same_headers_are_the_same_head_unless_they_are_large():
    large = [*CALL, (b"x", b"v" * 5_000)]
    assert read_head(list(CALL)) is read_head(list(CALL))
    assert read_head(large) == read_head(large) and read_head(large) is not read_head(large)


def test_headers_that_are_no_requests_say_why():
    assert "pseudo-headers" in (read_head([HeaderTuple(b":method", b"POST")]).fault or "")


def test_hpack_still_sets_resized_and_says_it_in_the_next_block():
    source = inspect.getsource(Encoder.encode)
    assert "self.header_table.resized" in source
    assert (
        "self.header_table.resized = False" in inspect.getsource(Encoder._encode_table_size_change)
        or "self.header_table.resized = False" in source
    )
