"""Request and response headers, compared with hpack itself."""

import pytest
from hpack import Decoder, Encoder, HeaderTuple, HPACKError
from hpack.huffman_table import decode_huffman as decode_with_hpack
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._http2.header_blocks import TABLE_SIZE, BlockDecoder
from aiostream_ds._http2.headers import (
    HEADER_LIST_LIMIT,
    HeaderDecoder,
    encode_headers,
    parse_request_head,
)
from aiostream_ds._http2.huffman import decode_huffman
from aiostream_ds._http2.protocol_errors import Http2Error, RateLimitExceeded
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


@pytest.mark.parametrize("value", [" a", "a ", "\ta\t", " "])
def test_a_value_may_begin_or_end_with_a_space_or_a_tab(value):
    """RFC 9113, 8.2.1, forbids it; hosts pass on what users have written."""
    head = parse_request_head([*CALL, (b"x-grafana-user", value.encode())])
    assert head.error is None
    assert head.metadata["x-grafana-user"] == value


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


# -- header blocks, compared with hpack ----------------------------------------------------------

fields = st.tuples(
    st.sampled_from([b":path", b"grpc-timeout", b"x", b"accept", b"traceparent", b"y" * 130]),
    st.one_of(st.sampled_from([b"", b"/", b"1S"]), st.binary(max_size=300)),
    st.booleans(),  # never in the table
)
changes = st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=3)), max_size=3)


def damaged(block, changes):
    """A block in which some bytes are replaced by others."""
    found = bytearray(block)
    for place, others in changes:
        start = place % (len(found) + 1)
        found[start : start + 1] = others
    return bytes(found)


def decoded(decode, block):
    """The fields, or None for a block that is not valid."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decode(block)]
    except (Http2Error, HPACKError):
        return None


@given(
    st.lists(st.tuples(st.lists(fields, max_size=5), st.booleans(), changes), max_size=12),
    st.lists(st.integers(0, TABLE_SIZE), max_size=3),
)
def test_blocks_are_decoded_as_by_hpack_also_damaged_ones(blocks, sizes):
    encoder, expected, decoder = Encoder(), Decoder(), BlockDecoder(HEADER_LIST_LIMIT)
    for number, (block, is_huffman, changed) in enumerate(blocks):
        if number % 3 == 2 and sizes:
            encoder.header_table_size = sizes.pop()
        data = encoder.encode(block, huffman=is_huffman)
        if number % 2:
            data = damaged(data, changed)
        found = decoded(decoder.decode, data)
        assert found == decoded(lambda each: expected.decode(each, raw=True), data)
        assert decoder._table[62:] == [*expected.header_table.dynamic_entries]
        if found is None:
            return  # the connection is over


@given(st.binary(max_size=30))
def test_huffman_codes_are_decoded_as_by_hpack(data):
    try:
        expected = decode_with_hpack(data)
    except HPACKError:
        expected = None
    try:
        found = decode_huffman(data)
    except ValueError:
        found = None
    assert found == expected


def test_each_symbol_has_its_huffman_code():
    for symbol in range(256):
        text = bytes([symbol]) * 9
        block = Encoder().encode([(b"x", text)], huffman=True)
        assert BlockDecoder(HEADER_LIST_LIMIT).decode(block) == [(b"x", text)]


def test_each_entry_of_the_static_table_has_its_index():
    for index in range(1, 62):
        block = bytes([0x80 | index])
        assert BlockDecoder(HEADER_LIST_LIMIT).decode(block) == Decoder().decode(block, raw=True)


def test_a_list_above_the_limit_is_refused():
    decoder = BlockDecoder(limit=64)
    assert decoder.decode(encode_headers([("x", "v" * 31)])) == [(b"x", b"v" * 31)]
    with pytest.raises(RateLimitExceeded, match="at most 64 bytes"):
        decoder.decode(encode_headers([("x", "v" * 32)]))


def test_a_list_far_above_the_limit_is_refused_before_it_is_decoded():
    """One byte refers to a field of the table, so a short block may have a very long list."""
    with pytest.raises(RateLimitExceeded, match="at most 65536 bytes"):
        BlockDecoder(HEADER_LIST_LIMIT).decode(b"\x82" * 10_000 + b"\x80")


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"\x80", "an index must be 1 to 61, got 0"),
        (b"\xbe", "an index must be 1 to 61, got 62"),
        (b"\x82\x20", "before the first field"),
        (b"\x3f\xe2\x1f", "at most 4096 bytes, got 4097"),
        (b"\0\x05ab", "expected a string of 5 bytes, got 2"),
        (b"\0\x81\xff\0", "the Huffman code of a string is not complete"),
        (b"\0\x84\xff\xff\xff\xff\0", "the end of a string must not be in its Huffman code"),
        (b"\xff\x80\x80\x80\x80\x80\x01", "at most 5 bytes after its prefix"),
        (b"\xff", "expected a whole field at byte 1"),
    ],
)
def test_the_reason_why_a_block_is_not_valid(block, reason):
    with pytest.raises(Http2Error, match=reason) as caught:
        BlockDecoder(HEADER_LIST_LIMIT).decode(block)
    assert caught.value.code == ErrorCode.COMPRESSION_ERROR


def test_heads_that_differ_in_their_deadline_share_the_rest():
    heads = [parse_request_head([*CALL, (b"grpc-timeout", value)]) for value in (b"1S", b"20m")]
    assert [head.timeout for head in heads] == ["1S", "20m"]
    assert heads[0].metadata is heads[1].metadata
    assert [head._replace(timeout=None) for head in heads] == [parse_request_head(CALL)] * 2


@pytest.mark.parametrize("value", [b"1\0S", b"\r\n", b""])
def test_a_deadline_that_is_no_word_is_parsed_as_any_other_value(value):
    head = parse_request_head([*CALL, (b"grpc-timeout", value)])
    assert head.timeout == value.decode()
    assert (head.error is None) == (value == b"")


def test_a_deadline_before_a_pseudo_header_is_malformed():
    head = parse_request_head([(b"grpc-timeout", b"1S"), *CALL])
    assert "pseudo-headers before all other headers" in (head.error or "")
