"""What distinguishes the messages of one WebSocket."""

import json

import msgspec
import pytest

from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.websocket.message_keys import MessageKeys


def keys(path: str, message, format="auto"):
    encode = msgspec.msgpack.encode if format == "msgpack" else lambda m: json.dumps(m).encode()
    payload = message if isinstance(message, bytes) else encode(message)
    return [key for key, _ in MessageKeys(path, DecodingSettings(format=format)).split(payload)]


@pytest.mark.parametrize("path", ["$.a.k", "$['a']['k']", "$.a['k']"])
@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("x", "x"),
        ("", ""),
        (7, "7"),
        (7.0, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (None, None),
        ({}, None),
        ([1], None),
    ],
)
def test_a_key_is_a_text_or_a_number(path, value, key):
    assert keys(path, {"a": {"k": value}}) == [key]


@pytest.mark.parametrize("message", [{}, {"a": 1}, {"a": []}, {"a": {}}, "a", 1, None])
@pytest.mark.parametrize("path", ["$.a.k", "$['a']['k']", "$.a[?@.k > 1]"])
def test_a_message_without_the_path_has_no_key(path, message):
    assert keys(path, message) == [None]


def test_each_element_of_an_array_has_its_key():
    assert keys("$.k", [{"k": "a"}, {"k": "b"}, 3, {}]) == ["a", "b", None, None]
    assert keys("$.k", []) == []


def test_each_line_has_its_key():
    assert keys("$.k", b'{"k": "a"}\n{"k": "b"}\n') == ["a", "b"]
    with pytest.raises(BadRecord):
        keys("$.k", b'{"k": "a"}\n{"k"\n', "json")


def test_other_formats_have_keys():
    assert keys("$.k", {"k": "a"}, "msgpack") == ["a"]


@pytest.mark.parametrize("payload", [b"{", b"\xff", b"[" * 100_000])
def test_a_message_that_cannot_be_decoded_is_a_bad_record(payload):
    with pytest.raises(BadRecord):
        keys("$.k", payload, "json")
