"""Request and response headers, compared with hpack itself."""

import pytest
from hpack import Decoder, Encoder, HeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._http2.headers import (
    HeaderDecoder,
    encode_headers,
    parse_request_head,
)
from aiostream_ds._http2.protocol_errors import Http2Error
from aiostream_ds._http2.wire import ErrorCode

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
def test_requests_are_parsed_as_hpack_decodes_them(blocks, table):
    """Small tables evict entries; sensitive values never enter them."""
    encoder, expected, decoder = Encoder(), Decoder(), HeaderDecoder()
    for number, block in enumerate(blocks):
        if number == len(blocks) // 2:
            encoder.header_table_size = table
        data = encoder.encode([(*header, header[0] == b"a") for header in block])
        assert decoder.request(data) == parse_request_head(expected.decode(data, raw=True))


def test_a_block_of_indexed_fields_is_decoded_once():
    encoder, decoder = Encoder(), HeaderDecoder()
    block = [*CALL, *[(b"long", b"x" * 2_100)] * 2]  # too large for the cache of parsed heads
    first = decoder.request(encoder.encode(block))
    again = encoder.encode(block)
    assert decoder.request(again) is decoder.request(again) is not first


@pytest.mark.parametrize("changed_by", ["request", "trailers"])
def test_the_cache_is_cleared_when_the_dynamic_table_may_have_changed(changed_by):
    encoder, decoder = Encoder(), HeaderDecoder()
    change = getattr(decoder, changed_by)
    for value in (b"1", b"2"):
        change(encoder.encode([(b"a", value)]))
        assert decoder.request(b"\xbe").metadata == {"a": value.decode()}


@pytest.mark.parametrize(
    "block", [b"\xff", b"\x80", b"\xc6\xff\xff\x01", b"\0\x05ab", b"\x3f\xe2\x1f"]
)
def test_a_block_that_cannot_be_decoded_is_a_compression_error(block):
    for decode in (HeaderDecoder().request, HeaderDecoder().trailers):
        with pytest.raises(Http2Error, match="cannot decode a header block") as caught:
            decode(block)
        assert caught.value.code == ErrorCode.COMPRESSION_ERROR


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
