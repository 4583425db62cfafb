"""The fast decoder agrees with betterproto2's on every request and rejects truncated ones."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._grpc.decode import Decoder, ShortParts
from aiostream_ds._grpc.message_cache import CachingMessageDecoder
from aiostream_ds._pb import pluginv2 as pb

texts = st.text(max_size=20)
int64 = st.integers(-(2**63), 2**63 - 1)
maps = st.dictionaries(texts, texts, max_size=3)
settings = st.builds(
    pb.DataSourceInstanceSettings,
    id=int64,
    name=texts,
    uid=texts,
    basic_auth_enabled=st.booleans(),
    json_data=st.binary(max_size=300),
    decrypted_secure_json_data=maps,
    last_updated_ms=int64,
)
contexts = st.builds(
    pb.PluginContext,
    org_id=int64,
    plugin_id=texts,
    user=st.none() | st.builds(pb.User, login=texts, role=texts),
    data_source_instance_settings=st.none() | settings,
    grafana_config=maps,
    namespace=texts,
)
queries = st.builds(
    pb.DataQuery,
    ref_id=texts,
    max_data_points=int64,
    json=st.binary(max_size=50),
    query_type=texts,
    time_range=st.none() | st.builds(pb.TimeRange, from_epoch_ms=int64, to_epoch_ms=int64),
)
REQUESTS: dict[type, st.SearchStrategy[Any]] = {
    pb.QueryDataRequest: st.builds(
        pb.QueryDataRequest,
        plugin_context=st.none() | contexts,
        headers=maps,
        queries=st.lists(queries, max_size=3),
        format=st.sampled_from(pb.DataFrameFormat),
    ),
    pb.RunStreamRequest: st.builds(
        pb.RunStreamRequest,
        plugin_context=st.none() | contexts,
        path=texts,
        data=st.binary(max_size=20),
        headers=maps,
    ),
    pb.CallResourceRequest: st.builds(
        pb.CallResourceRequest,
        path=texts,
        method=texts,
        body=st.binary(max_size=400),
        headers=st.dictionaries(
            texts, st.builds(pb.StringList, values=st.lists(texts, max_size=3)), max_size=3
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_it_decodes_the_same_as_the_message_class(kind: Any) -> None:
    decoder = Decoder(kind, {pb.PluginContext: CachingMessageDecoder(pb.PluginContext)})

    @given(REQUESTS[kind])
    def check(message: Any) -> None:
        data = bytes(message)
        assert decoder.parse(data) == kind.parse(data) == message
        assert decoder.parse(data) == message

    check()


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[Any]) -> bytes:
    """A message, or parts of two in any order, with bytes changed, inserted or cut off."""
    data = bytes(draw(messages))
    if draw(st.booleans()):
        data = data[draw(st.integers(0, len(data))) :] + bytes(draw(messages))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=11)) + data[at + draw(st.integers(0, 3)) :]
    return data


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_a_damaged_message_is_decoded_or_refused_with_a_value_error(kind: Any) -> None:
    parse = Decoder(kind).parse

    @given(damaged(REQUESTS[kind]))
    def check(data: bytes) -> None:
        with suppress(ValueError):
            assert type(parse(data)) is kind

    check()


def test_a_truncated_message_is_rejected_at_every_length() -> None:
    message = pb.RunStreamRequest(
        plugin_context=pb.PluginContext(org_id=300, user=pb.User(login="ada")), path="x" * 200
    )
    data = bytes(message)
    decoder = Decoder(pb.RunStreamRequest)
    whole = len(bytes(pb.RunStreamRequest(plugin_context=message.plugin_context)))
    for length in range(1, len(data)):
        if length != whole:
            with pytest.raises(ValueError, match="truncated"):
                decoder.parse(data[:length])


def test_unknown_fields_of_newer_hosts_are_ignored() -> None:
    data = bytes(pb.RunStreamRequest(path="walk"))
    newer = b"\xf8\x01\x07" + b"\xfa\x01\x03new" + b"\xf9\x01" + b"8" * 8 + b"\xfd\x01" + b"4" * 4
    assert Decoder(pb.RunStreamRequest).parse(data + newer).path == "walk"


def test_fields_that_are_not_wanted_have_their_defaults() -> None:
    request = pb.RunStreamRequest(path="a", data=b"x", headers={"k": "v"})
    decode = Decoder(pb.RunStreamRequest, fields={"path"}).parse
    assert decode(bytes(request)) == pb.RunStreamRequest(path="a")
    with pytest.raises(ValueError, match="truncated"):
        decode(bytes(request)[:-1])


@pytest.mark.parametrize("data", [b"\x0b", b"\x08" + b"\xff" * 10 + b"\x01"], ids=["group", "big"])
def test_malformed_messages_are_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match="wire type must be|64 bits"):
        Decoder(pb.RunStreamRequest).parse(data)


def test_short_headers_are_decoded_once_and_long_ones_and_secrets_are_not_kept() -> None:
    headers = {"X-Dashboard-Uid": "dashboard", "Authorization": "Bearer " + "t" * 64}
    parse = Decoder(pb.RunStreamRequest).parse
    data = bytes(pb.RunStreamRequest(headers=headers))
    first, second = parse(data).headers, parse(data).headers
    assert first == second == headers and first is not second
    assert first["X-Dashboard-Uid"] is second["X-Dashboard-Uid"]
    assert first["Authorization"] is not second["Authorization"]
    secrets = {"password": "a secret"}
    read = Decoder(pb.DataSourceInstanceSettings).parse
    data = bytes(pb.DataSourceInstanceSettings(decrypted_secure_json_data=secrets))
    one, two = read(data).decrypted_secure_json_data, read(data).decrypted_secure_json_data
    assert one == two == secrets and one["password"] is not two["password"]


def test_short_parts_are_decoded_once_and_bounded_in_number_and_size() -> None:
    parts = ShortParts(Decoder(pb.TimeRange).parse)
    data = bytes(pb.TimeRange(from_epoch_ms=1, to_epoch_ms=2))
    assert parts[data] is parts[bytes(bytearray(data))]
    assert parts[data] == pb.TimeRange(from_epoch_ms=1, to_epoch_ms=2)
    for number in range(600):
        assert parts[bytes(pb.TimeRange(from_epoch_ms=number))].from_epoch_ms == number
        assert len(parts) <= 256
    longer = data + b"\xfa\x01\x40" + b"x" * 64  # a field of a newer host
    assert parts[longer] == parts[data] and longer not in parts
    with pytest.raises(ValueError, match="truncated"):
        parts[data[:-1]]


def test_fields_that_are_not_wanted_are_skipped_whatever_their_type() -> None:
    query = pb.DataQuery(ref_id="A", max_data_points=300, interval_ms=-1, json=b"{}")
    decode = Decoder(pb.DataQuery, fields={"json"}).parse
    assert decode(bytes(query)) == pb.DataQuery(json=b"{}")
