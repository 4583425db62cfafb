"""Messages as rows: formats, times, columns, series; limits; what becomes of bad messages."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import anyio
import cbor2
import msgspec
import pytest

from aiostream_ds import DataSource, Health, Notice, Rows, SchemaPolicy, Secret, Status, stream
from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import decode_settings
from aiostream_ds.sources.decoding import (
    DecodingSettings,
    MessageDecoder,
    MessageErrors,
    message_errors,
    with_labels,
)
from aiostream_ds.sources.decoding.message_errors import ADDRESSES, SAMPLE
from aiostream_ds.sources.decoding.message_records import ROWS_LIMIT
from aiostream_ds.sources.decoding.message_rows import COLUMNS_LIMIT, TEXT_LIMIT
from aiostream_ds.sources.decoding.plain_values import columns_of
from aiostream_ds.testing import serve_in_memory
from tests.counting import steps_of

T = 1_700_000_000_000
"""The time of arrival."""

EVENT = 1_600_000_000_000


def decoder(**settings: Any) -> MessageDecoder:
    return MessageDecoder(DecodingSettings(**settings))


def rows(payload: Any, **settings: Any) -> list[dict[str, Any]]:
    """The rows of a good message, without the time if it is that of arrival."""
    made = decoder(**settings)
    found = made.rows(payload, received=T)
    assert made.errors.messages == made.errors.values == 0, made.errors.text()
    for row in found:
        if row["time"] == T:
            del row["time"]
    return found


def reason(payload: Any, **settings: Any) -> str:
    """Why a message is not a row."""
    made = decoder(**settings)
    assert made.rows(payload, received=T, address="a") == []
    assert made.errors.messages == 1, made.errors.text()
    return made.errors.by_address["a"].reason


# -- formats ---------------------------------------------------------------------------------------

OBJECT = {"a": 1, "b": "x", "c": None, "d": True, "e": 1.5}
ROW = {"a": 1.0, "b": "x", "c": None, "d": True, "e": 1.5}
LINE = b'm,host=a u=0.5,n=3i,on=t,s="x y" 1600000000000000000'
POINT = {"time": EVENT, "measurement": "m", "host": "a", "u": 0.5, "n": 3.0, "on": True, "s": "x y"}
CSV = b"a,b,c\n1,x,\n2,y,nan\n"
CSV_ROWS = [{"a": 1.0, "b": "x", "c": None}, {"a": 2.0, "b": "y", "c": None}]


@pytest.mark.parametrize("is_auto", [False, True], ids=["named", "auto"])
@pytest.mark.parametrize(
    "kind, payload, expected",
    [
        ("json", json.dumps(OBJECT).encode(), [ROW]),
        ("json", json.dumps([OBJECT, {"a": 2}]).encode(), [ROW, {"a": 2.0}]),
        ("json", b'{"a": 1}\n\n{"a": 2}\r\n', [{"a": 1.0}, {"a": 2.0}]),
        ("json", b'\xef\xbb\xbf {"a": NaN}', [{"a": None}]),
        ("json", b'{"a": "\xff"}', [{"a": "\ufffd"}]),
        ("json", b"[1, 2.5, true]", [{"1": 1.0, "2": 2.5, "3": True}]),
        ("json", b"[[1, 2], [3, 4]]", [{"1": 1.0, "2": 2.0}, {"1": 3.0, "2": 4.0}]),
        ("json", b'"on"', [{"text": "on"}]),
        ("json", b"false", [{"value": False}]),
        ("json", b" 21.5 ", [{"value": 21.5}]),
        ("influx", LINE, [POINT]),
        ("influx", b"# c\n" + LINE + b"\n\nm f=1\n", [POINT, {"measurement": "m", "f": 1.0}]),
        ("csv", CSV, CSV_ROWS),
        ("csv", CSV.replace(b",", b";").replace(b"\n", b"\r\n"), CSV_ROWS),
        ("csv", b'a;b\n1,5;"x;y"\n', [{"a": 1.5, "b": "x;y"}]),
        ("msgpack", msgspec.msgpack.encode(OBJECT), [ROW]),
        ("msgpack", msgspec.msgpack.encode([OBJECT] * 2), [ROW, ROW]),
        ("msgpack", msgspec.msgpack.encode({1: b"a", b"k": b"\xff"}), [{"1": "a", "k": "ff"}]),
        ("cbor", cbor2.dumps(OBJECT), [ROW]),
        ("cbor", cbor2.dumps([{"x": 1}, {"x": 2}]), [{"x": 1.0}, {"x": 2.0}]),
        ("cbor", b"\xd9\xd9\xf7" + cbor2.dumps({"x": 2**70}), [{"x": float(2**70)}]),
        ("number", b"21.5\n", [{"value": 21.5}]),
        ("number", b"-1e3", [{"value": -1000.0}]),
        ("text", "grün, an".encode(), [{"text": "grün, an"}]),
        ("text", b"a=b", [{"text": "a=b"}]),
        ("text", b"level=info msg=ready", [{"text": "level=info msg=ready"}]),
        ("text", b"one, two\nthree", [{"text": "one, two\nthree"}]),
        ("text", b"1,2\n3,4", [{"text": "1,2\n3,4"}]),
    ],
)
def test_a_message_of_a_format_has_these_rows(kind, payload, expected, is_auto):
    named: Any = {"format": kind, "labels": ["measurement"]}
    assert rows(payload, **{} if is_auto else named) == expected


@pytest.mark.parametrize("kind", ["auto", "json", "influx", "csv", "msgpack", "cbor", "text"])
@pytest.mark.parametrize("payload", [b"", b"  \n", ""])
def test_an_empty_message_has_no_rows_and_is_not_an_error(payload, kind):
    made = decoder(format=kind)
    assert made.rows(payload) == [] and made.errors.text() == ""


J = "invalid JSON at character "


@pytest.mark.parametrize(
    "kind, payload, expected",
    [
        ("json", b'{"a": ', J + "7: expected a value, got the end"),
        (
            "json",
            b'{"a": 1 "b"',
            J + "9: expected a comma or the end of the object or array, got '\"b\"'",
        ),
        ("json", b'{"a" 1}', J + "6: expected a colon, got '1}'"),
        ("json", b"{a: 1}", J + "2: expected a key in double quotes, got 'a: 1}'"),
        ("json", b'{"a": 1}}', J + "9: expected the end, got '}'"),
        ("json", b'{"a": "b', J + "7: expected a text with an end, got '\"b'"),
        (
            "json",
            b'{"a": "\x01"}',
            J + "8: expected a text without control characters, got '\\x01\"}'",
        ),
        (
            "json",
            b'{"a": "\\x"}',
            J + r"""8: expected an escape such as \n or \u00e9, got '\\x"}'""",
        ),
        ("json", b"[" * 100_000, "invalid JSON: too many levels of objects and arrays"),
        (
            "json",
            b'{"a": "\\ud800"}',
            "invalid JSON: expected whole characters, got a lone surrogate",
        ),
        ("json", b'{"a": 1e400}', "expected a float of 64 bits, got '1e400'"),
        ("json", b'{"a": NaN, "b": -1e400}', "expected a float of 64 bits, got '-1e400'"),
        ("json", b"{}", "expected at least one value, got none"),
        ("json", b'{"time": 5}', "expected at least one value, got none"),
        ("json", b'{"time": "soon", "a": 1}', "the time must be ISO 8601 or a number, got 'soon'"),
        ("json", b'{"a": 1' + b"0" * 400 + b"}", "the number in 'a' is too large for a float"),
        (
            "json",
            b'{"a": {"b": 1' + b"0" * 5000 + b"}}",
            "invalid JSON: an integer has too many digits",
        ),
        ("influx", b"m", "expected a tag `,key=value`, or a space and a field"),
        ("influx", b"m f=\xff", "expected text in UTF-8"),
        ("csv", b"a,b\n1", "expected 2 cells, got 1"),
        ("csv", b'a,b\n"1', "invalid CSV: unexpected end of data"),
        ("msgpack", b"\x81\xa1a", "invalid MessagePack"),
        ("msgpack", b"\x81\xa1a\x01\x02", "invalid MessagePack"),
        ("cbor", b"\xa1\x61", "invalid CBOR"),
        ("cbor", b"\xa1\x61a\x01\x02", "expected the end of the CBOR, got more bytes"),
        ("number", b"12 kg", "expected a number, got '12 kg'"),
        ("number", b"nan", "expected a number, got 'nan'"),
        ("text", b"\xff", "expected text in UTF-8"),
        ("auto", b"\xff\xfe", "expected text in UTF-8, MessagePack or CBOR, got other bytes"),
    ],
)
def test_a_bad_message_is_counted_with_its_reason(kind, payload, expected):
    assert reason(payload, format=kind) == expected


@pytest.mark.parametrize(
    "content_type, expected",
    [
        ("application/json; charset=utf-8", [{"value": 1.0}]),
        ("application/vnd.api+json", [{"value": 1.0}]),
        ("application/cbor", [{"value": -18.0}]),
        ("application/msgpack", [{"value": 49.0}]),
        ("text/plain", [{"value": 1.0}]),
        ("", [{"value": 1.0}]),
    ],
)
def test_a_content_type_names_the_format_of_auto(content_type, expected):
    found = decoder().rows(b"1", received=T, content_type=content_type)
    assert [{**row, "time": T} for row in expected] == found


def test_a_named_format_counts_more_than_the_content_type():
    made = decoder(format="text")
    assert made.rows(b"1", received=T, content_type="application/json")[0]["text"] == "1"


def test_an_object_that_a_client_has_decoded_is_not_decoded_again():
    given = {b"a": {"b": [1, {"c": b"x"}]}, "t": "21.5", 5: 10**3}
    assert rows(given) == [{"a.b": [1, {"c": "x"}], "t": "21.5", "5": 1000.0}]
    assert given[b"a"] == {"b": [1, {"c": b"x"}]}
    assert rows([1, 2]) == [{"1": 1.0, "2": 2.0}] and rows(7) == [{"value": 7.0}]


@pytest.mark.parametrize("payload", [{"a": "x\ud800"}, {"a": ["x\ud800"]}, {"a": {"x\ud800": 1}}])
def test_what_utf_8_cannot_encode_is_replaced(payload):
    assert "x?" in json.dumps(rows(payload))


def test_texts_of_fields_are_numbers_where_they_spell_one():
    made = decoder(columns={"code": "text"}, labels=["id"])
    found = made.field_rows({b"t": b"21.5", b"s": b"on", b"code": b"007", b"id": b"7"}, received=T)
    assert found == [{"time": T, "code": "007", "t": 21.5, "s": "on", "id": "7"}]


def test_the_messages_of_the_documentation_have_these_rows():
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text("utf-8")
    table = text.partition("| Message | Settings | Rows |\n| --- | --- | --- |\n")[2]
    lines = table.partition("\n\n")[0].splitlines()
    for line in lines:
        message, options, expected = (re.findall("`(.+?)`", each) for each in line.split("|")[1:4])
        settings = decode_settings(DecodingSettings, (options or ["{}"])[0].encode(), {})
        found = MessageDecoder(settings).rows(message[0], received=T)
        assert [{k: v for k, v in row.items() if k != "time"} for row in found] == [
            json.loads(each) for each in expected
        ]
    assert len(lines) == 8


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload, settings",
    [
        ({"time": EVENT, "v": 1}, {}),
        ({"time": EVENT // 1000, "v": 1}, {}),
        ({"ts": EVENT * 10**6, "v": 1}, {}),
        ({"Timestamp": "2020-09-13T12:26:40Z", "v": 1}, {}),
        ({"at": EVENT, "v": 1}, {"time": "at"}),
        ({"head": {"at": EVENT}, "v": 1}, {"time": "head.at"}),
        ({"time": EVENT // 1000, "v": 1}, {"time_unit": "s"}),
    ],
)
def test_a_row_has_the_time_of_the_message(payload, settings):
    for given in (payload, json.dumps(payload).encode(), msgspec.msgpack.encode(payload)):
        assert rows(given, **settings) == [{"time": EVENT, "v": 1.0}]


@pytest.mark.parametrize("payload", [b'{"v": 1}', b'{"time": null, "v": 1}', b'{"v":1,"ts":null}'])
def test_a_row_without_a_time_has_that_of_arrival(payload):
    assert decoder().rows(payload, received=T) == [{"time": T, "v": 1.0}]


def test_without_a_time_of_arrival_it_is_the_current_time():
    before = decoder().rows(b"1")[0]["time"]
    assert abs(before - decoder().rows(b'{"a": 1}')[0]["time"]) < 60_000 and before > EVENT


# -- columns ---------------------------------------------------------------------------------------


def test_nested_objects_are_columns_and_arrays_in_them_are_json():
    payload = b'{"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": {}, "g": []}'
    assert rows(payload) == [{"a.b.c": 1.0, "a.d": [1, {"e": 2}], "f": {}, "g": []}]


def test_columns_of_one_name_are_kept_apart():
    payload = b'{"a": {"b": 1}, "a.b": 2, "topic": 3, "time": {"a": 1}}'
    found = decoder().rows(payload, {"topic": "x"}, T)
    assert found == [
        {"time": T, "topic": "x", "a.b_": 1.0, "a.b": 2.0, "topic_": 3.0, "time.a": 1.0}
    ]
    assert decoder().rows(b'{"topic": 3}', {"topic": "x"}, T) == [
        {"time": T, "topic": "x", "topic_": 3.0}
    ]
    assert rows(b"m,a=x a=1,measurement=2", labels=["b"]) == [
        {"measurement": "m", "a": "x", "a_": 1.0, "measurement_": 2.0}
    ]
    assert decoder(time="at").rows(b'{"time": 5, "at": 1600000000}', {}, T) == [
        {"time": EVENT, "time_": 5.0}
    ]


def test_columns_of_a_fixed_type_are_always_there_and_values_of_another_are_counted():
    made = decoder(columns={"n": "number", "t": "text", "b": "boolean", "a.b": "number"})
    payload = b'{"n": "7.5", "t": [1], "b": "TRUE", "a": {"b": 1}, "x": 1}'
    assert made.rows(payload, received=T) == [
        {"time": T, "n": 7.5, "t": "[1]", "b": True, "a.b": 1.0, "x": 1.0}
    ]
    assert made.rows(b'{"n": "x", "t": null, "b": 1}', received=T) == [
        {"time": T, "n": None, "t": None, "b": None, "a.b": None}
    ]
    assert made.errors.values == 2 and made.errors.text() == "2 values were left out"
    assert made.rows(b'{"n": "", "b": null}', received=T)[0]["n"] is None
    assert made.errors.values == 2  # an empty text has no value
    made = decoder(columns={"n": "number"}, others=False)
    assert made.rows(b'{"n": 1, "x": 2}', received=T) == [{"time": T, "n": 1.0}]


def test_a_path_selects_the_rows_and_others_add_columns_from_elsewhere():
    payload = {
        "head": {"name": "d1", "at": EVENT, "more": {"x": 1}},
        "data": {"samples": [{"v": 1}, {"v": 2, "w": {"x": 3}}]},
    }
    found = rows(
        json.dumps(payload),
        rows_path="$.data.samples[*]",
        paths={"device": "$.head.name", "time": "$.head.at", "missing": "$.nothing"},
    )
    extra = {"time": EVENT, "device": "d1", "missing": None}
    assert found == [{**extra, "v": 1.0}, {**extra, "v": 2.0, "w.x": 3.0}]
    assert rows(json.dumps(payload), rows_path="$.data.samples") == [
        {"v": 1.0},
        {"v": 2.0, "w.x": 3.0},
    ]
    (row,) = rows(json.dumps({"id": "x" * 5_000, "v": 1}), paths={"id": "$.id"})
    assert row["id"] == "x" * 1_000  # each row of the message has it
    expected = "expected a single value at $.head, got an object or an array"
    assert reason(json.dumps(payload), paths={"h": "$.head"}) == expected
    assert payload["data"] == {"samples": [{"v": 1}, {"v": 2, "w": {"x": 3}}]}


def test_a_path_applies_to_each_line_and_each_format():
    options: Any = {"rows_path": "$.d[*]", "paths": {"k": "$.k"}}
    expected = [{"v": 1.0, "k": "x"}, {"v": 2.0, "k": "y"}]
    lines = b'{"k": "x", "d": [{"v": 1}]}\n{"k": "y", "d": [{"v": 2}]}'
    assert rows(lines, **options) == expected
    for encode in (msgspec.msgpack.encode, cbor2.dumps):
        assert rows(encode({"k": "x", "d": [{"v": 1}]}), **options) == expected[:1]


def test_a_path_selects_nothing_in_a_text():
    made = decoder(rows_path="$..a")
    assert made.rows(b'"{\\"a\\": 1}"') == [] and made.errors.empty == 1


def test_a_message_in_which_a_path_selects_nothing_is_counted():
    made = decoder(rows_path="$.data[*]")
    assert made.rows(b'{"type": "subscribed"}', address="feed") == []
    assert made.errors.messages == 0
    assert made.errors.text() == '1 message has no row; the first of feed: {"type": "subscribed"}'


@pytest.mark.parametrize("path", ["data", "$.a[", "$.a | $.b", "$[?length(@) > 'x' >]"])
def test_a_wrong_path_is_an_error_of_the_settings(path):
    for name, options in (("rowsPath", {"rows_path": path}), ("paths.x", {"paths": {"x": path}})):
        with pytest.raises(ConfigError, match=rf"{name} must be a JSONPath as \$.data"):
            decoder(**options)


def test_names_are_those_of_arrays_and_of_csv_without_a_header():
    options: Any = {"names": ["time", "v"]}
    expected = [{"time": EVENT, "v": 1.5}]
    assert rows(json.dumps([EVENT, 1.5]), **options) == expected
    assert rows(json.dumps([[EVENT, 1.5]] * 2), **options) == expected * 2
    assert rows(f"{EVENT},1.5\n{EVENT},1.5", format="csv", **options) == expected * 2
    assert rows(f"{EVENT};1,5", **options) == expected
    assert rows("a, b\n1,5", format="csv", names=["v"]) == [{"v": "a, b"}, {"v": 1.5}]
    assert reason(b"[1]", **options) == "expected 2 values, as the setting names has, got 1"


# -- series ----------------------------------------------------------------------------------------


def test_labels_are_texts_and_objects_stay_whole():
    made = decoder(labels=["id", "tags", "on"], others=False, columns={"v": "number"})
    payload = b'{"id": 7, "tags": {"a": 1, "b": "x"}, "on": true, "v": 1, "w": 2}'
    assert made.rows(payload, received=T) == [
        {"time": T, "v": 1.0, "id": "7", "tags": {"a": "1", "b": "x"}, "on": "true"}
    ]
    assert made.labels == ("id", "tags", "on")
    assert made.rows(b'{"id": 7, "on": null}', received=T)[0]["id"] == "7"
    assert decoder(labels=["id"]).rows(b'{"id": 7, "w": 2}', received=T) == [
        {"time": T, "id": "7", "w": 2.0}
    ]


def test_line_protocol_has_a_series_for_each_measurement_with_its_tags():
    made = decoder(format="influx")
    assert made.labels == ("measurement", "tags")
    (row,) = made.rows(LINE, received=T)
    assert (row["measurement"], row["tags"]) == ("m", {"host": "a"})
    assert decoder(format="influx", labels=["host"]).rows(LINE)[0]["host"] == "a"


def test_without_series_labels_and_tags_are_columns():
    settings = DecodingSettings(format="influx", labels=["n"])
    made = MessageDecoder(settings, series=False)
    assert made.labels == () and made.rows(LINE, received=T) == [POINT]
    made = MessageDecoder(DecodingSettings(format="influx"), series=False)
    assert made.rows(LINE, received=T) == [POINT]


def test_a_column_of_a_fixed_type_that_is_a_label_is_its_text():
    made = decoder(labels=["id"], columns={"id": "number", "v": "number"})
    assert made.rows(b'{"id": 7, "v": 1}', received=T) == [{"time": T, "v": 1.0, "id": "7"}]


def test_names_that_repeat_are_columns_of_their_own():
    for payload in (b"[1, 2]", b"1,2"):
        assert rows(payload, names=["a", "a"]) == [{"a": 1.0, "a 2": 2.0}]


def test_a_label_of_csv_is_its_text():
    assert rows(b"id,v\n007,1\n", labels=["id"]) == [{"id": "007", "v": 1.0}]


def test_the_policy_of_a_stream_has_its_own_labels_and_those_of_the_settings():
    policy = with_labels(SchemaPolicy(labels=("topic",)), DecodingSettings(labels=["id", "topic"]))
    assert policy.labels == ("topic", "id")
    with pytest.raises(ConfigError, match=r"other than 'time', got \['time'\]"):
        with_labels(SchemaPolicy(), DecodingSettings(labels=["time"]))


# -- limits ----------------------------------------------------------------------------------------


def test_a_message_that_is_too_long_is_left_out_at_once():
    text = reason(b"x" * 10_000_000)
    assert text == (
        "expected at most 1,000,000 bytes, which the setting maxMessage allows, got 10,000,000"
    )
    assert len(rows(b'{"a": "%s"}' % (b"x" * 900_000))[0]["a"]) == 900_000


def test_a_message_has_at_most_so_many_rows():
    made = decoder()
    assert len(made.rows(json.dumps([{"a": 1}] * (ROWS_LIMIT + 5)))) == ROWS_LIMIT
    assert made.errors.messages == 1
    assert made.errors.by_address[""].reason == (
        f"expected at most {ROWS_LIMIT:,} rows in a message, got more"
    )


def test_a_row_has_at_most_so_many_columns_and_short_names():
    made = decoder()
    (row,) = made.rows(json.dumps({f"k{n}": n for n in range(COLUMNS_LIMIT + 7)}), received=T)
    assert len(row) == 1 + COLUMNS_LIMIT and made.errors.values == 7
    made = decoder()
    (row,) = made.rows(json.dumps({"x" * 500: 1, "y": {"z" * 300: {"a": 1}}, "v": 1}), received=T)
    assert row == {"time": T, "v": 1.0} and made.errors.values == 2


def test_a_row_has_at_most_so_much_text():
    made = decoder(max_message=20_000_000)
    payload = json.dumps({"a": "x" * TEXT_LIMIT, "b": ["y" * 10], "c": 1})
    (row,) = made.rows(payload, received=T)
    assert (len(row["a"]), row["b"], row["c"]) == (TEXT_LIMIT, None, 1.0)
    assert made.errors.values == 1
    (row,) = made.rows({"a": ["x" * TEXT_LIMIT]}, received=T)
    assert row["a"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "payload, bad",
    [
        (b"[" + b"{}," * 300_000 + b"{}]", ROWS_LIMIT + 1),
        (b'{"a": 1}\n{"b": 2}\n' + b"{x}\n" * 200_000, ROWS_LIMIT - 1),
        (b"[" + b"1," * 300_000 + b"1]", 1),
        (b"m\n" * 300_000, ROWS_LIMIT + 1),
        (b"m f=1\n" * 150_000, 1),
        (b"a,b\n" + b"1\n" * 300_000, ROWS_LIMIT + 1),
        (b"\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000, 1),
        (b"\x9a\x00\x0f\x00\x00" + b"\xa0" * 0xF0000, 1),
        (b'{"time": "%s", "a": 1}' % (b"1" * 900_000), 1),
        (b'{"time": "%s", "a": 1}' % (b" " * 900_000), 1),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_no_message_holds_the_event_loop(payload, bad):
    """Whatever is in a message, its work is that of some ten thousand rows."""
    formats = {b"m": "influx", b"a": "csv"}
    made = decoder(format=formats.get(payload[:1], "auto"))
    assert steps_of(lambda: made.rows(payload)) < 4_000_000
    assert made.errors.messages == bad


def test_a_label_has_at_most_so_many_characters():
    text = "the label 'a' must have at most 1,000 characters, got {}"
    assert reason(json.dumps({"a": "x" * 1_001}), labels=["a"]) == text.format("1,001")
    tags = {f"k{n:03}": "v" for n in range(201)}
    assert reason(json.dumps({"a": tags, "v": 1}), labels=["a"]) == text.format("1,005")
    assert rows(json.dumps({"a": "x" * 1_000}), labels=["a"]) == [{"a": "x" * 1_000}]


def test_deep_objects_are_json_below_a_depth():
    deep: Any = 1
    for _ in range(60):
        deep = {"a": deep}
    ((name, value),) = rows(json.dumps(deep))[0].items()
    assert name == ".".join("a" * 33) and json.dumps(value).count("{") == 27
    encoded = msgspec.msgpack.encode(deep)
    assert reason(encoded, format="msgpack").startswith("expected at most 32 levels")


def test_names_do_not_grow_with_the_depth():
    deep: Any = {"x": 1}
    for _ in range(30):
        deep = {"y" * 100: deep}
    (name,) = columns_of({"a": deep}, (), 200)
    assert len(name) < 200 + 102


def laughs() -> bytes:
    """CBOR of 250 bytes with 10**9 values: arrays of ten references to the one before."""
    items = [b"\x01", *(b"\xd8\x1d%c" % number for number in range(8))]
    return b"\x89" + b"".join(b"\xd8\x1c\x8a" + item * 10 for item in items)


@pytest.mark.parametrize(
    "payload",
    [
        laughs(),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x9b" + b"\x7f" * 8,
        b"\x5b" + b"\x7f" * 8,
        b"\x91" * 100_000,
        b"\x81" * 100_000,
        bytes.fromhex("d81c81d81d00"),
        bytes.fromhex("d9010082646c6f6e67d81900"),
        b"\xc5\x82\x1a\x3b\x9a\xc9\xff\x01",
        b"\xd8\x23\x6a(a+)+b(a+)+",
    ],
    ids=lambda payload: payload[:6].hex(),
)
@pytest.mark.parametrize("kind", ["msgpack", "cbor", "auto"])
def test_a_short_message_does_not_become_a_large_one(payload, kind):
    assert reason(payload, format=kind)


# -- bad messages ----------------------------------------------------------------------------------


def test_a_bad_row_of_a_message_leaves_the_others():
    made = decoder()
    payload = b'[{"a": 1}, {"a": 1, "time": "x"}, 5, {"a": 2}]'
    assert [row["a"] for row in made.rows(payload)] == [1.0, 2.0]
    assert made.errors.messages == 2
    assert [r["a"] for r in made.rows(b'{"a": 1}\n{"a": \n{"a": 2}')] == [1.0, 2.0]
    assert made.errors.messages == 3


def test_each_address_has_its_count_the_first_reason_and_one_sample():
    made = decoder(format="number")
    for address, payload in (("a", b"x"), ("b", b"y"), ("a", b"z"), ("a", b"1")):
        made.rows(payload, address=address)
    assert made.errors.details() == {
        "messages_left_out": 3,
        "messages_without_rows": 0,
        "values_left_out": 0,
        "addresses": {
            "a": {"count": 2, "reason": "expected a number, got 'x'", "sample": "x"},
            "b": {"count": 1, "reason": "expected a number, got 'y'", "sample": "y"},
        },
    }
    text = "3 messages and rows were left out; the first of a: expected a number, got 'x', as x"
    assert made.errors.text() == text
    assert made.errors.notice() == Notice(severity="warning", text=text)
    assert decoder().errors.notice() is None


def test_a_sample_has_no_secret_and_is_short():
    password = Secret("correct horse battery")
    made = decoder(format="json")
    made.rows(b'{"token": "correct horse battery", ' + b"x" * 500, address="a")
    made.rows(b"y" * (SAMPLE - 10) + b"correct horse battery", address="b")
    made.rows(b"\x00\xff\n", address="correct horse battery")
    kept = made.errors.details()["addresses"]
    assert "correct" not in json.dumps(kept) and password
    assert kept["a"]["sample"].startswith('{"token": "***", xxx')
    assert all(len(each["sample"]) <= SAMPLE + 3 for each in kept.values())
    assert kept["***"]["sample"] == r"\x00\xff\n"


def test_the_log_has_a_bad_message_at_most_once_a_minute(caplog, monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(message_errors.time, "monotonic", lambda: now[0])
    made = decoder(format="number")
    for payload, seconds in ((b"x", 30), (b"y", 30), (b"z", 0)):
        made.rows(payload, address="a")
        now[0] += seconds
    text = "a message of a was left out: expected a number, got {}; {} in all, see Save & test"
    assert [r.getMessage() for r in caplog.records] == [
        text.format("'x'", 1),
        text.format("'z'", 3),
    ]
    assert {r.levelno for r in caplog.records} == {logging.WARNING}


def test_the_memory_of_errors_is_bounded():
    made = decoder(format="number")
    for n in range(3 * ADDRESSES):
        made.rows(b"x" * 10_000, address=f"topic/{n}")
    assert made.errors.messages == 3 * ADDRESSES and len(made.errors.by_address) == ADDRESSES


@pytest.mark.slow
def test_the_memory_of_shapes_is_bounded():
    made = decoder()
    for n in range(30_000):
        made.rows(b'{"k%d": 1, "l": 2}' % n)
    assert sum(map(len, made._maker._shapes)) <= 20_000
    made = decoder()
    for n in range(5):
        made.rows(json.dumps({f"k{n}" * 100_000: 1}))
        made.rows(json.dumps(dict.fromkeys(map(str, range(n, n + 600)), 1)))
    assert not made._maker._shapes


@pytest.mark.virtual
async def test_a_stream_has_a_status_until_no_message_was_bad_for_a_while():
    made = decoder(format="number")
    made.rows(b"1", address="a")
    assert made.status() is None
    made.rows(b"x", address="a")
    text = "1 of 2 messages and rows left out; the last of a: expected a number, got 'x'"
    assert made.status() == Status("warning", text)
    made.rows(b"y", address="a")
    assert made.status() is None  # not more often than every ten seconds
    await anyio.sleep(10)
    made.rows(b"z", address="a")
    found = made.status()
    assert found is not None and found.text.startswith("3 of 4") and "'z'" in found.text
    await anyio.sleep(29)
    made.rows(b"1", address="a")
    assert made.status() is None
    await anyio.sleep(1)
    assert made.status() == Status()
    assert made.status() is None


@pytest.mark.virtual
async def test_a_stream_whose_messages_have_no_rows_has_a_status():
    made = decoder(rows_path="$.data[*]")
    made.rows(b'{"type": "welcome"}', address="a")
    text = "1 of 1 messages and rows left out; the last of a: no row in it"
    assert made.status() == Status("warning", text)
    made.rows(b'{"data": [{"v": 1}]}', address="a")
    await anyio.sleep(30)
    assert made.status() == Status()
    made.rows(b'{"type": "heartbeat"}', address="a")
    assert made.status() is None and made.errors.empty == 2


# -- in a data source ------------------------------------------------------------------------------

MESSAGES = (
    ("a", b'{"v": 1, "site": "x"}'),
    ("a", b"{"),
    ("b", b'{"v": 2, "site": "y"}'),
    ("b", b'{"v": "text", "site": "y"}'),
)


class FeedSettings(DecodingSettings):
    """Decoding, and nothing else."""


class Feed(DataSource[FeedSettings]):
    def __init__(self) -> None:
        self.errors = MessageErrors()

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings)

    async def health(self) -> Health:
        return Health(message=self.errors.text() or "OK", details=self.errors.details())

    @stream("feed", schema=SchemaPolicy(conflict="null", labels=("topic",)))
    async def feed(self) -> Rows[list[dict[str, Any]] | Status]:
        decoder = MessageDecoder(self.settings, self.errors)
        for topic, payload in MESSAGES:
            yield decoder.rows(payload, {"topic": topic}, T, address=topic)
            if (status := decoder.status()) is not None:
                yield status
        await anyio.sleep_forever()


async def test_a_source_shows_what_was_left_out_and_its_labels_make_series():
    settings = {"labels": ["site"], "format": "json"}
    async with serve_in_memory(Feed, settings=settings) as grafana:
        viewer = await grafana.follow("feed")
        assert (await viewer.next())['v {site="x", topic="a"}'] == 1.0
        assert (await viewer.next())['v {site="y", topic="b"}'] == 2.0
        assert viewer.fields[1].labels == {"site": "x", "topic": "a"}
        ok, message = await grafana.health()
        assert ok and message.startswith("1 message or row was left out; the first of a: invalid")
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_dropped_total{reason="message"}'] == 1
        assert metrics['aiostream_ds_dropped_total{reason="conflict"}'] == 1
