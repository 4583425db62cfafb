"""Request and response headers, compared with hpack itself."""

import inspect

import pytest
from hpack import Decoder, Encoder, HeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._http2.headers import (
    CachingDecoder,
    encode_headers,
    parse_request_head,
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
def test_an_encoded_block_decodes_to_its_headers_and_adds_nothing_to_the_dynamic_table(headers):
    decoder = Decoder()
    assert decoder.decode(encode_headers(headers)) == headers
    assert len(decoder.header_table.dynamic_entries) == 0


@pytest.mark.parametrize("size", [0, 126, 127, 128, 254, 255, 16_510, 70_000])
def test_long_values_have_the_right_length_prefix(size):
    decoder = Decoder(max_header_list_size=100_000)
    assert decoder.decode(encode_headers([("x", "v" * size)])) == [("x", "v" * size)]


headers = st.sampled_from([*CALL, (b"grpc-timeout", b"1S"), (b"a", b"1"), (b"a", b"2")])


@given(st.lists(st.lists(headers, min_size=1, max_size=6), max_size=30), st.integers(0, 200))
def test_the_caching_decoder_decodes_what_hpacks_decodes(blocks, table):
    """Small tables evict entries; sensitive values never enter them."""
    encoder, expected, caching = Encoder(), Decoder(), CachingDecoder()
    for number, block in enumerate(blocks):
        if number == len(blocks) // 2:
            encoder.header_table_size = table
        data = encoder.encode([(*header, header[0] == b"a") for header in block])
        assert caching.decode(data, raw=True) == expected.decode(data, raw=True)


def test_a_block_of_indexed_fields_is_decoded_once():
    encoder, decoder = Encoder(), CachingDecoder()
    first = decoder.decode(encoder.encode(CALL), raw=True)
    again = encoder.encode(CALL)
    assert decoder.decode(again, raw=True) is decoder.decode(again, raw=True) is not first


def test_the_cache_is_cleared_when_the_dynamic_table_may_have_changed():
    encoder, decoder = Encoder(), CachingDecoder()
    decoder.decode(encoder.encode([(b"a", b"1")]), raw=True)
    assert decoder.decode(b"\xbe", raw=True) == [(b"a", b"1")]
    decoder.decode(encoder.encode([(b"a", b"2")]), raw=True)
    assert decoder.decode(b"\xbe", raw=True) == [(b"a", b"2")]


def test_a_table_size_update_precedes_the_next_block_once():
    encoder, decoder = Encoder(), Decoder()
    block = encode_headers([("a", "1")])
    assert with_table_size(encoder, block) is block
    encoder.header_table_size = 0
    first = with_table_size(encoder, block)
    assert first != block and decoder.decode(first) == [("a", "1")]
    assert decoder.header_table_size == 0
    assert with_table_size(encoder, block) is block


def test_the_parsed_head_of_a_call():
    extra = [(b"grpc-timeout", b"5S"), (b"x-tenant", b"a"), (b"x-tenant", b"\xe4")]
    head = parse_request_head([*CALL, *extra])
    assert head.method == "POST" and head.path == "/a.B/C" and head.timeout == "5S"
    assert head.content_type == "application/grpc" and head.error is None
    assert dict(head.metadata) == {"x-tenant": "a,\xe4"}


def test_equal_headers_share_one_parsed_head_unless_they_are_large():
    large = [*CALL, (b"x", b"v" * 5_000)]
    assert parse_request_head(list(CALL)) is parse_request_head(list(CALL))
    assert parse_request_head(large) == parse_request_head(large) and parse_request_head(
        large
    ) is not parse_request_head(large)


def test_a_malformed_head_has_an_error():
    assert ":method, :scheme and :path once each" in (
        parse_request_head([HeaderTuple(b":method", b"POST")]).error or ""
    )


def test_hpack_sends_a_table_size_update_when_resized_is_set():
    source = inspect.getsource(Encoder.encode)
    assert "self.header_table.resized" in source
    assert (
        "self.header_table.resized = False" in inspect.getsource(Encoder._encode_table_size_change)
        or "self.header_table.resized = False" in source
    )
