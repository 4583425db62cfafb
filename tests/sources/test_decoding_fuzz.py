"""Whatever arrives: the decoder raises nothing, its work is bounded, and every row can be sent."""

import json
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from jsonpath import JSONPathEnvironment

from aiostream_ds import SchemaPolicy
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds.sources.decoding import DecodingSettings, MessageDecoder, with_labels
from aiostream_ds.sources.decoding.json_paths import JsonPath
from aiostream_ds.sources.decoding.line_protocol import Point, points
from aiostream_ds.sources.decoding.message_records import ROWS_LIMIT
from aiostream_ds.sources.decoding.message_rows import COLUMNS_LIMIT, NAME_LIMIT
from tests.strategies import st

pytestmark = pytest.mark.slow  # many examples

RECEIVED = 1_700_000_000_000

KEYS = st.sampled_from(["a", "b", "time", "topic", "tags", "t.s", "Time"]) | st.text(max_size=3)
NUMBERS = st.integers() | st.sampled_from([10**310, -(10**310), 2**64, 1.7e9, 1.7e18]) | st.floats()
TEXTS = st.sampled_from(["2023-11-14T22:13:20Z", "1700000000", "-", "1e400", "9" * 400, "true"])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=4)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(KEYS, SCALARS | JSON, max_size=5)
MESSAGES = RECORDS | st.lists(RECORDS, max_size=3) | st.lists(SCALARS, max_size=3) | JSON
BINARY = st.recursive(
    SCALARS | st.binary(max_size=4) | st.datetimes(timezones=st.timezones()) | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.integers() | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
SURROGATES = st.recursive(
    st.text(st.characters(categories=["Cs", "Lu"]), max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(inner.map(str), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.text(alphabet='ab,= \\"é', max_size=4).map(lambda text: f"{text}c")
PARTS = st.lists(st.sampled_from([*'ab,= \\"\n\r#t1.-ei', "m,a=b ", " f=1", " 17"]), max_size=20)
CELLS = st.lists(st.sampled_from(["a", "1", ",", ";", '"', "\n", "\n", "time", "1,5", " "]))


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def msgpack_of(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, TypeError, ValueError):
        return b"\x80"


def cbor_of(value: Any) -> bytes:
    return cbor2.dumps(value, date_as_datetime=True)


def _name(text: str) -> str:
    for each in ",= ":
        text = text.replace(each, "\\" + each)
    return text


@st.composite
def point_lines(draw: st.DrawFn) -> str:
    tags = "".join(
        f",{_name(k)}={_name(v)}" for k, v in draw(st.dictionaries(NAMES, NAMES)).items()
    )
    values = st.sampled_from(["1", "-1.5e3", ".5", "4i", "7u", "t", "False", '"a b"', '"\\"\\\\"'])
    fields = draw(st.dictionaries(NAMES, values, min_size=1, max_size=3))
    moment = draw(st.sampled_from(["", " 1700000000000000000", " 17000000000"]))
    return f"m{tags} " + ",".join(f"{_name(k)}={v}" for k, v in fields.items()) + moment


@st.composite
def damaged(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> bytes:
    """A message of which one byte is another, or missing, or the first or the last."""
    payload = draw(payloads)
    at = draw(st.integers(0, len(payload)))
    return draw(
        st.sampled_from([payload[:at], payload[at:], payload[:at] + payload[at + 1 :]])
        | st.binary(min_size=1, max_size=1).map(lambda x: payload[:at] + x + payload[at + 1 :])
    )


LINES = st.lists(point_lines(), min_size=1, max_size=3).map("\n".join)
PAYLOADS: dict[str, st.SearchStrategy[bytes]] = {
    "json": MESSAGES.map(json_of) | st.lists(RECORDS.map(json_of), max_size=3).map(b"\n".join),
    "influx": LINES.map(str.encode) | PARTS.map("".join).map(str.encode),
    "csv": CELLS.map("".join).map(str.encode),
    "msgpack": MESSAGES.map(msgpack_of) | BINARY.map(msgpack_of),
    "cbor": MESSAGES.map(cbor_of) | BINARY.map(cbor_of),
    "number": SCALARS.map(str).map(lambda text: text.encode("utf-8", "surrogatepass")),
    "text": st.binary(max_size=16),
}
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "rows_path": st.sampled_from(["", "", "$[*]", "$..a", "$.a[?@.b > 1]"]),
    "paths": st.sampled_from([{}, {}, {"p": "$.a"}, {"time": "$..b"}]),
    "names": st.sampled_from([[], [], ["a", "b"], ["time", "a"], ["a", "a"]]),
    "labels": st.sampled_from([[], ["a"], ["tags", "topic"]]),
    "time": st.sampled_from(["time", "time", "a", "t.s"]),
    "time_unit": st.sampled_from(["auto", "auto", "s", "ns"]),
    "columns": st.sampled_from([{}, {}, {"a": "number", "b": "text", "a.b": "boolean"}]),
    "others": st.sampled_from([True, True, False]),
}


def sent(rows: list[dict[str, Any]], chosen: DecodingSettings) -> int:
    """The number of rows that a stream sends of these."""
    policy = with_labels(SchemaPolicy(conflict="null", labels=("topic",)), chosen)
    return sum(packet.rows for packet in RowEncoder(None, policy).encode(rows))


def check(rows: list[dict[str, Any]], chosen: DecodingSettings) -> None:
    assert len(rows) <= ROWS_LIMIT
    for row in rows:
        assert type(row["time"]) is int and row["topic"] == "t"
        assert len(row) <= COLUMNS_LIMIT + 2 + len(chosen.columns)
        assert all(type(name) is str and len(name) <= NAME_LIMIT + 8 for name in row)
        assert not any(type(value) is int for name, value in row.items() if name != "time")
    if rows:
        assert sent(rows, chosen) >= 1


def decode(chosen: DecodingSettings, payload: Any) -> None:
    decoder = MessageDecoder(chosen)
    rows = decoder.rows(payload, {"topic": "t"}, RECEIVED, address="t")
    check(rows, chosen)
    is_blank = isinstance(payload, bytes | str) and not payload.strip()
    assert rows or decoder.errors.messages or decoder.errors.empty or is_blank
    msgspec.json.encode(decoder.errors.details())
    decoder.errors.text().encode()


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("is_auto", [False, True], ids=["named", "auto"])
def test_no_message_raises_and_each_has_a_row_or_is_counted(kind, is_auto):
    payloads = PAYLOADS[kind]

    @given(st.fixed_dictionaries(SETTINGS), payloads | damaged(payloads) | st.binary(max_size=16))
    def run(options, payload):
        decode(DecodingSettings(format="auto" if is_auto else kind, **options), payload)

    run()


@given(st.fixed_dictionaries(SETTINGS), BINARY | SURROGATES)
def test_no_object_raises_and_each_has_a_row_or_is_counted(options, payload):
    decode(DecodingSettings(**options), payload)


@given(st.dictionaries(KEYS, TEXTS) | st.dictionaries(st.binary(max_size=2), st.binary(max_size=4)))
def test_no_fields_raise(fields):
    decoder = MessageDecoder(DecodingSettings())
    check(decoder.field_rows(fields, {"topic": "t"}, RECEIVED), DecodingSettings())


@given(LINES)
def test_all_points_of_line_protocol_are_read(text):
    assert len([each for each in points(text) if isinstance(each, Point)]) == len(text.split("\n"))


TIMES = st.integers(0, 2 * 10**18) | st.floats(0, 2e18) | st.sampled_from([1.7e9, 10**11, 1e14])


@given(
    RECORDS,
    st.none() | TIMES | TEXTS,
    st.sampled_from(["auto", "s", "ms", "us", "ns"]),
    st.sampled_from([[], ["a"]]),
)
def test_the_fast_path_gives_the_same_rows(record, time, unit, labels):
    """A fixed column that no message has turns the fast path off."""
    payload = json_of({**record, "time": time} if time is not None else record)
    plain = MessageDecoder(
        DecodingSettings(columns={"not there": "text"}, time_unit=unit, labels=labels)
    )
    fast = MessageDecoder(DecodingSettings(time_unit=unit, labels=labels))
    expected = plain.rows(payload, {"topic": "t"}, RECEIVED)
    for row in expected:
        del row["not there"]
    found = fast.rows(payload, {"topic": "t"}, RECEIVED)
    expected = [row for row in expected if len(row) > 2]
    assert [sorted(map(repr, row.items())) for row in found] == [
        sorted(map(repr, row.items())) for row in expected
    ]


STEPS = st.sampled_from([".a", ".b", ".time", "[*]", ".*"])


@given(st.lists(STEPS, max_size=4).map("".join), JSON)
def test_a_path_of_names_selects_what_the_library_selects(steps, document):
    document = [document] if isinstance(document, str) else document  # it would be decoded
    path = JsonPath("rowsPath", f"${steps}")
    expected = [
        match.obj for match in JSONPathEnvironment(strict=True).finditer(path.text, document)
    ]
    assert repr(path.values(document, 100)) == repr(expected[:100])
