"""The messages of a shared channel, their encryption, and the names of channels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._channels.status import Status
from aiostream_ds._cluster.channel_names import ChannelIdentity, channel_name
from aiostream_ds._cluster.entries import NO_MESSAGE, ChannelMessage, EntryCodec, MessageId
from aiostream_ds._cluster.message_cipher import Cipher, UnreadableMessage
from aiostream_ds._cluster.packet_codec import NO_SCHEMA, PacketCodec, SharedMessage
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds.errors import ConfigError

OLD, NEW, FOREIGN = bytes(32), bytes([1]) * 32, bytes([2]) * 32
SCHEMA = Schema(b'{"fields":[{"name":"n"}]}', "f1")

cursors = st.builds(
    CursorRange, st.text(max_size=5), st.integers(-1, 1 << 106), st.integers(-1, 1 << 106)
)
packets = st.builds(
    Packet,
    st.just(SCHEMA),
    st.binary(max_size=50),
    st.integers(0, 1000),
    st.none() | cursors,
    st.booleans(),
)
statuses = st.builds(Status, st.sampled_from(["info", "warning", "error"]), st.text(max_size=20))
messages = st.builds(
    SharedMessage,
    st.lists(packets, max_size=4),
    st.none() | cursors,
    st.none() | statuses,
    st.booleans(),
    st.booleans(),
    st.integers(0, 1 << 50),
)


def fields(message: SharedMessage) -> tuple:
    shown = [(p.schema.body, p.data, p.rows, p.cursors, p.continues) for p in message.packets]
    others = message.cursors, message.status, message.missing, message.has_ended, message.sent_ms
    return shown, *others


@given(messages, st.sampled_from([None, Cipher([NEW])]))
def test_a_message_is_decoded_as_it_was_encoded(message, cipher):
    codec = PacketCodec("c", cipher)
    decoded, schema = codec.decode(codec.encode(message), codec.encode_schema(SCHEMA))
    assert fields(decoded) == fields(message)
    assert (schema.body, schema.fingerprint) == (SCHEMA.body, SCHEMA.fingerprint)


@given(st.binary(max_size=100), st.sampled_from([None, Cipher([NEW])]))
def test_other_bytes_are_refused_as_unreadable(data, cipher):
    codec = PacketCodec("c", cipher)
    for payload in (data, b"\x01" + data, b"\x02" + data):
        try:
            codec.decode(payload, None)
        except UnreadableMessage:
            continue
        assert payload[:1] == b"\x01"
        assert cipher is None


def test_the_same_schema_is_one_object_so_that_viewers_do_not_get_it_again():
    codec = PacketCodec("c")
    payload, schema = codec.encode(SharedMessage()), codec.encode_schema(SCHEMA)
    assert codec.decode(payload, schema)[1] is codec.decode(payload, bytes(schema))[1]


def test_a_message_without_schema_has_none():
    codec = PacketCodec("c")
    assert codec.decode(codec.encode(SharedMessage()), None)[1] is NO_SCHEMA


def test_a_server_with_the_next_key_as_its_second_one_reads_both():
    changing, changed = Cipher([OLD, NEW]), Cipher([NEW, OLD])
    for writer, reader in ((changing, changed), (changed, changing), (Cipher([OLD]), changed)):
        assert reader.decrypt(writer.encrypt(b"rows", "c"), "c") == b"rows"


@pytest.mark.parametrize(
    ("writer", "reader", "reason"),
    [
        (None, Cipher([NEW]), "it is not encrypted, and this server has a key"),
        (Cipher([NEW]), None, "it is encrypted, and this server has no key"),
        (Cipher([FOREIGN]), Cipher([NEW]), "it is encrypted by another key"),
    ],
)
def test_a_message_that_this_server_may_not_read_is_refused(writer, reader, reason):
    payload = PacketCodec("c", writer).encode(SharedMessage())
    with pytest.raises(UnreadableMessage, match=reason):
        PacketCodec("c", reader).decode(payload, None)


def test_an_encrypted_message_is_not_readable_in_another_channel():
    cipher = Cipher([NEW])
    payload = PacketCodec("a", cipher).encode(SharedMessage())
    with pytest.raises(UnreadableMessage, match="another key"):
        PacketCodec("b", cipher).decode(payload, None)


def test_a_schema_is_the_same_bytes_on_each_node_and_others_in_another_channel_or_by_another_key():
    def sealed(channel: str, keys: list[bytes], schema: Schema = SCHEMA) -> bytes:
        return PacketCodec(channel, Cipher(keys)).encode_schema(schema)

    assert sealed("a", [NEW]) == sealed("a", [NEW]) == sealed("a", [NEW, OLD])
    variants = [sealed("a", [NEW]), sealed("b", [NEW]), sealed("a", [OLD])]
    variants.append(sealed("a", [NEW], Schema(SCHEMA.body + b" ", SCHEMA.fingerprint)))
    nonces = {each[1:13] for each in variants}
    assert len(nonces) == len(variants)


@given(
    st.tuples(st.text(max_size=4), st.binary(max_size=4)),
    st.tuples(st.text(max_size=4), st.binary(max_size=4)),
)
def test_no_two_different_messages_have_one_nonce(one, two):
    cipher = Cipher([NEW])
    nonces = {cipher.encrypt(data, name, same=True)[:12] for name, data in (one, two)}
    assert len(nonces) == len({one, two})


def test_a_channel_and_data_that_are_one_text_together_have_nonces_of_their_own():
    cipher = Cipher([NEW])
    sealed = [
        cipher.encrypt(d, n, same=True) for n, d in (("ab", b"c"), ("a", b"bc"), ("", b"abc"))
    ]
    assert len({each[:12] for each in sealed}) == 3
    assert cipher.decrypt(sealed[0], "ab") == b"c"


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(33)])
def test_a_key_has_32_bytes(key):
    with pytest.raises(ConfigError, match=f"a cluster key must have 32 bytes, got {len(key)}"):
        Cipher([key])


IDENTITY = ChannelIdentity("1", "uid", "my-datasource", "1.0", (b"{}", b"url"), ("token", "x"))


@pytest.mark.parametrize(
    "other",
    [
        IDENTITY._replace(tenant="2"),
        IDENTITY._replace(uid="uid2"),
        IDENTITY._replace(plugin_id="other-datasource"),
        IDENTITY._replace(plugin_version="1.1"),
        IDENTITY._replace(settings=(b"{ }", b"url")),
        IDENTITY._replace(settings=(b"{}u", b"rl")),
        IDENTITY._replace(secrets=("token", "y")),
        IDENTITY._replace(secrets=("toke", "nx")),
        IDENTITY._replace(tenant="1u", uid="id"),
    ],
)
def test_what_rows_depend_on_is_in_the_name(other):
    assert channel_name(other, "a/b") != channel_name(IDENTITY, "a/b")


def test_paths_that_look_alike_have_different_names():
    names = {channel_name(IDENTITY, path) for path in ("a/b", "a-b", "a//b", "a b", "A/b", "ä/b")}
    assert len(names) == 6


@given(st.text(max_size=200), st.text(max_size=50), st.booleans())
def test_a_name_has_letters_digits_and_a_few_signs_only(path, uid, readable):
    name = channel_name(IDENTITY._replace(uid=uid), path, is_readable=readable)
    assert name.isascii()
    assert name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert len(name) <= 160
    assert not name.startswith("_")


def test_a_name_has_readable_parts_unless_the_messages_are_encrypted():
    assert channel_name(IDENTITY, "sensors/kitchen").startswith(
        "my-datasource.uid.sensors-kitchen."
    )
    assert "kitchen" not in channel_name(IDENTITY, "sensors/kitchen", is_readable=False)


entries = st.builds(
    ChannelMessage,
    st.builds(MessageId, st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 40)),
    st.builds(MessageId, st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 40)),
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 56),
    st.none() | st.binary(max_size=20),
    st.none() | cursors,
    st.binary(max_size=20),
)


@given(entries)
def test_an_entry_is_read_as_it_was_written_also_with_cursors_beyond_64_bits(entry):
    codec = EntryCodec()
    assert codec.decode(codec.encode(entry)) == entry


def test_an_entry_whose_cursor_is_not_a_number_cannot_be_read():
    codec = EntryCodec()
    written = codec.encode(
        ChannelMessage(NO_MESSAGE, NO_MESSAGE, 0, 0, None, CursorRange("", 0, 1 << 90), b"")
    )
    assert codec.decode(written.replace(str(1 << 90).encode(), b"x" * len(str(1 << 90)))) is None
